"""Medians of rounds with their intervals, where the values are no ratios."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple, Self

import numpy as np

from kit.measuring.statistics import MIN_ROUNDS, median_interval
from kit.reprs import one_line


@one_line
class Median(NamedTuple):
    """The median of several rounds, with its 95% confidence interval.

    With fewer than six values there is no such interval: it is NaN, and is not shown.
    """

    estimate: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """The median of one value for each round."""
        rounds = np.sort(np.array(list(values), float))
        if len(rounds) < MIN_ROUNDS:
            return cls(float(np.median(rounds)), math.nan, math.nan)
        low, high = median_interval(len(rounds))
        return cls(float(np.median(rounds)), float(rounds[low]), float(rounds[high]))

    def __str__(self) -> str:
        return self._text("{:.2f}".format)

    def over(self, other: Median) -> Median:
        """This median / another one, with an interval that holds even if the two are not independent."""
        return Median(self.estimate / other.estimate, self.low / other.high, self.high / other.low)

    @property
    def ms(self) -> str:
        """As milliseconds: ``5.12 ms [4.98, 5.3]``."""
        return self._text(_digits, " ms")

    @property
    def times(self) -> str:
        """As a factor: ``1.35x [1.31, 1.4]``."""
        return self._text(_digits, "x")

    @property
    def number(self) -> str:
        """As a rate: ``183 [170, 190]``."""
        return self._text("{:,.0f}".format)

    @property
    def percent(self) -> str:
        """As a share: ``72% [70%, 75%]``."""
        return self._text("{:.0%}".format)

    def _text(self, shown: Callable[[float], str], unit: str = "") -> str:
        interval = "" if math.isnan(self.low) else f" [{shown(self.low)}, {shown(self.high)}]"
        return f"{shown(self.estimate)}{unit}{interval or ' (too few values for an interval)'}"


def _digits(number: float) -> str:
    return f"{float(f'{number:.3g}'):,g}"
