"""Notebook 02: its quizzes and their answers, its sentences, tables and card, its exercises.

No sentence compares two medians: how many times as long something takes is the ratio of the rounds, as in the table.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kit.errors import TransferError
from kit.executors.workers.pickling import dump, load
from kit.labs import conclusions, transports
from kit.labs.checks import check, first_wrong
from kit.labs.conclusions import Claim, card, claim_faster, decided, fastest, row_of
from kit.labs.measured import branch_ms, call_ms, outside_ms
from kit.labs.sentences import describe
from kit.labs.transports import PICKLED, SHARED, TRANSPORTS
from kit.measuring.comparison import Comparison, Timing
from kit.text import markdown_table
from kit.trace import Trace
from kit.views.chart import Chart
from kit.views.figures import line_chart
from kit.views.quiz import Quiz
from kit.workloads.medians import Median

# Name and what it is, in the order in which they happen to a process.
PHASES = {
    "start": "the caller pickles model and inputs, and starts the process",
    "spawn": "a new Python interpreter starts and reads what it was given",
    "imports": "it imports torch",
    "load": "it unpickles the model and the inputs",
    "compute": "it runs the stream",
    "send": "the result goes back through the queue",
    "join": "the caller waits for the processes to end",
}
COLD = "processes_cold"
ALONE = "sequential(threads=1)"
QUIZZES = {
    "recipe": (
        "The toy with a new process for each stream, against one stream after the other. The processes take ...",
        ["less time", "up to 10 times as long", "10 to 100 times as long", "more than 100 times as long"],
    ),
    "warm": (
        "Warm workers, one for each stream, against one stream after the other on all cores. The workers are ...",
        ["faster", "slower", "no difference found"],
    ),
    "transport": (
        "A tensor of 10 MB goes to a warm worker and back. Which transport is fastest?",
        ["a pickled copy through a queue", "a queue of torch.multiprocessing", "shared memory that both sides keep"],
    ),
    "gil": (
        "Two branches in pure Python. Which approach is fastest?",
        ["sequential", "threads", "processes"],
    ),
}


def quiz(name: str) -> Quiz:
    """A quiz of the notebook; its answer is given by ``<name>_answer``."""
    return conclusions.quiz(QUIZZES, name)


# What the quizzes reveal ----------------------------------------------------------------------------------------------


def recipe_answer(published: Comparison) -> str:
    """How many times as long the recipe takes, where the whole interval lies within one of the options."""
    said, row = decided(published, COLD), row_of(published, COLD)
    if said not in ("faster", "slower", "no difference found") or row is None or row.ratio is None:
        return said
    low, high = 1 / row.ratio.high, 1 / row.ratio.low
    options = QUIZZES["recipe"][1]
    within = {options[sum(limit <= each for limit in (1, 10, 100))] for each in (low, high)}
    return within.pop() if len(within) == 1 else f"not decided: from {low:,.3g} to {high:,.3g} times as long"


def warm_answer(warm: Comparison) -> str:
    """The verdict on warm workers, or why there is none."""
    return decided(warm, "processes")


def transport_answer(trips: Mapping[int, Comparison]) -> str:
    """The transport that is faster than both others at the largest size, or why none is known to be."""
    best = fastest(trips[max(trips)], TRANSPORTS)
    return dict(zip(TRANSPORTS, QUIZZES["transport"][1], strict=True)).get(best, best)


def gil_answer(gil: Comparison) -> str:
    """The approach that is faster than both others, or why none is known to be."""
    return fastest(gil, QUIZZES["gil"][1])


# Sentences and tables, in Markdown ------------------------------------------------------------------------------------


def phases_ms(trace: Trace) -> dict[str, dict[str, float]]:
    """Milliseconds of each phase of a recorded call by lane: ``{"process 0": {"spawn": 40.1, ...}, "caller": ...}``."""
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for event in trace.events():
        if event.category in ("startup", "transfer", "task"):
            phase = "compute" if event.category == "task" else event.name
            found[event.lane.label][phase] += event.duration_ns / 1e6
    return {lane: dict(phases) for lane, phases in sorted(found.items())}


def phases_table(trace: Trace) -> str:
    """Where the time of a recorded call went, as a Markdown table with a column for each lane."""
    found = phases_ms(trace)
    rows = []
    for phase, what in PHASES.items():
        cells = [f"{phases[phase]:.1f} ms" if phase in phases else "" for phases in found.values()]
        if any(cells):
            rows.append((phase, *cells, what))
    table = markdown_table(("phase", *found, "what happens"), f"l{'r' * len(found)}l", rows)
    return f"{table}\n\nThese are the times of the one call that the timeline shows."


def about_recipe(published: Comparison) -> str:
    """What the recipe costs on the toy, in the numbers of the table."""
    row = row_of(published, COLD)
    if row is None or row.ratio is None or row.timing is None:
        return f"**{COLD}**: {decided(published, COLD)}."
    found = decided(published, COLD)
    said = (
        f"A process for each stream takes {call_ms(row.timing).ms} a call. Against one stream after the other: "
        f"{row.ratio}, **{found}**."
    )
    if found.startswith("not "):
        return f"{said} This is what was seen, and it decides nothing. Close other programs and measure again."
    return said if found == "wrong output" else f"{said} The output is the same."


def start_up_ms(published: Comparison) -> Median | None:
    """Milliseconds of a call of the recipe outside its longest stream, over all rounds; None where it did not run."""
    timing = _timing(published, COLD)
    return outside_ms(timing) if timing else None


def about_break_even(published: Comparison, one_thread: Comparison) -> str:
    """How long the shorter of the real streams would have to work until the recipe breaks even.

    Args:
        published: ``processes_cold`` and others on the toy.
        one_thread: ``sequential`` and ``sequential(threads=1)`` on the real streams.
    """
    start, timing = start_up_ms(published), _timing(one_thread, ALONE)
    if start is None or timing is None:
        return (
            f"The break-even is not known: {decided(*((published, COLD) if start is None else (one_thread, ALONE)))}."
        )
    streams = branch_ms(timing)
    name = min(streams, key=lambda each: streams[each].estimate)
    doubts = [said for said in (decided(published, COLD), decided(one_thread, ALONE)) if said.startswith("not ")]
    lines = [
        f"- At one thread, {' and '.join(f'`{each}` takes {took.ms}' for each, took in streams.items())}.",
        f"- Running them at the same time saves at most the shorter one: `{name}`.",
        f"- Starting and ending the processes takes {start.ms}, measured with the toy.",
        f"- So the recipe breaks even only with a stream that takes as long as that: "
        f"**{start.over(streams[name]).times}** as long as `{name}` takes here.",
    ]
    if doubts:
        lines.append(f"- **These numbers decide nothing: {doubts[0].removeprefix('not decided: ')}.**")
    return "\n".join(lines)


def about_warm(warm: Comparison, published: Comparison) -> str:
    """What the workers that stay bring and still cost, in the numbers of the tables.

    Args:
        warm: ``sequential``, ``threads`` and ``processes`` on the real streams.
        published: ``sequential``, ``processes`` and ``processes_cold`` on the toy.
    """
    said, timing = describe(warm), _timing(warm, "processes")
    if timing is None:
        return said
    moves = Median.of(turn.overhead["transfer"] / 1e6 for turn in timing.turns if turn is not None)
    return (
        f"{said}\n\nOf a call of `processes`, the data transfer takes {moves.ms}: the inputs are copied into shared "
        f"memory and the results out of it, and each worker is woken up.\n\n{_against_cold(published)}"
    )


def _against_cold(published: Comparison) -> str:
    claim = warm_beats_cold(published)
    answer = {"true": "**faster** than", "false": "**not faster** than"}.get(claim.truth)
    if answer is None:
        why = claim.by.removeprefix("not decided: ")
        return f"On the toy, workers that stay against a process for each call: not decided, {why}."
    return f"On the toy, workers that stay are {answer} a process for each call: {claim.by}."


def warm_beats_cold(published: Comparison) -> Claim:
    """The claim that workers that stay are faster than a process for each call.

    The recipe has rounds of its own, so the two are not paired. But all intervals of a table hold at the same time: if
    those of the two speed-ups over ``sequential`` do not meet, the two differ.
    """
    text = "On the toy, workers that stay are faster than a process for each stream and call"
    stay, cold = row_of(published, "processes"), row_of(published, COLD)
    for name in ("processes", COLD):
        if (said := decided(published, name)).startswith(("not ", "wrong")):
            return Claim(text, "not decided", said)
    assert stay is not None
    assert cold is not None
    assert stay.ratio is not None
    assert cold.ratio is not None
    by = f"against sequential, workers that stay {stay.ratio}, a process for each call {cold.ratio}"
    if stay.ratio.low > cold.ratio.high:
        return Claim(text, "true", by)
    return Claim(text, "false" if stay.ratio.high < cold.ratio.low else "not decided", by)


def transport_chart(trips: Mapping[int, Comparison]) -> Chart:
    """The median of each transport over the sizes; without a transport that could not run."""
    lines = {
        name: [transports.milliseconds(each, name) for each in trips.values()]
        for name in TRANSPORTS
        if all(each[name].timing for each in trips.values())
    }
    return line_chart(list(trips), lines, x_title="bytes there and back", y_title="milliseconds")


def transport_table(trips: Mapping[int, Comparison]) -> str:
    """The time there and back of each transport and size, and which is faster than both others."""
    rows = []
    for size, each in trips.items():
        cells = [call_ms(timing).ms if (timing := each[name].timing) else "-" for name in TRANSPORTS]
        rows.append((f"{size:,}", *cells, fastest(each, TRANSPORTS)))
    return markdown_table(("bytes", *TRANSPORTS, "faster than both others"), "rrrrl", rows)


def conclusion(published: Comparison, warm: Comparison, trips: Mapping[int, Comparison], gil: Comparison) -> str:
    """The notebook's claims, and for each what this machine said: true, false, or not decided."""
    large = max(trips)
    more = QUIZZES["recipe"][1][-1]
    answer = recipe_answer(published)
    recipe = row_of(published, COLD)
    by = [str(recipe.ratio)] if recipe is not None else []
    by += [answer] if answer.startswith("not ") or not by else []
    return card(
        [
            Claim(
                f"A process for each stream of the toy and each call takes {more} as one after the other",
                conclusions.truth(answer, more),
                ", ".join(by),
            ),
            warm_beats_cold(published),
            claim_faster(
                "Real streams on workers that stay are faster than one after the other on all cores", warm, "processes"
            ),
            claim_faster(
                f"At {large:,} bytes, shared memory that both sides keep is faster than a pickled copy through a queue",
                trips[large],
                SHARED,
                PICKLED,
            ),
            claim_faster("For branches in pure Python, processes are faster than threads", gil, "processes", "threads"),
        ]
    )


