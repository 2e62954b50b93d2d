"""The control that measures what the learner picks: its table, its button, and its still copy."""

from typing import Any

import pytest

from kit.measuring.comparison import Comparison
from kit.views import trials
from kit.views.trials import Trials
from tests.labs.made_up import made_up


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Trials:
    """Threads are faster from a width of 8 on, and nothing is decided at 100 pixels."""

    def compare(model: int, inputs: int, names: list[str], **options: Any) -> Comparison:
        threads = 14.0 if model < 8 else 7.0
        return made_up({"sequential": 10.0, "threads": threads}, others=0.5 if inputs == 100 else 0.0)

    monkeypatch.setattr(trials, "compare", compare)
    sides = ("width", (4, 8)), ("input size", (50, 100))
    return Trials(lambda width, size: (width, size), *sides, first=[(4, 50)], rounds=6)


def test_the_first_settings_are_measured_and_the_others_wait(control: Trials) -> None:
    assert list(control.measured) == [(4, 50)]
    assert control.still().count("&middot;") == 3
    assert "&#9660; 0.71x" in control.still()


def test_the_button_measures_what_is_picked_and_renews_the_copy(control: Trials) -> None:
    copies: list[str] = []
    control._handle = type("Handle", (), {"update": lambda self, bundle, raw: copies.append(bundle["text/html"])})()
    row, column, button = control.children[0].children
    row.value, column.value = 8, 50
    button.click()
    assert control.measured.keys() == {(4, 50), (8, 50)}
    assert "&#9650; 1.43x" in copies[-1]
    assert (button.disabled, button.description) == (False, "Measure")


def test_what_is_not_decided_has_a_sign_and_says_why(control: Trials) -> None:
    row, column, button = control.children[0].children
    row.value, column.value = 8, 100
    button.click()
    assert "? 1.4" in control.still()
    assert "title='not decided: machine busy" in control.still()


def test_every_slider_has_a_name(control: Trials) -> None:
    assert [each.description for each in control.children[0].children] == ["width", "input size", "Measure"]
    assert repr(control) == "Trials(2 x 2)"
