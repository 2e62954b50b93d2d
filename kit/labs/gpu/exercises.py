"""The exercises of notebook 05."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kit.labs.checks import check, first_wrong
from kit.simulating import Call, Launch, Synchronize, simulate
from kit.trace import overlap_ns
from kit.trace.metrics import on_gpu

US = 1_000
STEM = Launch("stem", 40, 100 * US, writes=("x",))
LEFT = Launch("left", 40, 200 * US, stream=8, reads=("x",), writes=("l",))
RIGHT = Launch("right", 40, 200 * US, stream=9, reads=("x",), writes=("r",))
MERGE = Launch("merge", 40, 100 * US, reads=("l", "r"))
KERNELS = (STEM, LEFT, RIGHT, MERGE)


def fork_join() -> tuple[Launch, ...]:
    """Four kernels: a stem, two branches on streams 8 and 9 that read x, and a merge that reads what both write."""
    return KERNELS


@check
def check_waits(program: Sequence[Call]) -> str | None:
    """A program of the four kernels of :func:`fork_join`, in which events order what has to be ordered."""
    launched = [call for call in program if isinstance(call, Launch)]
    if sorted(launched) != sorted(KERNELS):
        return "launch each of the four kernels once, and change nothing in them."
    if any(isinstance(call, Synchronize) for call in program):
        return "it is ordered, but by making Python wait: use Record and Wait, which let the GPU wait."
    trace = simulate([*program, Synchronize()])
    if races := trace.about["races"]:
        return f"{races[0]}. {len(races)} such pair{'s' * (len(races) > 1)} left."
    if not overlap_ns(on_gpu(trace)):
        return "nothing is left to chance, but left and right do not overlap: one waits for the other without a reason."
    return None


@check
def check_at_once(at_once: Callable[[int, int, int], Any]) -> str | None:
    """``at_once(blocks, sms, per_sm)``: how many equal kernels, on streams of their own, run whole at the same time."""
    cases: list[tuple[tuple[Any, ...], float, str]] = [
        ((33, 132, 1), 4, "132 SMs with room for a block each hold 4 kernels of 33 blocks."),
        ((10, 46, 2), 9, "46 SMs with room for 2 blocks each hold 92 blocks: 9 kernels of 10, and a part of one."),
        ((264, 132, 1), 1, "a kernel with more blocks than fit still runs: one at a time, in several waves."),
    ]
    return first_wrong(at_once, cases)
