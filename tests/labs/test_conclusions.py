"""What may be concluded from a comparison: a verdict, an option of a quiz, a winner, a card."""

from dataclasses import replace

import pytest

from kit.labs.conclusions import Claim, card, claim_faster, decided, fastest, no_gain, row_of, told, truth
from kit.measuring.comparison import Comparison
from tests.labs.made_up import busy, made_up

TWICE = {"sequential": 10.0, "threads": 6.0, "processes": 20.0}


@pytest.mark.parametrize(
    ("comparison", "says"),
    [
        (made_up(TWICE), "faster"),
        (made_up({"sequential": 10.0, "threads": 20.0}), "slower"),
        (made_up({"sequential": 10.0, "threads": 10.0}), "same"),
        (
            made_up({"sequential": 10.0, "threads": 10.0}, scatter=0.3),
            "not decided: 0.93x [0.72, 1.08] leaves a difference of more than 10% open",
        ),
        (made_up({"sequential": 10.0, "threads": "needs two cores"}, cores=1), "not measured: needs two cores"),
        (made_up({"sequential": 10.0}), "not measured: threads is not in the table"),
        (
            busy(TWICE),
            "not decided: machine busy: other programs took 50% of the machine's CPU time during the rounds",
        ),
        (made_up(TWICE, wrong=("threads",)), "wrong output"),
    ],
)
def test_what_is_told(comparison: Comparison, says: str) -> None:
    assert told(comparison, "threads", faster="faster", slower="slower", same="same") == says
    claim = claim_faster("threads help", comparison, "threads")
    want = {"faster": "true", "slower": "false", "same": "false"}.get(says, "not decided")
    assert claim.truth == want
    if "leaves" in says:
        assert claim.by == "no difference found: 0.93x [0.72, 1.08] leaves a difference of more than 10% open"


def test_too_few_rounds_are_no_answer() -> None:
    said = decided(made_up(TWICE, rounds=6), "threads")
    assert said.startswith("not decided: ")
    assert "8 rounds" in said


def test_no_difference_found_is_an_answer_only_where_that_is_the_option() -> None:
    wide = made_up({"sequential": 10.0, "threads": 10.0}, scatter=0.3)
    assert told(wide, "threads", faster="a", slower="b", same="no difference found") == "no difference found"
    assert told(wide, "threads", faster="a", slower="b", same="neither").startswith("not decided")


def test_any_row_may_be_the_one_to_compare_with() -> None:
    comparison = made_up(TWICE)
    assert decided(comparison, "processes", "threads") == "slower"
    assert decided(comparison, "sequential", "threads") == "slower"
    row = row_of(comparison, "processes", "threads")
    assert row is not None
    assert row.ratio is not None
    assert row.ratio.estimate == pytest.approx(0.3, rel=0.05)
    assert row_of(comparison, "processes", "ranks") is None
    assert decided(comparison, "threads", "ranks") == "not measured: ranks is not in the table"
    assert decided(busy(TWICE), "processes", "threads").startswith("not decided: machine busy")


def test_a_winner_is_faster_than_every_other_row() -> None:
    assert fastest(made_up(TWICE)) == "threads"
    assert fastest(made_up(TWICE), ["sequential", "processes"]) == "sequential"
    assert fastest(made_up({"sequential": 10.0, "threads": 6.0, "processes": 6.0})).startswith(
        "not decided: "
    )  # both are faster than sequential, and neither than the other
    assert fastest(busy(TWICE)).startswith("not decided: machine busy")
    assert fastest(made_up({"sequential": 10.0, "threads": 1.0}, wrong=("threads",))) == "sequential"
    assert fastest(made_up(TWICE), ["ranks"]) == "not measured: none of them ran"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("yes", "true"),
        ("no", "false"),
        ("not decided: busy", "not decided"),
        ("not measured: no GPU", "not decided"),
        ("no difference found", "not decided"),
        ("wrong output", "not decided"),
    ],
)
def test_the_truth_of_a_claim(answer: str, says: str) -> None:
    assert truth(answer, "yes") == says


@pytest.mark.parametrize(
    ("threads", "scatter", "others", "says"),
    [
        (20.0, 0.01, 0.0, "true"),
        (10.0, 0.01, 0.0, "true"),
        (11.0, 0.2, 0.0, "true"),  # the interval reaches far down, which is no gain either
        (9.0, 0.01, 0.0, "true"),  # 1.11x: another core explains that
        (6.0, 0.01, 0.0, "false"),
        (8.0, 0.05, 0.0, "not decided: 1.2"),
        (8.0, 0.3, 0.0, "not decided: 1.1"),
        (20.0, 0.01, 0.5, "not decided: machine busy"),
    ],
)
def test_no_gain_needs_an_upper_end_only(threads: float, scatter: float, others: float, says: str) -> None:
    comparison = made_up({"sequential": 10.0, "threads": threads}, scatter=scatter, others=others)
    assert no_gain(comparison, "threads").startswith(says)
    assert no_gain(made_up({"sequential": 10.0}), "threads").startswith("not measured")


def test_a_card_keeps_each_claim_in_its_row() -> None:
    text = card([Claim("a | b", "true", "1.5x"), Claim("c", "not decided", "two\nlines <b>")])
    lines = text.splitlines()
    assert len(lines) == 4
    assert lines[2] == "| a &#124; b | **true** | 1.5x |"
    assert lines[3] == "| c | not decided | two lines &lt;b&gt; |"


def test_a_row_with_rounds_of_its_own_is_not_set_against_another_row() -> None:
    found = made_up({"a": 10.0, "b": 8.0, "cold": 90.0})
    rows = tuple(
        replace(row, paired_baseline=replace(found.rows[0].timing)) if row.name == "cold" else row for row in found.rows
    )
    apart = replace(found, rows=rows)
    assert decided(apart, "cold") == "slower"
    assert decided(apart, "cold", "b") == ("not decided: cold has rounds of its own, which were measured beside a only")
