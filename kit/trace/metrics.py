"""Metrics of a trace, with their textbook meaning, in integer nanoseconds.

Only work counts: annotations and a profiler's bookkeeping (:class:`~kit.trace.categories.Role`) count only for the wall
time, since it is the length of the recording. No metric takes longer than sorting the events.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kit.reprs import one_line
from kit.trace.categories import DEVICE, Role, having, is_work, roles
from kit.trace.columns import KINDS, Int64, Trace
from kit.trace.lanes import busy_intervals, exclusive_ns


@one_line
class StepCurve(NamedTuple):
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
    self_ns: int  # without what runs inside them on the same lane; 0 for what is no work


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
    """Nanoseconds from the first start to the last end, including a profiler's own events: the recording's length."""
    return int(trace.end_ns.max() - trace.start_ns.min()) if len(trace) else 0


def sum_ns(trace: Trace) -> int:
    """Sum of all durations: the work, if the events do not nest. It is the integral of :func:`concurrency`."""
    return int(trace.duration_ns[is_work(trace)].sum())


def busy_ns(trace: Trace) -> int:
    """Time during which at least one event runs (the union of the events)."""
    return _length(_busy(trace))


def concurrency(trace: Trace) -> StepCurve:
    """How many events run at each moment. Nested events count each: see :func:`lane_concurrency` for lanes."""
    work = is_work(trace)
    return _steps(trace.start_ns[work], trace.end_ns[work])


def lane_concurrency(trace: Trace) -> StepCurve:
    """How many lanes are busy at each moment; nested events of one lane count once."""
    _, start, end = busy_intervals(trace, is_work(trace))
    return _steps(start, end)


def overlap_ns(trace: Trace) -> int:
    """Time during which at least two lanes are busy. Nested events of one lane do not count as overlap."""
    return time_at_least(lane_concurrency(trace), 2)


def time_at_least(steps: StepCurve, level: int) -> int:
    """How long a step function is at ``level`` or above, in nanoseconds."""
    return int(np.diff(steps.time_ns)[steps.level[:-1] >= level].sum())


def utilisation(trace: Trace) -> list[float]:
    """Per lane, the share (0 to 1) of the trace's wall time in which it is busy; 0 if the wall time is 0."""
    wall = wall_ns(trace)
    lane, start, end = busy_intervals(trace, is_work(trace))
    busy = _sums(lane.astype(np.int64), end - start, len(trace.lanes)).tolist()
    return [ns / wall if wall else 0.0 for ns in busy]


def gaps(trace: Trace) -> Int64:
    """Intervals between the first start and the last end in which nothing runs, in order, shape ``(k, 2)``.

    Their lengths and the busy time add up to the wall time.
    """
    if not len(trace):
        return np.zeros((0, 2), np.int64)
    busy = _busy(trace)
    begin = np.append(trace.start_ns.min(), busy[:, 1])
    end = np.append(busy[:, 0], trace.end_ns.max())
    return np.stack([begin, end], axis=1)[begin < end]


def self_ns(trace: Trace) -> Int64:
    """Self time: nanoseconds in which each event is the innermost work of its lane, ``(n,)``; 0 if it is not work.

    The innermost event is the one that started last of those that are running, also if events overlap without nesting.
    So the self times of a lane add up to its busy time.
    """
    own = np.zeros(len(trace), np.int64)
    work = np.flatnonzero(is_work(trace))
    own[work] = exclusive_ns(trace.take(work))
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


def changes(before: Trace, after: Trace) -> list[Change]:
    """How rewriting a model changed its operators: by name, the largest difference of self time first."""
    rows = [{row.name: row for row in by_name(trace.take(having(trace, Role.OPERATOR)))} for trace in (before, after)]
    none = NameRow("", "", 0, 0, 0)
    found = [
        Change(name, was.events, was.self_ns, now.events, now.self_ns)
        for name in rows[0] | rows[1]
        for was, now in [(rows[0].get(name, none), rows[1].get(name, none))]
    ]
    return sorted(found, key=lambda each: (-abs(each.after_ns - each.before_ns), each.name))


