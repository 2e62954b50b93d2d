"""A question to answer before running the cell that settles it."""

from __future__ import annotations

import html
from collections.abc import Sequence

import ipywidgets as widgets

from kit.views.still import Still

# Answering makes the quiz's cell the active one, so that Shift + Enter runs it again: the guess must outlive that.
_guesses: dict[str, str] = {}


class Quiz(Still):
    """A guess, recorded: pick an option, run the next cells, and see whether the measurement agrees.

    It never blocks: Run All goes on with no guess made. The order of the options is fixed.

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
        self._measured: str | None = None
        title = widgets.HTML(f"<b>Predict.</b> {html.escape(question)}")
        super().__init__(title, self._choice, self._answer)
        self._choice.observe(self._note, "value")
        if self.guess is not None:
            self._show()

    @property
    def guess(self) -> str | None:
        """The option picked so far, or None."""
        value: str | None = self._choice.value
        return value

    def reveal(self, measured: str) -> str:
        """Show under the question what was measured; returns the same as a sentence."""
        self._measured = measured
        self._choice.disabled = True  # the guess stands
        text = self._show()
        self.renew()
        return text

    def still(self) -> str:
        """The question, its options, and the answer as far as it is known."""
        options = "".join(f"<li>{html.escape(option)}</li>" for option in self._choice.options)
        return f"<p><b>Predict.</b> {html.escape(self._question)}</p><ul>{options}</ul><p>{self._answer.value}</p>"

    def _note(self, change: object) -> None:
        if self.guess is not None:
            _guesses[self._question] = self.guess
        self._show()

    def _show(self) -> str:
        if self._measured is None:
            text = f"Noted: {self.guess}. Now run on."
        elif self.guess is None:
            text = f"Measured: {self._measured} (no guess made)."
        elif self.guess == self._measured:
            text = f"Measured: {self._measured}, as you predicted."
        else:
            text = f"Measured: {self._measured}. You predicted: {self.guess}. Why the difference?"
        self._answer.value = f"<i>{html.escape(text)}</i>"
        return text

    def __repr__(self) -> str:
        return f"Quiz({len(self._choice.options)} options)"
