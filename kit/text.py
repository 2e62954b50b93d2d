"""Text for people: times, ratios, sizes and tables, in one format everywhere."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

GIB = 2**30


def times(ratio: float) -> str:
    """A ratio with three significant digits, two below 1: ``1.28``, ``22.7``, ``2,931``, ``0.00011``."""
    if ratio >= 0.995:
        return f"{ratio:,.{2 if ratio < 9.995 else 1 if ratio < 99.95 else 0}f}"
    return f"{ratio:.{2 if ratio >= 0.1 or ratio <= 0 else 1 - math.floor(math.log10(ratio))}f}"


def as_fast(ratio: float) -> str:
    """A speed-up in words: ``1.63x as fast``, or ``36x slower`` if the ratio is below 1."""
    if ratio >= 1:
        return f"{ratio:,.2f}x as fast"
    return f"{1 / ratio:.2f}x slower" if ratio > 0.1 else f"{1 / ratio:,.0f}x slower"


def milliseconds(ms: float) -> str:
    """A time for people, to three digits: ``0.214 ms``, ``2,050 ms``."""
    return f"{float(f'{ms:.3g}'):,g} ms"


def between(low_ms: float, high_ms: float) -> str:
    """An interval of times: ``[4.1 ms, 4.3 ms]``."""
    return f"[{milliseconds(low_ms)}, {milliseconds(high_ms)}]"


def time_text(ns: float) -> str:
    """A duration for people, to three digits: ``812 ns``, ``1.23 µs``, ``45.6 ms``, ``7.89 s``."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if abs(ns) >= size * 0.9995:  # 999.5 and up would round to 1000 of the smaller unit
            value = ns / size
            return f"{value:.{max(0, 3 - len(str(int(abs(value) + 5e-4))))}f} {unit}"
    return f"{ns:.0f} ns"


def with_prefix(number: int) -> str:
    """A count with three significant digits and its prefix: ``5.71 G``; a small count ends in a space: ``340 ``."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.2f} {letter}"
    return f"{number} "


def counted(number: int, noun: str) -> str:
    """A number with its noun: ``1 core``, ``2 cores``."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def bytes_text(size: int | None) -> str:
    """A number of bytes: ``512 MiB``, ``24.0 GiB``."""
    if size is None:
        return "an unknown amount"
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / 2**20:.0f} MiB"


def in_columns(table: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines of text with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in table]


_CELL = "text-align:left;padding:4px 10px 4px 0;line-height:1.4"  # in a widget no style sheet of a page applies


def html_table(table: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """A table (its first row is the header) as HTML, with a paragraph for each note below it."""

    def row(line: Sequence[str], kind: str) -> str:
        return "".join(f"<{kind} style='{_CELL}'>{html.escape(cell)}</{kind}>" for cell in line)

    body = "".join(f"<tr>{row(line, 'td')}</tr>" for line in table[1:])
    below = "".join(f"<p style='line-height:1.4'>{html.escape(note)}</p>" for note in notes)
    return f"<table><thead><tr>{row(table[0], 'th')}</tr></thead><tbody>{body}</tbody></table>{below}"


def markdown_table(head: Sequence[str], sides: str, rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; ``sides`` has one letter for the alignment of each column: ``l`` left, ``r`` right."""
    rule = [{"l": "---", "r": "---:"}[side] for side in sides]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, rule, *rows))
