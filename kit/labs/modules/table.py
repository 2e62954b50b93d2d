"""The gallery as a table that the reader filters, and as the same table without widgets."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence

import ipywidgets as widgets

from kit.labs.modules.gallery import Answer, Row
from kit.text import counted
from kit.views.still import Still

SIGNS = {"equal": "✓", "works": "✓", "differs": "≠", "raises": "✗"}
HEAD = {  # of the table -> what it means
    "module": "and its setting",
    "verdict": "",
    "torch": "forward is PyTorch's",
    "steps": "forward_steps is forward",
    "pad_end": "forward_steps(pad_end=True) is forward",
    "step": "forward_step is forward",
    "outputs": "a block for each step that gave one, a dot for None",
    "delay": "in frames",
    "field": "receptive field in frames",
    "bytes": "of state",
    "why": "",
}
ALL = "all"
SHORT = 16  # characters of a cell that stays on one line
_CELL = "text-align:left;vertical-align:top;padding:3px 8px 3px 0;line-height:1.35"
_NAME = "font-weight:normal;min-width:130px;max-width:150px;overflow-wrap:anywhere"


class Gallery(Still):
    """The rows of the gallery whose name, kind and verdict are chosen; all of them at first."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        wide = {"description_width": "initial"}
        kinds, verdicts = (list(dict.fromkeys(each)) for each in ([r.kind for r in rows], [r.verdict for r in rows]))
        self.name = widgets.Text(description="name contains", placeholder="Pool, 3d, padding", style=wide)
        self.kind = widgets.Dropdown(options=[ALL, *kinds], description="kind", style=wide)
        self.verdict = widgets.Dropdown(options=[ALL, *verdicts], description="verdict", style=wide)
        self.table = widgets.HTML()
        super().__init__(widgets.HBox([self.name, self.kind, self.verdict]), self.table)
        for control in (self.name, self.kind, self.verdict):
            control.observe(self._show, "value")
        self._show()

    @property
    def chosen(self) -> list[Row]:
        """The rows that are shown."""
        wanted = self.name.value.lower()
        return [
            row
            for row in self.rows
            if wanted in f"{row.name} {row.case} {row.said}".lower()
            and self.kind.value in (ALL, row.kind)
            and self.verdict.value in (ALL, row.verdict)
        ]

    def _show(self, change: object = None) -> None:
        # tabindex: the keys scroll what is higher than the box.
        self.table.value = (
            f"<div tabindex='0' role='region' aria-label='The gallery' style='max-height:480px;overflow:auto'>"
            f"{gallery_html(self.chosen)}</div>"
        )

    def still(self) -> str:
        """All rows as HTML: without widgets nobody filters."""
        return gallery_html(self.rows)

    def __repr__(self) -> str:
        return f"Gallery({len(self.rows)} rows)"


def gallery_html(rows: Sequence[Row]) -> str:
    """These rows as an HTML table, with a line below that counts them."""
    head = "".join(
        f"<th scope='col' style='{_CELL}' title='{html.escape(HEAD[name], True)}'>{name}</th>" for name in HEAD
    )
    body = "".join(map(_line, rows))
    return (
        f"<table style='font-size:12px'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"<p style='line-height:1.4'>{html.escape(_counted(rows))}</p>"
    )


def _line(row: Row) -> str:
    cells = "".join(
        f"<td style='{_CELL}{';white-space:nowrap' if len(cell) < SHORT else ''}'>{html.escape(cell)}</td>"
        for cell in _cells(row)
    )
    name = f"<b>{row.name}</b><br>{html.escape(row.case or row.said)}"
    return f"<tr><th scope='row' style='{_CELL};{_NAME}'>{name}</th>{cells}</tr>"


def gallery_told(rows: Sequence[Row], names: Sequence[str]) -> str:
    """How much of the library was tried, and what came out, in Markdown.

    Args:
        names: what the library exports.
    """
    missing = sorted(set(names) - {row.name for row in rows})
    told = (
        f"{len(names) - len(missing)} of the {len(names)} public names of the library, in {counted(len(rows), 'row')}. "
    )
    told += f"Missing: {', '.join(missing)}. " if missing else ""
    told += f"{_counted(rows)}\n"
    reasons: dict[str, list[Row]] = {}
    for row in rows:
        if row.faults:
            reasons.setdefault(row.why or row.faults[0], []).append(row)
    lines = [f"\n- {', '.join(map(_named, found))}: {reason}." for reason, found in reasons.items()]
    return told + "".join(lines)


def _named(row: Row) -> str:
    return f"**{row.name}**" + (f" ({row.case})" if row.case else "")


def _counted(rows: Sequence[Row]) -> str:
    count = Counter(row.verdict for row in rows)
    said = {
        "equal": "all modes agree",
        "works": "does what it says",
        "differs": "a mode, or what the module says of itself, differs",
        "raises": "a mode raises an exception",
    }
    return "; ".join(f"{SIGNS[key]} {key} ({text}): {count[key]}" for key, text in said.items() if count[key]) + "."


def _cells(row: Row) -> tuple[str, ...]:
    """The cells of a row after its module."""
    state = f"{row.state:,}" if row.state else "none" if row.outputs else ""
    return (
        f"{SIGNS[row.verdict]} {row.verdict}",
        *map(_cell, (row.as_torch, row.steps, row.padded, row.step)),
        "".join("█" if gave else "·" for gave in row.outputs),
        *(_pair(pair) for pair in (row.delay, row.field)),
        f"{state}, get_state(): None" if row.state and row.gives_state is False else state,
        row.why if row.faults else "",
    )


def _cell(answer: Answer) -> str:
    if answer is None:
        return ""
    if isinstance(answer, str):
        return answer if len(answer) < 60 else f"{answer[:57]}..."
    if answer.equality.equal:
        return f"yes, {answer.equality.max_abs_error:.0e}" if answer.equality.max_abs_error else "yes, 0"
    return f"NO, {answer}"


def _pair(pair: tuple[int, int | None] | None) -> str:
    if pair is None:
        return ""
    said, has = pair
    return str(said) if has is None or has == said else f"{has} (it says {said})"
