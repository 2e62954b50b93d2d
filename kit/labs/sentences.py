"""What a comparison found, in words that are computed from it."""

from __future__ import annotations

from kit.labs.measured import call_ms, overlap
from kit.measuring.comparison import SMALLEST_EFFECT, Comparison, Row
from kit.text import as_fast, times
from kit.trace import Trace, busy_ns, overlap_ns


def overlap_share(trace: Trace, category: str = "task") -> float:
    """Share of the busy time of branches, or of ``kernel``, in which two lanes were busy: 0 is one after the other."""
    tasks = trace.select(categories=[category])
    return overlap_ns(tasks) / max(1, busy_ns(tasks))


def reached(share: float) -> str:
    """How much of a bound was reached, in Markdown: what is beyond it was not reached, but measured wrongly.

    Args:
        share: the least possible time by the measured one, or the measured rate by the highest possible.
    """
    if share <= 1 + SMALLEST_EFFECT:
        return f"**{min(1, share):.0%}** of that speed"
    return (
        f"**{share:.2f} times that speed, which cannot be**: one of the two measurements was disturbed, and nothing "
        "follows from them. Run both cells again"
    )


def describe(comparison: Comparison) -> str:
    """A sentence per approach in Markdown, with the numbers just measured."""
    lines = []
    for row in comparison.rows:
        if row.timing is None:
            lines.append(f"- **{row.name}** cannot run here: {row.reason}")
        elif row.baseline:
            lines.append(f"- **{row.name}**: {call_ms(row.timing).ms} a call, the baseline.")
        else:
            because = f" ({row.doubt})" if row.verdict == "not decided" and row.doubt else ""
            shared = overlap(row.timing)
            said = "write no spans, so how far they overlapped is not known."
            if shared is not None:
                said = f"overlapped for {shared.percent} of the time that any of them ran."
            lines.append(
                f"- **{row.name}**: {call_ms(row.timing).ms} a call. Speed-up over "
                f"{comparison.baseline.name}: {row.ratio_text}, **{row.verdict}**{because}. Its branches {said}"
            )
    return "\n".join(lines)


def speed(row: Row) -> str:
    """A row's speed-up in one direction: ``1.63x as fast [1.50, 1.70]``, or ``36x slower [30, 40]``.

    Without an interval where there were too few rounds for one; ``-`` where it was not measured.
    """
    if row.ratio is None:
        return "-"
    if not row.decidable:
        return as_fast(row.ratio.estimate)
    if row.ratio.high >= 1:
        return f"{times(row.ratio.estimate)}x as fast [{times(row.ratio.low)}, {times(row.ratio.high)}]"
    slower, low, high = (times(1 / each) for each in (row.ratio.estimate, row.ratio.high, row.ratio.low))
    return f"{slower}x slower [{low}, {high}]"
