"""Notebook 09's quizzes, and the answers that measurements give: an interval that leaves two open gives none."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kit.labs import conclusions
from kit.labs.conclusions import decided, row_of
from kit.labs.continual.steps import first_outputs
from kit.measuring.comparison import Comparison, Ratio
from kit.text import times
from kit.views.quiz import Quiz
from kit.workloads.continual import WindowVersusStep

COSTS, SHARES = (6.0, 12.0), (0.5, 0.85)  # where one option ends and the next begins
QUIZZES = {
    "reach": (
        "A convolution over time with kernel 3, padding 1 and stride 2: which frame brings the first output?",
        ["the first", "the second", "the third"],
    ),
    "cost": (
        "A 3-D Inception module and a window of 16 frames. The library's step, against the whole window, is ...",
        ["less than 6 times as fast", "6 to 12 times as fast", "more than 12 times as fast"],
    ),
    "share": (
        "A step of a small Inception module needs 1/16 of the MACs of a window of 16 frames. Which part of these 16x "
        "does the measured speed-up reach?",
        ["less than half", "half to 85%", "more than 85%"],
    ),
    "side": (
        "The two streams of one step on threads, against one after the other. The threads are ...",
        ["faster", "slower", "no difference found"],
    ),
}


def quiz(name: str) -> Quiz:
    """A quiz of the notebook; its answer is given by ``<name>_answer``."""
    return conclusions.quiz(QUIZZES, name)


def reach_answer(found: NDArray[np.int8]) -> str:
    """Which frame brought the first output, of what :func:`kit.labs.continual.influence` found."""
    return QUIZZES["reach"][1][first_outputs(found)]


def cost_answer(steps: Comparison) -> str:
    """How much faster the library's step is than the window, or why that is not known.

    Args:
        steps: from :func:`kit.workloads.step_parts.step_times`.
    """
    said, row = decided(steps, "library"), row_of(steps, "library")
    if row is None or row.ratio is None or said not in ("faster", "slower", "no difference found"):
        return said
    return _option(row.ratio, COSTS, QUIZZES["cost"][1], str(row.ratio))


def share_answer(found: WindowVersusStep) -> str:
    """Which part of the MACs ratio the speed-up reaches, or why that is not known."""
    said = share_doubt(found)
    return said or _option(found.realised, SHARES, QUIZZES["share"][1], percent(found.realised))


def side_answer(comparison: Comparison) -> str:
    """The verdict on threads, or why there is none."""
    return decided(comparison, "threads")


def share_doubt(found: WindowVersusStep) -> str:
    """Why nothing is concluded from the measured ratio by the counted one; nothing where it may be."""
    said = decided(found.comparison, "step")
    if said not in ("faster", "slower", "no difference found"):
        return said
    return "not decided: window and step ran on different kernels" if found.exchanges else ""


def percent(part: Ratio) -> str:
    """A part with its interval: ``62% [50%, 70%]``."""
    return f"{part.estimate:.0%} [{part.low:.0%}, {part.high:.0%}]"


def slower(ratio: Ratio) -> str:
    """A ratio below 1, told in the other direction: ``1.50x [1.20, 1.80] slower``."""
    return f"{times(1 / ratio.estimate)}x [{times(1 / ratio.high)}, {times(1 / ratio.low)}] slower"


def _option(ratio: Ratio, limits: Sequence[float], options: Sequence[str], shown: str) -> str:
    low, high = bisect(limits, ratio.low), bisect(limits, ratio.high)
    return options[low] if low == high else f"not decided: {shown} leaves more than one answer open"