def on_gpu(trace: Trace) -> Trace:
    """The events that run on a GPU or another device: kernels, memory copies and fills."""
    return trace.take(having(trace, *DEVICE))


def gpu_busy_ns(trace: Trace) -> int:
    """Time during which at least one GPU stream works."""
    return busy_ns(on_gpu(trace))


def launch_delays(trace: Trace) -> Delays:
    """The time from each launch on the CPU to the start of its work on the GPU, matched by correlation id.

    If several launches have the same id, the first counts; GPU work without a recorded launch is left out.
    """
    tie = trace.ids("correlation")
    launches = having(trace, Role.RUNTIME)
    launches = launches[tie[launches] > 0]
    ids, first = np.unique(tie[launches], return_index=True)
    work = having(trace, *DEVICE)
    start = work[np.isin(tie[work], ids)]
    launch = launches[first[np.searchsorted(ids, tie[start])]]
    return Delays(launch, start, trace.start_ns[start] - trace.start_ns[launch])


PARTS = ("kernel", "memory", "runtime", "operators", "other", "idle")  # the roles that are work, and the rest


def breakdown(trace: Trace) -> dict[str, int]:
    """The parts of the wall time in nanoseconds; they add up to it exactly.

    Each moment counts for the first of these that runs then: ``kernel`` (GPU), ``memory`` (GPU copies and fills),
    ``runtime`` (calls into CUDA, HIP ...), ``operators`` (of the framework), ``other`` (any other event). The rest is
    ``idle``: nothing runs, or only an annotation, such as a step of the profiler.
    """
    role = roles(trace)
    parts, before = {}, 0
    for place, name in enumerate(PARTS[:-1]):
        inside = role <= place  # of this part, or of one that counts before it
        covered = _length(_union(trace.start_ns[inside], trace.end_ns[inside]))
        parts[name] = covered - before
        before = covered
    return {**parts, "idle": wall_ns(trace) - before}


def summary(trace: Trace, top: int = 10) -> dict[str, object]:
    """A summary of a trace as plain data, as ``python -m kit trace`` prints it.

    GPU numbers include all devices; the GPU wall time is from the first start to the last end on devices.
    """
    gpu = on_gpu(trace)
    kinds = np.zeros(0, np.int32) if trace.marks is None else trace.marks.kind
    return {
        "complete_events": len(trace),
        "instants": int(np.count_nonzero(kinds == KINDS.index("i"))),
        "counter_values": int(np.count_nonzero(kinds == KINDS.index("C"))),
        "lanes": len(trace.used_lanes),
        "wall_ns": wall_ns(trace),
        "busy_ns": busy_ns(trace),
        "sum_ns": sum_ns(trace),
        "overlap_ns": overlap_ns(trace),
        "gpu_events": len(gpu),
        "gpu_streams": len(np.unique(gpu.lane)),
        "gpu_wall_ns": wall_ns(gpu),
        "gpu_sum_ns": sum_ns(gpu),
        "gpu_busy_ns": busy_ns(gpu),
        "gpu_concurrent_ns": overlap_ns(gpu),
        "breakdown_ns": breakdown(trace),
        "top": [row._asdict() for row in by_name(trace)[:top]],
        "notes": list(trace.notes),
    }


def _busy(trace: Trace) -> Int64:
    """Disjoint intervals in which any work runs, in order, shape ``(k, 2)``."""
    work = is_work(trace)
    return _union(trace.start_ns[work], trace.end_ns[work])


def _steps(start: Int64, end: Int64) -> StepCurve:
    start, end = start[end > start], np.sort(end[end > start])
    times = np.concatenate([start, end])
    order = np.argsort(times, kind="stable")  # next to linear: of runs that are sorted already
    times, level = times[order], np.cumsum(np.where(order < len(start), 1, -1))
    last = np.concatenate([times[1:] > times[:-1], np.ones(min(1, len(times)), bool)])
    return StepCurve(times[last], level[last])


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
