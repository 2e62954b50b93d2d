"""What a step's time is made of: experiments that each take one thing out, on one thread and in the same rounds.

On one thread PyTorch runs many convolutions of a single frame with kernels of its own, and other ones on oneDNN. So two
approaches to compute a step are compared as PyTorch runs them and once more with every convolution on oneDNN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kit.approaches import Runner, parse
from kit.equality import Equality, compare_outputs, shapes
from kit.errors import MeasureError
from kit.machine.load import Taken, Usage, taken
from kit.measuring.comparison import Comparison, Ratio, Row, Timing
from kit.measuring.gate import gated
from kit.measuring.rounds import measure
from kit.measuring.statistics import with_verdicts
from kit.models.continual import stepper
from kit.recorder import record_call
from kit.reprs import one_line
from kit.trace.kernels import Kernels, exchanged, kernels, told
from kit.workloads.continual import OneStep, Picked, compared, frames_of, of_library, side
from kit.workloads.instead import Given, Replay, Swap, WithoutZeros, on_one_dnn
from kit.workloads.medians import Median

ONE_THREAD = "sequential(threads=1)"
ON_ONE_DNN = "_onednn"  # after the name of a row: with every convolution on oneDNN
PARTS = {  # what it costs: the time of a step without what the ones above take out, less that of one without it too
    "choice of kernel": "as it is",
    "zeros": "on oneDNN",
    "convolutions": "no zeros",
    "pooling": "no convolutions",
    "copies": "no pooling",
    "Python and fixed costs": "tiny frames",
}
PAIRS = {  # of StepParts.comparison: row -> its side and what is left, and the row that it is over
    "library": ("library", "as it is", "library"),
    "library_onednn": ("library", "on oneDNN", "library"),
    "library_without_zeros": ("library", "no zeros", "library_onednn"),
    "kit": ("kit", "as it is", "library"),
    "kit_onednn": ("kit", "on oneDNN", "library_onednn"),
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

    The predictions of the clip are compared first. Then all see its last frame only, again and again: the library
    remembers by itself, so that the output of every call is the same from then on.

    Args:
        model: over clips, of what :func:`kit.workloads.continual.of_library` takes.
        clip: ``(N, C, T, H, W)``, the window.

    Raises:
        MeasureError: the prediction of a step differs from that of the window.
    """
    _same_predictions(model, clip)
    still = clip[:, :, -1:].expand_as(clip).contiguous()
    # The window on oneDNN counts as rewritten too: what other kernels gain is not limited by the number of cores.
    approaches = {
        name + where: side(
            _prediction(name, model, still, instead), _seen(name, still), ONE_THREAD, rewrites=name + where != "window"
        )
        for where, instead in (("", None), (ON_ONE_DNN, on_one_dnn))
        for name in ("window", "library", "kit")
    }
    found = compared("step-times", approaches, shapes(clip), rounds)
    library, kit = found["library"].kernels or {}, found["kit"].kernels or {}
    said = [
        f"{told('library', exchange, 'kit')}: a part of the ratio between them is due to PyTorch's choice of kernel. "
        "Other rows compare both on oneDNN."
        for exchange in exchanged(library, kit)
    ]
    return replace(found, caveats=(*found.caveats, *said))


def _prediction(name: str, model: nn.Module, clip: Tensor, instead: Swap | None = None) -> nn.Module:
    """One approach to predict the clip's last output: from :func:`_seen`, after what the clip had before."""
    if name == "library":
        return Given(instead, library_step(model, clip[:, :, :-1]))
    if name == "kit":
        return Picked(Given(instead, OneStep(stepper(model), clip)), lambda out: out[0])
    at = clip.shape[2] - 1 - stepper(model).delay
    return Picked(Given(instead, model), lambda out: out[:, :, at])


def _seen(name: str, clip: Tensor) -> list[Tensor]:
    return [clip] if name == "window" else frames_of(clip)[-1:]


def _same_predictions(model: nn.Module, clip: Tensor, instead: Swap | None = None) -> dict[str, Equality]:
    """Both steps against the window as PyTorch runs it."""
    with torch.no_grad():
        window = _prediction("window", model, clip)(*_seen("window", clip))
        steps = {name: _prediction(name, model, clip, instead)(*_seen(name, clip)) for name in ("library", "kit")}
    found = {name: compare_outputs(window, step) for name, step in steps.items()}
    for name, same in found.items():
        if not same.equal:
            raise MeasureError(f"the prediction of the {name}'s step differs from that of the window: {same}.")
    return found


