"""Traces: events in lanes on one clock. Pure numpy, no torch."""

from kit.trace.columns import Event, Lane, Marks, Trace, stack
from kit.trace.critical_path import CriticalPath, critical_path
from kit.trace.files import load_trace
from kit.trace.idling import Idle, LaunchBound, idle, launch_bound
from kit.trace.links import check_launches, links
from kit.trace.merging import merge
from kit.trace.metrics import (
    breakdown,
    busy_ns,
    concurrency,
    gaps,
    gpu_busy_ns,
    lane_concurrency,
    launch_delays,
    overlap_ns,
    self_ns,
    sum_ns,
    utilisation,
    wall_ns,
)
from kit.trace.names import Changes, Names, by_name, changes
from kit.trace.overview import summary
from kit.trace.saving import save_trace

__all__ = [
    "Changes",
    "CriticalPath",
    "Event",
    "Idle",
    "Lane",
    "LaunchBound",
    "Marks",
    "Names",
    "Trace",
    "breakdown",
    "busy_ns",
    "by_name",
    "changes",
    "check_launches",
    "concurrency",
    "critical_path",
    "gaps",
    "gpu_busy_ns",
    "idle",
    "lane_concurrency",
    "launch_bound",
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
