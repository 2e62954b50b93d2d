"""Rows of a result that show themselves as a table: as text, and as HTML in a notebook."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

from kit.text import html_table, in_columns

T = TypeVar("T")


class Rows(tuple[T, ...], ABC):
    """A tuple of rows. Slices are plain tuples: a part of a table has no shares or sums of its own."""

    SHOWN = 20  # rows of a table; the rest is counted below it

    __slots__ = ()

    @abstractmethod
    def table(self) -> list[tuple[str, ...]]:
        """The header, then a line for each row that is shown."""

    def notes(self) -> list[str]:
        """Sentences below the table."""
        left = len(self) - self.SHOWN
        return [f"and {left:,} more"] if left > 0 else []

    def __str__(self) -> str:
        return "\n".join([*in_columns(self.table()), *self.notes()])

    def __repr__(self) -> str:  # no times: a notebook's stored output must not change from run to run
        return f"{type(self).__name__}({len(self)} rows)"

    def _repr_html_(self) -> str:
        return html_table(self.table(), self.notes())


def share(part: int, whole: int) -> str:
    """A part in percent: ``12.5%``; a dash where there is no whole."""
    return f"{part / whole:.1%}" if whole else "-"


def named(name: str, longest: int = 80) -> str:
    """The name of an event in one line of a table: the names of kernels are long, and names may hold anything."""
    name = name if len(name) <= longest else name[: longest - 1] + "…"
    return "".join(character if character.isprintable() else "\ufffd" for character in name)
