"""Where events go on a page: nesting inside a lane, sub-lanes for overlaps, and thinned copies. Pure numpy.

Events of one thread nest like calls do. Events of one GPU stream, or of a lane that stands for a pool, may overlap
without nesting; the common viewers drop those. Here they get rows of their own, so that no event is ever hidden.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kit.trace.columns import Int32, Int64, Trace


class Packing(NamedTuple):
    """The place of each event in its lane; columns have shape ``(n,)``."""

    sublane: Int32  # events of one sub-lane nest properly
    depth: Int32  # how many events of the same sub-lane are open around it


def pack(trace: Trace) -> Packing:
    """Nest the events of each lane by start and duration; one that overlaps without nesting opens a sub-lane."""
    sublane = np.zeros(len(trace), np.int32)
    depth = np.zeros(len(trace), np.int32)
    order = np.lexsort((-trace.duration_ns, trace.start_ns, trace.lane))
    bounds = np.searchsorted(trace.lane[order], np.arange(len(trace.lanes) + 1))
    for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        events = order[first:last]
        if len(events):
            sublane[events], depth[events] = _pack_lane(trace.start_ns[events], trace.end_ns[events])
    return Packing(sublane, depth)


def depths(trace: Trace) -> Int32:
    """The row of each event inside its lane, shape ``(n,)``: nesting depth, plus the rows of the sub-lanes above.

    No two events of one lane and row overlap, and an event is always below the one of its sub-lane that holds it.
    """
    if not len(trace):
        return np.zeros(0, np.int32)
    sublane, depth = pack(trace)
    heights = np.zeros((len(trace.lanes), int(sublane.max()) + 1), np.int32)
    np.maximum.at(heights, (trace.lane, sublane), depth + 1)
    above = np.cumsum(heights, axis=1, dtype=np.int32) - heights
    return above[trace.lane, sublane] + depth


def thin(trace: Trace, row: Int32, limit: int) -> Int64:
    """Indices, ascending, of at most ``limit`` events that look like all of them from afar.

    Time is cut into bins, and of the events of one lane and row that start in one bin the longest stays. As the events
    of a row do not overlap, every event longer than a bin stays: a thinned picture is exact down to the bin.
    """
    if len(trace) <= limit:
        return np.arange(len(trace), dtype=np.int64)
    offset = trace.start_ns - trace.start_ns.min()
    wall = int(offset.max()) + 1
    strip = trace.lane.astype(np.int64) * (int(row.max()) + 1) + row
    in_strips = np.lexsort((offset, strip))
    _, strip = np.unique(strip[in_strips], return_inverse=True)
    offset, duration = offset[in_strips], trace.duration_ns[in_strips]
    bins = 0  # doubled for as long as the events fit; 0 when the rows alone are more than the limit
    while (finer := max(1, 2 * bins)) <= limit and _runs(_cells(strip, offset, wall, finer)) <= limit:
        bins = finer
    if not bins:
        return np.sort(np.argsort(-trace.duration_ns, kind="stable")[:limit]).astype(np.int64)
    cell = _cells(strip, offset, wall, bins)
    longest_first = np.lexsort((-duration, cell))
    _, winners = np.unique(cell, return_index=True)  # cells are sorted, so each one's first place holds after lexsort
    return np.sort(in_strips[longest_first[winners]]).astype(np.int64)


def _cells(strip: Int64, offset: Int64, wall: int, bins: int) -> Int64:
    """The bin of each event, numbered through all strips; ascending when events are sorted by strip and offset."""
    return strip * bins + (offset / wall * bins).astype(np.int64)


def _runs(values: Int64) -> int:
    """How many different values an ascending column has."""
    return int(np.count_nonzero(np.diff(values))) + 1


def _pack_lane(start: Int64, end: Int64) -> tuple[Int32, Int32]:
    """Sub-lane and depth of one lane's events, which are sorted by start, the longest first."""
    depth = _open_before(start, end)
    if _nests(end, depth):
        return np.zeros(len(start), np.int32), depth
    return _pack_overlapping(start, end)


def _open_before(start: Int64, end: Int64) -> Int32:
    """How many earlier events are still open when each event starts, shape ``(n,)``."""
    n = len(start)
    ended = np.searchsorted(np.sort(end), start, side="right")
    # Of those that ended by then, instants at this very moment come later in the order: they are not earlier events.
    instants = np.concatenate([[0], np.cumsum(start == end)])
    same_start = np.searchsorted(start, start, side="right")
    later_instants = instants[same_start] - instants[:-1]
    return (np.arange(n) - (ended - later_instants)).astype(np.int32)


def _nests(end: Int64, depth: Int32) -> bool:
    """Whether every event ends within the last one before it that is one level up: whether the lane is a call tree."""
    by_depth = np.argsort(depth, kind="stable")
    levels = np.split(by_depth, np.cumsum(np.bincount(depth))[:-1])
    for parents, children in zip(levels[:-1], levels[1:], strict=True):
        parent = parents[np.searchsorted(parents, children) - 1]
        if np.any(end[children] > end[parent]):
            return False
    return True


def _pack_overlapping(start: Int64, end: Int64) -> tuple[Int32, Int32]:
    """As :func:`_pack_lane`, one event at a time: each goes into the first sub-lane where it nests."""
    sublane = np.zeros(len(start), np.int32)
    depth = np.zeros(len(start), np.int32)
    open_ends: list[list[int]] = []  # per sub-lane, the ends of the events that are still open
    for i, (begins, ends) in enumerate(zip(start.tolist(), end.tolist(), strict=True)):
        for lane, stack in enumerate(open_ends):
            while stack and stack[-1] <= begins:
                stack.pop()
            if not stack or stack[-1] >= ends:
                break
        else:
            lane, stack = len(open_ends), []
            open_ends.append(stack)
        sublane[i], depth[i] = lane, len(stack)
        stack.append(ends)
    return sublane, depth
