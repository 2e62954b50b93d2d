"""Notebook 06: from how much work on sending pays, over the bytes that have to travel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kit.scheduling.links import LINKS, Link
from kit.views.chart import Chart
from kit.views.figures import line_chart
from kit.views.palette import NEUTRAL

SIZES = tuple(10.0**exponent for exponent in range(3, 10))  # bytes
X, Y = "bytes, there and back together", "work of a branch, ms"


def break_even_chart(
    links: Mapping[str, Link] = LINKS, points: Mapping[str, tuple[float, float]] | None = None
) -> Chart:
    """A line for each link: above it a branch takes longer than its transfer, so that sending it pays.

    Args:
        points: name -> bytes there and back, and seconds of work, of branches to be shown beside the lines.
    """
    lines: dict[str, Sequence[float]] = {
        name: [1e3 * link.break_even(size / 2, size / 2) for size in SIZES] for name, link in links.items()
    }
    chart = line_chart(SIZES, lines, x_title=X, y_title=Y)
    for name, (size, work) in (points or {}).items():
        marker = {"symbol": "star", "size": 14, "color": NEUTRAL, "line": {"color": "#ffffff", "width": 1}}
        chart.add_scatter(x=[size], y=[1e3 * work], name=name, mode="markers", marker=marker)
    return chart
