"""Merging: heads that are exactly 1x1 convolutions, and the truth about what it could not look into."""

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
from kit.regions import Branches, Concat
from kit.transforms.merged import Merged, _SharedHead

X = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))


def conv(kernel: int = 1, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(4, 4, kernel, **options)


def region(**branches: nn.Module) -> Branches:
    return Branches(branches, Concat(1))


class Unit(nn.Module):
    """A convolution first, but not in an nn.Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.conv(x))


class Residual(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Squared(nn.AvgPool2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) ** 2


class Doubled(Branches):
    def forward(self, *inputs: Any) -> Any:
        return 2 * super().forward(*inputs)


class Accesses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.region = region(a=conv(), b=conv())

    def forward(self, x: Tensor) -> Tensor:
        return self.region(x) + self.region.branches["a"](x).repeat(1, 2, 1, 1)


class Bypasses(Accesses):
    def forward(self, x: Tensor) -> Tensor:
        return self.region.forward(x)


def hooked(module: nn.Module, *, inside: Callable[[nn.Module], nn.Module] = lambda module: module) -> nn.Module:
    inside(module).register_forward_hook(lambda module, args, output: 2 * output)
    return module


def shared() -> Branches:
    one = conv()
    return region(a=one, b=nn.Sequential(one, nn.ReLU(inplace=True)))


NOTHING = r"no region of \w+ has two branches that begin with a 1x1 convolution of the same input"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: region(a=Unit(), b=Unit()), r"^merged cannot look into branch 'a' \(begins with a Unit\), branch 'b'"),
        (lambda: nn.Sequential(region(a=nn.Sequential(nn.AvgPool2d(3, 1, 1), Unit()), b=conv())), "'a' .*a Unit"),
        (lambda: region(a=Residual(4, 4, 1), b=conv()), r"branch 'a' \(begins with a Residual\)"),
        (lambda: region(a=conv(), b=nn.Sequential(Squared(3, 1, 1), conv())), r"'b' \(begins with a Squared\)"),
        (lambda: region(a=conv(), b=parametrizations.weight_norm(conv())), r"'b' .*ParametrizedConv2d"),
        (lambda: region(a=hooked(conv()), b=conv()), r"branch 'a' \(has forward hooks\)"),
        (lambda: region(a=hooked(nn.Sequential(conv(), nn.ReLU())), b=conv()), r"branch 'a' \(has forward hooks\)"),
        (lambda: hooked(region(a=conv(), b=conv())), r"the region 'Branches' \(has forward hooks\)"),
        (lambda: Doubled({"a": conv(), "b": conv()}, Concat(1)), r"the region 'Doubled' \(is a Doubled\)"),
        (Bypasses, r"the region 'region' \(is not called on these inputs\)"),
        (lambda: region(**{str(i): Unit() for i in range(5)}), "'2' .* and more"),
    ],
)
def test_what_it_cannot_look_into_is_named(make: Callable[[], nn.Module], says: str) -> None:
    with pytest.raises(KitError, match=says) as caught:
        parse("merged").prepare(make().eval(), X)
    assert "As far as it can see, no region of" in str(caught.value)
    assert "nn.Sequential" in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: region(a=conv(stride=2), b=conv(stride=2)),
        lambda: region(a=conv(padding=1), b=conv(padding=1)),
        lambda: region(a=conv(groups=2), b=conv()),
        lambda: region(a=conv(3, padding=1), b=nn.Sequential(nn.MaxPool2d(3, 1, 1), conv()), c=conv()),
        lambda: region(a=conv(), b=nn.Sequential()),
        lambda: region(a=conv(), b=nn.Sequential(nn.AvgPool2d(2, 1), nn.ZeroPad2d((0, 1, 0, 1)), conv())),
    ],
)
def test_what_begins_otherwise_is_said_to(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(KitError, match=f"^{NOTHING}.*stride 1, no padding, one group"):
        parse("merged").prepare(make().eval(), X)


def average(**options: Any) -> nn.Sequential:
    return nn.Sequential(nn.AvgPool2d(3, 1, 1, **options), conv())


def twice(head: nn.Module, *layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(head, *layers, *layers)


def writing(outputs: list[Tensor]) -> Tensor:
    outputs[0].mul_(2)
    return torch.cat(outputs, 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: region(a=conv(), b=nn.Sequential(nn.Sequential(conv(bias=False)), nn.ReLU(inplace=True))),
        lambda: region(a=conv(dilation=2), b=conv(padding="same"), c=conv(padding="valid")),
        lambda: region(a=conv(), b=average(ceil_mode=True)),
        lambda: region(a=conv(), b=twice(conv(), conv(3, padding=1), nn.Tanh())),
        lambda: region(a=conv(), b=average(count_include_pad=False)),
        lambda: region(a=conv(), b=average(divisor_override=2)),
        lambda: region(a=conv(), b=nn.Sequential(nn.AvgPool2d([3, 3], [1, 1], [1, 1]), conv())),
        lambda: region(a=conv(), b=nn.Sequential(nn.AvgPool2d((3, 3), 1, (1, 1)), conv())),
        lambda: region(a=conv(), b=conv(), c=hooked(nn.Sequential(conv(), nn.ReLU()), inside=lambda chain: chain[0])),
        lambda: region(a=conv(), b=conv(), c=nn.Sequential(nn.ReLU(inplace=True), conv(3, padding=1))),
        lambda: Branches({"a": conv(), "b": conv()}, writing),
        shared,
    ],
)
def test_what_is_merged_gives_the_same(make: Callable[[], nn.Module]) -> None:
    model = make().eval()
    found = Merged().apply(model, (X,))
    assert isinstance(found, _SharedHead)
    other = torch.randn(2, 4, 6, 6)
    with torch.inference_mode():
        assert compare_outputs(model(other.clone()), found(other.clone())).equal


def test_inputs_without_a_batch_have_their_channels_first() -> None:
    model, x = Branches({"a": conv(), "b": conv()}, Concat(0)).eval(), torch.randn(4, 6, 6)
    with torch.inference_mode():
        assert compare_outputs(model(x), Merged().apply(model, (x,))(x)).equal


def selecting() -> Branches:
    """Two groups of heads on an input each, a branch that takes both inputs, and heads that share no input."""

    class Sum(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + 2 * y

    branches = {
        "a": conv(),
        "b": nn.Sequential(conv(), nn.ReLU(inplace=True)),
        "sum": Sum(),
        "c": average(),
        "alone": conv(),
        "d": nn.Sequential(conv(bias=False), nn.Tanh()),
        "itself": nn.Sequential(),
    }
    takes = {"a": 2, "b": (0,), "sum": (2, 0), "c": 0, "alone": 1, "d": 2, "itself": 0}
    return Branches(branches, Concat(1), takes)


def test_heads_are_merged_among_the_branches_that_take_the_same_input() -> None:
    model = selecting().eval()
    found = Merged().apply(model, (X, X + 1, X + 2))
    kernels = [layer.out_channels for layer in found.modules() if isinstance(layer, nn.Conv2d)]
    assert sorted(kernels) == [4, 8, 8]
    inputs = torch.randn(3, 2, 4, 6, 6).unbind()
    with torch.inference_mode():
        assert compare_outputs(model(*inputs), found(*inputs)).equal


def test_heads_on_an_input_each_are_not_the_same_input() -> None:
    with pytest.raises(KitError, match=f"^{NOTHING}"):
        Merged().apply(Branches({"a": conv(), "b": conv()}, Concat(1), {"a": 1, "b": 0}).eval(), (X, X + 1))


@pytest.mark.parametrize(
    ("make", "says"),
    [  # heads would no longer see what a branch between them wrote into their input
        (
            lambda: region(a=conv(), b=nn.Sequential(nn.ReLU(inplace=True), conv(3, padding=1)), c=conv()),
            "the largest absolute error is",
        ),
        (Accesses, "fails with AttributeError: '_SharedHead' object has no attribute 'branches'"),
    ],
)
def test_what_would_change_the_output_is_refused(make: Callable[[], nn.Module], says: str) -> None:
    with pytest.raises(KitError, match=f"Merged .*{says}"):
        parse("merged").prepare(make().eval(), X)


def test_a_region_that_is_not_called_or_has_hooks_is_refused_by_others_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kit.transforms.compiled.Compiled.unavailable_because", lambda machine: None)

    class Never(Accesses):
        def forward(self, x: Tensor) -> Tensor:
            return x

    for approach in ("scripted_fork", "compiled + threads"):
        with pytest.raises(KitError, match="no region of Never is called on these inputs"):
            parse(approach).prepare(Never().eval(), X)
    hook = nn.Sequential(hooked(region(a=conv(), b=conv()))).eval()
    with pytest.raises(KitError, match="the region '0' has forward hooks, which TorchScript does not run"):
        parse("scripted_fork").prepare(hook, X)
