"""Plotly figures. Each function returns a figure and shows nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from kit.explaining.explanation import explain_all
from kit.measuring.comparison import Comparison, Row, Verdict
from kit.views.chart import Chart
from kit.views.palette import NEUTRAL, OKABE_ITO

TEXT = {"font": {"size": 13, "color": NEUTRAL}, "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)"}
GRID = {"gridcolor": "rgba(138,143,152,0.3)", "zerolinecolor": "rgba(138,143,152,0.5)"}
_LINE = 54  # characters of a line of a label
_SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "x", "star")
_LOOKS: dict[Verdict, tuple[str, str]] = {  # verdict -> colour and, as a second channel, marker
    "faster": (OKABE_ITO[2], "triangle-right"),
    "slower": (OKABE_ITO[5], "triangle-left"),
    "no difference found": (NEUTRAL, "circle"),
    "not decided": (NEUTRAL, "circle-open"),
    "wrong output": (OKABE_ITO[3], "x"),
}


def comparison_chart(comparison: Comparison) -> Chart:
    """Speed-up of every approach over the baseline: one point per round, the median, its 95% interval, and its bound.

    The axis is logarithmic: 2x as fast and 2x slower are equally far from 1. Rows that are not decided are grey, and
    their label says why. Rows with too few rounds for an interval show none.

    >>> from kit import models
    >>> model, inputs = models.toy_two_stream(), (torch.rand(1, 3, 25, 25), torch.rand(1, 2, 25, 25))
    >>> kit.comparison_chart(kit.compare(model, inputs, "sequential, threads", rounds=6, progress=False))
    Chart(speed-up over sequential (right is faster))
    """
    baseline = comparison.baseline
    figure, labels = Chart(), list[tuple[Row, str]]()
    for row, why in zip(comparison.rows, explain_all(comparison), strict=True):
        beside = row.paired_baseline or baseline.timing  # a cold approach has rounds of its own
        if beside is None or row.timing is None or row.ratio is None or row.baseline:
            continue
        rounds = beside.samples_ns / row.timing.samples_ns
        colour, symbol = _LOOKS[row.verdict]
        figure.add_scatter(
            x=rounds,
            y=[row.name] * len(rounds),
            mode="markers",
            marker={"color": colour, "opacity": 0.5, "size": 7},
            hovertemplate="one round: %{x:.3f}x<extra></extra>",
        )
        interval = {
            "type": "data",
            "symmetric": False,
            "array": [row.ratio.high - row.ratio.estimate],
            "arrayminus": [row.ratio.estimate - row.ratio.low],
            "thickness": 1 if row.verdict == "not decided" else 3,
            "width": 8,
        }
        figure.add_scatter(
            x=[row.ratio.estimate],
            y=[row.name],
            error_x=interval if row.decidable else None,
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 14, "line": {"width": 1, "color": "white"}},
            hovertemplate=f"{row.ratio_text}<extra>{row.name}</extra>",
        )
        labels.append((row, _label(row)))
        if (bounds := why.bounds) is not None:
            figure.add_scatter(
                x=[bounds.speed_up],
                y=[row.name],
                mode="markers",
                marker={"color": OKABE_ITO[4], "symbol": "line-ns-open", "size": 28, "line": {"width": 3}},
                hovertemplate=f"bound {bounds.speed_up:.2f}x, {why.reached}<extra>{row.name}</extra>",
            )
    figure.add_vline(x=1, line={"color": NEUTRAL, "dash": "dash"})
    # Plotly wants the logarithm for an annotation on a logarithmic axis, but not for a line.
    figure.add_annotation(x=0, y=1, yref="paper", yanchor="bottom", text=f"as fast as {baseline.name}", showarrow=False)
    ticks = ratio_ticks(np.concatenate([np.asarray(trace.x, float) for trace in figure.data] or [np.ones(1)]))
    for row, label in labels:
        _write_above(figure, row, label, ticks)
    figure.update_layout(
        **TEXT,
        height=110 + 70 * (len(labels) + 1),
        showlegend=False,
        margin={"l": 20, "r": 20, "t": 30, "b": 50},
        xaxis={
            "type": "log",
            "range": [np.log10(ticks[0]), np.log10(ticks[-1])],
            "tickvals": ticks,
            "ticktext": [f"{tick:g}x" for tick in ticks],
            "tickangle": 0,
            "title": {"text": f"speed-up over {baseline.name} (right is faster)", "font": {"size": 13}},
            **GRID,
        },
        yaxis={"range": [len(labels) - 0.5, -0.7], "automargin": True, **GRID},
    )
    return figure


def _label(row: Row) -> str:
    """The label over a row: the verdict in a few words, or why there is none."""
    if row.verdict != "not decided":
        return row.speed_text
    why = f"not decided: {row.doubt}" if row.doubt else row.verdict
    return "<br>".join(wrap(why, _LINE, max_lines=2, placeholder=" \N{HORIZONTAL ELLIPSIS}"))


def _write_above(figure: Chart, row: Row, label: str, ticks: Sequence[float]) -> None:
    """Write the label over a row's median, aligned left, right or centred so that it stays within the axis."""
    assert row.ratio
    at, first, last = (float(np.log10(value)) for value in (row.ratio.estimate, ticks[0], ticks[-1]))
    share = (at - first) / (last - first)
    near = 1 / 3 if len(label) > _LINE / 2 else 1 / 10  # to an end of the axis: as wide as half of the label
    side = "left" if share < near else "right" if share > 1 - near else "center"
    figure.add_annotation(x=at, y=row.name, xanchor=side, yanchor="bottom", yshift=10, text=label, showarrow=False)


