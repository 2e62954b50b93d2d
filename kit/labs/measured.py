"""Medians over all rounds, each with its 95% interval: no number of a sentence comes from a single trace."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Self

import numpy as np

from kit.measuring.comparison import Timing
from kit.measuring.statistics import median_interval
from kit.reprs import one_line


@one_line
class Median(NamedTuple):
    """The median of several rounds."""

    estimate: float
    low: float  # of its 95% interval
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """The median of one value for each round.

        Raises:
            MeasureError: fewer than 6 rounds.
        """
        rounds = np.sort(np.array(list(values), float))
        low, high = median_interval(len(rounds))
        return cls(float(np.median(rounds)), float(rounds[low]), float(rounds[high]))

    def over(self, other: Median) -> Median:
        """This by another, with an interval that holds whatever the two have in common."""
        return Median(self.estimate / other.estimate, self.low / other.high, self.high / other.low)

    @property
    def ms(self) -> str:
        """As milliseconds: ``5.12 ms [4.98, 5.3]``."""
        return f"{_digits(self.estimate)} ms [{_digits(self.low)}, {_digits(self.high)}]"

    @property
    def times(self) -> str:
        """As a factor: ``1.35x [1.31, 1.4]``."""
        return f"{_digits(self.estimate)}x [{_digits(self.low)}, {_digits(self.high)}]"

    @property
    def percent(self) -> str:
        """As a share: ``72% [70%, 75%]``."""
        return f"{self.estimate:.0%} [{self.low:.0%}, {self.high:.0%}]"


def call_ms(timing: Timing) -> Median:
    """Milliseconds of a call."""
    return Median.of(timing.samples_ns / 1e6)


def branch_ms(timing: Timing) -> dict[str, Median]:
    """Milliseconds of each branch in a call, by its name; nothing where no branch was recorded."""
    return {name: Median.of(rounds) for name, rounds in branch_rounds(timing).items()}


def branch_rounds(timing: Timing) -> dict[str, list[float]]:
    """Milliseconds of each branch in a call, a number for each round."""
    turns = [turn.tasks for turn in timing.turns if turn is not None]
    names = dict.fromkeys(name for tasks in turns for _region, name in tasks)
    return {
        name: [sum(ns for (_region, each), ns in tasks.items() if each == name) / 1e6 for tasks in turns]
        for name in names
    }


def overlap(timing: Timing) -> Median | None:
    """Of two branches: the share of the time in which any of them ran that both did; None where it is not known."""
    turns = [turn for turn in timing.turns if turn is not None and turn.overlap is not None and turn.work > 0]
    if not turns or len(turns) < len(timing.turns):
        return None
    return Median.of((turn.overlap or 0.0) / (turn.work - (turn.overlap or 0.0)) for turn in turns)


def outside_ms(timing: Timing) -> Median:
    """Milliseconds of a call outside the tasks of its busiest lane: handing out, waiting, merging, and the rest."""
    rounds = zip(timing.samples_ns, timing.turns, strict=True)
    return Median.of((sample - turn.busiest) / 1e6 for sample, turn in rounds if turn is not None)


def _digits(number: float) -> str:
    return f"{float(f'{number:.3g}'):,g}"
