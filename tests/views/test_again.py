"""A table that is not decided has a button; a click measures again, and the same name means what is shown."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

import kit
from kit.errors import MeasureError
from kit.measuring.comparison import Comparison
from kit.models import toy_two_stream
from kit.verbs import call_of
from kit.views import again
from kit.views.again import Again, show
from tests.labs.made_up import busy, made_up

MS = {"sequential": 10.0, "threads": 6.0}


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is displayed."""
    found: list[Any] = []
    monkeypatch.setattr("IPython.display.display", lambda each, **how: found.append(each))
    return found


def calls(result: Comparison | Exception, patience: list[float]) -> Callable[[float], Comparison]:
    def call(seconds: float) -> Comparison:
        patience.append(seconds)
        if isinstance(result, Exception):
            raise result
        return result

    return call


def test_a_click_measures_again_and_the_comparison_takes_what_was_measured() -> None:
    comparison, waited = busy(MS), list[float]()
    table = Again(comparison, calls(made_up(MS), waited))
    assert "not decided" in table.still()
    table._button.click()
    assert waited == [again.PATIENCE_S]
    assert comparison["threads"].verdict == "faster"
    assert "not decided" not in table._table.value
    assert "Every row is decided now." in table._said.value
    assert not table._button.disabled


def test_what_is_still_not_decided_and_what_failed_is_said() -> None:
    comparison = busy(MS)
    table = Again(comparison, calls(busy(MS), []))
    table._button.click()
    assert "1 of its rows are still not decided" in table._said.value
    rows = comparison.rows
    table = Again(comparison, calls(MeasureError("<no>"), []))
    table._button.click()
    assert "Measuring again failed: &lt;no&gt;" in table._said.value
    assert comparison.rows is rows
    assert not table._button.disabled


def test_the_button_is_where_it_may_help_only(shown: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    show(busy(MS))
    assert "text/html" in shown.pop(), "nobody knows how a made-up table was measured"
    monkeypatch.setattr(again, "call_of", lambda comparison: calls(comparison, []))
    show(made_up(MS))
    assert "text/html" in shown.pop(), "every row is decided"
    show(busy(MS))
    assert isinstance(shown.pop(), Again)


def test_a_notebook_shows_comparisons_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    seen: list[Comparison] = []
    shell = InteractiveShell.instance()
    try:
        importlib.reload(kit)
        monkeypatch.setattr(again, "show", seen.append)
        comparison = busy(MS)
        shell.display_formatter.format(comparison)
        assert seen == [comparison]
    finally:
        InteractiveShell.clear_instance()


def test_only_what_was_measured_here_can_be_measured_again() -> None:
    inputs = torch.rand(1, 3, 25, 25), torch.rand(1, 2, 25, 25)
    comparison = kit.compare(toy_two_stream(), inputs, "sequential", rounds=6, progress=False)
    call = call_of(comparison)
    assert call is not None
    other = call(0.0)
    assert [row.name for row in other.rows] == ["sequential"]
    assert other.rows[0].timing is not comparison.rows[0].timing
    assert call_of(other) is not None, "and again"
    assert call_of(made_up(MS)) is None
