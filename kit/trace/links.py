"""Links between events: flow arrows, and launches with their kernels, as pairs. Pure numpy."""

from __future__ import annotations

import numpy as np

from kit.errors import TraceError
from kit.trace.columns import KINDS, Int64, Marks, Trace
from kit.trace.lanes import by_lane, parents
from kit.trace.metrics import launch_delays


def links(trace: Trace) -> Int64:
    """Pairs of events (indices), each once, shape ``(k, 2)``: the first one led to the second.

    They come from flow events, each of which belongs to the innermost event around its moment (`Trace Event Format,
    "Flow events" <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>`_), and from
    correlation ids, which link a launch to its work on a GPU.

    >>> from kit.simulating import Launch, Synchronize
    >>> from kit.trace import links
    >>> trace = kit.simulate([Launch("a", blocks=40, block_ns=20_000), Synchronize()])
    >>> [(trace.names[trace.name[i]], trace.names[trace.name[j]]) for i, j in links(trace)]
    [('cudaLaunchKernel', 'a')]
    """
    delays = launch_delays(trace)
    pairs = [np.stack([delays.launch, delays.start], axis=1)]
    if trace.marks is not None:
        pairs.append(_flows(trace, trace.marks))
    found = np.concatenate(pairs).astype(np.int64)
    return np.unique(found[(found[:, 0] != found[:, 1]) & (found.min(axis=1, initial=0) >= 0)], axis=0)


def _flows(trace: Trace, marks: Marks) -> Int64:
    """Pairs of events from each end of a flow to the next; -1 if no event contains an end."""
    ends = marks.of(np.flatnonzero((marks.kind < KINDS.index("i")) & (marks.key >= 0)))
    ends = ends.of(np.lexsort((ends.time_ns, ends.category, ends.name, ends.key)))
    follows = np.all([column[1:] == column[:-1] for column in (ends.key, ends.name, ends.category)], axis=0)
    follows &= ends.kind[1:] != KINDS.index("s")
    event = around(trace, ends)
    return np.stack([event[:-1], event[1:]], axis=1)[follows]


def around(trace: Trace, marks: Marks) -> Int64:
    """The innermost event that contains each mark on its lane, or -1."""
    parent, end = np.append(parents(trace), -1), np.append(trace.end_ns, np.iinfo(np.int64).max)
    lanes = by_lane(trace)
    event = np.full(len(marks.time_ns), -1, np.int64)
    order = np.argsort(marks.lane, kind="stable")
    for here in np.split(order, np.flatnonzero(np.diff(marks.lane[order])) + 1):
        lane = marks.lane[here[0]] if len(here) else -1
        if lane < 0:
            continue
        events = lanes[lane]
        last = np.searchsorted(trace.start_ns[events], marks.time_ns[here], side="right") - 1
        event[here] = np.where(last >= 0, np.append(events, -1)[last], -1)
    while np.any(over := end[event] < marks.time_ns):  # ended before: the one around it may not have
        event[over] = parent[event[over]]
    return event


def check_launches(trace: Trace) -> None:
    """Raise if GPU work starts before its launch on the CPU, according to their correlation ids.

    In a process that profiles CUDA a second time, kernels can be shifted in time or missing (`PyTorch issues 175790
    <https://github.com/pytorch/pytorch/issues/175790>`_ and `192021
    <https://github.com/pytorch/pytorch/issues/192021>`_).

    >>> from kit.simulating import Launch, Synchronize
    >>> from kit.trace import check_launches
    >>> check_launches(kit.simulate([Launch("a", blocks=40, block_ns=20_000), Synchronize()]))  # nothing is wrong

    Raises:
        TraceError: a kernel or copy starts before its launch; the message names the worst one.
    """
    delays = launch_delays(trace)
    early = int((delays.delay_ns < 0).sum())
    if early:
        worst = int(delays.delay_ns.argmin())
        kernel, launch = (trace.names[trace.name[int(column[worst])]] for column in (delays.start, delays.launch))
        raise TraceError(
            f"the GPU's clock does not fit the CPU's: {early:,} of {len(delays.delay_ns):,} kernels and copies start "
            f"before they were launched, {kernel} by {-int(delays.delay_ns[worst]) / 1000:,.3f} us before its "
            f"{launch}. Such a recording cannot be used: record again, in a new process."
        )
