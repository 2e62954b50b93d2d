"""The waterfall, by its data."""

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
    assert bars.y[0] == 2
    assert np.sum(bars.y) == pytest.approx(6 / 9)
    assert bars.x[-1] == "measured<br>0.67x"
    labels = [label.rpartition("<br>")[0].replace("<br>", " ") for label in bars.x[1:-1]]
    assert labels == [name for name, _ in explain(example()).steps()][1:]


def test_the_bound_is_a_line_with_its_share() -> None:
    figure = waterfall(explain(example()))
    assert {round(shape.y0, 3) for shape in figure.layout.shapes} == {1, round(6 / 6.5, 3)}
    assert figure.layout.annotations[0].text == "bound 0.92x, 72% reached"
    (bound,) = (trace for trace in comparison_chart(example()).data if trace.marker.symbol == "line-ns-open")
    assert (bound.x[0], bound.y[0]) == (pytest.approx(6 / 6.5), "threads")


def test_a_bound_that_is_exceeded_is_not_reached() -> None:
    beyond = side_by_side(7.5, 9, 6, wall=6.3)
    label = waterfall(explain(beyond)).layout.annotations[0].text
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
