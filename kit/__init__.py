"""Branch Lab: run the parts of a network at the same time, see whether it helps, and why."""

import importlib
import os
import sys
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # read once, by torch: its profiler else logs two lines a recording

_NAMES = {  # module -> the public names that it defines: nothing is imported before it is used
    "approaches": "Workload register",
    "clips": "Clip",
    "errors": "KitError",
    "executors": "Executor",
    "executors.cluster": "use_cluster",
    "explaining.explanation": "explain",
    "explaining.schedules": "schedule",
    "magic": "load_ipython_extension",
    "measuring.changes": "compare_results",
    "measuring.comparison": "Comparison load_comparison",
    "measuring.throughput": "throughput",
    "recorder": "recording",
    "regions": "Branches Concat Mean",
    "scheduling.links": "Link",
    "simulating": "simulate",
    "spans": "collect span",
    "trace": "Trace load_trace save_trace",
    "transforms": "Transform",
    "verbs": "branched compare graph record",
    "views.figures": "comparison_chart confusion_chart line_chart",
    "views.graph_picture": "graph_picture",
    "views.pictures": "clip_figure",
    "views.player": "clip_player",
    "views.playground": "playground",
    "views.quiz": "Quiz",
    "views.tensorboard": "tensorboard",
    "views.timeline": "timeline",
    "views.why": "waterfall",
}
_HOME = {name: f"kit.{module}" for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_HOME)
__dir__ = __all__.copy  # what Tab offers


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'kit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


if shell := getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)():  # a table may have a button there
    shell.display_formatter.ipython_display_formatter.for_type_by_name(
        "kit.measuring.comparison", "Comparison", lambda table: importlib.import_module("kit.views.again").show(table)
    )
