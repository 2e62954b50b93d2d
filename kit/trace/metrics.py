"""How busy the lanes were: numbers with their textbook meaning, in integer nanoseconds."""

from __future__ import annotations

import numpy as np

from kit.trace.columns import Int64, Trace


def wall_ns(trace: Trace) -> int:
    """From the first start to the last end."""
    return int(trace.end_ns.max() - trace.start_ns.min()) if len(trace) else 0


def sum_ns(trace: Trace) -> int:
    """All durations added up: the work, if the events do not nest."""
    return int(trace.duration_ns.sum())


def busy_ns(trace: Trace) -> int:
    """Time during which at least one event runs (the union of the events)."""
    return _covered(trace.start_ns, trace.end_ns, 1)


def overlap_ns(trace: Trace) -> int:
    """Time during which at least two lanes are busy. Nested events of one lane do not count as overlap."""
    lanes = [_union(trace.select(lanes=[lane])) for lane in np.unique(trace.lane).tolist()]
    if len(lanes) < 2:
        return 0
    edges = np.concatenate(lanes)
    return int(_covered(edges[:, 0], edges[:, 1], 2))


def _covered(start: Int64, end: Int64, depth: int) -> int:
    """Total time covered by at least ``depth`` of the intervals."""
    times = np.concatenate([start, end])
    steps = np.concatenate([np.ones_like(start), -np.ones_like(end)])
    order = np.argsort(times, kind="stable")
    times, running = times[order], np.cumsum(steps[order])
    return int(np.diff(times)[running[:-1] >= depth].sum())


def _union(trace: Trace) -> Int64:
    """The trace's events merged into disjoint busy intervals, shape ``(k, 2)``."""
    order = np.argsort(trace.start_ns, kind="stable")
    start, reach = trace.start_ns[order], np.maximum.accumulate(trace.end_ns[order])
    first = np.concatenate([[True], start[1:] > reach[:-1]])
    last = np.concatenate([first[1:], [True]])
    return np.stack([start[first], reach[last]], axis=1)
