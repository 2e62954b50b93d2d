"""What each kernel and copy of a GPU came after: the work before it on its stream, its launch, and other streams.

A kernel starts when its launch has reached the GPU, the work before it on its stream has ended, and every event that
its stream was told to wait for has happened (`CUDA programming guide, "Streams" and "Events"
<https://docs.nvidia.com/cuda/cuda-c-programming-guide/#asynchronous-concurrent-execution>`_). A recording has the first
two. Which stream was waited for is not in most recordings: here it is the other stream whose work ended last before the
start, and only if something says that there was a wait.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kit.reprs import one_line
from kit.trace.categories import DEVICE, having
from kit.trace.columns import Int64, Trace
from kit.trace.metrics import launch_delays

NEVER = int(np.iinfo(np.int64).min)  # a time before all others
_STREAM_WAIT = re.compile(r"(cuda|cu|hip)StreamWaitEvent")


@one_line
class DeviceWork(NamedTuple):
    """Kernels, copies and fills by stream and start; columns have shape ``(k,)``."""

    event: Int64  # index into the trace
    lane: Int64  # the stream: index into the trace's lanes
    device: Int64  # a number for each device
    launch: Int64  # the event that launched it, -1: not recorded
    launched_ns: Int64  # when that began; NEVER: not recorded
    free_ns: Int64  # when all earlier work of the stream had ended; NEVER: there was none
    released_by: Int64  # the event of another stream that it waited for after both, -1: none


def device_work(trace: Trace) -> DeviceWork:
    """The work of all devices, with what each came after.

    ``released_by`` is the event that ended last, of all streams of the same device, after ``launched_ns`` and
    ``free_ns`` and no later than the start. It counts only if both were launched by the same call, as the nodes of a
    graph are, or if the launching thread called ``cudaStreamWaitEvent`` since it last launched to this stream.
    """
    event = having(trace, *DEVICE)
    event = event[np.lexsort((-trace.duration_ns[event], trace.start_ns[event], trace.lane[event]))]
    lane, start, end = trace.lane[event].astype(np.int64), trace.start_ns[event], trace.end_ns[event]
    free = earlier(lane, end)
    launch_of = np.full(len(trace), -1, np.int64)
    delays = launch_delays(trace)
    launch_of[delays.start] = delays.launch
    launch = launch_of[event]
    launched = np.where(launch >= 0, trace.start_ns[launch], NEVER) if len(trace) else launch
    numbers: dict[tuple[str, int | str], int] = {}
    of_lane = [numbers.setdefault((each.group, each.process), len(numbers)) for each in trace.lanes]
    device = np.array(of_lane, np.int64)[lane]
    last = _ended_last(device, start, end, np.maximum(free, launched))
    same_launch = (launch >= 0) & (launch[last] == launch) if len(event) else last >= 0
    waited = _told_to_wait(trace, lane, launch)
    released = np.where((last >= 0) & (same_launch | waited), event[last] if len(event) else last, -1)
    return DeviceWork(event, lane, device, launch, launched, free, released)


def earlier(key: Int64, end: Int64) -> Int64:
    """For events sorted by key, the latest end of those before with the same key; NEVER for the first."""
    found = np.full(len(end), NEVER, np.int64)
    bounds = [*np.flatnonzero(np.diff(key, prepend=-1)).tolist(), len(end)]
    for begin, until in pairwise(bounds):
        found[begin + 1 : until] = np.maximum.accumulate(end[begin : until - 1])
    return found


def _ended_last(device: Int64, start: Int64, end: Int64, after: Int64) -> Int64:
    """For each, the place of what ended last on its device in ``(after, start]``, instants left out; -1: nothing."""
    found = np.full(len(start), -1, np.int64)
    for number in np.unique(device).tolist():
        here = np.flatnonzero(device == number)
        ended = here[end[here] > start[here]]
        ended = ended[np.argsort(end[ended], kind="stable")]
        if len(ended):
            last = ended[np.searchsorted(end[ended], start[here], side="right") - 1]
            found[here] = np.where((end[last] > after[here]) & (end[last] <= start[here]), last, -1)
    return found


def _told_to_wait(trace: Trace, lane: Int64, launch: Int64) -> NDArray[np.bool_]:
    """Whether the launching thread made a stream wait, after its launch before to the same stream."""
    found = np.zeros(len(launch), bool)
    waits = [i for i, name in enumerate(trace.names) if _STREAM_WAIT.match(name)]
    called = np.flatnonzero(np.isin(trace.name, waits))
    for thread in np.unique(trace.lane[called]).tolist():
        times = np.sort(trace.start_ns[called[trace.lane[called] == thread]])
        here = np.flatnonzero((launch >= 0) & (trace.lane[launch] == thread))
        here = here[np.lexsort((trace.start_ns[launch[here]], lane[here]))]
        at = trace.start_ns[launch[here]]
        before = earlier(lane[here], at)
        found[here] = np.searchsorted(times, at) > np.searchsorted(times, before)
    return found
