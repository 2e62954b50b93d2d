"""What continual-inference tests of its own modules, as cases for the kit's steps: equal to PyTorch's, or refused.

Where the library has a counterpart, its steps run beside the kit's: with the same outputs at the same frames, but for
the cases in which the library refuses or gives others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kit.equality import compare_outputs
from kit.errors import KitError
from kit.models.continual import Crop, stepper
from kit.models.init import keep_signal
from kit.regions import Branches, Concat, Mean

co = pytest.importorskip("continual")

C = 4
Make = Callable[[], nn.Module]


def conv(kernel: Any = 3, padding: Any = 0, **options: Any) -> nn.Conv3d:
    return nn.Conv3d(C, C, kernel, padding=padding, **options)


def chain() -> nn.Module:
    """Kernels of 5 and 3 without padding in time, then a pool in space."""
    return nn.Sequential(conv((5, 3, 3), (0, 1, 1)), conv((3, 3, 3), (0, 1, 1)), nn.MaxPool3d((1, 2, 2)))


def skipping() -> nn.Module:
    """Strides of 2 in time, twice, with padding between."""
    pool = nn.AvgPool3d((2, 1, 1))
    return nn.Sequential(conv(3, 1), pool, conv(3, 1, stride=(2, 1, 1)))


def sides(merge: Any, *kernels: int) -> nn.Module:
    return Branches({f"of {k}": conv((k, 3, 3), (k // 2, 1, 1)) for k in kernels}, merge)


def residual() -> nn.Module:
    return Branches({"conv": conv(3, 1), "skip": nn.Identity()}, sum)


def shrunk() -> nn.Module:
    return Branches({"conv": conv(3, (0, 1, 1)), "skip": Crop(1)}, sum)


STEPPED: dict[str, Make] = {
    "kernel": conv,
    "kernel of 1": lambda: conv(1),
    "kernel of 4": lambda: conv((4, 3, 3)),
    "no bias": lambda: conv(3, bias=False),
    "stride": lambda: conv(3, 1, stride=(2, 1, 1)),
    "stride in space": lambda: conv(3, 1, stride=(1, 2, 2)),
    "stride of 3": lambda: conv((3, 3, 3), stride=3),
    "padding": lambda: conv(3, 1),
    "padding of 2": lambda: conv((5, 3, 3), (2, 1, 1)),
    "dilation in space": lambda: conv(3, (0, 1, 1), dilation=(1, 2, 2)),
    "dilation in time": lambda: conv(3, dilation=(2, 1, 1)),
    "dilation, stride, padding": lambda: conv(3, 1, dilation=2, stride=2),
    "groups": lambda: conv(3, groups=2),
    "depthwise, dilated, strided, replicate": lambda: conv(
        3, 1, dilation=(1, 2, 2), stride=(1, 2, 2), groups=C, bias=False, padding_mode="replicate"
    ),
    "replicate": lambda: conv(3, 1, padding_mode="replicate"),
    "reflect in space": lambda: conv(3, (0, 1, 1), padding_mode="reflect"),
    "circular in space": lambda: conv(3, (0, 1, 1), padding_mode="circular"),
    "mean": lambda: nn.AvgPool3d(3, 1),
    "mean, strided": lambda: nn.AvgPool3d(2),
    "mean, padded": lambda: nn.AvgPool3d(3, 1, 1),
    "mean, padding not counted": lambda: nn.AvgPool3d(3, 1, 1, count_include_pad=False),
    "mean, divisor": lambda: nn.AvgPool3d(3, 1, divisor_override=5),
    "mean of a window": lambda: nn.AvgPool3d((4, 8, 8), 1),
    "max": lambda: nn.MaxPool3d(3, 1),
    "max, strided": lambda: nn.MaxPool3d(2),
    "max, padded": lambda: nn.MaxPool3d(3, 1, 1),
    "max, dilated": lambda: nn.MaxPool3d(2, dilation=(2, 1, 1), stride=1),
    "chain": chain,
    "chain with strides": skipping,
    "residual": residual,
    "residual, shrunk": shrunk,
    "branches, sum": lambda: sides(sum, 5, 3, 1),
    "branches, concat": lambda: sides(Concat(1), 5, 3, 1),
    "branches, mean": lambda: sides(Mean(), 3, 1),
}
# In which the library refuses, or its steps give other outputs than PyTorch's module.
NOT_BY_LIBRARY = {"dilation in time", "dilation, stride, padding", "reflect in space", "circular in space"}
OTHERWISE = {"mean, padding not counted", "mean, divisor", "max, padded", "max, dilated"}
# No counterpart, or one that may be refused: never other outputs.
EITHER: dict[str, tuple[Make, tuple[int, ...]]] = {
    "conv 1d": (lambda: nn.Conv1d(C, C, 3), (1, C, 9)),
    "conv 1d, strided": (lambda: nn.Conv1d(C, C, 3, 2, 1), (1, C, 9)),
    "conv 2d": (lambda: nn.Conv2d(C, C, (3, 2)), (1, C, 9, 8)),
    "conv 2d, strided": (lambda: nn.Conv2d(C, C, 3, 2), (1, C, 9, 8)),
    "mean 1d": (lambda: nn.AvgPool1d(3, 1), (1, C, 9)),
    "max 1d, dilated": (lambda: nn.MaxPool1d(3, 1, dilation=2), (1, C, 9)),
    "linear": (lambda: nn.Linear(8, 3), (1, C, 9, 8, 8)),
    "layer norm": (lambda: nn.LayerNorm(8), (1, C, 9, 8, 8)),
    "global mean": (lambda: nn.AdaptiveAvgPool3d(1), (1, C, 9, 8, 8)),
}


class Chosen(nn.Module):
    """What the library calls Conditional."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.sides, self.first = nn.ModuleList([conv(3, 1), conv(3, 1)]), first

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.sides[0](x) if self.first else self.sides[1](x)
        return out


