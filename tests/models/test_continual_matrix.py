"""Layers x places x types: a network's steps give what it gives, or they are refused by name; nothing third.

A sample by default, all of it with KIT_SOAK=1.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

from kit.equality import compare_outputs
from kit.errors import KitError
from kit.models.continual import Crop, stepper
from kit.models.inception3d import EdgeConv3d
from kit.regions import Branches, Concat, Mean

SOAK = os.environ.get("KIT_SOAK") == "1"
Make = Callable[[], nn.Module]
C = 4  # channels of every layer, in and out


def conv(kernel: Any = 3, padding: Any = 0, **options: Any) -> nn.Module:
    return nn.Conv3d(C, C, kernel, padding=padding, **options)


def norm(**options: Any) -> nn.BatchNorm3d:
    norm = nn.BatchNorm3d(C, **options)
    if norm.running_mean is not None:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return norm


class Causal(nn.Conv3d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, (0, 0, 0, 0, 2, 0)))


class Standardised(nn.Conv3d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight - self.weight.mean((1, 2, 3, 4), keepdim=True), self.bias)


class Residual(nn.Conv3d):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Doubling(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Reversed(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        for layer in reversed(list(self)):
            x = layer(x)
        return x


class Scaled(Branches):
    def forward(self, *inputs: Any) -> Any:
        return 3 * super().forward(*inputs)


class OverTime(nn.Module):
    def forward(self, outputs: list[Tensor]) -> Tensor:
        return sum(outputs) - sum(outputs).mean(2, keepdim=True)


class Rolled(Mean):
    def forward(self, outputs: list[Tensor]) -> Tensor:
        return super().forward(outputs).cumsum(2)


class InPlace(nn.Module):
    def forward(self, outputs: list[Tensor]) -> Tensor:
        return outputs[0].add_(outputs[1])


def hooked(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda module, args, out: out + 1)
    return layer


def hooked_before(layer: nn.Module) -> nn.Module:
    layer.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    return layer


def patched(layer: nn.Module, name: str = "forward") -> nn.Module:
    original = getattr(layer, name)
    setattr(layer, name, lambda *args: original(*args) + 1)
    return layer


def weight_norm(layer: nn.Module) -> nn.Module:
    return torch.nn.utils.parametrizations.weight_norm(layer)


def instance_norm(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer, nn.InstanceNorm3d(C))


def lazily(make: Make, called: bool) -> nn.Module:
    layer = make()
    if called:
        layer(torch.randn(1, C, 4, 6, 6))
    return layer


def mixed_training() -> nn.Module:
    model = nn.Sequential(conv(), norm(), nn.Dropout(0.5)).eval()
    model[2].train()
    return model


def shared_relu(inplace: bool) -> nn.Module:
    relu = nn.ReLU(inplace)
    return nn.Sequential(conv(), relu, conv(), relu)


def thrice(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Sequential(layer))


def beside(branches: dict[str, nn.Module], merge: Any = None) -> nn.Module:
    """A region whose output has C channels again."""
    if merge is not None:
        return Branches(branches, merge)
    return nn.Sequential(Branches(branches, Concat(1)), nn.Conv3d(C * len(branches), C, 1))


def across(layer: nn.Module) -> nn.Module:
    return beside({"a": layer, "b": nn.Sequential(layer, nn.Tanh()), "c": nn.Sequential(layer, norm())})


def inplace_beside(first: str, layer: nn.Module) -> nn.Module:
    branches = {"a": conv((3, 1, 1)), "b": nn.Sequential(layer, conv((3, 1, 1)))}
    return beside(dict(sorted(branches.items(), reverse=first == "b")))


def torch_conv_of_the_library(**options: Any) -> nn.Module:
    co = pytest.importorskip("continual")
    return co.Conv3d(C, C, 3, **options)


# What must be converted wherever it stands alone or in a chain.
STEPPED: dict[str, Make] = {
    "conv": conv,
    "conv 1": lambda: conv(1),
    "conv, strided": lambda: conv((2, 3, 3), stride=(2, 1, 2)),
    "conv, stride over kernel": lambda: conv((1, 3, 3), stride=(3, 2, 1)),
    "conv, dilated": lambda: conv((3, 2, 2), dilation=(2, 1, 2)),
    "conv, padded": lambda: conv(3, 1),
    "conv, padded and dilated": lambda: conv(3, (3, 1, 0), dilation=(2, 1, 1)),
    "conv, padded, dilated, strided": lambda: conv(3, (2, 1, 0), dilation=(3, 1, 1), stride=(2, 1, 1)),
    "conv, padded most": lambda: conv((4, 1, 1), (3, 0, 0)),
    "conv, grouped": lambda: conv(3, (1, 0, 1), groups=2, bias=False),
    "conv, depthwise": lambda: conv((3, 1, 3), groups=C),
    "conv same": lambda: conv((3, 1, 5), "same"),
    "conv same, even in space": lambda: conv((3, 2, 4), "same"),
    "conv same, even, dilated": lambda: conv((5, 2, 2), "same", dilation=(2, 3, 1)),
    "conv valid": lambda: conv((2, 2, 3), "valid"),
    "conv replicate": lambda: conv(3, 1, padding_mode="replicate"),
    "conv replicate, dilated": lambda: conv((3, 1, 1), (4, 0, 0), dilation=(4, 1, 1), padding_mode="replicate"),
    "conv replicate, dilated, strided": lambda: conv(3, 2, dilation=2, stride=(3, 1, 1), padding_mode="replicate"),
    "conv replicate same": lambda: conv((3, 2, 2), "same", dilation=(2, 1, 1), padding_mode="replicate"),
    "conv replicate, grouped": lambda: conv(3, (2, 1, 1), groups=4, padding_mode="replicate"),
    "conv circular in space": lambda: conv(3, (0, 1, 2), padding_mode="circular"),
    "conv reflect in space": lambda: conv((3, 2, 5), (0, 1, 2), padding_mode="reflect"),
    "conv reflect same": lambda: conv((1, 2, 3), "same", padding_mode="reflect"),
    "edges": lambda: EdgeConv3d(C, C, 3, padding=1),
    "edges, dilated": lambda: EdgeConv3d(C, C, (3, 1, 1), padding=(2, 0, 0), dilation=(2, 1, 1), groups=2),
    "edges, that name another mode": lambda: EdgeConv3d(C, C, 3, padding=1, padding_mode="circular"),
    "lazy, called": lambda: lazily(lambda: nn.LazyConv3d(C, 3), True),
    "batch norm": norm,
    "batch norm, not affine": lambda: norm(affine=False),
    "batch norm, lazy, called": lambda: lazily(lambda: nn.LazyBatchNorm3d(), True),
    "max": lambda: nn.MaxPool3d(2),
    "max 1": lambda: nn.MaxPool3d(1),
    "max, padded": lambda: nn.MaxPool3d(3, 1, 1),
    "max, dilated": lambda: nn.MaxPool3d((3, 2, 2), (1, 2, 1), (1, 0, 1), dilation=(2, 1, 2)),
    "max, ceil": lambda: nn.MaxPool3d(3, 2, ceil_mode=True),
    "max, ceil, padded": lambda: nn.MaxPool3d((3, 2, 3), (2, 1, 2), (1, 1, 1), ceil_mode=True),
    "max, strided over kernel": lambda: nn.MaxPool3d((2, 1, 1), (3, 1, 2)),
    "max, lists": lambda: nn.MaxPool3d([2, 2, 2], [1, 1, 1], [1, 0, 0]),  # type: ignore[arg-type]
    "mean": lambda: nn.AvgPool3d((2, 3, 3), 1),
    "mean 1": lambda: nn.AvgPool3d(1),
    "mean, padded": lambda: nn.AvgPool3d((3, 3, 2), 1, 1),
    "mean, padding not counted": lambda: nn.AvgPool3d((3, 3, 2), 1, 1, count_include_pad=False),
    "mean, of a divisor": lambda: nn.AvgPool3d((3, 2, 2), 1, (1, 0, 1), divisor_override=5),
    "mean, ceil": lambda: nn.AvgPool3d((2, 3, 3), 2, ceil_mode=True),
    "mean, ceil, padded": lambda: nn.AvgPool3d(3, (2, 2, 2), 1, ceil_mode=True, count_include_pad=False),
    "mean, ceil, padded, counted": lambda: nn.AvgPool3d(4, (3, 2, 3), (2, 1, 2), ceil_mode=True),
    "adaptive mean": lambda: nn.AdaptiveAvgPool3d((None, 4, 5)),
    "adaptive mean, None": lambda: nn.AdaptiveAvgPool3d((None, 2, None)),
    "adaptive max": lambda: nn.AdaptiveMaxPool3d((None, None, 3)),
    "crop": lambda: Crop(1),
    "crop 0": lambda: Crop(0),
    "relu": nn.ReLU,
    "relu in place": lambda: nn.ReLU(inplace=True),
    "leaky in place": lambda: nn.LeakyReLU(0.3, inplace=True),
    "hardtanh in place": lambda: nn.Hardtanh(inplace=True),
    "prelu": lambda: nn.PReLU(C),
    "rrelu": nn.RReLU,
    "gelu": nn.GELU,
    "dropout": lambda: nn.Dropout(0.5, inplace=True),
    "dropout 3d": lambda: nn.Dropout3d(0.5),
    "identity": nn.Identity,
    "softmax over channels": lambda: nn.Softmax(1),
    "log softmax over width": lambda: nn.LogSoftmax(-1),
    "empty": nn.Sequential,
    "region": lambda: beside(
        {"a": conv(3, (1, 0, 0)), "b": conv((1, 3, 3)), "c": nn.MaxPool3d((5, 3, 3), 1, (2, 0, 0))}
    ),
    "region, mean": lambda: beside({"a": conv(3, 1), "b": nn.Identity()}, Mean()),
    "region, sum": lambda: beside({"a": conv(3, 1), "b": nn.Identity()}, sum),
    "region, concat over width": lambda: beside({"a": conv(3, 1), "b": nn.Identity()}, Concat(-1)),
    "region, strided": lambda: beside({"a": conv(3, (1, 1, 1), stride=2), "b": conv(1, stride=2)}),
    "regions in regions": lambda: beside(
        {"a": beside({"a": conv(3, 1), "b": nn.Sequential(conv(3, 1), nn.ReLU(True), conv(3, 1))}), "b": nn.Tanh()}
    ),
    "in place beside": lambda: inplace_beside("a", nn.ReLU(True)),
    "in place beside, behind dropout": lambda: inplace_beside("a", nn.Sequential(nn.Dropout(), nn.ReLU(True))),
    "in place beside, behind identity": lambda: inplace_beside("a", nn.Sequential(nn.Identity(), nn.ELU(2, True))),
    "in place beside, nested": lambda: inplace_beside(
        "a", beside({"c": nn.Sequential(nn.Identity(), nn.SiLU(True))}, sum)
    ),
    "a relu twice": lambda: shared_relu(False),
    "a relu in place twice": lambda: shared_relu(True),
    "a conv thrice": lambda: thrice(conv((2, 1, 1))),
    "a padded conv thrice": lambda: thrice(conv(3, 1)),
    "a pool thrice": lambda: thrice(nn.MaxPool3d((2, 1, 1), 1)),
    "a norm thrice": lambda: thrice(norm()),
    "a conv across branches": lambda: across(conv((2, 2, 2))),
    "a pool across branches": lambda: across(nn.AvgPool3d(3, 1, 1)),
    "a region thrice": lambda: thrice(beside({"a": conv(3, 1), "b": nn.Identity()}, Mean())),
}
# What must be refused wherever it stands: it mixes frames, or nobody can know.
REFUSED: dict[str, Make] = {
    "causal": lambda: Causal(C, C, (3, 1, 1)),
    "standardised": lambda: Standardised(C, C, 3),
    "residual": lambda: Residual(C, C, 3, padding=1),
    "doubling relu": Doubling,
    "another chain": lambda: Reversed(conv(3, 1), nn.ReLU()),
    "another region": lambda: Scaled({"a": conv(3, 1), "b": nn.Identity()}, Mean()),
    "an own class": lambda: type("Own", (nn.Conv3d,), {})(C, C, 3),
    "hook": lambda: hooked(conv()),
    "hook on a relu": lambda: hooked(nn.ReLU()),
    "hook before": lambda: hooked_before(nn.MaxPool3d(2)),
    "hook on a chain": lambda: hooked(nn.Sequential(conv(), nn.ReLU())),
    "hook on a region": lambda: hooked(beside({"a": conv(3, 1), "b": nn.Identity()}, Mean())),
    "hook on a merge": lambda: beside({"a": conv(3, 1), "b": nn.Identity()}, hooked(Mean())),
    "patched": lambda: patched(conv()),
    "patched inside": lambda: patched(conv(), "_conv_forward"),
    "patched chain": lambda: patched(nn.Sequential(conv(), nn.ReLU())),
    "patched call": lambda: patched(conv(), "_call_impl"),
    "patched merge": lambda: beside({"a": conv(3, 1), "b": nn.Identity()}, patched(Mean())),
    "weight norm": lambda: weight_norm(conv()),
    "spectral norm": lambda: torch.nn.utils.parametrizations.spectral_norm(conv()),
    "spectral norm, old": lambda: torch.nn.utils.spectral_norm(conv()),
    "pruned": lambda: prune.random_unstructured(conv(), "weight", 0.5),
    "lazy": lambda: nn.LazyConv3d(C, 3),
    "lazy norm": nn.LazyBatchNorm3d,
    "batch norm without statistics": lambda: norm(track_running_stats=False),
    "batch norm in training": lambda: nn.Sequential(conv(), norm()).train(),
    "dropout in training": mixed_training,
    "concat over time": lambda: beside({"a": conv(3, 1), "b": nn.Identity()}, Concat(2)),
    "concat over time, from behind": lambda: beside({"a": conv(3, 1), "b": nn.Identity()}, Concat(-3)),
    "merge over time": lambda: beside({"a": conv(3, 1), "b": nn.Identity()}, OverTime()),
    "merge by a subclass": lambda: beside({"a": conv(3, 1), "b": nn.Identity()}, Rolled()),
    "merge by a function": lambda: beside(
        {"a": conv(3, 1), "b": nn.Identity()}, lambda outs: outs[0].flip(2) + outs[1]
    ),
    "merge in place": lambda: beside({"a": nn.Identity(), "b": conv(3, 1)}, InPlace()),
    "in place before": lambda: inplace_beside("b", nn.ReLU(True)),
    "in place before, behind dropout": lambda: inplace_beside(
        "b", nn.Sequential(nn.Dropout(), nn.LeakyReLU(0.1, True))
    ),
    "in place before, behind a crop": lambda: beside(
        {"a": nn.Sequential(Crop(1), nn.ReLU(True)), "b": conv((3, 1, 1))}, Mean()
    ),
    "in place beside a skip": lambda: beside(
        {"skip": nn.Identity(), "b": nn.Sequential(nn.ReLU(True), conv(3, 1))}, Concat(1)
    ),
    "same, even in time": lambda: conv(2, "same"),
    "circular in time": lambda: conv(3, 1, padding_mode="circular"),
    "reflect in time": lambda: conv(3, 1, padding_mode="reflect"),
    "padded before it looks": lambda: conv(1, (1, 0, 0)),
    "indices": lambda: nn.MaxPool3d(2, return_indices=True),
    "adaptive max, indices": lambda: nn.AdaptiveMaxPool3d((None, 1, 1), return_indices=True),
    "adaptive mean": lambda: nn.AdaptiveAvgPool3d((2, 1, 1)),
    "adaptive mean, of one size": lambda: nn.AdaptiveAvgPool3d(1),
    "adaptive mean, no size": lambda: nn.AdaptiveAvgPool3d(None),  # type: ignore[arg-type]
    "lp pool": lambda: nn.LPPool3d(2, 2),
    "fractional pool": lambda: nn.FractionalMaxPool3d(2, output_ratio=0.5),
    "transposed": lambda: nn.ConvTranspose3d(C, C, 3),
    "softmax over time": lambda: nn.Softmax(2),
    "softmax over time, from behind": lambda: nn.LogSoftmax(-3),
    "softmax over nothing": nn.Softmax,
    "layer norm over time": lambda: nn.LayerNorm((7, 9, 8)),
    "group norm": lambda: nn.GroupNorm(2, C),
    "instance norm": lambda: nn.InstanceNorm3d(C),
    "instance norm behind": lambda: instance_norm(conv()),
    "upsampled": lambda: nn.Upsample(scale_factor=2),
    "shuffled": lambda: nn.PixelShuffle(2),
    "flattened": nn.Flatten,
    "encoder layer": lambda: nn.TransformerEncoderLayer(8, 2, 8, batch_first=True),
    "negative crop": lambda: Crop(-1),
    "a region of lengths": lambda: beside({"a": conv(3), "b": conv((1, 3, 3))}),
    "a list": lambda: nn.ModuleList([conv()]),
    "scripted": lambda: torch.jit.trace(conv().eval(), torch.randn(1, C, 4, 6, 6)),
}
PLACES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "alone": lambda layer: layer,
    "first": lambda layer: nn.Sequential(layer, conv((2, 1, 1))),
    "last": lambda layer: nn.Sequential(conv((2, 1, 1), (1, 0, 0)), nn.SiLU(True), layer),
    "between": lambda layer: nn.Sequential(nn.MaxPool3d(2, 1), layer, nn.MaxPool3d((2, 1, 1), 1)),
    "twice": lambda layer: nn.Sequential(layer, nn.Tanh(), layer),
    "deep": lambda layer: nn.Sequential(nn.Sequential(nn.Sequential(conv(1)), nn.Sequential(nn.Sequential(layer)))),
    "branch": lambda layer: Branches({"only": layer}, sum),
    "branches": lambda layer: Branches({"a": layer, "b": nn.Sequential(layer, conv(1))}, Concat(1)),
    "region": lambda layer: nn.Sequential(
        conv((2, 1, 1)), Branches({"a": nn.Sequential(layer, nn.SiLU(True)), "b": layer}, Mean()), conv((2, 1, 1))
    ),
}
TYPES = {
    torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16", torch.float16: "float16",
    torch.complex64: "complex64",
}  # fmt: skip


def made(layers: dict[str, Make], name: str, place: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(len(name))
    layer = layers[name]()
    if "training" in name:
        return PLACES[place](layer).to(dtype)
    model = PLACES[place](layer).eval()
    return model.to(dtype) if "lazy" not in name or "called" in name else model


def agreed(model: nn.Module, dtype: torch.dtype = torch.float32) -> bool:
    """Whether a model was converted; its steps then give what it gives, and it is as it was."""
    before = {name: value.clone() for name, value in model.state_dict().items() if type(value) is Tensor}
    random = torch.get_rng_state()
    try:
        net = stepper(model)
    except KitError:
        return False
    reach = net.reach
    clip = torch.randn(2, C, reach.delay + 3 * reach.stride + 2, 11, 10).to(dtype)
    torch.set_rng_state(random)
    with torch.no_grad():
        whole, state, outputs = model(clip.clone()), None, []
        for t in range(clip.shape[2]):
            out, state = net(clip[:, :, t], state)
            assert (out is not None) == reach.gives(t)
            if out is not None:
                assert compare_outputs(whole[:, :, len(outputs)], out).equal
                outputs.append(out.clone())
                out.zero_()  # it is the caller's: no state must hold it
    # What is not given reaches over the end.
    assert len(outputs) * reach.stride - reach.padding + reach.receptive_field > clip.shape[2]
    assert len(outputs) >= 4
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return True


def sample(layers: dict[str, Make]) -> list[tuple[str, str]]:
    """Each layer in each place; by default each in one."""
    places = list(PLACES)
    return [(name, place) for i, name in enumerate(layers) for place in (places if SOAK else [places[i % len(places)]])]


# What writes into its input, or gives a part of it: beside others that read it, what comes out depends on the order.
WRITES = {name for name in STEPPED if "in place" in name} - {"a relu in place twice"}
PASSES = {"identity", "empty", "crop", "crop 0", "dropout", "dropout 3d"}


@pytest.mark.filterwarnings("ignore")  # PyTorch's, of padding for even kernels and old functions
@pytest.mark.parametrize(("name", "place"), sample(STEPPED))
def test_known_layers_are_stepped(name: str, place: str) -> None:
    refused = {"branches": WRITES, "region": WRITES | PASSES}.get(place, set())
    assert agreed(made(STEPPED, name, place)) == (name not in refused)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "place"), sample(REFUSED))
def test_other_layers_are_refused(name: str, place: str) -> None:
    assert not agreed(made(REFUSED, name, place))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", TYPES, ids=TYPES.get)
@pytest.mark.parametrize("name", [*STEPPED][:: 1 if SOAK else 9])
def test_of_any_type(name: str, dtype: torch.dtype) -> None:
    for place in ("alone", "last"):
        model = made(STEPPED, name, place, dtype)
        try:
            model(torch.randn(1, C, 12, 11, 10).to(dtype))
        except Exception:  # PyTorch has not every operator for every type
            continue
        assert agreed(model, dtype)
