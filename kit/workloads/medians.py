"""Medians of rounds with their intervals, where the values are no ratios."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kit.measuring.statistics import median_interval
from kit.reprs import one_line


@one_line
class Median(NamedTuple):
    """The median of some rounds, with the interval in which that of their population lies with 95% confidence."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.2f} [{self.low:.2f}, {self.high:.2f}]"


def median_of(samples: NDArray[np.float64]) -> Median:
    """The median of ``(rounds,)`` values, with its order-statistic interval.

    Raises:
        MeasureError: fewer than 6 rounds.
    """
    ordered = np.sort(samples)
    low, high = median_interval(len(ordered))
    return Median(float(np.median(ordered)), float(ordered[low]), float(ordered[high]))
