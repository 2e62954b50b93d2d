"""Tables of the notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], sides: str, rows: Iterable[Sequence[object]]) -> str:
    """Rows under a head as Markdown; ``sides`` has a letter for each column: ``l`` for left, ``r`` for right."""
    rule = [{"l": "---", "r": "---:"}[side] for side in sides]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, rule, *rows))