@one_line
@dataclass(frozen=True)
class StepParts:
    """What one step by the library and one by the kit take, with one thing after another taken out."""

    timings: Mapping[str, Mapping[str, Timing]]  # side -> what is left, as PARTS names it -> its time
    kernels: Mapping[str, Kernels]  # side -> as PyTorch runs it
    taken: Taken | None = None  # what others took of the cores during the rounds; None: not known
    equality: Mapping[str, Equality] | None = None  # row of the comparison -> to the window; None: not compared

    def ms(self, side: str) -> dict[str, Median]:
        """Milliseconds of each of PARTS: medians of the differences within a round, which add up about."""
        return {part: Median.of(costs) for part, costs in self._costs(side).items()}

    def gaps(self) -> dict[str, Median]:
        """Milliseconds by which each of PARTS costs the library more than the kit, round by round."""
        library, kit = self._costs("library"), self._costs("kit")
        return {part: Median.of(library[part] - kit[part]) for part in PARTS}

    def whole(self) -> tuple[Median, Median, Median]:
        """Milliseconds of the library's step, of the kit's and of their difference, as PyTorch runs them."""
        library, kit = (self.timings[side]["as it is"].samples_ns / 1e6 for side in ("library", "kit"))
        return Median.of(library), Median.of(kit), Median.of(library - kit)

    @property
    def comparison(self) -> Comparison:
        """The rows that anything is concluded from, judged as those of :func:`kit.compare`; PAIRS says over which."""
        rows: list[Row] = []
        for name, (whose, left, over) in PAIRS.items():
            beside = self.timings[PAIRS[over][0]][PAIRS[over][1]]
            same = Equality(True, 0.0) if self.equality is None else self.equality[name]
            row = Row(name, timing=self.timings[whose][left], equality=same, paired_baseline=beside)
            rows.append(row if rows else replace(row, baseline=True, ratio=Ratio(1, 1, 1)))
        rounds = len(self.timings["library"]["as it is"].samples_ns)
        return gated(Comparison(tuple(with_verdicts(rows)), rounds, "one frame", taken=self.taken))

    def _costs(self, side: str) -> dict[str, Any]:
        left = [self.timings[side][what].samples_ns / 1e6 for what in PARTS.values()]
        following = [*left[1:], np.zeros_like(left[0])]
        return {part: a - b for part, a, b in zip(PARTS, left, following, strict=True)}


def step_parts(model: nn.Module, clip: Tensor, *, rounds: int) -> StepParts:
    """Take one thing after another out of a step by the library and one by the kit, and measure what is left.

    In this order: PyTorch's choice of kernel (every convolution goes to oneDNN), the zeros that a frame is padded with
    in time, the convolutions themselves, the pooling; and, by frames of one pixel, all work on data. What is left is
    Python and the fixed costs of operators.

    Args: as :func:`step_times`, with 6 rounds or more; a verdict needs 9.

    Raises: as :func:`step_times`.
    """
    swaps = {"as it is": None, "on oneDNN": on_one_dnn, "no zeros": WithoutZeros()}
    same = {left: _same_predictions(model, clip, swap) for left, swap in swaps.items()}
    with ExitStack() as stack:
        runners: dict[tuple[str, str], Runner] = {}
        for left in PARTS.values():
            seen = clip[..., :1, :1] if left == "tiny frames" else clip
            approaches: dict[str, Callable[..., Any]] = {
                "library": library_step(model, seen),
                "kit": OneStep(stepper(model), seen),
            }
            for name, step in approaches.items():
                instead = {
                    "as it is": None,
                    "on oneDNN": on_one_dnn,
                    "no zeros": WithoutZeros(),
                    "no convolutions": Replay("conv"),
                }.get(left, Replay("conv", "pool"))
                runner = parse(ONE_THREAD).prepare(Given(instead, step), tuple(frames_of(seen)[-1:]))
                runners[name, left] = stack.enter_context(runner)
        ran = {name: kernels(record_call(runners[name, "as it is"])) for name in ("library", "kit")}
        before = Usage.now()
        timings = measure(runners, rounds=rounds)
        others = taken(before, Usage.now())
    by_side = {name: {left: timings[name, left] for left in PARTS.values()} for name in ran}
    return StepParts(by_side, ran, others, {name: same[left][whose] for name, (whose, left, _) in PAIRS.items()})
