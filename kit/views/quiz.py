"""A question to answer before running the cells that measure the answer."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Literal

import ipywidgets as widgets

from kit.views.still import Still

How = Literal["measured", "recorded", "simulated", "computed"]
CANNOT_TELL: Mapping[How, str] = {
    "measured": "These rounds cannot tell",
    "recorded": "The recordings cannot tell",
    "simulated": "The simulation cannot tell",
    "computed": "The computation cannot tell",
}
# Answering makes the quiz's cell the active one, so that Shift + Enter runs it again: the guess must outlive that.
_guesses: dict[str, str] = {}


class Quiz(Still):
    """Records a guess: pick an option, run the next cells, and see whether the measurement agrees.

    It never blocks a cell, and Run All does not show the answer: until an option is picked, the answer is hidden behind
    a button. The order of the options is fixed.

    >>> kit.Quiz("Which is faster on one core?", ["one after the other", "side by side", "no difference"])
    Quiz(3 options)

    Args:
        question: plain text.
        options: plain text, at least two.
    """

    def __init__(self, question: str, options: Sequence[str]) -> None:
        self._question = question
        self._choice = widgets.RadioButtons(
            options=list(options),
            value=guess if (guess := _guesses.get(question)) in options else None,
            layout={"width": "auto"},
            style={"description_width": "0"},
        )
        self._answer = widgets.HTML()
        at_its_width = {"width": "auto", "align_self": "flex-start", "display": "none"}
        self._show = widgets.Button(description="Show the answer without a guess", layout=at_its_width)
        self._measured: str | None = None
        self._how: How = "measured"
        self._shown = False
        title = widgets.HTML(f"<b>Predict.</b> {html.escape(question)}")
        super().__init__(title, self._choice, self._answer, self._show)
        self._choice.observe(self._note, "value")
        self._show.on_click(self._give_up)
        self._say()

    @property
    def guess(self) -> str | None:
        """The option picked so far, or None."""
        value: str | None = self._choice.value
        return value

    @property
    def answer(self) -> str | None:
        """The text under the question: the guess, the answer if it may be seen, or None."""
        if self._measured is None:
            return f"Noted: {self.guess}. Now run the next cells." if self.guess else None
        if not self._shown:
            return f"It has been {self._how}. Pick an option to see the answer."
        return self._told(self._measured, self.guess)

    def _told(self, measured: str, guess: str | None) -> str:
        """The answer to this guess."""
        if measured not in self._choice.options:
            told = f" Your guess stands: {guess}." if guess else ""
            return f"{CANNOT_TELL[self._how]}: {measured}.{told}"
        how = self._how.capitalize()
        if guess is None:
            return f"{how}: {measured} (no guess made)."
        if guess == measured:
            return f"{how}: {measured}, as you predicted."
        return f"{how}: {measured}. You predicted: {guess}. Why the difference?"

    def reveal(self, measured: str, how: How = "measured") -> None:
        """Set the answer: shown at once after a guess, otherwise on a click.

        Args:
            measured: an option; any other text says why the measurement does not decide.
            how: what is said of the answer: what was recorded elsewhere or simulated is not measured here, nor is what
                was computed from measurements, such as a bound or a prediction.
        """
        self._measured, self._how = measured, how
        self._shown = self.guess is not None
        self._say()
        self.renew()

    def still(self) -> str:
        """The question and its options as HTML; a measured answer is folded.

        Each option has what is said to those who pick it as ``data-said``, for a page whose own script asks.
        """
        asked = f"<p><b>Predict.</b> {html.escape(self._question)}</p>"
        if (measured := self._measured) is None:
            options = "".join(f"<li>{html.escape(option)}</li>" for option in self._choice.options)
            return f"{asked}<ul>{options}</ul><p>{self._answer.value}</p>"
        options = "".join(
            f'<li data-said="{html.escape(self._told(measured, option))}">{html.escape(option)}</li>'
            for option in self._choice.options
        )
        answer = f"<details><summary>The answer</summary>{html.escape(self._told(measured, None))}</details>"
        return f"<div class='kit-quiz'>{asked}<ul>{options}</ul>{answer}</div>"

    def _note(self, change: object) -> None:
        if self.guess is not None:
            _guesses[self._question] = self.guess
            self._shown = self._measured is not None
        self._say()

    def _give_up(self, button: object) -> None:
        self._shown = True
        self._say()

    def _say(self) -> None:
        self._show.layout.display = None if self._measured is not None and not self._shown else "none"
        self._choice.disabled = self._shown  # the guess stands
        self._answer.value = f"<i>{html.escape(self.answer or '')}</i>"

    def __repr__(self) -> str:
        return f"Quiz({len(self._choice.options)} options)"
