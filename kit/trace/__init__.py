"""Traces: events in lanes on one clock. Pure numpy, no torch."""

from kit.trace.columns import Event, Lane, Marks, Trace, stack
from kit.trace.files import load_trace
from kit.trace.links import check_launches, links
from kit.trace.merging import merge
from kit.trace.metrics import (
    breakdown,
    busy_ns,
    by_name,
    changes,
    concurrency,
    gaps,
    gpu_busy_ns,
    lane_concurrency,
    launch_delays,
    overlap_ns,
    self_ns,
    sum_ns,
    summary,
    utilisation,
    wall_ns,
)
from kit.trace.saving import save_trace

__all__ = [
    "Event",
    "Lane",
    "Marks",
    "Trace",
    "breakdown",
    "busy_ns",
    "by_name",
    "changes",
    "check_launches",
    "concurrency",
    "gaps",
    "gpu_busy_ns",
    "lane_concurrency",
    "launch_delays",
    "links",
    "load_trace",
    "merge",
    "overlap_ns",
    "save_trace",
    "self_ns",
    "stack",
    "sum_ns",
    "summary",
    "utilisation",
    "wall_ns",
]
