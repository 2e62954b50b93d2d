"""What a step's time is made of: experiments that each take one thing out, on one thread and in the same rounds.

On one thread PyTorch runs many convolutions of a single frame with kernels of its own, and other ones on oneDNN. So two
ways to compute a step are compared as PyTorch runs them and once more with every convolution on oneDNN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kit import load
from kit.equality import compare_outputs, shapes
from kit.kernels import Kernels, exchanged, told
from kit.measuring.comparison import Comparison, Ratio, Row, Timing
from kit.measuring.statistics import speed_up, with_verdicts
from kit.models.continual import stepper
from kit.reprs import one_line
from kit.workloads.continual import Bound, OneStep, Side, frames_of, measure_sides, of_library
from kit.workloads.instead import Given, Replay, WithoutZeros, on_one_dnn

ON_ONE_DNN = ", oneDNN"
PARTS = {  # what it costs: the time of a step without what the ones above take out, less that of one without it too
    "choice of kernel": "as it is",
    "zeros": "on oneDNN",
    "convolutions": "no zeros",
    "pooling": "no convolutions",
    "copies": "no pooling",
    "Python and fixed costs": "tiny frames",
}


def library_step(model: nn.Module, clip: Tensor) -> Callable[[Tensor], Any]:
    """The step of a network in the library's containers, after the frames of a clip."""
    own = of_library(model)
    with torch.no_grad():  # inference mode's tensors could not be described
        for frame in frames_of(clip):
            own.forward_step(frame)
    step: Callable[[Tensor], Any] = own.forward_step
    return step


# The experiments ------------------------------------------------------------------------------------------------------


def step_times(model: nn.Module, clip: Tensor, *, rounds: int) -> Comparison:
    """One prediction by a window, by the library's step and by the kit's, on one thread: as PyTorch runs it, and once
    more with every convolution on oneDNN. The rows hold the kernels, and caveats say where those differ.

    Args:
        model: over clips, of what :func:`kit.workloads.continual.of_library` takes.
        clip: ``(N, C, T, H, W)``, the window.
    """
    last, at = frames_of(clip)[-1], clip.shape[2] - 1 - stepper(model).delay
    predicted: dict[str, Callable[[Any], Any]] = {
        "window": lambda out: out[:, :, at],
        "library": lambda out: out,
        "kit": lambda out: out[0],
    }
    sides: dict[str, Side] = {}
    outputs: dict[str, Tensor] = {}
    for where, instead in (("", None), (ON_ONE_DNN, on_one_dnn)):
        own, theirs = OneStep(stepper(model), clip), library_step(model, clip[:, :, :-1])
        calls: dict[str, tuple[Callable[..., Any], Tensor]]
        calls = {"window": (model, clip), "library": (theirs, last), "kit": (own, last)}
        for name, (way, x) in calls.items():
            call = Given(instead, way)
            with torch.no_grad():
                outputs[name + where] = predicted[name](call(x))
            sides[name + where] = Bound(call, [x]), []
    before = load.Usage.now()
    timings, kernels = measure_sides(sides, "sequential(threads=1)", rounds=rounds)
    rows = [
        Row(
            name,
            timing=timing,
            ratio=Ratio(1, 1, 1),
            equality=compare_outputs(outputs["window"], outputs[name]),
            baseline=name == "window",
            against=timings["window"],
            rewritten=name != "window",
            kernels=kernels[name],
        )
        for name, timing in timings.items()
    ]
    busy = load.caveats(before, load.Usage.now())
    said = [
        f"{told(one, exchange, other)}: a part of the ratio between them is PyTorch's choice of kernel. Both on oneDNN "
        "are compared in rows of their own."
        for one, other in combinations(predicted, 2)
        for exchange in exchanged(kernels[one], kernels[other])
    ]
    return Comparison(tuple(with_verdicts(rows)), rounds, shapes(clip), (*said, *busy))


@one_line
@dataclass(frozen=True)
class StepParts:
    """What one step by the library and one by the kit take, with one thing after another taken out."""

    timings: Mapping[str, Mapping[str, Timing]]  # side -> what is left, as PARTS names it -> its time
    kernels: Mapping[str, Kernels]  # side -> as PyTorch runs it

    def ms(self, side: str) -> dict[str, float]:
        """Milliseconds of each of PARTS: medians of the differences within a round, which add up about."""
        left = [self.timings[side][what].samples_ns for what in PARTS.values()]
        following = [*left[1:], np.zeros_like(left[0])]
        costs = [float(np.median(a - b)) / 1e6 for a, b in zip(left, following, strict=True)]
        return dict(zip(PARTS, costs, strict=True))

    @property
    def as_dispatched(self) -> Ratio:
        """The library's time by the kit's, with the kernels that PyTorch chooses."""
        return speed_up(self.timings["library"]["as it is"], self.timings["kit"]["as it is"])

    @property
    def between_equals(self) -> Ratio:
        """The library's time by the kit's, where every convolution of both runs on oneDNN."""
        return speed_up(self.timings["library"]["on oneDNN"], self.timings["kit"]["on oneDNN"])

    @property
    def zeros(self) -> Ratio:
        """The library's time on oneDNN by that without the zeros that it pads a frame with."""
        return speed_up(self.timings["library"]["on oneDNN"], self.timings["library"]["no zeros"])


def step_parts(model: nn.Module, clip: Tensor, *, rounds: int) -> StepParts:
    """Take one thing after another out of a step by the library and one by the kit, and measure what is left.

    In this order: PyTorch's choice of kernel (every convolution goes to oneDNN), the zeros that a frame is padded with
    in time, the convolutions themselves, the pooling; and, by frames of one pixel, all work on data. What is left is
    Python and the fixed costs of operators.

    Args: as :func:`step_times`.
    """
    sides: dict[str, Side] = {}
    for left in PARTS.values():
        seen = clip[..., :1, :1] if left == "tiny frames" else clip
        ways: dict[str, Callable[..., Any]] = {
            "library": library_step(model, seen),
            "kit": OneStep(stepper(model), seen),
        }
        for name, step in ways.items():
            instead = {
                "as it is": None,
                "on oneDNN": on_one_dnn,
                "no zeros": WithoutZeros(),
                "no convolutions": Replay("conv"),
            }.get(left, Replay("conv", "pool"))
            sides[f"{name}: {left}"] = Bound(Given(instead, step), frames_of(seen)[-1:]), []
    timings, kernels = measure_sides(sides, "sequential(threads=1)", rounds=rounds)
    return StepParts(
        {name: {left: timings[f"{name}: {left}"] for left in PARTS.values()} for name in ("library", "kit")},
        {name: kernels[f"{name}: as it is"] for name in ("library", "kit")},
    )
