"""The README's picture is refused where the machine is busy or its table and its timeline differ."""

from dataclasses import replace

import pytest

from kit.machine.load import Taken
from kit.measuring.comparison import Comparison, Row
from kit.trace import Event, Lane, Trace
from tests.labs.made_up import MS, busy, made_up
from tools import picture

SIDES = {"sequential": 20.0, "threads": 12.0}


def drawn(comparison: Comparison, **ms: float) -> Comparison:
    """The same table, with calls of these lengths in the timeline."""

    def changed(row: Row) -> Row:
        if row.name not in ms or row.timing is None:
            return row
        call = Event("call", "call", 0, round(ms[row.name] * MS), Lane(1, 1, "caller"))
        return replace(row, timing=replace(row.timing, trace=Trace.build([call])))

    return replace(comparison, rows=tuple(map(changed, comparison.rows)))


@pytest.mark.parametrize(("threads", "verdict"), [(12.0, "faster"), (30.0, "slower"), (20.0, "no difference found")])
def test_a_calm_table_whose_calls_are_those_of_its_medians_is_drawn(threads: float, verdict: str) -> None:
    comparison = made_up({"sequential": 20.0, "threads": threads})
    assert comparison["threads"].verdict == verdict
    assert picture.disagreement(comparison) is None


def test_a_busy_machine_is_refused_with_its_share() -> None:
    assert "other programs took 50%" in str(picture.disagreement(busy(SIDES)))


def test_a_load_that_leaves_verdicts_is_refused_too() -> None:
    comparison = made_up(SIDES, others=0.15)
    assert comparison["threads"].verdict == "faster"
    assert "other programs took 15%" in str(picture.disagreement(comparison))


def test_a_load_that_is_not_known_is_refused() -> None:
    assert "not known" in str(picture.disagreement(replace(made_up(SIDES), taken=None)))


@pytest.mark.parametrize(
    ("comparison", "says"),
    [
        (made_up(SIDES, scatter=2.0), "of threads: not decided: machine busy: timings of"),
        (made_up(SIDES, wrong=("threads",)), "of threads: wrong output"),
        (made_up({"sequential": 20.0, "threads": "no threads here"}), "of threads: not available: no threads here"),
    ],
)
def test_a_table_that_decides_nothing_is_refused(comparison: Comparison, says: str) -> None:
    assert comparison.taken == Taken(0.0, 0.0)
    assert says in str(picture.disagreement(drawn(comparison, sequential=comparison.baseline.timing.median_ms)))  # type: ignore[union-attr]


def test_a_call_far_from_the_median_of_its_row_is_refused() -> None:
    near, far = 1 + 0.9 * picture.TOLERANCE, 1 + 1.2 * picture.TOLERANCE
    assert picture.disagreement(drawn(made_up(SIDES), threads=12 * near)) is None
    assert "draws 14.4 ms for threads, and the table says 12" in str(
        picture.disagreement(drawn(made_up(SIDES), threads=14.4))
    )
    assert picture.disagreement(drawn(made_up(SIDES), sequential=20 * far)) is not None


def test_calls_that_show_another_verdict_than_the_table_are_refused() -> None:
    comparison = made_up({"sequential": 20.0, "threads": 19.2}, rounds=60)
    assert comparison["threads"].verdict == "faster"
    said = picture.disagreement(drawn(comparison, sequential=19.4, threads=19.6))
    assert said == "the timeline draws threads 0.99x as fast, and the table says faster"


def test_the_page_holds_the_code_the_table_and_the_timeline_and_asks_no_host() -> None:
    page = picture.page(made_up(SIDES))
    assert "kit.compare(model, (frame, flow), &quot;sequential, threads&quot;)" in page
    assert "speed-up over sequential [95%]" in page
    assert "<svg" in page
    assert "interleaved rounds" in page
    assert "src=" not in page
    assert "url(http" not in page
