"""The published table of continual networks: what its networks cost, counted, and one of them by the clock.

The figures of :data:`PUBLISHED` are those of their authors, no measurements of this kit. Source: "Model Zoo and
Benchmarks" in the README of *continual-inference* 1.2.4; the networks are of Hedegaard and Iosifidis, *Continual 3D
Convolutional Neural Networks for Real-time Processing of Videos*, 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from kit import spans
from kit.approaches import Runner, parse
from kit.equality import Equality, compare_outputs, shapes
from kit.machine.load import Usage, taken
from kit.measuring.comparison import Comparison, Ratio, Row
from kit.measuring.gate import gated
from kit.measuring.rounds import measure
from kit.measuring.statistics import with_verdicts
from kit.models.continual import Stepper, stepper
from kit.models.resnet3d import resnet50_3d
from kit.models.x3d import SIZES, x3d
from kit.recorder import record_kernels
from kit.reprs import one_line
from kit.trace.kernels import Kernels
from kit.workloads.instead import Given, on_one_dnn

ONE_THREAD, ON_ONE_DNN = "sequential(threads=1)", "_onednn"


@one_line
class Published(NamedTuple):
    """A line of the published table, and the network that it is of."""

    step: float  # GFLOPs of a step
    reduction: float  # GFLOPs of a window / of a step
    make: Callable[[], nn.Sequential]
    clip: tuple[int, int]  # frames, and pixels of a side

    @property
    def window(self) -> float:
        """GFLOPs of a window."""
        return self.step * self.reduction


def _of_size(size: Any) -> Published:
    step, reduction = {"L": (1.25, 15.3), "M": (0.33, 15.1), "S": (0.17, 12.1)}[size]
    return Published(step, reduction, lambda: x3d(size), SIZES[size][:2])


PUBLISHED: dict[str, Published] = {
    **{f"CoX3D-{size}": _of_size(size) for size in ("L", "M", "S")},
    "CoSlow": Published(6.90, 8.0, lambda: resnet50_3d("slow"), (8, 256)),
    "CoI3D": Published(5.68, 5.0, lambda: resnet50_3d("i3d", window=4), (8, 224)),
}


# Counted --------------------------------------------------------------------------------------------------------------


@one_line
class Work(NamedTuple):
    """What a prediction costs."""

    macs: float  # multiply-accumulates of convolutions
    elementwise: float  # operations of the rest, as the tool ptflops counts them: see :func:`counted`


def counted(model: nn.Module, clip: Tensor) -> tuple[Work, Work]:
    """What a window and a step cost, counted from one call: of the clip, and of the one frame that each layer adds.

    Elementwise operations are counted as the tool *ptflops* does: one for each value that a ReLU gives, a pool takes or
    a bias is added to, two for each of a batch norm, and none for sums, products and other activations.

    Args:
        model: of Conv3d and such layers; on the device meta nothing is computed.
        clip: ``(N, 3, T, H, W)``: the window.
    """
    found: list[tuple[int, bool, int]] = []  # operations, whether they are MACs, the frames that they gave

    def hook(module: Any, args: tuple[Tensor, ...], out: Tensor) -> None:
        kind, count = type(module), out.numel()
        if kind is nn.Conv3d:
            found.append((count * module.weight[0].numel(), True, out.shape[2]))
            found.append((count if module.bias is not None else 0, False, out.shape[2]))
        elif kind in (nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d):
            found.append((args[0].numel(), False, args[0].shape[2]))
        elif kind in (nn.BatchNorm3d, nn.ReLU):
            found.append((count * (2 if kind is nn.BatchNorm3d else 1), False, out.shape[2]))

    hooks = [module.register_forward_hook(hook) for module in model.modules()]
    try:
        with torch.no_grad():
            model(clip)
    finally:
        for each in hooks:
            each.remove()
    window = [sum(count for count, macs, _ in found if macs is wanted) for wanted in (True, False)]
    step = [sum(count / frames for count, macs, frames in found if macs is wanted) for wanted in (True, False)]
    return Work(*window), Work(*step)


def counted_by_name() -> dict[str, tuple[Work, Work]]:
    """:func:`counted` of each network of the table, at its published size."""
    found = {}
    for name, each in PUBLISHED.items():
        frames, side = each.clip
        with torch.device("meta"):
            found[name] = counted(each.make(), torch.empty(1, 3, frames, side, side))
    return found


# By the clock ---------------------------------------------------------------------------------------------------------


@one_line
@dataclass(frozen=True)
class Clocked:
    """The clock's ratio of a window and a step, beside the ratio of their MACs; on kernels of PyTorch's choice, and on
    oneDNN."""

    name: str  # of the network
    comparison: Comparison  # "window", "step", and both with "_onednn"
    window: Work
    step: Work
    batch: int

    @property
    def ratio(self) -> float:
        """MACs of the window / MACs of the step."""
        return self.window.macs / self.step.macs

    def kernels(self, where: str = "") -> dict[str, Kernels]:
        """Of "window" and "step"; with ``where="_onednn"`` of those on oneDNN."""
        return {name: self.comparison[name + where].kernels or {} for name in ("window", "step")}


def same_as_over_the_stream(net: Stepper, model: nn.Module, clip: Tensor) -> tuple[Equality, Any]:
    """Whether a network's first output by steps is that of the network over the whole stream; and the state after it.

    A window is another matter: where layers pad time, its outputs depend on the padding at both of its ends, while
    those of a step depend on real frames. So window and step are two networks with the same weights.

    Args:
        clip: ``(N, C, T, H, W)`` with ``T > net.delay``.
    """
    with torch.inference_mode():
        frames = clip[:, :, : net.delay + 1]
        out, state = net.over(frames)
        return compare_outputs(model(frames)[:, :, :1], out), state


def clocked(
    name: str,
    model: nn.Module,
    window: Tensor,
    *,
    rounds: int,
    batches: Iterable[int] = (1, 8),
    clock: Callable[[], int] = spans.clock,
) -> list[Clocked]:
    """Measure a prediction by a window and by a step, on one thread: as PyTorch chooses kernels, and on oneDNN.

    All four are in the same rounds. The steps are compared with the network over a stream, at this size.

    Args:
        name: of the network, for tables.
        model: over clips, with stride 1 in time.
        window: ``(1, C, T, H, W)``.
        batches: windows, or streams, in one call; a measurement for each.
        clock: in nanoseconds; ``time.thread_time_ns`` gives CPU time, which other programs disturb less: then their
            load is no reason for doubt.
    """
    net = stepper(model)
    repeats = -(-(net.delay + 1) // window.shape[2])
    same, state = same_as_over_the_stream(net, model, window.repeat(1, 1, repeats, 1, 1))
    works = counted(model, window)
    return [
        Clocked(name, _measured(model, net, window, state.layers, batch, same, rounds, clock), *works, batch)
        for batch in batches
    ]


def _measured(
    model: nn.Module,
    net: Stepper,
    window: Tensor,
    layers: Any,
    batch: int,
    same: Equality,
    rounds: int,
    clock: Callable[[], int],
) -> Comparison:
    many = tree_map_only(Tensor, lambda x: x.repeat(batch, *[1] * (x.ndim - 1)), layers)
    clips = window.repeat(batch, 1, 1, 1, 1)
    calls: Mapping[str, tuple[Callable[..., Any], Tensor]] = {
        "window": (model, clips),
        "step": (lambda frame: net.step(frame, many)[0], clips[:, :, -1:].contiguous()),
    }
    with ExitStack() as stack:
        runners: dict[str, Runner] = {}
        for where, instead in (("", None), (ON_ONE_DNN, on_one_dnn)):
            for name, (call, x) in calls.items():
                runner = parse(ONE_THREAD).prepare(Given(instead, call), (x,))
                runners[name + where] = stack.enter_context(runner)
        ran = {name: record_kernels(runner) for name, runner in runners.items()}
        before = Usage.now()
        timings = measure(runners, rounds=rounds, clock=clock)
        others = taken(before, Usage.now()) if clock is spans.clock else None
    rows = [
        Row(name, timing=timing, equality=same, paired_baseline=timings["window"], kernels=ran[name], rewritten=True)
        for name, timing in timings.items()
    ]
    rows[0] = replace(rows[0], baseline=True, ratio=Ratio(1, 1, 1), rewritten=False)
    return gated(Comparison(tuple(with_verdicts(rows)), rounds, shapes(clips), taken=others))
