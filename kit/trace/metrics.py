"""How busy the lanes were: numbers with their textbook meaning, in integer nanoseconds.

Everything is vectorised: no metric takes longer than sorting the events.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kit.reprs import one_line
from kit.trace.columns import Int64, Trace
from kit.trace.lanes import by_lane, parents
from kit.trace.places import GPU


@one_line
class Steps(NamedTuple):
    """A step function of time: ``level[i]`` holds from ``time_ns[i]`` until ``time_ns[i + 1]``; the last level is 0."""

    time_ns: Int64
    level: Int64


@one_line
class NameRow(NamedTuple):
    """All events of one name."""

    name: str
    category: str
    events: int
    total_ns: int  # all durations added up
    self_ns: int  # without what runs inside them on the same lane


@one_line
class Change(NamedTuple):
    """All events of one name, in two traces."""

    name: str
    before: int  # events
    before_ns: int  # their self time
    after: int
    after_ns: int


@one_line
class Delays(NamedTuple):
    """How long each launch waited for the GPU; columns of equal length."""

    launch: Int64  # index of the event that launched
    start: Int64  # index of the event on the GPU
    delay_ns: Int64  # from the launch's start to the GPU's; negative only where the clocks disagree


def wall_ns(trace: Trace) -> int:
    """From the first start to the last end."""
    return int(trace.end_ns.max() - trace.start_ns.min()) if len(trace) else 0


def sum_ns(trace: Trace) -> int:
    """All durations added up: the work, if the events do not nest. It is the integral of :func:`concurrency`."""
    return int(trace.duration_ns.sum())


def busy_ns(trace: Trace) -> int:
    """Time during which at least one event runs (the union of the events)."""
    return _length(_union(trace.start_ns, trace.end_ns))


def concurrency(trace: Trace) -> Steps:
    """How many events run at each moment. Nested events count each: see :func:`lane_concurrency` for lanes."""
    return _steps(trace.start_ns, trace.end_ns)


def lane_concurrency(trace: Trace) -> Steps:
    """How many lanes are busy at each moment; nested events of one lane count once."""
    busy = np.concatenate([np.zeros((0, 2), np.int64), *busy_intervals(trace)])
    return _steps(busy[:, 0], busy[:, 1])


def overlap_ns(trace: Trace) -> int:
    """Time during which at least two lanes are busy. Nested events of one lane do not count as overlap."""
    return time_at_least(lane_concurrency(trace), 2)


def time_at_least(steps: Steps, level: int) -> int:
    """How long a step function is at this level or above."""
    return int(np.diff(steps.time_ns)[steps.level[:-1] >= level].sum())


def busy_intervals(trace: Trace) -> list[Int64]:
    """Per lane, when it is busy: disjoint intervals in order, shape ``(k, 2)`` of start and end."""
    return [_union(trace.start_ns[events], trace.end_ns[events]) for events in by_lane(trace)]


def utilisation(trace: Trace) -> list[float]:
    """Per lane, the share of the trace's wall time in which it is busy; 0 for all where the wall is 0."""
    wall = wall_ns(trace)
    return [_length(busy) / wall if wall else 0.0 for busy in busy_intervals(trace)]


def gaps(trace: Trace) -> Int64:
    """When nothing runs between the first start and the last end: intervals in order, shape ``(k, 2)``.

    Their lengths and the busy time add up to the wall time.
    """
    busy = _union(trace.start_ns, trace.end_ns)
    return np.stack([busy[:-1, 1], busy[1:, 0]], axis=1)


def self_ns(trace: Trace) -> Int64:
    """Of each event, the time in which none of its children runs, shape ``(n,)``.

    Children are the events right inside it on its lane. Of overlapping events of one lane, each sub-lane is a call tree
    of its own (see :mod:`kit.trace.lanes`). So self times add up to the busy time of every lane's sub-lanes.
    """
    own = trace.duration_ns.copy()
    parent = parents(trace)
    inner = np.flatnonzero(parent >= 0)
    np.subtract.at(own, parent[inner], trace.duration_ns[inner])
    return own


