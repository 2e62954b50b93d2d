"""Paired ratios of interleaved rounds, their confidence intervals, and verdicts that hold for a whole table.

The median of the ratios gets an interval from order statistics alone, which assumes nothing about how timings are
distributed. Intervals widen with the rows of a table: the family-wise error rate is bounded. In a table of equally fast
approaches, at most one table in forty shows any difference.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kit.errors import MeasureError
from kit.measuring.comparison import SMALLEST_EFFECT, Ratio, Row, Timing

MIN_ROUNDS = 6  # below, even the full range of the ratios is no 95% interval: 1 - 2 / 2**5 = 0.94
ALPHA = 0.05  # how often equals may be called different, in a table of one row beside its baseline
FAMILY_ALPHA = 1 / 64  # how often any row of a table of several equals may be: the family-wise error rate
POWER = 0.9  # how often a difference as large as the minimum detectable effect is found


def speed_up(baseline: Timing, other: Timing) -> Ratio:
    """Median of the paired ratios ``baseline / other``, round by round, with its order-statistic interval."""
    ratios = np.sort(baseline.samples_ns / other.samples_ns)
    low, high = median_interval(len(ratios))
    return Ratio(float(np.median(ratios)), float(ratios[low]), float(ratios[high]))


def with_verdicts(rows: Sequence[Row]) -> list[Row]:
    """Rows with their ratios to the baseline in the same rounds, and with intervals corrected for the whole table.

    Holm's step-down procedure on exact sign tests: of m rows, the clearest gets an interval at confidence 1 - 1.6%/m (a
    single row: 95%). If that shows a difference, the next row gets one at 1 - 1.6%/(m - 1), and so on. From the first
    row without a difference on, the level stays the same. So the interval that is shown and the verdict always agree.

    Source: Holm, *A Simple Sequentially Rejective Multiple Test Procedure*, Scandinavian Journal of Statistics, 1979.
    """
    done = list(rows)
    ratios = {
        i: np.sort(row.paired_baseline.samples_ns / row.timing.samples_ns)
        for i, row in enumerate(rows)
        if row.timing is not None and row.paired_baseline is not None and not row.baseline
    }
    error, stopped = _error(len(ratios)) * len(ratios), False
    left = len(ratios)
    for i in sorted(ratios, key=lambda i: _sign_test(ratios[i])):
        done[i] = _judge(rows[i], ratios[i], error / left, least_rounds(len(ratios)))
        stopped |= done[i].ratio is None or done[i].verdict in ("no difference found", "not decided")
        left -= not stopped
    return done


def least_rounds(rows: int) -> int:
    """The fewest rounds that can show a difference in a table with this many rows besides the baseline."""
    return max(MIN_ROUNDS, math.ceil(-math.log2(_error(rows) / 2)))


def _error(rows: int) -> float:
    """The error level of the clearest of this many rows."""
    return FAMILY_ALPHA / rows if rows > 1 else ALPHA


def _judge(row: Row, ratios: NDArray[np.float64], error: float, needed: int) -> Row:
    try:
        low, high = median_interval(len(ratios), 1 - error)
    except MeasureError:  # all that these rounds can say, which is too little for a verdict
        ratio = Ratio(float(np.median(ratios)), float(ratios[0]), float(ratios[-1]))
        return replace(row, ratio=ratio, decidable=False, doubt=f"it needs {needed} rounds or more")
    ratio = Ratio(float(np.median(ratios)), float(ratios[low]), float(ratios[high]))
    return replace(row, ratio=ratio, minimum_detectable_effect=minimum_detectable_effect(ratios, low))


def _sign_test(ratios: NDArray[np.float64]) -> float:
    """p-value: the probability of this many ratios beyond 1% on one side if the true median is within 1% of 1."""
    n = len(ratios)
    most = max(int((ratios > 1 + SMALLEST_EFFECT).sum()), int((ratios < 1 - SMALLEST_EFFECT).sum()))
    return float(sum(math.comb(n, k) for k in range(most, n + 1)) / 2**n)


def minimum_detectable_effect(ratios: NDArray[np.float64], low: int) -> float:
    """The least relative change that such rounds would have found in 9 of 10 repetitions; 0.05 is 5%.

    It is exact for rounds that are resampled from these and shifted to another median: their interval's end is one of
    these ratios, with a binomial probability, so no simulation is needed. The result is never smaller than a change
    that the interval still allows.

    Args:
        ratios: sorted, ``(rounds,)``.
        low: index of the interval's lower end among them.
    """
    n, centre = len(ratios), float(np.median(ratios))
    end = bisect_left(range(n), POWER, key=lambda i: _at_least((i + 1) / n, n - low, n))
    scatter = float(
        max(ratios[end] / centre / (1 - SMALLEST_EFFECT), (1 + SMALLEST_EFFECT) * centre / ratios[-1 - end])
    )
    return max(scatter, float(ratios[-1 - low]), 1 / float(ratios[low])) - 1


def _at_least(p: float, k: int, n: int) -> float:
    """Probability of k or more successes in n, each with probability p."""
    if p >= 1:
        return 1.0
    choose = [math.lgamma(n + 1) - math.lgamma(j + 1) - math.lgamma(n - j + 1) for j in range(k, n + 1)]
    return sum(math.exp(c + j * math.log(p) + (n - j) * math.log1p(-p)) for j, c in enumerate(choose, start=k))


def median_interval(n: int, confidence: float = 0.95) -> tuple[int, int]:
    """Indices (low, high) into n sorted values, between which the true median lies with at least this confidence.

    The count of values below the median is binomial (n, 1/2), whatever the distribution: the interval is exact.

    Source: David & Nagaraja, *Order Statistics*, 3rd ed., section 7.1.

    Raises:
        MeasureError: n values are too few for this confidence.
    """
    tail, k = 0.0, -1  # the largest k with 2 * P(Bin <= k) <= 1 - confidence
    while k + 1 < n / 2 and 2 * (tail + math.comb(n, k + 1) / 2**n) <= 1 - confidence:
        k += 1
        tail += math.comb(n, k) / 2**n
    if k < 0:
        raise MeasureError(f"{n} rounds cannot give a {confidence:.0%} interval: measure more rounds.")
    return k, n - 1 - k


def interval(rounds: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """The 95% interval of the median of these values; their full range if they are too few for an interval."""
    values = np.sort(rounds)
    low, high = median_interval(len(values)) if len(values) >= MIN_ROUNDS else (0, len(values) - 1)
    return float(values[low]), float(values[high])


def mean_interval(ratios: NDArray[np.float64]) -> tuple[float, float]:
    """The 95% interval of the geometric mean of these ratios, all above 0; for one ratio, that ratio.

    Student's t of the logarithms. Source of its quantile: Abramowitz and Stegun, *Handbook of Mathematical Functions*,
    1964, 26.7.5.
    """
    logs, n, z = np.log(ratios), max(1, len(ratios) - 1), 1.96
    t = z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
    half = t * float(np.std(logs)) / math.sqrt(n)
    return math.exp(logs.mean() - half), math.exp(logs.mean() + half)


def widest_interval(samples_ns: Sequence[NDArray[np.float64]]) -> float:
    """The relative width of the widest interval of a ratio to the first runner's samples, each ``(rounds,)``."""
    first, *others = samples_ns
    ratios = [np.sort(first / other) for other in others]
    try:
        low, high = median_interval(len(first), 1 - _error(len(others)))
    except MeasureError:  # not enough rounds yet for so many rows
        return math.inf
    return max((float(each[high] / each[low]) - 1 for each in ratios), default=0.0)
