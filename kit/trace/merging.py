"""Traces of several processes on one clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kit.errors import TraceError
from kit.trace.columns import Lane, Trace, concatenate


def merge(traces: Sequence[Trace], anchors: Sequence[tuple[int, int]] | None = None) -> Trace:
    """All events of several traces, on the clock of the first.

    An anchor is the same instant on two clocks, ``(trace_ns, wall_ns)``: on the trace's clock (for example
    ``perf_counter_ns``) and on the wall clock (``time_ns``), which all traces share. Without ``anchors``, the anchors
    in the traces are used: :func:`save_trace` keeps them, and torch.profiler's files are on the wall clock. Times are
    never guessed. Lanes of two traces stay separate, even with the same name.

    >>> from kit.trace import Event, Lane, Trace, merge
    >>> parent = Trace.build([Event("send", "task", 1_000, 50, Lane(1, 1, "parent"))])
    >>> child = Trace.build([Event("work", "task", 20, 300, Lane(2, 2, "child"))])  # on a clock of its own
    >>> both = merge([parent, child], anchors=[(1_000, 5_000), (0, 5_030)])
    >>> both.start_ns.tolist()
    [1000, 1050]

    Raises:
        TraceError: there is no trace, or a trace has no anchor.
    """
    if not traces:
        raise TraceError("there are no traces to merge: give at least one.")
    if anchors is not None and len(anchors) != len(traces):
        raise TraceError(
            f"{len(traces)} traces need as many anchors, not {len(anchors)}: give (trace_ns, wall_ns) for each."
        )
    known = list(anchors) if anchors is not None else [trace.anchor for trace in traces]
    missing = [str(i) for i, anchor in enumerate(known) if anchor is None]
    if missing:
        raise TraceError(
            f"trace {', '.join(missing)} of {len(traces)} has no clock anchor, so its position on a common time axis "
            "is not known: give anchors=[(trace_ns, wall_ns), ...], each read at one instant on both clocks."
        )
    offsets = [wall - own for own, wall in (anchor for anchor in known if anchor is not None)]
    taken: set[Lane] = set()
    parts = []
    for number, (trace, offset) in enumerate(zip(traces, offsets, strict=True), start=1):
        lanes = tuple(
            lane if lane not in taken else lane._replace(label=f"{lane.label} of trace {number}")
            for lane in trace.lanes
        )
        taken |= set(lanes)
        parts.append(replace(trace.shifted(offset - offsets[0]), lanes=lanes))
    return replace(concatenate(parts), anchor=known[0])
