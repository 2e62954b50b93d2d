"""Figures of which frames reach which outputs, and of counted and measured ratios; with their twins as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kit.labs.continual.quizzes import share_doubt
from kit.text import markdown_table
from kit.views.chart import Chart
from kit.views.figures import GRID, TEXT
from kit.views.palette import NEUTRAL, OKABE_ITO
from kit.workloads.continual import WindowVersusStep

LOOK = {**TEXT, "margin": {"l": 20, "r": 20, "t": 20, "b": 20}, "legend": {"orientation": "h", "y": 1.1}}


def influence_figure(found: NDArray[np.int8]) -> Chart:
    """A row for each step, a column for each frame: a square where the step's output depends on the frame.

    Args:
        found: from :func:`kit.labs.continual.influence`.
    """
    figure = Chart()
    outputs, frames = np.nonzero(found == 1)
    silent = [i for i, row in enumerate(found) if (row < 0).all()]
    square = {"symbol": "square", "size": 16, "color": OKABE_ITO[0]}
    figure.add_scatter(x=frames, y=outputs, mode="markers", marker=square, name="this step's output depends on it")
    cross = {"symbol": "x-thin-open", "size": 10, "color": OKABE_ITO[5]}
    figure.add_scatter(x=silent, y=silent, mode="markers", marker=cross, name="the step gives no output")
    axis = {"dtick": 1, **GRID, "zeroline": False}
    figure.update_layout(
        **LOOK,
        height=140 + 24 * len(found),
        xaxis={"title": _title("input frame"), **axis},
        yaxis={"title": _title("step"), "range": [len(found) - 0.3, -0.7], **axis},
    )
    return figure


def influence_table(found: NDArray[np.int8]) -> str:
    """The same as Markdown: the frames that the output of each step depends on."""
    frames = ["no output" if row.min() < 0 else ", ".join(map(str, row.nonzero()[0])) for row in found]
    head = ("step", *map(str, range(len(found))))
    return markdown_table(head, "l" * len(head), [("frames", *frames)])


def ratios_chart(found: Mapping[str, WindowVersusStep]) -> Chart:
    """The counted and the measured ratio, window / step, of each of these; the measured one with its interval."""
    figure, names = Chart(), list(found)
    counted = [each.counted for each in found.values()]
    figure.add_scatter(x=names, y=counted, mode="markers", marker_symbol="diamond", name="MACs, counted")
    decided = [name for name, each in found.items() if not share_doubt(each)]
    others = [name for name in names if name not in decided]
    for name, chosen, look in (
        ("time, measured [95%]", decided, {}),
        ("time, decides nothing", others, {"symbol": "circle-open", "color": NEUTRAL}),
    ):
        ratios = [found[each].measured for each in chosen]
        bars = {"array": [r.high - r.estimate for r in ratios], "arrayminus": [r.estimate - r.low for r in ratios]}
        if ratios:
            y = [r.estimate for r in ratios]
            figure.add_scatter(x=chosen, y=y, error_y=bars, mode="markers", marker=look, name=name)
    figure.update_traces(marker_size=10)
    axis = {"type": "log", "tickvals": [2**i for i in range(9)], "title": _title("window / step"), **GRID}
    xaxis = {**GRID, "categoryorder": "array", "categoryarray": names}
    figure.update_layout(**LOOK, height=420, colorway=OKABE_ITO, xaxis=xaxis, yaxis=axis)
    return figure


def _title(text: str) -> dict[str, Any]:
    return {"text": text, "font": {"size": 13}}
