"""Exercise checks: not attempted yet, a hint that depends on what came out, or passed; and never an exception."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import kit
from kit import labs
from kit.labs.checks import Check
from kit.labs.processes import check_break_even
from kit.labs.sentences import speed
from kit.labs.two_stream import ThreeHeads, check_bound, check_wrapped
from kit.trace import Trace
from tests.labs.made_up import COLD_CALL, made_up


def stub(a: float, b: float, c: float) -> Any: ...


def forgot_return(a: float, b: float, c: float) -> None:
    max(a, b, c)


def raises(a: float, b: float, c: float) -> float:
    raise LookupError("oh")


@pytest.mark.parametrize("check", [check_bound, check_break_even])
def test_a_stub_is_not_attempted_and_nothing_raises(check: Callable[[Any], Check]) -> None:
    assert check(stub).state == check(None).state == check(...).state == "not attempted yet"
    assert "is there a return" in check(forgot_return).message
    assert check(raises) == Check("hint", "your answer raised LookupError: oh")
    assert check("a string").state == "hint"


@pytest.mark.parametrize(
    ("bound", "hint"),
    [
        (lambda a, b, n: max(a, b, (a + b) / n), None),
        (lambda a, b, n: (a + b) / n, "longest stream"),
        (lambda a, b, n: max(a, b), "one core"),
        (lambda a, b, n: max(a, b, (a + b) // n), "one core"),
        (lambda a, b, n: a + b, "run at the same time"),
    ],
)
def test_the_bound(bound: Callable[..., float], hint: str | None) -> None:
    found = check_bound(bound)
    assert found.state == ("hint" if hint else "passed")
    assert (hint or "") in found.message


def test_a_share_of_a_bound_is_never_more_than_all_of_it() -> None:
    assert labs.reached(0.721) == "**72%** of that speed"
    assert labs.reached(1.008) == "**100%** of that speed"
    assert labs.reached(1.5).startswith("**1.50 times that speed, which cannot be**: one of the two measurements")


def heads(original: ThreeHeads, *names: str) -> dict[str, nn.Module]:
    return {name: getattr(original, name) for name in names}


def test_wrapping_siblings() -> None:
    original = ThreeHeads().eval()
    check, names = check_wrapped(original), ("small", "medium", "large")
    assert check(kit.Branches(heads(original, *names), kit.Concat(1))).state == "passed"
    assert "no region" in check(original).message
    assert "not a int" in check(3).message
    assert "2 branches" in check(kit.Branches(heads(original, "small", "large"), kit.Concat(1))).message
    assert "which merge" in check(kit.Branches(heads(original, *names), kit.Mean())).message
    assert "in the order" in check(kit.Branches(heads(original, *reversed(names)), kit.Concat(1))).message
    assert check(...).state == "not attempted yet"


def test_a_check_has_a_stable_repr_and_escapes_html() -> None:
    assert repr(Check("passed")) == "passed"
    assert repr(Check("hint", "<b>")) == "hint: <b>"
    assert "&lt;b&gt;" in Check("hint", "<b>")._repr_html_()


def test_the_overlap_of_tasks() -> None:
    assert labs.overlap_share(COLD_CALL) == 3 / 7  # 8 to 11 of 5 to 12
    assert labs.overlap_share(Trace.build([])) == 0


def test_describe_names_every_approach_with_its_numbers() -> None:
    model = kit.Branches({"a": nn.Identity(), "b": nn.Identity()}, kit.Mean())
    names = ["sequential", "threads", "scripted_fork"]
    comparison = kit.compare(model, torch.rand(3), names, rounds=6, progress=False)
    first, second, third = labs.describe(comparison).splitlines()
    assert first.startswith("- **sequential**: ")
    assert first.endswith("the baseline.")
    threads = comparison["threads"]
    because = f" ({threads.doubt})" if threads.doubt else ""
    assert f"Speed-up over sequential: {threads.ratio_text}, **{threads.verdict}**{because}. Its" in second
    assert " ms [" in first  # no median without its interval
    assert " ms [" in second
    assert "%] of the time that any of them ran." in second
    assert third.endswith("Its branches write no spans, so how far they overlapped is not known.")


def test_a_speed_up_is_told_in_one_direction_and_with_its_interval_where_it_has_one() -> None:
    rows = made_up({"a": 10.0, "b": 5.0, "c": 40.0, "d": "not here"}).rows
    assert speed(rows[1]).startswith("2.00x as fast [")
    assert speed(rows[2]).startswith("4.03x slower [")
    assert speed(rows[3]) == "-"
    few = made_up({"a": 10.0, "b": 5.0, "c": 6.0, "d": 7.0}, rounds=6)
    assert speed(few.rows[1]) == "2.00x as fast"


def test_the_switch_for_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIT_FAST", "1")
    assert labs.rounds(30) == 6
    assert labs.rounds(30, rows=3) == 9  # six would give three rows no verdict
    monkeypatch.delenv("KIT_FAST")
    assert labs.rounds(30) == labs.rounds(30, rows=3) == 30
    assert labs.rounds(8, rows=3) == 9
