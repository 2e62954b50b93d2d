"""Notebook 10: its quizzes and their answers, its sentences and card."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from kit.labs import conclusions
from kit.labs.conclusions import Claim, card, told, truth
from kit.labs.profiles.recorded import ALONE, CALLS, DEEP, PROFILED, REQUESTS, First, Seen
from kit.measuring.comparison import Comparison, Row
from kit.measuring.gate import BUSY
from kit.text import counted, markdown_table, milliseconds, time_text, times
from kit.trace import CriticalPath, Trace, by_name, gpu_busy_ns, idle, wall_ns
from kit.trace.categories import DEVICE, having
from kit.trace.lanes import pack
from kit.views.quiz import Quiz

FEW = 1.25  # times as long
QUIZZES = {
    "first": (
        "In a new process, the first call of a network, against the calls after it. How long does it take?",
        ["less than 1.25 times as long", "1.25 times as long, or longer"],
    ),
    "cost": (
        f"{CALLS} calls of a block of small operators under torch.profiler, against {CALLS} without it. They take ...",
        ["longer", "equally long", "less time"],
    ),
    "threads": (
        "Two branches run on two worker threads. torch.profiler, as most examples use it, records operators of ...",
        ["both branches", "one branch", "neither branch"],
    ),
    "children": (
        "Two worker processes of a DataLoader make batches, within a profile. The operators of the workers are ...",
        ["in the profile", "not in the profile"],
    ),
    "asynchronous": (
        "A call of Inception v3 on a large GPU. For how much of the call does the GPU compute?",
        ["more than 75%", "25% to 75%", "less than 25%"],
    ),
    "straggler": (
        f"Of {REQUESTS} requests one has a larger picture. The mean time that a table gives for all of them is ...",
        ["within 25% of a usual request's", "more than 1.25 times a usual request's"],
    ),
}


def quiz(name: str) -> Quiz:
    """A quiz of the notebook; its answer is given by ``<name>_answer``."""
    return conclusions.quiz(QUIZZES, name)


# What the quizzes reveal ----------------------------------------------------------------------------------------------


def first_answer(first: First) -> str:
    """The option that the ratios of all processes lie in."""
    ratios, (alike, longer) = first.ratios, QUIZZES["first"][1]
    if first.taken is not None and first.taken.share > BUSY:
        return f"not decided: machine busy: {first.taken}"
    if max(ratios) < FEW:
        return alike
    low, high = times(min(ratios)), times(max(ratios))
    return longer if min(ratios) >= FEW else f"not decided: from {low} to {high} times as long"


def cost_answer(cost: Comparison) -> str:
    """What torch.profiler did to the time of the calls."""
    longer, same, less = QUIZZES["cost"][1]
    return told(cost, PROFILED, faster=less, slower=longer, same=same)


def threads_answer(seen: Seen) -> str:
    """Whose operators the plain profile has."""
    both, one, neither = QUIZZES["threads"][1]
    return (neither, one, both)[min(seen.plain, 2)]


def children_answer(seen: Seen) -> str:
    """Whether the workers' operators are in the profile."""
    recorded, not_recorded = QUIZZES["children"][1]
    return recorded if seen.plain else not_recorded


def asynchronous_answer(trace: Trace) -> str:
    """For how much of the recorded call the GPU computes."""
    most, middle, least = QUIZZES["asynchronous"][1]
    share = gpu_share(trace)
    return most if share > 0.75 else middle if share >= 0.25 else least


def gpu_share(trace: Trace) -> float:
    """Share of a recording in which a GPU works."""
    return gpu_busy_ns(trace) / max(1, wall_ns(trace))


def straggler_answer(trace: Trace) -> str:
    """What the mean of all requests says of a usual one."""
    within, more = QUIZZES["straggler"][1]
    return more if mean_by_usual(trace) > FEW else within


def mean_by_usual(trace: Trace) -> float:
    """The mean of the requests' times, in medians."""
    took = _requests(trace)
    return statistics.fmean(took) / statistics.median(took)


