"""What may be concluded from a comparison: one rule for the quizzes, the sentences and the cards of all notebooks.

A text that begins with "not " (not decided, not measured, not known) is no answer: it says why there is none.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from kit.labs.measured import overlap
from kit.measuring.comparison import Comparison, Ratio, Row
from kit.measuring.gate import NO_OVERLAP, over
from kit.reprs import one_line
from kit.text import markdown_table
from kit.views.quiz import Quiz

SAME = 1.1  # "the same" is an answer only where the interval leaves no larger factor open
_MORE = f"a difference of more than {SAME - 1:.0%}"
CLEAR = 1.25  # times as fast: a gain that only running at the same time explains

Truth = Literal["true", "false", "not decided"]


@one_line
class Claim(NamedTuple):
    """A line of a notebook's card."""

    text: str  # plain text
    truth: Truth  # what this machine said
    by: str  # plain text: the numbers that said it, or why nothing is decided


def quiz(quizzes: Mapping[str, tuple[str, list[str]]], name: str) -> Quiz:
    """A quiz by its name, from ``name -> (question, options)``."""
    question, options = quizzes[name]
    return Quiz(question, options)


def row_of(comparison: Comparison, name: str, baseline: str | None = None) -> Row | None:
    """The row of an approach, over another row of the same rounds if one is named; None where either was not measured.

    Args:
        baseline: the row that its speed-up is over; by default that of the comparison.
    """
    rows = {row.name: row for row in comparison.rows}
    if name not in rows or rows[name].timing is None:
        return None
    if baseline is None or baseline == comparison.baseline.name:
        return rows[name]
    if baseline not in rows or rows[baseline].timing is None:
        return None
    return over(comparison, baseline)[name]


def decided(comparison: Comparison, name: str, baseline: str | None = None) -> str:
    """The verdict on a row; where there is none, or it decides nothing, a text that says why."""
    row = row_of(comparison, name, baseline)
    if row is None:
        return _missing(comparison, [name] if baseline is None else [name, baseline])
    if row.verdict == "not available":
        return f"not decided: {name} has rounds of its own, which were measured beside {comparison.baseline.name} only"
    return f"not decided: {row.doubt}" if row.verdict == "not decided" else row.verdict


def streams_ran(comparison: Comparison, name: str, options: Sequence[str]) -> str:
    """Which of two options is true of an approach's streams, at any load of the machine, or why neither can be said.

    Args:
        options: that they ran at the same time, and that they ran one after the other.
    """
    together, apart = options
    row = row_of(comparison, name)
    if row is None or row.timing is None:
        return decided(comparison, name)
    share = overlap(row.timing)
    if share is None:
        return "not known: the streams wrote no spans"
    if share.high <= NO_OVERLAP:
        return apart
    return together if share.low > NO_OVERLAP else f"not decided: they overlapped for {share.percent} of the time"


def told(comparison: Comparison, name: str, baseline: str | None = None, *, faster: str, slower: str, same: str) -> str:
    """The option of a quiz that a row's verdict stands for, or why it stands for none.

    Args:
        same: given only where the interval lies within 1 / 1.1 and 1.1: a wide interval does not say that two are
            equally fast. The option "no difference found" says no more than the verdict, and needs no such interval.
    """
    said = decided(comparison, name, baseline)
    if said == "no difference found":
        row = row_of(comparison, name, baseline)
        assert row is not None
        return same if same == said or _is_narrow(row.ratio) else f"not decided: {row.ratio} leaves {_MORE} open"
    return {"faster": faster, "slower": slower}.get(said, said)


def fastest(comparison: Comparison, names: Iterable[str] | None = None) -> str:
    """The approach that is faster than each of the others, the baseline included, or why none is known to be.

    Args:
        names: the approaches among which to look, the baseline or not; by default all.
    """
    rows = [row for row in comparison.rows if row.ratio and row.verdict != "wrong output"]
    rows = [row for row in rows if names is None or row.name in set(names)]
    if not rows:
        return "not measured: none of them ran"
    best = max(rows, key=lambda row: row.ratio.estimate if row.ratio else 0.0)
    for row in rows:
        if row is not best and (said := decided(comparison, best.name, row.name)) != "faster":
            why = said if said.startswith("not ") else f"not decided: {best.name} against {row.name}: {said}"
            return why
    return best.name


def claim_faster(text: str, comparison: Comparison, name: str, baseline: str | None = None) -> Claim:
    """The claim that an approach is faster than another, and what this machine said."""
    said = told(comparison, name, baseline, faster="true", slower="false", same="false")
    found = truth(said, "true")
    row, verdict = row_of(comparison, name, baseline), decided(comparison, name, baseline)
    if verdict == "no difference found" and said != "false":  # one result, so not two names for it
        said = f"no difference found: {said.removeprefix('not decided: ')}"
    elif row and row.ratio:
        said = f"{row.ratio_text}, {verdict}"
    return Claim(text, found, said)


def no_gain(comparison: Comparison, name: str, baseline: str | None = None) -> str:
    """``true``: at most 1.25 times as fast; ``false``: more than that; any other text says why neither is known.

    That leaves room for what has nothing to do with running at the same time: a thread may have a faster core than
    another, and two programs' worth of threads get more of a shared machine than one. An interval may be wide on the
    side that is no gain.
    """
    said, row = decided(comparison, name, baseline), row_of(comparison, name, baseline)
    if said not in ("faster", "slower", "no difference found") or row is None or row.ratio is None:
        return said
    if row.ratio.high <= CLEAR:
        return "true"
    return "false" if row.ratio.low > CLEAR else f"not decided: {row.ratio} leaves either open"


def truth(answer: str, true: str) -> Truth:
    """Whether the answer of a quiz is the one that makes a claim true; nothing is decided by what is no answer."""
    if answer == true:
        return "true"
    return "not decided" if answer.startswith(("not ", "no difference", "wrong output")) else "false"


def card(claims: Iterable[Claim]) -> str:
    """The last cell of a notebook, in Markdown: its claims, and for each what this machine said."""
    rows = [
        (in_a_cell(each.text), each.truth if each.truth == "not decided" else f"**{each.truth}**", in_a_cell(each.by))
        for each in claims
    ]
    return markdown_table(("claim", "this machine said", "by"), "lll", rows)


def in_a_cell(text: object) -> str:
    """A text on one line, so that it fits a cell of a Markdown table."""
    return html.escape(" ".join(str(text).split()), quote=False).replace("|", "&#124;")


def _is_narrow(ratio: Ratio | None) -> bool:
    return ratio is not None and ratio.low >= 1 / SAME and ratio.high <= SAME


def _missing(comparison: Comparison, names: Iterable[str]) -> str:
    rows = {row.name: row for row in comparison.rows}
    for name in names:
        if name not in rows:
            return f"not measured: {name} is not in the table"
        if rows[name].timing is None:
            return f"not measured: {rows[name].reason}"
    raise KeyError(names)
