"""Medians of rounds with their intervals, where the values are no ratios."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Self

import numpy as np

from kit.measuring.statistics import median_interval
from kit.reprs import one_line


@one_line
class Median(NamedTuple):
    """The median of several rounds, with the interval in which that of their population lies with 95% confidence."""

    estimate: float
    low: float
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

    def __str__(self) -> str:
        return f"{self.estimate:.2f} [{self.low:.2f}, {self.high:.2f}]"

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


def _digits(number: float) -> str:
    return f"{float(f'{number:.3g}'):,g}"
