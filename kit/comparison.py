"""The Comparison as data: what the rounds of each approach gave, and what may be said of it."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kit.equality import Equality
from kit.trace import Trace

SMALLEST_EFFECT = 0.01  # two copies of one network can differ by this much for reasons of memory layout

Verdict = Literal["baseline", "faster", "slower", "no difference found", "wrong output", "not available"]


class Ratio(NamedTuple):
    """Speed-up over the baseline: its time divided by this approach's, so that above 1 is faster."""

    estimate: float  # median of the rounds' ratios
    low: float  # at least 95% interval of that median
    high: float

    def __str__(self) -> str:
        return f"{times(self.estimate)}x [{times(self.low)}, {times(self.high)}]"


def times(ratio: float) -> str:
    """A ratio for people: ``1.28``, or ``1/9,300`` where decimals would be mostly zeros."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"1/{1 / ratio:,.0f}" if ratio > 0 else "0"


def milliseconds(ms: float) -> str:
    """A time for people, to three digits: ``0.214 ms``, ``2,050 ms``."""
    return f"{float(f'{ms:.3g}'):,g} ms"


@dataclass(frozen=True, eq=False)
class Timing:
    """What the rounds of one runner gave."""

    samples_ns: NDArray[np.float64]  # (rounds,) mean time of a call within each round's turn
    calls: int  # calls per turn
    trace: Trace  # spans of the round whose time is nearest the median

    @property
    def median_ms(self) -> float:
        """Median over the rounds, in milliseconds."""
        return float(np.median(self.samples_ns)) / 1e6

    @property
    def scatter(self) -> float:
        """Upper quartile of the rounds by the lower one: 1 is perfectly steady."""
        low, high = np.quantile(self.samples_ns, [0.25, 0.75])
        return float(high / low)


@dataclass(frozen=True, eq=False)
class Row:
    """One approach of a comparison."""

    name: str
    reason: str | None = None  # why it is not available here
    timing: Timing | None = None
    ratio: Ratio | None = None  # 1 for the baseline itself
    equality: Equality | None = None
    baseline: bool = False
    prepare_s: float = 0.0  # seconds of copying, exporting or compiling before the first call; in no timing

    @property
    def verdict(self) -> Verdict:
        """What may be said of it. A difference whose interval reaches to within 1% of nothing is not one."""
        if self.timing is None or self.ratio is None or self.equality is None:
            return "not available"
        if self.baseline:
            return "baseline"
        if not self.equality.equal:
            return "wrong output"
        if self.ratio.low > 1 + SMALLEST_EFFECT:
            return "faster"
        if self.ratio.high < 1 - SMALLEST_EFFECT:
            return "slower"
        return "no difference found"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "available": self.timing is not None,
            "reason": self.reason,
            "prepare_s": self.prepare_s,
            "median_ms": self.timing and self.timing.median_ms,
            "ratio": self.ratio and self.ratio._asdict(),
            "equal": self.equality and self.equality.equal,
            "max_abs_error": self.equality and self.equality.max_abs_error,
            "verdict": self.verdict,
        }


@dataclass(frozen=True, eq=False)
class Comparison:
    """Approaches measured on the same inputs in interleaved rounds, the baseline first."""

    rows: tuple[Row, ...]
    rounds: int
    inputs: str  # their shapes, dtypes and devices
    caveats: tuple[str, ...] = ()  # what a reader must know before believing the table

    def __getitem__(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"{name!r} was not compared; compared were {', '.join(row.name for row in self.rows)}")

    @property
    def traces(self) -> dict[str, Trace]:
        """Approach -> the spans of its most typical measured round."""
        return {row.name: row.timing.trace for row in self.rows if row.timing is not None}

    def table(self) -> list[tuple[str, ...]]:
        """The header, then a row per approach, as text."""
        head = ("approach", "median", f"speed-up over {self.rows[0].name} [95%]", "same output", "verdict")
        lines: list[tuple[str, ...]] = [head]
        for row in self.rows:
            if row.timing is None or row.equality is None:
                lines.append((row.name, "-", "-", "-", f"{row.verdict}: {row.reason}"))
                continue
            ratio, same = ("1", "-") if row.baseline else (str(row.ratio), str(row.equality))
            rounds = len(row.timing.samples_ns)
            few = f", {rounds} rounds by itself" if rounds != self.rounds else ""
            prepared = f", prepared in {row.prepare_s:.1f} s" if row.prepare_s >= 0.1 else ""
            median = f"{milliseconds(row.timing.median_ms)}{few}{prepared}"
            lines.append((row.name, median, ratio, same, row.verdict))
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "rounds": self.rounds,
            "inputs": self.inputs,
            "caveats": list(self.caveats),
            "approaches": [row.to_dict() for row in self.rows],
        }

    def __str__(self) -> str:
        table = self.table()
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table]
        notes = [self.caption, *(f"! {caveat}" for caveat in self.caveats)]
        return "\n".join([*(line.rstrip() for line in lines), *notes])

    @property
    def caption(self) -> str:
        """How to read the table."""
        return (
            f"{self.rounds} interleaved rounds on {self.inputs}. Speed-up: the median of the rounds' own ratios, "
            "not the ratio of the medians; above 1 is faster."
        )

    def __repr__(self) -> str:  # no times: a notebook's stored output must not change from run to run
        return f"Comparison({', '.join(row.name for row in self.rows)}; {self.rounds} rounds)"

    def _repr_html_(self) -> str:
        head, *body = self.table()
        cells = "".join(f"<th style='text-align:left'>{html.escape(cell)}</th>" for cell in head)
        rows = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in line) + "</tr>"
            for line in body
        )
        notes = "".join(f"<p>&#9888; {html.escape(caveat)}</p>" for caveat in self.caveats)
        caption = html.escape(self.caption)
        return f"<table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table><p>{caption}</p>{notes}"
