"""The charts and the control of notebook 01."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from kit.labs.conclusions import decided
from kit.labs.speed import rounds, size
from kit.measuring.comparison import Comparison
from kit.models import two_stream
from kit.trace import stack
from kit.views.chart import Chart
from kit.views.figures import GRID, TEXT, confusion_chart
from kit.views.palette import NEUTRAL, OKABE_ITO
from kit.views.timeline import Timeline, timeline
from kit.views.trials import Setting, Trials
from kit.workloads.recognition import HALVES
from kit.workloads.training import Evaluation

WIDTHS, SIZES = (4, 8, 16, 32, 64), (32, 64, 112, 224)
SHOWN = ("sequential", "threads", "processes")  # of the toy: an approach a thousand times as long would hide them


def calls_chart(calls_ms: Sequence[float]) -> Chart:
    """Calls one after the other, the first one marked, and the median of the later ones as a line.

    Moving the pointer over it puts a cursor on a call, with its time.
    """
    numbers, usual = list(range(1, len(calls_ms) + 1)), float(np.median(calls_ms[1:]))
    figure = Chart()
    figure.add_scatter(
        x=numbers[1:],
        y=list(calls_ms[1:]),
        mode="markers",
        name="a later call",
        marker={"color": OKABE_ITO[4], "size": 9},
        hovertemplate="%{y:.2f} ms",
    )
    figure.add_scatter(
        x=numbers[:1],
        y=list(calls_ms[:1]),
        mode="markers+text",
        name="the first call",
        text=["first call"],
        textposition="middle right",
        marker={"color": OKABE_ITO[5], "symbol": "star", "size": 16},
        hovertemplate="%{y:.2f} ms",
    )
    figure.add_scatter(
        x=[numbers[1], numbers[-1]],
        y=[usual, usual],
        mode="lines",
        name="median of the later calls",
        line={"color": NEUTRAL, "dash": "dash"},
        hoverinfo="skip",
    )
    cursor = {"showspikes": True, "spikemode": "across", "spikethickness": 1, "spikecolor": NEUTRAL}
    figure.update_layout(
        **TEXT,
        height=320,
        hovermode="x unified",
        margin={"l": 20, "r": 20, "t": 20, "b": 50},
        legend={"x": 0.98, "xanchor": "right", "y": 0.98},
        xaxis={"title": {"text": "call", "font": {"size": 13}}, **cursor, **GRID},
        yaxis={"title": {"text": "milliseconds", "font": {"size": 13}}, "rangemode": "tozero", **GRID},
    )
    return figure


def confusion_charts(result: Evaluation) -> list[Chart]:
    """What each stream took for what: texture and motion of the spatial stream, then of the temporal one."""
    return [
        confusion_chart(result.confusions[stream][half], names, f"{half}, told by the {stream} stream")
        for stream in ("spatial", "temporal")
        for half, names in HALVES.items()
    ]


def toy_timeline(comparison: Comparison) -> Timeline:
    """The timeline of those approaches whose calls are short enough to stand beside each other."""
    return timeline(stack({name: trace for name, trace in comparison.traces.items() if name in SHOWN}))


def crossing() -> Trials:
    """The control of the *when* question: a width and an input size, measured on threads and one after the other."""
    first = [(WIDTHS[0], SIZES[0]), (WIDTHS[-2], SIZES[size(3, 2)])]
    return Trials(_streams, ("width", WIDTHS), ("input size", SIZES), first=first, rounds=rounds(20))


def _streams(width: int, pixels: int) -> tuple[Any, Any]:
    return two_stream(width=width), (torch.rand(1, 3, pixels, pixels), torch.rand(1, 20, pixels, pixels))


def about_crossing(measured: Mapping[Setting, Comparison]) -> str:
    """Where threads were faster, where they were slower, and what is open, in Markdown."""
    found: dict[str, list[str]] = {}
    for (width, pixels), comparison in sorted(measured.items()):
        said = decided(comparison, "threads")
        found.setdefault(said.partition(":")[0], []).append(f"width {width} at {pixels} pixels")
    lines = [f"- **{said}**: {', '.join(places)}" for said, places in found.items()]
    if {"faster", "slower"} <= found.keys():
        lines.append("- Threads and sequential trade places between these: measure a size in between.")
    elif found.keys() & {"faster", "slower"}:
        lines.append("- They did not trade places here yet: measure other sizes.")
    if found and not found.keys() & {"faster", "slower", "no difference found"}:
        lines.append("- None of these sizes is decided: close other programs and measure them again.")
    return "Threads against `sequential`, at the sizes measured so far:\n\n" + "\n".join(lines)
