"""Notebook 00: its quizzes and their answers, and its sentences."""

from __future__ import annotations

from kit.labs import conclusions
from kit.labs.conclusions import card, claim_faster, decided, in_a_cell, row_of
from kit.labs.measured import call_ms, overlap
from kit.measuring.comparison import Comparison
from kit.text import counted
from kit.views.quiz import Quiz

NAPPING = "threads(workers=4)"
QUIZZES = {
    "naps": (
        "Four naps of 10 ms on four threads: how long until all four are done?",
        ["about 10 ms", "about 20 ms", "about 40 ms", "more than 50 ms"],
    ),
    "streams": (
        "The two streams on two threads, against one after the other with each operator on all cores. The threads "
        "are ...",
        ["faster", "slower", "no difference found"],
    ),
}
_UNTIL_MS = (15, 30, 50)  # the upper ends of all but the last option


def quiz(name: str) -> Quiz:
    """A quiz of the notebook; its answer is given by ``<name>_answer``."""
    return conclusions.quiz(QUIZZES, name)


def naps_answer(comparison: Comparison) -> str:
    """How long four naps took on four threads, if the interval of the median lies within one option."""
    row, said = row_of(comparison, NAPPING), decided(comparison, NAPPING)
    if row is None or row.timing is None or said.startswith("not "):
        return said
    took = call_ms(row.timing)
    low, high = (sum(end > limit for limit in _UNTIL_MS) for end in (took.low, took.high))
    return QUIZZES["naps"][1][low] if low == high else f"not decided: {took.ms} leaves two answers open"


def streams_answer(comparison: Comparison) -> str:
    """The verdict on threads, or why there is none."""
    return decided(comparison, "threads")


def about_naps(comparison: Comparison) -> str:
    """What the naps took, and what follows from it, in Markdown."""
    said, cores = decided(comparison, NAPPING), counted(comparison.cores, "usable core")
    seen = _seen(comparison, NAPPING, "the naps took")
    if said == "faster":
        seen += f" This machine has {cores}, and four naps overlapped: **waiting needs no core.** Computing does."
    elif not said.startswith("not "):
        seen += " Naps wait and do not compute, so four threads should be faster: something is wrong here."
    return (
        f"{seen}\n\nThis was the *control experiment*: if this simple case were wrong, we could not trust harder ones."
    )


def about_streams(comparison: Comparison) -> str:
    """What the streams took, and how long both ran at the same time, in Markdown."""
    seen, row = _seen(comparison, "threads", "a call took"), row_of(comparison, "threads")
    share = overlap(row.timing) if row is not None and row.timing is not None else None
    if share is not None:
        seen += f" Both streams ran at the same time for {share.percent} of the time in which any of them ran."
    return seen


def _seen(comparison: Comparison, name: str, what: str) -> str:
    row, lead, said = row_of(comparison, name), comparison.baseline, decided(comparison, name)
    if row is None or row.timing is None or lead.timing is None:
        return f"`{name}`: {in_a_cell(said)}."
    seen = (
        f"One after the other {what} **{call_ms(lead.timing).ms}**; on threads **{call_ms(row.timing).ms}** (medians "
        f"of {comparison.rounds} rounds, with 95% intervals). Speed-up of threads: {row.ratio_text}: "
        f"**{in_a_cell(said)}**."
    )
    if said.startswith("not "):
        again = "Close other programs and run the measurement again." if row.decidable else "Measure more rounds."
        seen += f" This is what was seen, and it decides nothing. {again}"
    return seen


def conclusion(napping: Comparison, streams: Comparison) -> str:
    """The notebook's claims, and for each what this machine said: true, false, or not decided."""
    return card(
        [
            claim_faster("Four threads that only wait are faster than one after the other", napping, NAPPING),
            claim_faster("Two streams that compute are faster on threads", streams, "threads"),
        ]
    )
