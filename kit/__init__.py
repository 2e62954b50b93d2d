"""Branch Lab: run the parts of a network at the same time, see whether it helps, and why."""

import importlib
import os
from typing import Any

# The profiler's C++ side logs two lines a recording to stderr; it reads this once, when torch is first imported.
os.environ.setdefault("KINETO_LOG_LEVEL", "9")

_HOME = {  # public name -> the module that defines it: nothing is imported before it is used
    "Branches": "kit.regions",
    "Clip": "kit.clips",
    "Comparison": "kit.comparison",
    "Concat": "kit.regions",
    "KitError": "kit.errors",
    "Mean": "kit.regions",
    "Quiz": "kit.views.quiz",
    "Trace": "kit.trace",
    "compare": "kit.verbs",
    "clip_figure": "kit.views.pictures",
    "comparison_chart": "kit.views.figures",
    "confusion_chart": "kit.views.figures",
    "line_chart": "kit.views.figures",
    "load_trace": "kit.trace",
    "record": "kit.verbs",
    "save_trace": "kit.trace",
    "timeline": "kit.views.timeline",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'kit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
