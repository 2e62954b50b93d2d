"""The quiz, by its state: what a learner clicks is recorded, survives, and is compared with what was measured."""

from collections.abc import Iterator

import pytest

from kit.views import quiz
from kit.views.quiz import Quiz

OPTIONS = ["faster", "slower"]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    quiz._guesses.clear()
    yield
    quiz._guesses.clear()


def pick(asked: Quiz, option: str) -> None:
    """Click an option."""
    asked._choice.value = option


def test_without_a_guess_nothing_blocks() -> None:
    asked = Quiz("Which?", OPTIONS)
    assert asked.guess is None
    asked.reveal("faster")
    assert asked.answer is not None
    assert "faster" not in asked.answer
    assert "faster" not in asked._answer.value
    asked._show.click()
    assert asked.answer == "Measured: faster (no guess made)."
    assert asked._choice.disabled


def test_right_and_wrong_guesses() -> None:
    right, wrong = Quiz("Right?", OPTIONS), Quiz("Wrong?", OPTIONS)
    pick(right, "faster")
    pick(wrong, "slower")
    right.reveal("faster")
    wrong.reveal("faster")
    assert right.answer == "Measured: faster, as you predicted."
    assert wrong.answer == "Measured: faster. You predicted: slower. Why the difference?"


def test_a_guess_after_the_measurement_still_counts() -> None:
    asked = Quiz("Late?", OPTIONS)
    asked.reveal("faster")
    pick(asked, "slower")
    assert asked.answer == "Measured: faster. You predicted: slower. Why the difference?"
    assert asked._choice.disabled
    assert Quiz("Late?", OPTIONS).guess == "slower"


def test_what_was_not_measured_here_is_not_called_so() -> None:
    asked, open_one = Quiz("Simulated?", OPTIONS), Quiz("Recorded?", OPTIONS)
    asked.reveal("faster", "simulated")
    assert asked.answer == "It has been simulated. Pick an option to see the answer."
    pick(asked, "faster")
    assert asked.answer == "Simulated: faster, as you predicted."
    pick(open_one, "slower")
    open_one.reveal("not decided: one call each", "recorded")
    assert open_one.answer == "The recordings cannot tell: not decided: one call each. Your guess stands: slower."
    predicted = Quiz("Computed?", OPTIONS)
    pick(predicted, "slower")
    predicted.reveal("slower", "computed")
    assert predicted.answer == "Computed: slower, as you predicted."
    predicted.reveal("not known: no branches", "computed")
    assert predicted.answer == "The computation cannot tell: not known: no branches. Your guess stands: slower."


def test_what_is_not_decided_is_neither_right_nor_wrong() -> None:
    asked = Quiz("Busy?", OPTIONS)
    pick(asked, "slower")
    asked.reveal("not decided: machine busy")
    assert asked.answer == "These rounds cannot tell: not decided: machine busy. Your guess stands: slower."


def test_after_the_reveal_the_guess_stands() -> None:
    asked = Quiz("Which?", OPTIONS)
    pick(asked, "slower")
    assert not asked._choice.disabled
    asked.reveal("faster")
    assert asked._choice.disabled


def test_running_the_quiz_cell_again_keeps_the_guess() -> None:
    pick(Quiz("Which?", OPTIONS), "slower")
    assert Quiz("Which?", OPTIONS).guess == "slower"
    assert Quiz("Another?", OPTIONS).guess is None
    assert Quiz("Which?", ["up", "down"]).guess is None  # the options have changed: no guess of these


def test_text_is_never_markup() -> None:
    asked = Quiz("<b>Which?</b>", ["<i>a</i>", "b"])
    pick(asked, "<i>a</i>")
    assert "&lt;b&gt;Which?" in asked.children[0].value
    assert "&lt;i&gt;a" in asked._answer.value


def test_the_repr_is_stable() -> None:
    assert repr(Quiz("Which?", OPTIONS)) == "Quiz(2 options)"


def test_the_copy_for_pages_without_widgets_gets_the_answer() -> None:
    class Handle:
        def update(self, bundle: dict[str, str], raw: bool) -> None:
            copies.append(bundle["text/html"])

    copies: list[str] = []
    asked = Quiz("<Which>?", OPTIONS)
    asked._handle = Handle()
    assert "<details>" not in asked.still()
    asked.reveal("faster")
    assert "&lt;Which&gt;?" in copies[-1]
    wrong = "Measured: faster. You predicted: slower. Why the difference?"
    assert f'<li data-said="{wrong}">slower</li>' in copies[-1]
    assert "<details><summary>The answer</summary>Measured: faster (no guess made).</details>" in copies[-1]
