"""The waterfall, by its data."""

import re

import numpy as np
import pytest

from kit.errors import MeasureError
from kit.explaining.explanation import explain
from kit.views.figures import comparison_chart
from kit.views.why import waterfall
from tests.explaining.test_explanation import example, side_by_side


def test_the_waterfall_goes_from_the_ideal_to_what_was_measured() -> None:
    (bars,) = waterfall(explain(example())).data
    assert list(bars.measure) == ["absolute", *["relative"] * 5, "total"]
    assert bars.base + bars.y[0] == 2
    assert bars.base + np.sum(bars.y) == pytest.approx(6 / 9)
    assert bars.x[-1] == "measured<br>0.67x"
    labels = [label.rpartition("<br>")[0].replace("<br>", " ") for label in bars.x[1:-1]]
    assert labels == [name for name, _ in explain(example()).steps()][1:]


def test_the_height_of_each_bar_is_the_logarithm_of_its_factor() -> None:
    """So the smallest factor is the largest step down; on a linear axis those that come first look larger."""
    why = explain(example())
    svg = waterfall(why).still()
    paths = re.findall(r'<path d="([^"]*)"[^>]*style="fill: #(?:8a8f98|d55e00|009e73)', svg)
    heights = [max(ys) - min(ys) for ys in ([float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", p)] for p in paths)]
    wanted = [abs(np.log(value)) for _, value in why.steps()] + [abs(np.log(6 / 9))]
    assert np.array(heights) / heights[0] == pytest.approx(np.array(wanted) / wanted[0], abs=0.01)


def test_no_line_below_a_bar_is_longer_than_a_word() -> None:
    (bars,) = waterfall(explain(example())).data
    longest = max(len(word) for name, _ in explain(example()).steps() for word in name.split())
    assert max(len(line) for label in bars.x for line in label.split("<br>")) <= longest


def test_the_axis_reaches_from_the_lowest_to_the_highest_bar() -> None:
    figure = waterfall(explain(example()))
    axis = figure.layout.yaxis
    reached = np.cumprod([value for _, value in explain(example()).steps()])
    assert axis.range[0] <= np.log10(reached.min())
    assert axis.range[1] >= np.log10(reached.max())
    assert axis.ticktext[list(axis.tickvals).index(1)] == "1x"


def test_the_bound_is_a_line_with_its_share() -> None:
    figure = waterfall(explain(example()))
    assert {round(shape.y0, 3) for shape in figure.layout.shapes} == {1, round(6 / 6.5, 3)}
    assert figure.layout.annotations[0].text == "dashed: bound 0.92x, 72% reached"
    (bound,) = (trace for trace in comparison_chart(example()).data if trace.marker.symbol == "line-ns-open")
    assert (bound.x[0], bound.y[0]) == (pytest.approx(6 / 6.5), "threads")


def test_a_bound_that_is_exceeded_is_not_reached() -> None:
    beyond = side_by_side(7.5, 9, 6, wall=6.3)
    label = waterfall(explain(beyond)).layout.annotations[0].text.replace("<br>", " ")
    (bound,) = (trace for trace in comparison_chart(beyond).data if trace.marker.symbol == "line-ns-open")
    for text in (label, bound.hovertemplate):
        assert "not decided, since the result exceeds the bound of threads from its branches' times " in text
        assert "%" not in text.replace("%{x", "")


def test_without_factors_there_is_nothing_to_draw() -> None:
    comparison = example()
    for row in comparison.rows:
        object.__setattr__(row, "paired_baseline", None)
    with pytest.raises(MeasureError, match="threads has no factors to draw"):
        waterfall(explain(comparison, "threads"))
