"""Medians over all rounds, each with its 95% interval: no number of a sentence comes from a single trace."""

from __future__ import annotations

from kit.measuring.comparison import Timing
from kit.workloads.medians import Median


def call_ms(timing: Timing) -> Median:
    """Milliseconds of a call."""
    return Median.of(timing.samples_ns / 1e6)


def branch_ms(timing: Timing) -> dict[str, Median]:
    """Milliseconds of each branch in a call, by its name; nothing where no branch was recorded."""
    return {name: Median.of(rounds) for name, rounds in branch_rounds(timing).items()}


def branch_rounds(timing: Timing) -> dict[str, list[float]]:
    """Milliseconds of each branch in a call, a number for each round."""
    turns = [turn.tasks for turn in timing.turns if turn is not None]
    names = dict.fromkeys(name for tasks in turns for _region, name in tasks)
    return {
        name: [sum(ns for (_region, each), ns in tasks.items() if each == name) / 1e6 for tasks in turns]
        for name in names
    }


def overlap(timing: Timing) -> Median | None:
    """Of two branches: the share of the time in which any of them ran that both did; None where it is not known."""
    turns = [turn for turn in timing.turns if turn is not None and turn.overlap is not None and turn.work > 0]
    if not turns or len(turns) < len(timing.turns):
        return None
    return Median.of((turn.overlap or 0.0) / (turn.work - (turn.overlap or 0.0)) for turn in turns)


def outside_ms(timing: Timing) -> Median:
    """Milliseconds of a call outside the tasks of its busiest lane: handing out, waiting, merging, and the rest."""
    rounds = zip(timing.samples_ns, timing.turns, strict=True)
    return Median.of((sample - turn.busiest) / 1e6 for sample, turn in rounds if turn is not None)