def by_name(trace: Trace) -> list[NameRow]:
    """Number, total and self time of each name and category, the largest self time first."""
    key = trace.category.astype(np.int64) * len(trace.names) + trace.name
    count = np.bincount(key)
    kinds = np.flatnonzero(count)
    total, own = (_sums(key, column, len(count))[kinds].tolist() for column in (trace.duration_ns, self_ns(trace)))
    rows = [
        NameRow(trace.names[kind % len(trace.names)], trace.categories[kind // len(trace.names)], n, all_ns, self_ns)
        for kind, n, all_ns, self_ns in zip(kinds.tolist(), count[kinds].tolist(), total, own, strict=True)
    ]
    return sorted(rows, key=lambda row: (-row.self_ns, row.name, row.category))


def changes(before: Trace, after: Trace, category: str = "cpu_op") -> list[Change]:
    """What rewriting a model did to its operators: by name, the largest difference of self time first."""
    rows = [{row.name: row for row in by_name(trace.select(categories=[category]))} for trace in (before, after)]
    none = NameRow("", category, 0, 0, 0)
    found = [
        Change(name, was.events, was.self_ns, now.events, now.self_ns)
        for name in rows[0] | rows[1]
        for was, now in [(rows[0].get(name, none), rows[1].get(name, none))]
    ]
    return sorted(found, key=lambda each: (-abs(each.after_ns - each.before_ns), each.name))


def on_gpu(trace: Trace) -> Trace:
    """What runs on a GPU: kernels, copies and fills of memory."""
    return trace.select(categories=GPU)


def gpu_busy_ns(trace: Trace) -> int:
    """Time during which at least one GPU stream works."""
    return busy_ns(on_gpu(trace))


def launch_delays(trace: Trace) -> Delays:
    """From each launch on the CPU to the start of what it launched on the GPU, tied by their correlation id.

    Of several that carry one id, the first launch counts; GPU work whose launch was not recorded is left out.
    """
    tie = trace.ids("correlation")
    launches = np.flatnonzero(trace.of_category("cuda_runtime", "cuda_driver", "privateuse1_runtime") & (tie > 0))
    ids, first = np.unique(tie[launches], return_index=True)
    work = np.flatnonzero(trace.of_category(*GPU))
    start = work[np.isin(tie[work], ids)]
    launch = launches[first[np.searchsorted(ids, tie[start])]]
    return Delays(launch, start, trace.start_ns[start] - trace.start_ns[launch])


PARTS = ("kernel", "memory", "runtime", "operators", "other", "idle")
_PART = {"kernel": 0, "gpu_memcpy": 1, "gpu_memset": 1, "cuda_runtime": 2, "cuda_driver": 2, "cpu_op": 3}
_FRAMES = ("Trace", "user_annotation", "gpu_user_annotation")  # around what happens, and no work themselves


def breakdown(trace: Trace) -> dict[str, int]:
    """Where the wall time went: parts that add up to it exactly.

    Each moment counts for the first of these that runs then: ``kernel`` (GPU), ``memory`` (GPU copies and fills),
    ``runtime`` (calls into CUDA or HIP), ``operators`` (of the framework), ``other`` (any other event). The rest is
    ``idle``: nothing runs, or an annotation alone, such as a step of the profiler.
    """
    rank = [-1 if name in _FRAMES else _PART.get(name, 4) for name in trace.categories]
    part = np.array(rank, np.int64)[trace.category]
    parts, before = {}, 0
    for place, name in enumerate(PARTS[:-1]):
        inside = (part >= 0) & (part <= place)  # of this part, or of one that counts before it
        covered = _length(_union(trace.start_ns[inside], trace.end_ns[inside]))
        parts[name] = covered - before
        before = covered
    return {**parts, "idle": wall_ns(trace) - before}


def summary(trace: Trace, top: int = 10) -> dict[str, object]:
    """The numbers of a trace at a glance, as plain data: what ``python -m kit trace`` prints."""
    gpu = on_gpu(trace)
    return {
        "complete_events": len(trace),
        "lanes": lanes_used(trace),
        "wall_ns": wall_ns(trace),
        "busy_ns": busy_ns(trace),
        "sum_ns": sum_ns(trace),
        "overlap_ns": overlap_ns(trace),
        "gpu_events": len(gpu),
        "gpu_streams": lanes_used(gpu),
        "gpu_sum_ns": sum_ns(gpu),
        "gpu_busy_ns": busy_ns(gpu),
        "gpu_concurrent_ns": overlap_ns(gpu),
        "breakdown_ns": breakdown(trace),
        "top": [row._asdict() for row in by_name(trace)[:top]],
        "notes": list(trace.notes),
    }


def lanes_used(trace: Trace) -> int:
    """How many lanes have a complete event."""
    return int(np.count_nonzero(np.bincount(trace.lane)))


def _steps(start: Int64, end: Int64) -> Steps:
    start, end = start[end > start], np.sort(end[end > start])
    times = np.concatenate([start, end])
    order = np.argsort(times, kind="stable")  # next to linear: of runs that are sorted already
    times, level = times[order], np.cumsum(np.where(order < len(start), 1, -1))
    last = np.concatenate([times[1:] > times[:-1], np.ones(min(1, len(times)), bool)])
    return Steps(times[last], level[last])


def _union(start: Int64, end: Int64) -> Int64:
    """Events merged into disjoint busy intervals, shape ``(k, 2)``."""
    if np.any(start[1:] < start[:-1]):
        order = np.argsort(start, kind="stable")
        start, end = start[order], end[order]
    reach = np.maximum.accumulate(end)
    first = np.concatenate([np.ones(min(1, len(start)), bool), start[1:] > reach[:-1]])
    last = np.concatenate([first[1:], np.ones(min(1, len(start)), bool)])
    return np.stack([start[first], reach[last]], axis=1)


def _length(intervals: Int64) -> int:
    return int((intervals[:, 1] - intervals[:, 0]).sum())


def _sums(key: Int64, values: Int64, size: int) -> Int64:
    """The values added up by key, exactly."""
    totals = np.zeros(size, np.int64)
    np.add.at(totals, key, values)
    return totals
