"""A comparison's table with an undecided row, and a button to measure again."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from kit.errors import KitError
from kit.measuring.comparison import Comparison
from kit.verbs import call_of
from kit.views.still import Still

PATIENCE_S = 60.0  # who measures again because of other programs has time to wait for them


class Again(Still):
    """The table of a comparison, and a button that repeats the measurement.

    The comparison object takes over the last measurement, so that the notebook's variable agrees with the table.
    """

    def __init__(self, comparison: Comparison, call: Callable[[float], Comparison]) -> None:
        self._comparison, self._call = comparison, call
        self._table, self._said = widgets.HTML(), widgets.HTML()
        self._button = widgets.Button(
            description="Measure again",
            tooltip=f"Waits up to {PATIENCE_S:.0f} s for other programs to leave the cores free, then measures once "
            "more",
            icon="refresh",
        )
        super().__init__(self._table, widgets.HBox([self._button, self._said]))
        self._button.on_click(self._pressed)
        self._table.value = self.still()

    def still(self) -> str:
        """The table as HTML."""
        return self._comparison._repr_html_()

    def _pressed(self, button: object) -> None:
        self._button.disabled = True
        self._said.value = f"Waiting up to {PATIENCE_S:.0f} s for other programs, then measuring ..."
        try:
            vars(self._comparison).update(vars(self._call(PATIENCE_S)))
            left = undecided(self._comparison)
            told = f"{left} of its rows are still not decided." if left else "Every row is decided now."
            self._said.value = f"Measured again. {told} Run the cells below again: they still show the earlier rounds."
        except KitError as error:
            self._said.value = f"Measuring again failed: {html.escape(str(error))}"
        finally:
            self._button.disabled = False
        self._table.value = self.still()
        self.renew()

    def __repr__(self) -> str:
        return f"Again({self._comparison!r})"


def undecided(comparison: Comparison) -> int:
    """The number of rows whose verdict is "not decided"."""
    return sum(row.verdict == "not decided" for row in comparison.rows)


def show(comparison: Comparison) -> None:
    """Display a comparison: its table, with a button to measure again if a row is not decided."""
    from IPython import display

    shown: Any = display.display  # IPython has no types for it
    call = call_of(comparison)
    if call is not None and undecided(comparison):
        shown(Again(comparison, call))
    else:
        shown({"text/plain": repr(comparison), "text/html": comparison._repr_html_()}, raw=True)
