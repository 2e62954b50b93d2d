"""Plotly figures, by their data: what is drawn is what was measured."""

from dataclasses import replace

import numpy as np
import pytest

from kit.equality import Equality
from kit.measuring.comparison import Comparison, Ratio, Row, Timing
from kit.trace import Trace
from kit.views.chart import Chart
from kit.views.figures import comparison_chart, confusion_chart, line_chart, ratio_ticks
from kit.views.palette import NEUTRAL
from tests.labs.made_up import busy, made_up


def row(name: str, samples: list[float], ratio: Ratio, *, baseline: bool = False, equal: bool = True) -> Row:
    timing = Timing(np.array(samples), 1, Trace.build([]))
    return Row(name, None, timing, ratio, Equality(equal, 0.0), baseline)


COMPARISON = Comparison(
    (
        row("sequential", [4.0, 6.0], Ratio(1, 1, 1), baseline=True),
        row("threads", [2.0, 2.0], Ratio(2.5, 2.0, 3.0)),
        row("wrong", [1.0, 1.0], Ratio(5.0, 4.0, 6.0), equal=False),
        Row("streams", "there is no GPU"),
    ),
    rounds=2,
    inputs="",
)


def test_every_round_is_a_dot_and_the_interval_a_line() -> None:
    figure = comparison_chart(COMPARISON)
    dots, estimate = (trace for trace in figure.data if trace.y[0] == "threads")
    assert list(dots.x) == [2.0, 3.0]  # the baseline's time by the approach's, round by round
    assert (estimate.x[0], estimate.error_x.array[0], estimate.error_x.arrayminus[0]) == (2.5, 0.5, 0.5)
    assert said(figure) == {"threads": "2.50x as fast", "wrong": "wrong output"}


def said(figure: Chart) -> dict[str, str]:
    """What stands over each row."""
    return {note.y: note.text.replace("<br>", " ") for note in figure.layout.annotations if isinstance(note.y, str)}


def test_a_slower_row_is_told_in_the_same_direction_as_in_the_table() -> None:
    figure = comparison_chart(made_up({"sequential": 10.0, "threads": 16.4, "cold": 360.0}))
    assert said(figure) == {"threads": "1.64x slower", "cold": "36x slower"}


def test_too_few_rounds_are_grey_have_no_interval_and_say_how_many_it_takes() -> None:
    few = made_up({"sequential": 22.0, "threads": 10.0, "processes": 40.0, "both": 3.0}, rounds=6)
    figure = comparison_chart(few)
    (median,) = (trace for trace in figure.data if trace.y[0] == "threads" and len(trace.x) == 1)
    assert median.marker.color == NEUTRAL
    assert median.error_x.array is None
    assert "[" not in median.hovertemplate
    assert said(figure)["threads"] == "not decided: it needs 9 rounds or more"
    assert "2.2" not in said(figure)["threads"]


def test_a_busy_machine_makes_a_row_grey_and_is_named() -> None:
    figure = comparison_chart(busy({"sequential": 22.0, "threads": 1.0}))
    assert {trace.marker.color for trace in figure.data if trace.marker.symbol != "line-ns-open"} == {NEUTRAL}
    assert said(figure)["threads"].startswith("not decided: machine busy: other programs took 50% of")
    assert "as fast" not in said(figure)["threads"]
    lines = [line for note in figure.layout.annotations for line in note.text.split("<br>")]
    assert max(map(len, lines)) <= 56  # it fits beside the median, wherever that is


@pytest.mark.parametrize("ms", [0.1, 5.0, 22.0, 90.0, 9000.0])
def test_the_reason_stays_within_the_picture(ms: float) -> None:
    figure = comparison_chart(busy({"sequential": 22.0, "threads": ms}))
    (note,) = (note for note in figure.layout.annotations if note.y == "threads")
    first, last = figure.layout.xaxis.range
    share = (note.x - first) / (last - first)
    room = {"left": 1 - share, "right": share, "center": 2 * min(share, 1 - share)}[note.xanchor]
    assert room >= 0.6  # of a picture that is 900 pixels wide or so
    assert "not decided" in figure.still()


def test_the_rounds_of_a_cold_approach_are_paired_with_the_baseline_in_the_same_rounds() -> None:
    cold = replace(
        row("cold", [8.0, 4.0, 2.0], Ratio(1, 0.5, 2)), paired_baseline=Timing(np.full(3, 4.0), 1, Trace.build([]))
    )
    dots, _ = comparison_chart(replace(COMPARISON, rows=(COMPARISON.rows[0], cold))).data
    assert list(dots.x) == [0.5, 1, 2]


def test_a_verdict_has_a_colour_and_a_symbol_of_its_own() -> None:
    figure = comparison_chart(COMPARISON)
    looks = {trace.y[0]: (trace.marker.color, trace.marker.symbol) for trace in figure.data if trace.error_x.array}
    assert len({colour for colour, _ in looks.values()}) == len({symbol for _, symbol in looks.values()}) == 2


def test_what_was_not_measured_is_not_drawn() -> None:
    assert {trace.y[0] for trace in comparison_chart(COMPARISON).data} == {"threads", "wrong"}


def test_a_comparison_of_one_is_an_empty_chart() -> None:
    alone = Comparison(COMPARISON.rows[:1], 2, "")
    assert len(comparison_chart(alone).data) == 0


@pytest.mark.parametrize("values", [[1.0], [0.99, 1.01], [0.5, 3.0], [0.0001, 1.2], [1.0, 60.0], [0.8, 0.9]])
def test_ticks_enclose_the_values_and_the_one(values: list[float]) -> None:
    ticks = ratio_ticks(np.array(values))
    assert ticks == sorted(set(ticks))
    assert ticks[0] <= min(values)
    assert ticks[-1] >= max(values)
    assert 1 in ticks
    assert 3 <= len(ticks) <= 12


def test_line_chart_draws_what_it_is_given() -> None:
    figure = line_chart([1, 10], {"a": [1, 2], "b": [3, 4]}, x_title="bytes", y_title="time")
    assert [(trace.name, list(trace.x), list(trace.y)) for trace in figure.data] == [
        ("a", [1, 10], [1, 2]),
        ("b", [1, 10], [3, 4]),
    ]
    assert figure.data[0].marker.symbol != figure.data[1].marker.symbol


def test_a_confusion_chart_has_a_row_for_each_true_class() -> None:
    (heat,) = confusion_chart(np.array([[3, 1], [0, 0]]), ["dots", "rings"], "who").data
    assert heat.z.tolist() == [[75, 25], [0, 0]]  # no clip of the second class, and no division by it
    assert list(heat.y) == ["dots", "rings"]


def test_rows_without_a_point_take_no_room() -> None:
    measured = {"sequential": 10.0, "threads": 6.0}
    some = comparison_chart(made_up(measured))
    more = comparison_chart(made_up({**measured, **dict.fromkeys(("graphed", "devices", "ranks"), "needs a GPU")}))
    assert some.layout.height == more.layout.height
    assert some.layout.yaxis.range == more.layout.yaxis.range
