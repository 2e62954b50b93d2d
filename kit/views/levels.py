"""A simplified trace, for pictures and copies of limited size. No Jupyter."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kit.reprs import one_line
from kit.trace.columns import Int32, Int64, Trace


@one_line
class Level(NamedTuple):
    """A simplified trace: single events, and blocks that represent several events; columns of equal length."""

    start_ns: Int64
    duration_ns: Int64
    event: Int64  # index in the trace: of the event, or of the longest one of a block
    weight: Int64  # how many events it stands for


def every_event(trace: Trace) -> Level:
    """The level with every event."""
    n = len(trace)
    return Level(trace.start_ns, trace.duration_ns, np.arange(n, dtype=np.int64), np.ones(n, np.int64))


def thin(trace: Trace, row: Int32, limit: int) -> Level:
    """A level with at most ``limit`` parts, for pictures and copies of limited size.

    Time is cut into bins. Of the events that start in one bin of one row, those shorter than a bin become one block,
    from the first start to the last end; longer events are kept. So a level is exact to one bin, busy time never looks
    idle, and the weights add up to the number of events. If there are more rows than ``limit``, only the longest events
    are kept.
    """
    if len(trace) <= limit:
        return every_event(trace)
    offset = trace.start_ns - trace.start_ns.min()
    strip = trace.lane.astype(np.int64) * (int(row.max()) + 1) + row
    order = np.lexsort((offset, strip))
    rows, strip = np.unique(strip[order], return_inverse=True)
    bins, cell = limit // (2 * len(rows)), np.zeros(0, np.int64)
    if not bins:
        return Level(*(column[np.argsort(-trace.duration_ns, kind="stable")[:limit]] for column in every_event(trace)))
    finest = 2 * (int(offset.max()) + 1)  # half a nanosecond: events that start together stay together
    while not len(cell) or bins <= finest:  # as fine as the limit allows, within a factor of two
        finer = _cells(strip, offset[order], trace.duration_ns[order], bins)
        if len(cell) and np.count_nonzero(np.diff(finer)) >= limit:
            break
        cell, bins = finer, 2 * bins
    first = np.flatnonzero(np.diff(cell, prepend=-1))
    start = trace.start_ns[order][first]
    end = np.maximum.reduceat(trace.end_ns[order], first)
    longest = order[np.lexsort((-trace.duration_ns[order], cell))[first]]
    return Level(start, end - start, longest, np.diff(first, append=len(order)))


def _cells(strip: Int64, offset: Int64, duration: Int64, bins: int) -> Int64:
    """The part of the level that each event belongs to, ascending for events sorted by strip and start.

    Events of a strip do not overlap, so an event longer than a bin is the last one that starts in this bin.
    """
    width = (int(offset.max()) + 1) / bins
    return 2 * (strip * bins + (offset / width).astype(np.int64)) + (duration >= width)
