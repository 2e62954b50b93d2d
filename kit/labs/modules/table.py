"""The gallery as a table that the reader filters, and as the same table without widgets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import ipywidgets as widgets

from kit.labs.modules.gallery import Agreement, Answer, Row
from kit.text import counted, html_table
from kit.views.still import Still

SIGNS = {"equal": "✓", "works": "✓", "differs": "≠", "raises": "✗"}
HEAD = (
    "name",
    "setting",
    "verdict",
    "forward is torch's",
    "forward_steps",
    "pad_end",
    "forward_step",
    "steps with an output",
    "delay",
    "receptive field",
    "state, bytes",
    "why",
)
ALL = "all"


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
    return html_table([HEAD, *map(_cells, rows)], [_counted(rows)])


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
    state = f"{row.state:,}" if row.state else "none" if row.outputs else ""
    return (
        row.name,
        row.case or row.said,
        f"{SIGNS[row.verdict]} {row.verdict}",
        *map(_cell, (row.as_torch, row.steps, row.padded, row.step)),
        "".join("█" if gave else "·" for gave in row.outputs),
        *(_pair(pair) for pair in (row.delay, row.field)),
        f"{state}; get_state() gives None" if row.state and row.gives_state is False else state,
        row.why if row.faults else "",
    )


def _cell(answer: Answer) -> str:
    if answer is None:
        return ""
    if isinstance(answer, Agreement) and not answer.equality.equal:
        return f"NO, {answer}"
    return str(answer)


def _pair(pair: tuple[int, int | None] | None) -> str:
    if pair is None:
        return ""
    said, has = pair
    return str(said) if has is None or has == said else f"{has} (it says {said})"
