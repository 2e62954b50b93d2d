"""Traces: events in lanes on one clock. Pure numpy, no torch."""

from kit.trace.columns import Event, Lane, Trace, stack
from kit.trace.files import load_trace
from kit.trace.metrics import busy_ns, overlap_ns, sum_ns, wall_ns
from kit.trace.saving import save_trace
from kit.trace.synthetic import synthesise

__all__ = [
    "Event",
    "Lane",
    "Trace",
    "busy_ns",
    "load_trace",
    "overlap_ns",
    "save_trace",
    "stack",
    "sum_ns",
    "synthesise",
    "wall_ns",
]
