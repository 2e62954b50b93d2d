"""Medians with their intervals, for the sentences of the notebooks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from kit.errors import MeasureError
from kit.measuring.comparison import Ratio
from kit.measuring.statistics import median_interval
from kit.reprs import one_line
from kit.text import milliseconds, times


@one_line
class Median(NamedTuple):
    """The median of some values, and its 95% interval; the interval is NaN where there are fewer than six values."""

    estimate: float
    low: float
    high: float

    def ms(self) -> str:
        """As milliseconds: ``5.4 ms [5.2, 5.9]``."""
        return self._text(milliseconds(self.estimate), *(milliseconds(each)[:-3] for each in self[1:]))

    def number(self) -> str:
        """As a rate: ``183 [170, 190]``."""
        return self._text(*(f"{each:,.0f}" for each in self))

    def percent(self) -> str:
        """As a share: ``92% [90%, 95%]``."""
        return self._text(*(f"{each:.0%}" for each in self))

    def _text(self, estimate: str, low: str, high: str) -> str:
        return f"{estimate} (too few values for an interval)" if math.isnan(self.low) else f"{estimate} [{low}, {high}]"


def median(values: ArrayLike | Sequence[float]) -> Median:
    """The median of values, and between which of them the median of all such values lies."""
    ordered = np.sort(np.asarray(values, float))
    try:
        low, high = median_interval(len(ordered))
    except MeasureError:
        return Median(float(np.median(ordered)), math.nan, math.nan)
    return Median(float(np.median(ordered)), float(ordered[low]), float(ordered[high]))


def speed(ratio: Ratio) -> str:
    """A speed-up in one direction: ``1.63x as fast [1.50, 1.70]``, or ``36x slower [30, 40]``."""
    if ratio.high >= 1:
        return f"{times(ratio.estimate)}x as fast [{times(ratio.low)}, {times(ratio.high)}]"
    slower, low, high = (_factor(1 / each) for each in (ratio.estimate, ratio.high, ratio.low))
    return f"{slower}x slower [{low}, {high}]"


def _factor(by: float) -> str:
    return f"{by:.2f}" if by < 10 else f"{by:,.0f}"
