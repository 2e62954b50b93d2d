"""Folding: pairs that are exactly a convolution and its norm, and nothing that only looks like one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from kit.approaches import parse
from kit.equality import compare_outputs
from kit.errors import KitError
from kit.transforms.folded import Folded

X = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def lively(norm: Any) -> Any:
    """Which does something: a new one is nearly the identity, and would hide a fault."""
    for tensor, low in ((norm.running_mean, -1), (norm.running_var, 0.5), (norm.weight, 0.5), (norm.bias, -1)):
        if tensor is not None:
            nn.init.uniform_(tensor, low, 2)
    return norm


def conv(kernel: int = 1, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(4, 4, kernel, **options)


def bn(**options: Any) -> nn.BatchNorm2d:
    return lively(nn.BatchNorm2d(4, **options))


def pair() -> nn.Sequential:
    return nn.Sequential(conv(), bn())


class Causal(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, (2, 0, 2, 0)))


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


class Residual(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class ResidualNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class ResidualChain(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Around(nn.Module):
    """A chain, and how it is used."""

    def __init__(self, call: Callable[[nn.Sequential, Tensor], Any]) -> None:
        super().__init__()
        self.seq, self.call = pair(), call

    def forward(self, x: Tensor) -> Any:
        return self.call(self.seq, x)


class Captures(Around):
    """What is between the two layers is used once more."""

    def __init__(self) -> None:
        super().__init__(lambda seq, x: seq(x) + self.kept)
        self.call = self.both  # bound, so that a copy calls its own
        self.seq[0].register_forward_hook(self.keep)

    def keep(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self.kept = output

    def both(self, seq: nn.Sequential, x: Tensor) -> Tensor:
        return seq(x) + self.kept


def hooked(place: int, pre: bool = False) -> nn.Sequential:
    found = pair()
    module = [*found, found][place]
    if pre:
        module.register_forward_pre_hook(lambda module, args: (2 * args[0],))
    else:
        module.register_forward_hook(lambda module, args, output: 2 * output)
    return found


def patched() -> nn.Sequential:
    found = pair()
    found[0]._conv_forward = lambda x, weight, bias: 2 * functional.conv2d(x, weight, bias)
    return found


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: nn.Sequential(Causal(4, 4, 3), bn()), "'0' is a Causal"),
        (lambda: nn.Sequential(Standardised(4, 4, 1), bn()), "'0' is a Standardised"),
        (lambda: nn.Sequential(nn.Sequential(Residual(4, 4, 1), bn())), r"'0\.0' is a Residual"),
        (lambda: nn.Sequential(conv(), ResidualNorm(4)), "'1' is a ResidualNorm"),
        (lambda: nn.Sequential(parametrizations.weight_norm(conv()), bn()), "'0' is a ParametrizedConv2d"),
        (lambda: nn.Sequential(parametrizations.spectral_norm(conv()), bn()), "'0' is a ParametrizedConv2d"),
        (lambda: nn.Sequential(torch.nn.utils.spectral_norm(conv()), bn()), "'0' has forward hooks"),
        (lambda: nn.Sequential(nn.ConvTranspose2d(4, 4, 1), bn()), "'0' is a ConvTranspose2d"),
        (lambda: nn.Sequential(conv(), bn(track_running_stats=False)), "'1' has no running statistics"),
        (lambda: hooked(0), "'0' has forward hooks"),
        (lambda: hooked(1, pre=True), "'1' has forward hooks"),
        (patched, "'0' overrides _conv_forward"),
        (Captures, r"'seq\.0' has forward hooks"),
        (lambda: Around(lambda seq, x: seq[1](seq[0](x)) + seq[0](x)), "'seq' is not called as a whole"),
        (
            lambda: Around(lambda seq, x: seq[1](seq[0](x)) + seq[1](x)),
            "no convolution whose output goes only to a batch norm",
        ),
        (
            lambda: Around(lambda seq, x: (y := seq[0](x)) + seq[1](y)),
            "no convolution whose output goes only to a batch norm",
        ),
        (
            lambda: Around(lambda seq, x: [y := seq[0](x), seq[1](y)]),
            "no convolution whose output goes only to a batch norm",
        ),
        (
            lambda: Around(lambda seq, x: seq[1](seq[0](x).relu())),
            "no convolution whose output goes only to a batch norm",
        ),
        (lambda: Around(lambda seq, x: seq(x) + seq[0](x)), r"'seq\.0' is called by others too"),
        (lambda: Around(lambda seq, x: seq(x) + seq[0].forward(x)), "Folded changes the output of Around"),
        (lambda: Around(lambda seq, x: seq(x) + functional.conv2d(x, seq[0].weight)), "Folded changes the output"),
        (lambda: Around(lambda seq, x: seq(x) if x.sum() * X.sum() > 0 else seq[0](x)), "Folded changes the output"),
    ],
)
def test_what_may_be_something_else_is_left_as_it_is_by_name(make: Callable[[], nn.Module], says: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(KitError, match=says):
        parse("folded").prepare(make().eval(), X)


def one_norm() -> nn.Sequential:
    shared = bn()
    return nn.Sequential(conv(), shared, nn.ReLU(), conv(), shared)


def one_conv(again: bool) -> nn.Sequential:
    shared = conv()
    return nn.Sequential(shared, bn(), nn.ReLU(), shared, *([bn()] if again else []))


def one_chain() -> nn.Sequential:
    shared = pair()
    return nn.Sequential(shared, shared)


@pytest.mark.parametrize(
    ("make", "folds"),
    [
        (pair, 1),
        (one_norm, 2),
        (lambda: one_conv(again=False), 1),
        (lambda: one_conv(again=True), 2),
        (one_chain, 1),
        (lambda: nn.Sequential(conv(), bn(), Residual(4, 4, 1), bn()), 1),
        (lambda: ResidualChain(conv(), bn()), 1),
        (lambda: hooked(2), 1),
        (lambda: Around(lambda seq, x: seq[1](seq[0](x))), 1),
        (lambda: Around(lambda seq, x: seq[1](seq[0](x)) + seq[1](seq[0](-x))), 1),
        (lambda: nn.Sequential(conv(), bn(momentum=None)), 1),
        (lambda: nn.Sequential(conv(), bn(affine=False)), 1),
        (lambda: nn.Sequential(conv(3, padding=1, padding_mode="circular"), bn()), 1),
        (lambda: nn.Sequential(conv(3, padding="same", groups=2, dilation=2, bias=False), bn()), 1),
    ],
)
def test_shared_layers_and_options_are_folded_where_they_stand(make: Callable[[], nn.Module], folds: int) -> None:
    torch.manual_seed(0)
    model = make().eval()
    before = list(model.modules())
    found = Folded().apply(model, (X,))
    assert sum(type(module) is nn.Identity for module in found.modules()) == folds
    assert list(model.modules()) == before
    with torch.inference_mode():
        assert compare_outputs(model(X), found(X)).equal


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_in_every_number_of_dimensions(dims: int) -> None:
    model = nn.Sequential(CONVS[dims - 1](3, 4, 3), lively(NORMS[dims - 1](4))).eval()
    x = torch.randn(2, 3, *[5] * dims)
    with torch.inference_mode():
        assert compare_outputs(model(x), Folded().apply(model, (x,))(x)).equal


def test_training_mode_is_refused() -> None:
    with pytest.raises(KitError, match=r"Sequential is in training mode, and its 1 .*call model\.eval"):
        parse("folded").prepare(pair(), X)
