"""Two numbers to choose, and a table of the measurements: for which numbers is one approach faster than another?"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets

from kit.measuring.comparison import Comparison
from kit.verbs import compare
from kit.views.palette import NEUTRAL, OKABE_ITO
from kit.views.still import Still

Setting = tuple[int, int]  # a value of the rows, a value of the columns
_LOOKS = {  # verdict -> colour and, as a second channel, sign
    "faster": (OKABE_ITO[2], "&#9650;"),
    "slower": (OKABE_ITO[5], "&#9660;"),
    "no difference found": (NEUTRAL, "="),
}
_OPEN = (NEUTRAL, "?")  # of what was not decided or not measured


class Trials(Still):
    """Pick two numbers and measure: the speed-up of one approach over ``sequential`` joins a table, with its verdict.

    Args:
        make: makes the model and its inputs, from a value of the rows and a value of the columns.
        rows, columns: a name, and the values to choose from.
        first: settings that are measured when the widget is created.
        approach: name of the approach that is compared with ``sequential``.
        rounds: number of rounds of each comparison.
    """

    def __init__(
        self,
        make: Callable[[int, int], tuple[Any, Any]],
        rows: tuple[str, Sequence[int]],
        columns: tuple[str, Sequence[int]],
        *,
        first: Sequence[Setting] = (),
        approach: str = "threads",
        rounds: int = 20,
    ) -> None:
        self._make, self._rows, self._columns = make, rows, columns
        self._approach, self._rounds = approach, rounds
        self.measured: dict[Setting, Comparison] = {}
        self._row, self._column = (
            widgets.SelectionSlider(options=list(values), description=name, style={"description_width": "initial"})
            for name, values in (rows, columns)
        )
        self._button = widgets.Button(description="Measure")
        self._table = widgets.HTML()
        super().__init__(widgets.HBox([self._row, self._column, self._button]), self._table)
        for setting in first:
            self._measure(setting)
        self._button.on_click(self._pressed)

    def still(self) -> str:
        """The table of all measurements so far, as HTML."""
        name, over = html.escape(self._approach), "sequential"
        note = (
            f"Speed-up of {name} over {over}. &#9650; {name} is faster, &#9660; slower, = no difference found, "
            "? not decided, a dot: not measured yet."
        )
        head = "".join(
            f"<th scope='col' style='padding:6px'>{self._columns[0]} {each}</th>" for each in self._columns[1]
        )
        body = "".join(
            f"<tr><th scope='row' style='padding:6px'>{self._rows[0]} {row}</th>"
            + "".join(self._cell((row, column)) for column in self._columns[1])
            + "</tr>"
            for row in self._rows[1]
        )
        caption = f"<caption style='color:{NEUTRAL};text-align:left'>{note}</caption>"
        return f"<table style='font-size:13px'>{caption}<tr><td></td>{head}</tr>{body}</table>"

    def _cell(self, setting: Setting) -> str:
        if setting not in self.measured:
            return f"<td style='padding:6px 12px;text-align:center;color:{NEUTRAL}'>&middot;</td>"
        row = self.measured[setting][self._approach]
        colour, sign = _LOOKS.get(row.verdict, _OPEN)
        why = html.escape(row.summary, quote=True)
        style = f"padding:6px 12px;text-align:right;box-shadow:inset 0 0 0 2px {colour}"
        return f"<td style='{style}' title='{why}'>{sign} {html.escape(row.ratio_text)}</td>"

    def _pressed(self, _button: object) -> None:
        self._button.disabled = True
        self._button.description = "Measuring ..."
        try:
            self._measure((self._row.value, self._column.value))
        finally:
            self._button.disabled = False
            self._button.description = "Measure"
        self.renew()

    def _measure(self, setting: Setting) -> None:
        model, inputs = self._make(*setting)
        names = ["sequential", self._approach]
        self.measured[setting] = compare(model, inputs, names, rounds=self._rounds, progress=False)
        self._table.value = self.still()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._rows[1])} x {len(self._columns[1])})"
