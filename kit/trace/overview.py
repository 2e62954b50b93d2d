"""The numbers of a trace in one place."""

from __future__ import annotations

from typing import Any

import numpy as np

from kit.text import time_text
from kit.trace.columns import KINDS, Trace
from kit.trace.metrics import breakdown, busy_ns, on_gpu, overlap_ns, sum_ns, wall_ns
from kit.trace.names import Names, by_name

_MEANINGS = {  # of rows that do not say it themselves
    "lanes": "threads, and streams of GPUs",
    "wall": "from the first start to the last end",
    "busy": "at least one event runs",
    "sum": "all durations added up, also of events within others",
    "overlap": "at least two lanes are busy",
    "of wall": "each moment counts once, for the first of these that runs then",
}


def summary(trace: Trace, names: Names | None = None) -> dict[str, Any]:
    """A summary of a trace as plain data, as ``python -m kit trace`` prints it.

    GPU numbers include all devices; the GPU wall time is from the first start to the last end on devices.

    >>> from kit.trace import Event, Lane, Trace, summary
    >>> about = summary(Trace.build([Event("load", "task", 0, 300, Lane(1, 1, "main"))]))
    >>> about["complete_events"], about["wall_ns"]
    (1, 300)

    Args:
        names: of :func:`kit.trace.by_name`, whose first rows are included; None: they are made here, without shapes.
    """
    names = by_name(trace) if names is None else names
    gpu = on_gpu(trace)
    kinds = np.zeros(0, np.int32) if trace.marks is None else trace.marks.kind
    return {
        "complete_events": len(trace),
        "instants": int(np.count_nonzero(kinds == KINDS.index("i"))),
        "counter_values": int(np.count_nonzero(kinds == KINDS.index("C"))),
        "lanes": len(trace.used_lanes),
        "wall_ns": wall_ns(trace),
        "busy_ns": busy_ns(trace),
        "sum_ns": sum_ns(trace),
        "overlap_ns": overlap_ns(trace),
        "gpu_events": len(gpu),
        "gpu_streams": len(np.unique(gpu.lane)),
        "gpu_wall_ns": wall_ns(gpu),
        "gpu_sum_ns": sum_ns(gpu),
        "gpu_busy_ns": busy_ns(gpu),
        "gpu_concurrent_ns": overlap_ns(gpu),
        "breakdown_ns": breakdown(trace),
        "top": [row._asdict() for row in names[: names.SHOWN]],
        "notes": list(trace.notes),
    }


def in_words(numbers: dict[str, Any]) -> str:
    """The numbers of a summary as lines of text, without those of a GPU where there is none."""
    plain = {name: value for name, value in numbers.items() if isinstance(value, int)}
    plain |= {"of wall_ns": numbers["wall_ns"]} | {f"  {part}": ns for part, ns in numbers["breakdown_ns"].items()}
    absent = ["instants", "counter_values"]  # which most traces lack: nothing is said of them
    if not numbers["gpu_events"]:
        absent += [*(name for name in plain if name.startswith("gpu_")), "  kernel", "  memory", "  runtime"]
    plain = {name: value for name, value in plain.items() if value or name not in absent}
    timed = {name for name in plain if name.endswith("_ns") or name.startswith("  ")}
    rows = [(name.removesuffix("_ns"), time_text(n) if name in timed else f"{n:,}") for name, n in plain.items()]
    return "\n".join(f"{name:18} {text:9}  {_MEANINGS.get(name, '')}".rstrip() for name, text in rows)