def largest(outputs: list[Tensor]) -> Tensor:
    return torch.maximum(*outputs)


def product(outputs: list[Tensor]) -> Tensor:
    return outputs[0] * outputs[1]


REFUSED: dict[str, Make] = {
    "conditional, first": lambda: Chosen(True),
    "conditional, second": lambda: Chosen(False),
    "reduce by max": lambda: sides(largest, 3, 1),
    "reduce by product": lambda: sides(product, 3, 1),
    "circular in time": lambda: conv(3, 1, padding_mode="circular"),
    "other strides": lambda: Branches({"a": conv(3, 1, stride=2), "b": conv(1)}, sum),
}


def ready(make: Make) -> nn.Module:
    return keep_signal(make(), 0).eval()


def noise(shape: tuple[int, ...] = (1, C, 14, 8, 8)) -> Tensor:
    """Mostly below zero, so that a pool that pads with zeros is found out."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) - 1


def steps(model: nn.Module, clip: Tensor) -> list[Tensor | None]:
    net, state, outs = stepper(model, clip), None, []
    for frame in clip.unbind(2):
        out, state = net(frame, state)
        outs.append(out)
    return outs


def counterpart(model: nn.Module) -> Any:
    """The library's module with the weights of torch's."""
    if isinstance(model, nn.Sequential):
        return co.Sequential(*map(counterpart, model))
    if isinstance(model, Branches):
        if any(isinstance(each, Crop) for each in model.branches.values()):
            return co.Residual(counterpart(model.branches["conv"]), residual_shrink=True)
        reduce = {Concat: "concat", Mean: lambda outs: torch.stack(outs).mean(0)}.get(type(model.merge), "sum")
        return co.BroadcastReduce(*map(counterpart, model.branches.values()), reduce=reduce)
    return co.Identity() if isinstance(model, nn.Identity) else co.continual(model)


def by_library(model: nn.Module, clip: Tensor) -> list[Tensor | None]:
    module = counterpart(model)
    return [module.forward_step(frame) for frame in clip.unbind(2)]


def same(want: list[Tensor], outs: list[Tensor | None]) -> bool:
    given = [out for out in outs if out is not None]
    return bool(given) and len(given) <= len(want) and compare_outputs(want[: len(given)], given).equal


@pytest.mark.parametrize("name", STEPPED)
def test_the_kit_s_steps_are_pytorch_s_and_come_when_the_library_s_do(name: str) -> None:
    model, clip = ready(STEPPED[name]), noise()
    with torch.no_grad():
        want, outs = list(model(clip).unbind(2)), steps(model, clip)
        assert same(want, outs)
        try:
            theirs = by_library(model, clip)
        except (AssertionError, ValueError):
            assert name in NOT_BY_LIBRARY
            return
    assert name not in NOT_BY_LIBRARY
    assert same(want, theirs) == (name not in OTHERWISE)
    assert [out is None for out in outs] == [out is None for out in theirs]


@pytest.mark.parametrize("name", EITHER)
def test_other_layers_are_equal_or_refused(name: str) -> None:
    make, shape = EITHER[name]
    model, clip = ready(make), noise(shape)
    try:
        outs = steps(model, clip)
    except KitError:
        return
    with torch.no_grad():
        assert same(list(model(clip).unbind(2)), outs)


@pytest.mark.parametrize("name", REFUSED)
def test_what_mixes_or_chooses_is_refused(name: str) -> None:
    with pytest.raises(KitError):
        stepper(ready(REFUSED[name]))


def test_a_step_after_a_clip_is_an_output_of_the_clip_with_the_next_frame() -> None:
    model, clip = ready(lambda: conv(3, 1)), noise()
    net = stepper(model)
    with torch.no_grad():
        _, state = net.over(clip[:, :, :-1])
        out, _ = net(clip[:, :, -1], state)
        # Zeros instead of a frame give the output that padding after the end gives.
        last, _ = net(torch.zeros_like(clip[:, :, 0]), net(clip[:, :, -1], state)[1])
        whole = model(clip)
    assert compare_outputs(whole[:, :, -2], out).equal
    assert compare_outputs(whole[:, :, -1], last).equal


def test_a_state_can_be_used_again_and_none_begins_a_clip() -> None:
    model, clip = ready(chain), noise()
    net = stepper(model)
    with torch.no_grad():
        first, state = net.over(clip)
        again = [net(clip[:, :, 0], state)[0] for _ in range(2)]
        assert torch.equal(*again)
        assert torch.equal(net.over(clip, None)[0], first)


def test_an_impulse_is_forgotten_after_the_receptive_field() -> None:
    net = stepper(ready(lambda: nn.Sequential(conv((5, 3, 3), (0, 1, 1)), *[conv(3, (0, 1, 1))] * 2)))
    clip = torch.zeros(1, C, 30, 6, 6)
    clip[:, :, 0] = 1
    silence = net.over(torch.zeros_like(clip))[0]
    found = [torch.equal(a, b) for a, b in zip(net.over(clip)[0].unbind(2), silence.unbind(2), strict=True)]
    assert net.reach.receptive_field == 9
    assert found == [False, *[True] * (len(found) - 1)]
