"""What in a trace is hard to believe, or not understood: sentences for its notes. They change no number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from kit.trace.categories import DEVICE, having, role_of
from kit.trace.columns import Trace

_HOUR, _DAY = 3_600_000_000_000, 86_400_000_000_000  # ns


def doubts(trace: Trace, device_lanes: Sequence[int] = ()) -> Iterator[str]:
    """A sentence for each kind of doubt.

    Args:
        trace: any.
        device_lanes: indices of the lanes that stand for a device.
    """
    yield from _unknown(trace, device_lanes)
    yield from _overlapping(trace)
    yield from _far_away(trace)


def _unknown(trace: Trace, device_lanes: Sequence[int]) -> Iterator[str]:
    """Events in a device's lane, or tied as only launches and what they launch are, of a category that nobody knows."""
    tied = trace.ids("correlation") > 0
    nobody_knows = np.array([role_of(category) is None for category in trace.categories], bool)[trace.category]
    events = np.flatnonzero(nobody_knows & (tied | np.isin(trace.lane, list(device_lanes))))
    if len(events):
        names = [trace.categories[i] for i in np.unique(trace.category[events])]
        told = ", ".join(_short(name) if name else "no category" for name in names[:10])
        yield (
            f"{len(events):,} of {len(trace):,} events are a device's or its launches, and of a category that is not "
            f"known here ({told}): they count as other work, not as kernels, copies or launches."
        )


def _overlapping(trace: Trace) -> Iterator[str]:
    """Work that starts on a stream before what is before it there has ended."""
    work = having(trace, *DEVICE)
    work = work[np.lexsort((trace.start_ns[work], trace.lane[work]))]
    early = []
    for events in np.split(work, np.flatnonzero(np.diff(trace.lane[work])) + 1):
        reach = np.maximum.accumulate(trace.end_ns[events])
        early += events[1:][trace.start_ns[events[1:]] < reach[:-1]].tolist()
    if early:
        name, lane = trace.names[trace.name[early[0]]], trace.lanes[trace.lane[early[0]]]
        yield (
            f"{len(early):,} of {len(work):,} kernels and copies start on a stream before the work before them there "
            f"has ended, the first of them {_short(name)} on {lane.label}. A stream does one thing after the other, "
            "unless a kernel was launched to overlap the one before it (programmatic dependent launch): else these "
            "times are wrong."
        )


def _far_away(trace: Trace) -> Iterator[str]:
    """Events that lie over an hour from most others, and a thousand times further than those are long."""
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
            f"{counts[far].sum():,} of {len(order):,} events lie far from the others, the farthest of them "
            f"{_short(name)}, {distance[farthest] / _DAY:,.1f} days {side} them. The wall time covers that too."
        )


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")
