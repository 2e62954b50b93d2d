"""Notebook 05: streams, graphs and copies, on a GPU, in recordings, and simulated."""

from kit.labs.gpu.exercises import check_at_once, check_waits, fork_join
from kit.labs.gpu.explorer import Explorer
from kit.labs.gpu.programs import captured, copies, long_kernels, memory, orders, shown, sizes
from kit.labs.gpu.settled import about_predictions, about_sweep, conclusion, predictions
from kit.labs.gpu.sources import call_of, how
from kit.labs.gpu.sweep import sweep, sweep_chart
from kit.labs.gpu.told import (
    about_captured,
    about_concurrent,
    about_copies,
    about_idle,
    about_launches,
    about_orders,
    about_overlap,
    about_races,
    about_sizes,
    about_timing,
    concurrent_answer,
    copies_answer,
    launches_answer,
    order_answer,
    quiz,
    race_answer,
    sizes_answer,
    timing_answer,
)

__all__ = [
    "Explorer",
    "about_captured",
    "about_concurrent",
    "about_copies",
    "about_idle",
    "about_launches",
    "about_orders",
    "about_overlap",
    "about_predictions",
    "about_races",
    "about_sizes",
    "about_sweep",
    "about_timing",
    "call_of",
    "captured",
    "check_at_once",
    "check_waits",
    "conclusion",
    "concurrent_answer",
    "copies",
    "copies_answer",
    "fork_join",
    "how",
    "launches_answer",
    "long_kernels",
    "memory",
    "order_answer",
    "orders",
    "predictions",
    "quiz",
    "race_answer",
    "shown",
    "sizes",
    "sizes_answer",
    "sweep",
    "sweep_chart",
    "timing_answer",
]
