"""Where events go on a page: nesting inside a lane, sub-lanes for overlaps, and thinned copies. Pure numpy.

Events of one thread nest like calls do. Events of one GPU stream, or of a lane that stands for a pool, may overlap
without nesting; the common viewers drop those. Here they get rows of their own, so that no event is ever hidden.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kit.reprs import one_line
from kit.trace.columns import Int32, Int64, Trace


@one_line
class Packing(NamedTuple):
    """The place of each event in its lane; columns have shape ``(n,)``."""

    sublane: Int32  # events of one sub-lane nest properly
    depth: Int32  # how many events of the same sub-lane are open around it


def pack(trace: Trace) -> Packing:
    """Nest the events of each lane by start and duration; one that overlaps without nesting opens a sub-lane."""
    sublane = np.zeros(len(trace), np.int32)
    depth = np.zeros(len(trace), np.int32)
    for events in by_lane(trace):
        if len(events):
            sublane[events], depth[events] = _pack_lane(trace.start_ns[events], trace.end_ns[events])
    return Packing(sublane, depth)


def by_lane(trace: Trace) -> list[Int64]:
    """The events of each lane, by start, of equal starts the longest first."""
    order = ordered_by(trace.lane, trace)
    bounds = np.searchsorted(trace.lane[order], np.arange(len(trace.lanes) + 1))
    return np.split(order, bounds)[1:-1]  # what is before the first lane, and after the last, is nothing


def ordered_by(key: NDArray[np.integer[Any]], trace: Trace) -> Int64:
    """The order of events by a key that is not negative, then by start, of equal starts the longest first."""
    start, duration = trace.start_ns, trace.duration_ns
    if np.any((start[1:] < start[:-1]) | ((start[1:] == start[:-1]) & (duration[1:] > duration[:-1]))):
        return np.lexsort((-duration, start, key))
    few = len(key) == 0 or int(key.max()) < 2**15  # then numpy sorts in linear time
    return np.argsort(key.astype(np.int16) if few else key, kind="stable")


def depths(trace: Trace) -> Int32:
    """The row of each event inside its lane, shape ``(n,)``: nesting depth, plus the rows of the sub-lanes above.

    No two events of one lane and row overlap, and an event is always below the one of its sub-lane that holds it.
    """
    sublane, depth = pack(trace)
    heights = np.zeros((len(trace.lanes), int(sublane.max(initial=0)) + 1), np.int32)
    np.maximum.at(heights, (trace.lane, sublane), depth + 1)
    above = np.cumsum(heights, axis=1, dtype=np.int32) - heights
    rows: Int32 = above[trace.lane, sublane] + depth
    return rows


def parents(trace: Trace) -> Int64:
    """The event right around each event in its own sub-lane, shape ``(n,)``; -1 where there is none."""
    parent = np.full(len(trace), -1, np.int64)
    sublane, depth = pack(trace)
    tree = trace.lane.astype(np.int64) * (int(sublane.max(initial=0)) + 1) + sublane
    order = ordered_by(tree, trace)
    # It is the last one before that is one level up.
    n, level = len(trace), depth[order].astype(np.int64)
    by_level = np.argsort(level.astype(np.int16) if level.max(initial=0) < 2**15 else level, kind="stable")
    place = level[by_level] * n + by_level
    inner = by_level[np.count_nonzero(level == 0) :]
    outer = by_level[np.searchsorted(place, (level[inner] - 1) * n + inner) - 1]
    parent[order[inner]] = order[outer]
    return parent


@one_line
class Level(NamedTuple):
    """A trace as seen from afar: single events, and blocks that stand for several; columns of equal length."""

    start_ns: Int64
    duration_ns: Int64
    event: Int64  # index in the trace: of the event, or of the longest one of a block
    weight: Int64  # how many events it stands for


def every_event(trace: Trace) -> Level:
    """The level that leaves nothing out."""
    n = len(trace)
    return Level(trace.start_ns, trace.duration_ns, np.arange(n, dtype=np.int64), np.ones(n, np.int64))


def thin(trace: Trace, row: Int32, limit: int) -> Level:
    """A level of at most ``limit`` parts, for pictures and copies of bounded size.

    Time is cut into bins. Of the events that start in one bin of one row, those shorter than a bin become one block,
    from the first one's start to the last one's end; the others stay themselves. So a level is exact down to a bin, no
    busy time ever looks idle, and the weights add up to all events. Where the rows alone are more than the limit, it
    holds the longest events only.
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
    """Which part of the level each event goes into, ascending as the events are by strip and start.

    As the events of a strip do not overlap, one longer than a bin is the last to start in it, and the only such one.
    """
    width = (int(offset.max()) + 1) / bins
    return 2 * (strip * bins + (offset / width).astype(np.int64)) + (duration >= width)


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
    depth: Int32 = (np.arange(n) - (ended - later_instants)).astype(np.int32)
    return depth


def _nests(end: Int64, depth: Int32) -> bool:
    """Whether every event ends within the last one before it that is one level up: whether the lane is a call tree."""
    by_depth = np.argsort(depth, kind="stable")
    levels = np.split(by_depth, np.cumsum(np.bincount(depth))[:-1])
    for parents, children in pairwise(levels):
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
        place = next((i for i, stack in enumerate(open_ends) if _nests_in(stack, begins, ends)), len(open_ends))
        if place == len(open_ends):
            open_ends.append([])
        stack = open_ends[place]
        sublane[i], depth[i] = place, len(stack)
        stack.append(ends)
    return sublane, depth


def _nests_in(stack: list[int], begins: int, ends: int) -> bool:
    """Close what has ended by ``begins``, and say whether an event until ``ends`` fits into what is still open."""
    while stack and stack[-1] <= begins:
        stack.pop()
    return not stack or stack[-1] >= ends
