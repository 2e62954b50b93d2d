"""The structure of a lane: nesting, sub-lanes for overlapping events, and when a lane is busy. Pure numpy.

Events of one thread nest like function calls. Events of one GPU stream, or of a lane for a whole pool, may overlap
without nesting; common viewers drop such events. Here they get their own rows, so that no event is hidden.
"""

from __future__ import annotations

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
    tree = _nest(trace)
    sublane, depth = np.zeros(len(trace), np.int32), np.zeros(len(trace), np.int32)
    depth[tree.order] = tree.depth
    events = tree.order[tree.tangled]
    sublane[events], depth[events] = _pack_overlapping(tree.begins[tree.tangled], tree.ends[tree.tangled])
    return Packing(sublane, depth)


def exclusive_ns(trace: Trace) -> Int64:
    """For each event, the nanoseconds in which it is the innermost event of its lane, shape ``(n,)``.

    The innermost event is the one that started last of those that are running, whether or not they nest. So each moment
    in which a lane is busy belongs to exactly one event.
    """
    tree = _nest(trace)
    own = trace.duration_ns.copy()
    inner = np.flatnonzero(tree.outer >= 0)
    np.subtract.at(own, tree.order[tree.outer[inner]], trace.duration_ns[tree.order[inner]])
    events = tree.order[tree.tangled]
    own[events] = _uncovered(trace.lane[events], trace.start_ns[events], trace.end_ns[events])
    return own


def busy_intervals(trace: Trace, which: NDArray[np.bool_]) -> tuple[Int32, Int64, Int64]:
    """When each lane is busy with the events in ``which``: disjoint intervals, as columns lane, start, end."""
    order = ordered_by(trace.lane, trace)
    order = order[which[order]]
    begins, ends = _end_to_end(trace, order)
    first = np.flatnonzero(begins > np.concatenate([[-1], np.maximum.accumulate(ends)[:-1]])[: len(order)])
    last = np.maximum.reduceat(trace.end_ns[order], first) if len(first) else trace.end_ns[:0]
    return trace.lane[order[first]], trace.start_ns[order[first]], last


def by_lane(trace: Trace) -> list[Int64]:
    """The indices of each lane's events, sorted by start; for equal starts the longest first."""
    order = ordered_by(trace.lane, trace)
    bounds = np.searchsorted(trace.lane[order], np.arange(len(trace.lanes) + 1))
    return np.split(order, bounds)[1:-1]  # what is before the first lane, and after the last, is nothing


def ordered_by(key: NDArray[np.integer[Any]], trace: Trace) -> Int64:
    """The order of events by a non-negative key, then by start; for equal starts the longest first."""
    start, duration = trace.start_ns, trace.duration_ns
    if np.any((start[1:] < start[:-1]) | ((start[1:] == start[:-1]) & (duration[1:] > duration[:-1]))):
        return np.lexsort((-duration, start, key))
    few = len(key) == 0 or int(key.max()) < 2**15  # then numpy sorts in linear time
    return np.argsort(key.astype(np.int16) if few else key, kind="stable")


def depths(trace: Trace) -> Int32:
    """The row of each event inside its lane, shape ``(n,)``: nesting depth, plus the rows of the sub-lanes above.

    No two events of one lane and row overlap, and an event is always below its parent.
    """
    sublane, rows = pack(trace)
    if sublane.any():
        part, first = _numbered(trace.lane, sublane)
        heights = np.zeros(len(first), np.int64)
        np.maximum.at(heights, part, rows + 1)
        above = np.cumsum(heights) - heights
        lane = trace.lane[first]  # ascending
        of_lane = np.searchsorted(lane, lane)  # the first part of the same lane
        rows += (above - above[of_lane])[part].astype(np.int32)
    return rows


def parents(trace: Trace) -> Int64:
    """The index of each event's parent in its sub-lane, shape ``(n,)``; -1 if it has none."""
    parent = np.full(len(trace), -1, np.int64)
    sublane, depth = pack(trace)
    order = ordered_by(_numbered(trace.lane, sublane)[0] if sublane.any() else trace.lane, trace)
    outer = _one_level_up(depth[order])
    inner = np.flatnonzero(outer >= 0)
    parent[order[inner]] = order[outer[inner]]
    return parent


class _Tree(NamedTuple):
    """All lanes as call trees; columns are by lane, start and length."""

    order: Int64  # index of the event in the trace
    begins: Int64  # see _end_to_end
    ends: Int64
    depth: Int32  # how many earlier events of its lane are still open when it starts
    outer: Int64  # place in this order of the last event before it that is one level up, or -1
    tangled: Int64  # places in this order of what overlaps without nesting, and of all that is chained to it


