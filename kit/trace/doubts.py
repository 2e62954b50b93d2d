"""Notes on what in a trace is implausible or of unknown meaning. They change no number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from kit.text import time_text
from kit.trace.categories import DEVICE, Role, having, role_of
from kit.trace.columns import Trace
from kit.trace.gathering import short
from kit.trace.metrics import busy_ns, wall_ns
from kit.trace.rules import broken_rules
from kit.trace.walking import Cause, Pieces

_HOUR, _DAY = 3_600_000_000_000, 86_400_000_000_000  # ns


def doubts(trace: Trace, device_lanes: Sequence[int] = ()) -> Iterator[str]:
    """A sentence for each kind of problem.

    Args:
        trace: any.
        device_lanes: indices of the lanes of a device.
    """
    yield from _unknown(trace, device_lanes)
    yield from _overlapping(trace)
    yield from _far_away(trace)
    yield from broken_rules(trace)
    yield from of_clocks(trace)


def of_clocks(trace: Trace) -> Iterator[str]:
    """How exactly the clocks of other hosts are known, which the recorder writes to ``about["clocks_ns"]``."""
    origins = [trace.about, *dict(trace.about.get("traces") or {}).values()]
    for host, ns in {each for origin in origins for each in dict(origin.get("clocks_ns") or {}).items()}:
        yield (
            f"times on {host} are exact to ±{ns / 1e6:.3g} ms: its clock was compared with that of the caller's host "
            "by messages, and half of a round trip is in doubt."
        )


def _unknown(trace: Trace, device_lanes: Sequence[int]) -> Iterator[str]:
    """Events of unknown category that are in a device's lane, or have a correlation id as launches and kernels do."""
    tied = trace.ids("correlation") > 0
    nobody_knows = np.array([role_of(category) is None for category in trace.categories], bool)[trace.category]
    events = np.flatnonzero(nobody_knows & (tied | np.isin(trace.lane, list(device_lanes))))
    if len(events):
        names = [trace.categories[i] for i in np.unique(trace.category[events])]
        told = ", ".join(short(name) if name else "no category" for name in names[:10])
        yield (
            f"{len(events):,} of {len(trace):,} events belong to a device or are launches, but their category is "
            f"unknown ({told}): they count as other work, not as kernels, copies or launches."
        )


def _overlapping(trace: Trace) -> Iterator[str]:
    """Work that starts on a stream before the stream's previous work has ended."""
    work = having(trace, *DEVICE)
    work = work[np.lexsort((trace.start_ns[work], trace.lane[work]))]
    early = []
    for events in np.split(work, np.flatnonzero(np.diff(trace.lane[work])) + 1):
        reach = np.maximum.accumulate(trace.end_ns[events])
        early += events[1:][trace.start_ns[events[1:]] < reach[:-1]].tolist()
    if early:
        name, lane = trace.names[trace.name[early[0]]], trace.lanes[trace.lane[early[0]]]
        yield (
            f"{len(early):,} of {len(work):,} kernels and copies start before the previous work on their stream has "
            f"ended, the first of them {short(name)} on {lane.label}. A stream runs one kernel after the other, "
            "unless a kernel was launched to overlap the previous one (programmatic dependent launch); otherwise "
            "these times are wrong."
        )


def _far_away(trace: Trace) -> Iterator[str]:
    """Events more than an hour from most others, and further than a thousand times the length of these."""
    order = np.argsort(trace.start_ns, kind="stable")
    if not len(order):
        return
    start, reach = trace.start_ns[order], np.maximum.accumulate(trace.end_ns[order])
    first = np.flatnonzero(np.append(True, start[1:] - reach[:-1] > _HOUR))
    counts = np.diff(first, append=len(order))
    begin, end = start[first], reach[first + counts - 1]
    main = int(counts.argmax())
    distance = np.maximum(begin - end[main], begin[main] - end)
    far = np.flatnonzero(distance > 1000 * int(end[main] - begin[main]))
    far = far[far != main]
    if len(far):
        farthest = int(far[distance[far].argmax()])
        name = trace.names[trace.name[order[first[farthest]]]]
        side = "before" if farthest < main else "after"
        yield (
            f"{counts[far].sum():,} of {len(order):,} events are far from the others in time, the farthest of them "
            f"{short(name)}, {distance[farthest] / _DAY:,.1f} days {side} them. The wall time includes this gap."
        )


def waiting_doubts(trace: Trace, pieces: Pieces) -> Iterator[str]:
    """Long pieces of a critical path in spans whose thread may have waited for the operators of other threads.

    Long is a tenth of the wall time or more, with operators of other threads of the process for half of it. Python's
    functions are recorded with what they call, so it is known which of them wait.
    """
    length = pieces.end_ns - pieces.start_ns
    spans = (pieces.cause == Cause.CODE) & ~trace.of_category("python_function")[pieces.event]
    operators = trace.take(having(trace, Role.OPERATOR))
    doubted = []
    for i in np.flatnonzero(spans & (length >= 0.1 * wall_ns(trace))).tolist():
        window = int(pieces.start_ns[i]), int(pieces.end_ns[i])
        process = trace.lanes[pieces.lane[i]].process
        others = [n for n, lane in enumerate(trace.lanes) if n != pieces.lane[i] and lane.process == process]
        beside = operators.select(lanes=others, window=window)
        start, end = np.clip(beside.start_ns, *window), np.clip(beside.end_ns, *window)
        if 2 * busy_ns(replace(beside, start_ns=start, duration_ns=end - start)) >= length[i]:
            doubted.append(i)
    if doubted:
        names = dict.fromkeys(short(trace.names[i]) for i in trace.name[pieces.event[doubted]].tolist())
        yield (
            f"for {time_text(int(length[doubted].sum()))} of {', '.join(names)}, other threads ran operators. Whether "
            "its thread waited for them is not recorded: record with stacks=True, or put what waits into "
            'kit.span("name", "wait").'
        )
