"""Whether the rounds of a comparison allow a verdict: one rule for every conclusion that is drawn from it.

Other programs are not random noise. A program that runs during all rounds slows all of them, but not every approach by
the same factor: an operator whose threads wait for one that has no core loses most. An interval cannot show that. So a
verdict needs more than its interval: free cores, rounds that agree, and a ratio that is possible.
"""

from __future__ import annotations

from dataclasses import replace

from kit.errors import MeasureError
from kit.measuring.comparison import Comparison, Ratio, Row
from kit.measuring.factors import RowBreakdown, has_task_times
from kit.measuring.statistics import with_verdicts

BUSY = 0.25  # of the machine's cores: where others took more, nothing is decided
SCATTER = 2.0  # upper quartile by lower: a quartile ratio beyond this is no property of the model
ALL_THERE = 0.9  # share of the cores that independent work has to gain, for a machine that counts as whole all the same
NO_OVERLAP = 0.02  # share of the branches' time: side by side for less is one after the other
GAIN_ALONE = 1.25  # times as fast: more than that is not believed of branches that did not overlap


def gated(comparison: Comparison, *, scatter: float = SCATTER) -> Comparison:
    """The comparison with a doubt in each row whose rounds allow no verdict; its verdict is then ``not decided``.

    Args:
        scatter: largest quartile ratio of the rounds' times that allows a verdict. Give ``math.inf`` if the cause of
            the variation is known, such as another program that was started on purpose.
    """
    rows = (replace(row, doubt=doubt(comparison, row, scatter)) for row in comparison.rows)
    return replace(comparison, rows=tuple(rows))


def over(comparison: Comparison, name: str) -> Comparison:
    """The same rounds with another approach as the baseline; intervals and doubts are computed anew.

    A cold approach was measured in separate rounds beside the old baseline only: its speed-up is not known.

    Raises:
        UnknownNameError: no such row.
        MeasureError: the new baseline was not measured.
    """
    new, old = comparison[name], comparison.baseline
    if new.timing is None:
        raise MeasureError(f"{name} was not measured, so it cannot be the baseline: {new.reason}")
    rows = [replace(new, baseline=True, ratio=Ratio(1, 1, 1), paired_baseline=new.timing, decidable=True)]
    for row in comparison.rows:
        if row is not new:
            apart = row is not old and row.paired_baseline not in (None, old.timing)  # rounds of its own
            beside = None if apart else new.timing
            rows.append(replace(row, baseline=False, ratio=None, paired_baseline=beside, decidable=True))
    return gated(replace(comparison, rows=tuple(with_verdicts(rows))))


def doubt(comparison: Comparison, row: Row, scatter: float = SCATTER) -> str | None:
    """Why the rounds of this row allow no verdict, as a clause; None if they allow one.

    Args:
        scatter: largest quartile ratio of the rounds' times that allows a verdict.
    """
    if row.timing is None or row.ratio is None or row.baseline:
        return None
    if not row.decidable:
        return row.doubt  # too few rounds: :mod:`kit.measuring.statistics` says how many it takes
    found = _busy(comparison) or _scatter(row, scatter) or _beyond(comparison, row) or _without_overlap(row)
    return f"machine busy: {found}" if found else None


def _busy(comparison: Comparison) -> str | None:
    taken, scaling = comparison.taken, comparison.core_scaling
    if taken is None or taken.share <= BUSY:
        return None
    # In a container the counters can be those of the whole host, whose other cores are nobody's loss here. Where they
    # count our own cores only, nothing is forgiven: neighbours that slow one core and all cores alike leave the ratio
    # of the two as it was.
    whole = scaling is not None and scaling.low >= ALL_THERE * comparison.cores
    return None if whole and taken.counted > comparison.cores else str(taken)


def _scatter(row: Row, most: float) -> str | None:
    for name, timing in ((row.name, row.timing), ("the baseline", row.paired_baseline)):
        if timing is not None and timing.quartile_ratio > most:
            return f"timings of {name} vary a lot: the upper quartile is {timing.quartile_ratio:.1f} times the lower"
    return None


def _beyond(comparison: Comparison, row: Row) -> str | None:
    """A doubt if the result exceeds its bound, or the most that the cores can give."""
    if not has_task_times(row):
        return None
    excess = RowBreakdown(comparison, row).excess(comparison)
    if excess is None:
        return None
    return f"{excess.speed_up:.2f}x exceeds {excess.what}, {excess.limit:.2f}x"


def _without_overlap(row: Row) -> str | None:
    """A doubt if a concurrent approach is faster although its branches did not overlap."""
    if row.timing is None or row.ratio is None or row.rewritten or row.ratio.low <= GAIN_ALONE:
        return None
    turns = [turn for turn in row.timing.turns if turn is not None]
    if not turns or max(turn.lanes for turn in turns) < 2:
        return None
    overlaps = [turn.overlap for turn in turns if turn.overlap is not None]
    if len(overlaps) < len(turns) or sum(overlaps) > NO_OVERLAP * sum(turn.work for turn in turns):
        return None
    return f"{row.name} is {row.ratio.estimate:.2f}x as fast, although its branches did not run at the same time"