def _requests(trace: Trace) -> list[int]:
    return [event.duration_ns for event in trace.events() if event.name == "request"]


# Sentences and tables, in Markdown ------------------------------------------------------------------------------------


def about_totals(trace: Trace) -> str:
    """What adds up to the length of a recording, and what does not."""
    rows = by_name(trace)
    total, own = sum(row.total_ns for row in rows), sum(row.self_ns for row in rows)
    return (
        f"The recording is {time_text(wall_ns(trace))} long. All total times add up to {time_text(total)}, since what "
        f"runs inside another event is counted again. All self times add up to {time_text(own)}."
    )


def about_first(first: First) -> str:
    """How long first calls took."""
    ratios = ", ".join(f"{times(ratio)}x" for ratio in first.ratios)
    text = f"In {len(first.traces)} new processes the first call took {ratios} as long as the median of later calls. "
    said = first_answer(first)
    if said != QUIZZES["first"][1][1]:
        return f"{text}So: **{said}**."
    return (
        f"{text}In the first call threads start, libraries choose their kernels, and memory comes from the system. So "
        "**a profile of the first call shows the start of a process**, and not a usual call."
    )


def about_cost(cost: Comparison, operators: int) -> str:
    """What the profiler costs, for a call and for an operator.

    Args:
        operators: of one call.
    """
    rows = {row.name: row for row in cost.rows if row.timing is not None}
    lines, open_questions = [], []
    for name in (PROFILED, DEEP):
        if name not in rows or ALONE not in rows:
            continue
        more = (np.median(_ns(rows[name])) - np.median(_ns(rows[ALONE]))) / CALLS
        each = f", {time_text(more / operators)} for each of its {operators} operators" if more > 0 else ""
        lines.append(f"- `{name}`: {milliseconds(more / 1e6)} more for a call{each}.")
        said = conclusions.decided(cost, name)
        open_questions += [said] if said.startswith("not ") else []
    if not lines:
        return "The profiler was not measured here."
    if open_questions:
        return "\n".join([*lines, "", f"So: **{open_questions[0]}**."])
    lines += ["", "The cost is for each event, however little its operator computes. So small operators look slower."]
    if DEEP in rows:
        lines += ["With call stacks, each Python function is an event too."]
    return "\n".join(lines)


def _ns(row: Row) -> Any:
    assert row.timing is not None
    return row.timing.samples_ns


def threads_table(seen: Seen) -> str:
    """Which recording shows how many of the operators that ran on worker threads."""
    rows = [
        ("`torch.profiler.profile()`", seen.plain, seen.ran),
        ("`kit.recording()`, which sets `profile_all_threads`", seen.every, seen.ran),
    ]
    return markdown_table(("recording", "convolutions recorded", "convolutions that ran"), "lrr", rows)


def children_table(seen: Seen) -> str:
    """Whether the work of a DataLoader is in a recording."""
    rows = [("in 2 worker processes", seen.plain, seen.ran), ("in the process itself", seen.every, seen.ran)]
    head = ("the DataLoader makes batches", "`aten::stack` recorded", "`aten::stack` that ran")
    return markdown_table(head, "lrr", rows)


def about_gpu(trace: Trace) -> str:
    """For how much of a recording a GPU works, and which time the tables of its idle time are about."""
    (first, *_) = idle(trace)
    return (
        f"The GPU works for {gpu_share(trace):.0%} of the {time_text(wall_ns(trace))}. Why is it idle otherwise? The "
        f"two tables below are about the {time_text(first.wall_ns)} from its first kernel to its last."
    )