def _nest(trace: Trace) -> _Tree:
    order = ordered_by(trace.lane, trace)
    begins, ends = _end_to_end(trace, order)
    depth = _open_before(begins, ends)
    outer = _one_level_up(depth)
    crosses = (outer >= 0) & (ends > ends[outer])
    island = np.cumsum(depth == 0)  # between two of them, nothing of the lane is open
    tangled = np.flatnonzero(np.isin(island, island[crosses]))
    return _Tree(order, begins, ends, depth, outer, tangled)


def _end_to_end(trace: Trace, order: Int64) -> tuple[Int64, Int64]:
    """Starts and ends as ranks on one axis, one lane after the other: only their order has a meaning."""
    start, end = trace.start_ns[order], trace.end_ns[order]
    if not len(order):
        return start, end
    first, last = int(start.min()), int(end.max())
    begins, ends, length = start - first, end - first, last - first + 1
    if length * len(trace.lanes) > np.iinfo(np.int64).max:
        times, both = np.unique(np.concatenate([start, end]), return_inverse=True)
        begins, ends, length = both[: len(start)], both[len(start) :], len(times)
    offset = trace.lane[order].astype(np.int64) * length
    return begins + offset, ends + offset


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


def _one_level_up(depth: Int32) -> Int64:
    """The place of the last event before each one that is one level up, or -1."""
    n, level = len(depth), depth.astype(np.int64)
    outer = np.full(n, -1, np.int64)
    by_level = np.argsort(level.astype(np.int16) if level.max(initial=0) < 2**15 else level, kind="stable")
    place = level[by_level] * n + by_level
    inner = by_level[np.count_nonzero(level == 0) :]
    outer[inner] = by_level[np.searchsorted(place, (level[inner] - 1) * n + inner) - 1]
    return outer


def _numbered(lane: Int32, sublane: Int32) -> tuple[Int64, Int64]:
    """All sub-lanes, numbered in order: the number of each event's sub-lane, and one event of each sub-lane."""
    key = lane.astype(np.int64) * (int(sublane.max()) + 1) + sublane
    _, first, number = np.unique(key, return_index=True, return_inverse=True)
    return number, first


def _pack_overlapping(start: Int64, end: Int64) -> tuple[Int32, Int32]:
    """Sub-lane and depth of events sorted by start, the longest first: each goes into the first sub-lane that fits.

    An event fits a sub-lane if it ends before the innermost open event there. A tree finds the first such sub-lane: a
    node holds the latest end that any sub-lane below it can take.
    """
    free = np.iinfo(np.int64).max
    leaves = 1 << int(_open_before(start, end).max(initial=0)).bit_length()  # one more than are ever open at least
    tree, open_ends = [free] * (2 * leaves), [list[int]() for _ in range(leaves)]
    sublane: list[int] = []
    depth: list[int] = []
    ends, closing, closed = end.tolist(), np.argsort(end, kind="stable").tolist(), 0

    def settle(place: int) -> None:
        """Update the latest end of a sub-lane, up to the root."""
        node, value = leaves + place, open_ends[place][-1] if open_ends[place] else free
        while node and tree[node] != value:
            tree[node] = value
            if node > 1:
                value = max(value, tree[node ^ 1])
            node >>= 1

    for i, begins in enumerate(start.tolist()):
        while closing[closed] < i and ends[closing[closed]] <= begins:
            place = sublane[closing[closed]]
            open_ends[place].pop()
            settle(place)
            closed += 1
        node = 1
        while node < leaves:
            node = 2 * node + (tree[2 * node] < ends[i])
        place = node - leaves
        sublane.append(place)
        depth.append(len(open_ends[place]))
        open_ends[place].append(ends[i])
        settle(place)
    return np.array(sublane, np.int32), np.array(depth, np.int32)


def _uncovered(lane: Int32, start: Int64, end: Int64) -> list[int]:
    """For each event, sorted by lane and start, the time in which no later event of its lane runs."""
    own: list[int] = []
    covered: list[tuple[int, int]] = []  # by the later ones, the earliest interval last
    here = -1
    for place, begins, ends in zip(*(column[::-1].tolist() for column in (lane, start, end)), strict=True):
        if place != here:
            covered, here = [], place
        free, reach = ends - begins, ends
        while covered and covered[-1][0] < ends:
            left, right = covered.pop()
            free -= min(right, ends) - left
            reach = max(reach, right)
        covered.append((begins, reach))
        own.append(free)
    return own[::-1]
