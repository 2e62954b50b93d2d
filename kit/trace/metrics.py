"""Metrics of a trace, with their textbook meaning, in integer nanoseconds.

Only work counts: annotations and a profiler's bookkeeping (:class:`~kit.trace.categories.Role`) count only for the wall
time, since it is the length of the recording. No metric takes longer than sorting the events.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kit.reprs import one_line
from kit.trace.categories import DEVICE, Role, having, is_work, roles
from kit.trace.columns import Int64, Trace
from kit.trace.lanes import busy_intervals, exclusive_ns


@one_line
class StepCurve(NamedTuple):
    """A step function of time: ``level[i]`` holds from ``time_ns[i]`` until ``time_ns[i + 1]``; the last level is 0."""

    time_ns: Int64
    level: Int64


@one_line
class Delays(NamedTuple):
    """How long each launch waited for the GPU; columns of equal length."""

    launch: Int64  # index of the event that launched
    start: Int64  # index of the event on the GPU
    delay_ns: Int64  # from the launch's start to the GPU's; negative only where the clocks disagree


def wall_ns(trace: Trace) -> int:
    """Nanoseconds from the first start to the last end, including a profiler's own events: the recording's length.

    >>> from kit.trace import Event, Lane, Trace, wall_ns
    >>> main = Lane(1, 1, "main")
    >>> wall_ns(Trace.build([Event("load", "task", 100, 300, main), Event("decode", "task", 500, 200, main)]))
    600
    """
    return int(trace.end_ns.max() - trace.start_ns.min()) if len(trace) else 0


def sum_ns(trace: Trace) -> int:
    """Sum of all durations: the work, if the events do not nest. It is the integral of :func:`concurrency`.

    >>> from kit.trace import Event, Lane, Trace, sum_ns
    >>> a, b = Lane(1, 1, "worker 0"), Lane(1, 2, "worker 1")
    >>> sum_ns(Trace.build([Event("left", "task", 0, 300, a), Event("right", "task", 200, 300, b)]))
    600
    """
    return int(trace.duration_ns[is_work(trace)].sum())


def busy_ns(trace: Trace) -> int:
    """Time during which at least one event runs (the union of the events).

    >>> from kit.trace import Event, Lane, Trace, busy_ns
    >>> a, b = Lane(1, 1, "worker 0"), Lane(1, 2, "worker 1")
    >>> busy_ns(Trace.build([Event("left", "task", 0, 300, a), Event("right", "task", 200, 300, b)]))
    500
    """
    return _length(_busy(trace))


def concurrency(trace: Trace) -> StepCurve:
    """How many events run at each moment. Nested events count each: see :func:`lane_concurrency` for lanes.

    >>> from kit.trace import Event, Lane, Trace, concurrency
    >>> a, b = Lane(1, 1, "worker 0"), Lane(1, 2, "worker 1")
    >>> curve = concurrency(Trace.build([Event("left", "task", 0, 300, a), Event("right", "task", 200, 300, b)]))
    >>> curve.time_ns.tolist(), curve.level.tolist()
    ([0, 200, 300, 500], [1, 2, 1, 0])
    """
    work = is_work(trace)
    return _steps(trace.start_ns[work], trace.end_ns[work])


def lane_concurrency(trace: Trace) -> StepCurve:
    """How many lanes are busy at each moment; nested events of one lane count once.

    >>> from kit.trace import Event, Lane, Trace, lane_concurrency
    >>> main = Lane(1, 1, "main")
    >>> nested = Trace.build([Event("outer", "task", 0, 300, main), Event("inner", "task", 100, 100, main)])
    >>> lane_concurrency(nested).level.max().item()  # one lane, however deep its events nest
    1
    """
    _, start, end = busy_intervals(trace, is_work(trace))
    return _steps(start, end)


def overlap_ns(trace: Trace) -> int:
    """Time during which at least two lanes are busy. Nested events of one lane do not count as overlap.

    >>> from kit.trace import Event, Lane, Trace, overlap_ns
    >>> a, b = Lane(1, 1, "worker 0"), Lane(1, 2, "worker 1")
    >>> overlap_ns(Trace.build([Event("left", "task", 0, 300, a), Event("right", "task", 200, 300, b)]))
    100
    """
    return time_at_least(lane_concurrency(trace), 2)


def time_at_least(steps: StepCurve, level: int) -> int:
    """How long a step function is at ``level`` or above, in nanoseconds."""
    return int(np.diff(steps.time_ns)[steps.level[:-1] >= level].sum())


def utilisation(trace: Trace) -> list[float]:
    """Per lane, the share (0 to 1) of the trace's wall time in which it is busy; 0 if the wall time is 0.

    >>> from kit.trace import Event, Lane, Trace, utilisation
    >>> a, b = Lane(1, 1, "worker 0"), Lane(1, 2, "worker 1")
    >>> utilisation(Trace.build([Event("left", "task", 0, 300, a), Event("right", "task", 200, 300, b)]))
    [0.6, 0.6]
    """
    wall = wall_ns(trace)
    lane, start, end = busy_intervals(trace, is_work(trace))
    busy = sums(lane.astype(np.int64), end - start, len(trace.lanes)).tolist()
    return [ns / wall if wall else 0.0 for ns in busy]


def gaps(trace: Trace) -> Int64:
    """Intervals between the first start and the last end in which nothing runs, in order, shape ``(k, 2)``.

    Their lengths and the busy time add up to the wall time.

    >>> from kit.trace import Event, Lane, Trace, gaps
    >>> main = Lane(1, 1, "main")
    >>> gaps(Trace.build([Event("load", "task", 0, 300, main), Event("decode", "task", 400, 200, main)])).tolist()
    [[300, 400]]
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

    >>> from kit.trace import Event, Lane, Trace, self_ns
    >>> main = Lane(1, 1, "main")
    >>> self_ns(Trace.build([Event("outer", "task", 0, 300, main), Event("inner", "task", 100, 150, main)])).tolist()
    [150, 150]
    """
    own = np.zeros(len(trace), np.int64)
    work = np.flatnonzero(is_work(trace))
    own[work] = exclusive_ns(trace.take(work))
    return own


def on_gpu(trace: Trace) -> Trace:
    """The events that run on a GPU or another device: kernels, memory copies and fills."""
    return trace.take(having(trace, *DEVICE))


def gpu_busy_ns(trace: Trace) -> int:
    """Time during which at least one GPU stream works.

    >>> from kit.simulating import Launch, Synchronize
    >>> from kit.trace import gpu_busy_ns
    >>> gpu_busy_ns(kit.simulate([Launch("a", blocks=40, block_ns=20_000), Synchronize()]))
    20000
    """
    return busy_ns(on_gpu(trace))


def launch_delays(trace: Trace) -> Delays:
    """The time from each launch on the CPU to the start of its work on the GPU, matched by correlation id.

    If several launches have the same id, the first counts; GPU work without a recorded launch is left out.

    >>> from kit.simulating import Launch, Synchronize
    >>> from kit.trace import launch_delays
    >>> launch_delays(kit.simulate([Launch("a", blocks=40, block_ns=20_000), Synchronize()])).delay_ns.tolist()
    [7000]
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

    >>> from kit.trace import Event, Lane, Trace, breakdown
    >>> main = Lane(1, 1, "main")
    >>> events = [Event("aten::add", "cpu_op", 0, 300, main), Event("load", "task", 400, 100, main)]
    >>> {name: ns for name, ns in breakdown(Trace.build(events)).items() if ns}
    {'operators': 300, 'other': 100, 'idle': 100}
    """
    role = roles(trace)
    parts, before = {}, 0
    for place, name in enumerate(PARTS[:-1]):
        inside = role <= place  # of this part, or of one that counts before it
        covered = _length(_union(trace.start_ns[inside], trace.end_ns[inside]))
        parts[name] = covered - before
        before = covered
    return {**parts, "idle": wall_ns(trace) - before}


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


def sums(key: Int64, values: Int64, size: int) -> Int64:
    """The values added up by key, exactly."""
    totals = np.zeros(size, np.int64)
    np.add.at(totals, key, values)
    return totals