def about_path(path: CriticalPath) -> str:
    """What would make the recorded call end sooner."""
    whole = max(1, wall_ns(path.recording))
    shares = {cause: ns / whole for cause, ns in path.causes.items()}
    gpu, launching = shares["kernels"] + shares["copies"], shares["operators"] + shares["launches"]
    text = (
        f"Kernels and copies are {gpu:.0%} of the path, operators and launches on the CPU {launching:.0%}, other code "
        f"{shares['other code']:.0%}. Other code is Python between operators, in the span whose name the row has."
    )
    if gpu < FEW - 1 and gpu < launching:
        return f"{text} So **the call ends sooner if the CPU launches faster**, and hardly if a kernel becomes faster."
    return text


def about_straggler(trace: Trace) -> str:
    """What the mean hides."""
    took, mean = _requests(trace), statistics.fmean(_requests(trace))
    near = sum(mean / FEW <= each <= mean * FEW for each in took) or "**none**"
    return (
        f"A table of totals and means says: {len(took)} requests, {time_text(sum(took))} in all, {time_text(mean)} on "
        f"average. The median is {time_text(statistics.median(took))}, the longest took {time_text(max(took))}. "
        f"The mean is {times(mean_by_usual(trace))} times the median, and {near} of the requests took about as long as "
        "the mean (within 25%)."
    )


def dropped(trace: Trace) -> int:
    """How many events overlap others of their lane without nesting: a viewer of one row for each depth drops them."""
    return int(np.count_nonzero(pack(trace).sublane))


def about_dropped(trace: Trace) -> str:
    """How many events there are, and how many a viewer would drop."""
    return (
        f"The trace has {counted(len(trace), 'event')}. {dropped(trace)} of them overlap an earlier one of the same "
        "thread and are not inside it. Perfetto's importer does not draw such events (it counts them as "
        "`slice_drop_overlapping_complete_event`). The timeline above gives them rows of their own. `kit.save_trace` "
        "gives them a thread id of their own, so that other viewers draw them too."
    )


def about_mine(trace: Trace) -> str:
    """What to look at first in a trace."""
    top = by_name(trace)[0]
    lines = [
        f"- {trace.size}, {time_text(wall_ns(trace))} long.",
        f"- The largest self time: `{top.name}`, {time_text(top.self_ns)} in {counted(top.events, 'event')}.",
    ]
    if len(having(trace, *DEVICE)):
        lines.append(f"- A GPU works for {gpu_share(trace):.0%} of it.")
    return "\n".join([*lines, *(f"- {note}" for note in trace.notes)])


def conclusion(first: First, cost: Comparison, threads: Seen, children: Seen, gpu: Trace, straggler: Trace) -> str:
    """The notebook's claims, and for each what this machine said: true, false, or not decided."""
    ratios = ", ".join(f"{times(ratio)}x" for ratio in first.ratios)
    slower = cost_answer(cost)
    row = conclusions.row_of(cost, PROFILED)
    return card(
        [
            Claim(
                "The first call of a process takes as long as later calls",
                truth(first_answer(first), QUIZZES["first"][1][0]),
                f"first call / median of later calls: {ratios}",
            ),
            Claim(
                "torch.profiler costs nothing",
                truth(slower, QUIZZES["cost"][1][1]),
                f"{row.ratio_text}, {slower}" if row and row.ratio else slower,
            ),
            Claim(
                "torch.profiler with its default settings shows the operators of all threads",
                "true" if threads.plain >= threads.ran else "false",
                f"{threads.plain} of {threads.ran} convolutions on worker threads",
            ),
            Claim(
                "A profile shows what a DataLoader's worker processes do",
                "true" if children.plain >= children.ran else "false",
                f"{children.plain} of {children.ran} operators",
            ),
            Claim(
                "While a call runs on a large GPU, the GPU computes most of the time",
                truth(asynchronous_answer(gpu), QUIZZES["asynchronous"][1][0]),
                f"{gpu_share(gpu):.0%} of a recorded call of another machine",
            ),
            Claim(
                "The mean of a table is the time of a usual request",
                truth(straggler_answer(straggler), QUIZZES["straggler"][1][0]),
                f"the mean is {times(mean_by_usual(straggler))} times the median",
            ),
        ]
    )