def ratio_ticks(values: NDArray[np.float64]) -> list[float]:
    """At most a dozen round ratios that enclose the values and 1, since plotly's own are powers of ten or none."""
    low, high = min(0.95, float(values.min())), max(1.05, float(values.max()))
    ladders = (
        [1, 1.05, 1.1, 1.15],
        [1, 1.1, 1.2, 1.3, 1.5],
        [1, 1.25, 1.5, 2, 3],
        [1, 1.5, 2, 3, 5, 10],
        [1, 2, 5, 10, 20, 50, 100],
        [10.0**e for e in range(10)],
    )
    ladder = next((steps for steps in ladders if max(high, 1 / low) <= steps[-1]), ladders[-1])
    below = [float(f"{1 / step:.2g}") for step in reversed(ladder[1:])]
    steps = [*below, *ladder]
    first = max(i for i, step in enumerate(steps) if step <= low or i == 0)
    last = min(i for i, step in enumerate(steps) if step >= high or i == len(steps) - 1)
    return steps[first : last + 1]


def line_chart(x: Sequence[float], lines: Mapping[str, Sequence[float]], *, x_title: str, y_title: str) -> Chart:
    """Lines over a common x on logarithmic axes, each with its own colour and marker.

    >>> times = {"threads": [10.0, 6.0, 5.0], "processes": [12.0, 7.0, 4.0]}
    >>> kit.line_chart([1, 2, 4], times, x_title="lanes", y_title="ms")
    Chart(lanes, ms)
    """
    figure = Chart()
    for (name, y), colour, symbol in zip(lines.items(), OKABE_ITO, _SYMBOLS, strict=False):
        marker = {"symbol": symbol, "size": 9}
        figure.add_scatter(x=list(x), y=list(y), name=name, mode="lines+markers", line={"color": colour}, marker=marker)
    figure.update_layout(
        **TEXT,
        height=420,
        margin={"l": 20, "r": 20, "t": 20, "b": 20},
        legend={"x": 0.02, "y": 0.98},
        xaxis={"type": "log", "dtick": 1, "title": {"text": x_title, "font": {"size": 13}}, **GRID},
        yaxis={"type": "log", "dtick": 1, "title": {"text": y_title, "font": {"size": 13}}, **GRID},
    )
    return figure


def confusion_chart(counts: NDArray[np.int64], names: Sequence[str], title: str = "") -> Chart:
    """A confusion matrix: each row is one true class, in percent of its clips; columns are predictions.

    >>> kit.confusion_chart(np.array([[9, 1], [2, 8]]), ["left", "right"])
    Chart(told, true)

    Args:
        counts: ``(K, K)``, how often a clip of the row's class was predicted as the column's class.
        names: names of the K classes.
        title: what made the predictions.
    """
    percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Chart(
        go.Heatmap(
            z=percent,
            x=list(names),
            y=list(names),
            zmin=0,
            zmax=100,
            colorscale=[
                [0, "#ffffff"],
                [1, OKABE_ITO[4]],
            ],  # no transparency: the text must be legible on a dark page too
            showscale=False,
            texttemplate="%{z:.0f}",
            hovertemplate="%{y}, predicted as %{x}: %{z:.0f}%<extra></extra>",
        )
    )
    figure.update_layout(
        **TEXT,
        height=160 + 30 * len(names),
        margin={"l": 20, "r": 20, "t": 40, "b": 20},
        title={"text": title, "font": {"size": 14}},
        xaxis={"title": {"text": "told", "font": {"size": 13}}, "automargin": True},
        yaxis={"title": {"text": "true", "font": {"size": 13}}, "autorange": "reversed", "automargin": True},
    )
    return figure
