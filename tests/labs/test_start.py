"""Notebook 00: what its quizzes reveal and its sentences and its card say of made-up measurements."""

import pytest

from kit.labs import start
from kit.labs.start import NAPPING, QUIZZES
from kit.measuring.comparison import Comparison
from tests.labs.made_up import made_up

BUSY = "not decided: machine busy: other programs took 50% of the machine's CPU time during the rounds"
NAPS = ("nap 0", "nap 1", "nap 2", "nap 3")


def naps(ms: float | str, **changes: float) -> Comparison:
    return made_up({"sequential": 40.5, NAPPING: ms}, branches=NAPS, cores=4, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", QUIZZES)
def test_a_quiz_is_made_by_its_name_and_answered_by_a_function_of_that_name(name: str) -> None:
    assert start.quiz(name).guess is None
    assert callable(getattr(start, f"{name}_answer"))


@pytest.mark.parametrize(
    ("comparison", "says"),
    [
        (naps(41.0), "about 40 ms"),
        (naps(60.0), "more than 50 ms"),
        (naps(22.0), "about 20 ms"),
        (naps(30.0, scatter=0.1), "not decided: "),
        (naps(22.0, others=0.5), BUSY),
        (naps("it cannot start threads"), "not measured: it cannot start threads"),
    ],
)
def test_how_long_four_naps_take(comparison: Comparison, says: str) -> None:
    assert start.naps_answer(comparison).startswith(says)
    assert says in QUIZZES["naps"][1] or says.startswith("not ")


def test_what_is_said_of_the_naps() -> None:
    calm = start.about_naps(naps(22.0))
    assert "One after the other the naps took **40." in calm
    assert "waiting needs no core" in calm
    assert "4 usable cores" in calm
    busy = start.about_naps(naps(22.0, others=0.5))
    assert f"**{BUSY}**. This is what was seen, and it decides nothing." in busy
    assert "waiting needs no core" not in busy
    assert "something is wrong here" in start.about_naps(naps(41.0))
    assert "something is wrong here" in start.about_naps(naps(60.0))
    missing = start.about_naps(naps("it cannot start threads"))
    assert missing.startswith(f"`{NAPPING}`: not measured: it cannot start threads.")


@pytest.mark.parametrize(
    ("ms", "changes", "says", "truth"),
    [
        (7.0, {}, "faster", "**true**"),
        (14.0, {}, "slower", "**false**"),
        (10.0, {}, "no difference found", "**false**"),
        (10.0, {"cores": 1}, "no difference found", "**false**"),
        (7.0, {"others": 0.5}, BUSY, "not decided"),
        (7.0, {"wrong": ("threads",)}, "wrong output", "not decided"),
        ("no threads here", {}, "not measured: no threads here", "not decided"),
    ],
)
def test_the_streams_and_the_card(ms: float | str, changes: dict[str, object], says: str, truth: str) -> None:
    streams = made_up({"sequential": 10.0, "threads": ms}, **changes)  # type: ignore[arg-type]
    assert start.streams_answer(streams) == says
    said = start.about_streams(streams)
    assert says in said
    assert ("decides nothing" in said) == says.startswith("not decided")
    _, _, waiting, computing = start.conclusion(naps(22.0), streams).splitlines()
    assert "| **true** |" in waiting
    assert f"| {truth} |" in computing


def test_too_few_rounds_are_not_blamed_on_other_programs() -> None:
    few = made_up({"sequential": 10.0, "threads": 7.0, "a": 8.0, "b": 9.0}, rounds=6)
    assert start.about_streams(few).endswith("one after the other.") or "Measure more rounds." in start.about_streams(
        few
    )
    assert "Close other programs" not in start.about_streams(few)