def _timing(comparison: Comparison, name: str) -> Timing | None:
    row = row_of(comparison, name)
    return row.timing if row else None


# Exercises ------------------------------------------------------------------------------------------------------------


class Guarded(nn.Module):
    """The branch of the exercise: a convolution behind a lock, which no other process can have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.lock = threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        with self.lock:
            out: Tensor = self.conv(x)
            return out


@check
def check_break_even(calls: Callable[[float, float, float], float | None]) -> str | None:
    """``calls(start_up, sequential, parallel)``: after how many calls warm workers have paid for their start."""
    never = "where the workers are not faster than sequential, no number of calls is enough: return math.inf."
    cases = [
        (
            (1000.0, 10.0, 5.0),
            200,
            "a start of 1000 ms and a gain of 5 ms a call: break-even is after 200 calls, when both took equally long.",
        ),
        ((1000.0, 10.0, 7.0), 334, "1000 ms at 3 ms a call are 333.3 calls: round up, there is no third of a call."),
        ((1000.0, 5.0, 5.0), math.inf, never),
        ((1000.0, 5.0, 8.0), math.inf, never),
    ]
    if calls(1000.0, 10.0, 5.0) is not None and calls(1000.0, 5.0, 8.0) is None:
        return never
    return first_wrong(calls, cases)


@check
def check_sent(model: Any) -> str | None:
    """A :class:`Guarded` (or a subclass) that can be sent to another process and still works there."""
    if isinstance(model, type):
        return "give an object, not the class: call it, as in MyGuarded()."
    if not isinstance(model, Guarded):
        return "give an object of a subclass of Guarded, so that everything else stays as it is."
    try:
        body = dump(model)
    except TransferError as error:
        return f"it cannot be sent yet: {error}"
    if not hasattr(model, "lock"):
        return (
            "pickling took the lock from your own model too: __getstate__ returns a copy of self.__dict__ without it."
        )
    try:
        copy = load(body)
    except Exception as error:
        return f"it cannot be unpickled ({type(error).__name__}: {error}): what does your __setstate__ do?"
    if not hasattr(copy, "conv"):
        return "it arrives without its layers: call super().__setstate__(state) in __setstate__."
    if getattr(copy, "lock", None) is None:
        return "it arrives without a lock: make a new one in __setstate__."
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        if not torch.equal(copy(x), model(x)):
            return "it arrives, but computes something else there: pass the rest of the state on unchanged."
    return None
