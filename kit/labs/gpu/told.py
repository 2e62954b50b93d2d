"""Notebook 05: its quizzes and their answers, and the sentences about streams, launches and orders."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kit.labs import conclusions
from kit.labs.conclusions import CLEAR, SAME
from kit.labs.gpu.measures import clocks_ns, hidden_ns, in_order, returned_early, streams, window_ns
from kit.labs.gpu.programs import (
    ALL_THREE,
    BRANCHES,
    BREADTH,
    COPIES,
    DEPTH,
    FOUR,
    LARGE,
    ONE,
    ONE_QUEUE,
    PINNED,
    SIZES,
    SMALL,
    SMS,
    of_copies,
)
from kit.labs.gpu.sources import whose
from kit.labs.sentences import overlap_share
from kit.text import counted, markdown_table, time_text, times
from kit.trace import Trace, gpu_busy_ns, launch_bound, launch_delays
from kit.views.quiz import Quiz

QUIZZES = {
    "concurrent": (
        "A block with four independent branches, in plain PyTorch on a GPU. For how much of the kernels' time do two "
        "kernels run at the same time?",
        ["for none of it", "for some of it", "for most of it"],
    ),
    "timing": (
        "Ten products of large matrices, a few milliseconds each on the GPU. A clock is stopped when the last call "
        "returns. It shows ...",
        ["the GPU's time, within 10%", "less", "more"],
    ),
    "sizes": (
        "Four branches on four streams instead of one. A small kernel has blocks for a quarter of the GPU, a large one "
        "for all of it. Faster with streams are ...",
        ["both", "only the small kernels", "only the large kernels", "neither"],
    ),
    "launches": (
        "The block in PyTorch, batch 1: one thread launches each branch on a stream of its own, instead of all on one "
        "stream. A call takes ...",
        ["less time", "about as long", "more time"],
    ),
    "order": (
        "Four branches of four small kernels, each branch on its own stream, one thread. It launches branch after "
        "branch (depth first), or one kernel of each branch in turn (breadth first). Which ends sooner?",
        ["depth first", "breadth first", "neither"],
    ),
    "copies": (
        "Chunks go to the GPU, are multiplied, and come back. What lets copies and kernels run at the same time?",
        [
            "pinned memory alone",
            "pinned memory and streams",
            "pinned memory, streams and non_blocking",
            "none of these",
        ],
    ),
    "race": (
        "Stream 8 computes x. A kernel on the default stream of PyTorch uses x, and the program says nothing about an "
        "order. The second kernel ...",
        ["begins when x is ready", "begins before x is ready"],
    ),
}


def quiz(name: str) -> Quiz:
    """A quiz of the notebook; its answer is given by ``<name>_answer``."""
    return conclusions.quiz(QUIZZES, name)


def compared(before_ns: int, after_ns: int) -> int:
    """1: shorter by 1.25 times at least; -1: longer by that; 0: alike, within 1.1 times; 2: in between, so not known.

    One call each: smaller differences are chance where they were recorded.
    """
    ratio = before_ns / after_ns
    return 1 if ratio >= CLEAR else -1 if ratio <= 1 / CLEAR else 0 if 1 / SAME <= ratio <= SAME else 2


NOT_KNOWN = "not decided: one call each, and their times differ by less than 1.25 times"


# What the quizzes reveal ----------------------------------------------------------------------------------------------


def concurrent_answer(trace: Trace) -> str:
    """For how much of a call's kernel time two kernels ran at once."""
    none, some, most = QUIZZES["concurrent"][1]
    share = overlap_share(trace, "kernel")
    return none if share == 0 else some if share < 0.5 else most


def timing_answer(trace: Trace) -> str:
    """What a clock says that does not wait."""
    right, less, more = QUIZZES["timing"][1]
    at_once, waited = clocks_ns(trace)
    return right if abs(at_once / waited - 1) <= 0.1 else less if at_once < waited else more


def sizes_answer(sizes: Mapping[str, Trace]) -> str:
    """Which kernels became faster with streams."""
    both, small, large, neither = QUIZZES["sizes"][1]
    faster = {size: gain(sizes, size) >= CLEAR for size in SIZES}
    return {(True, True): both, (True, False): small, (False, True): large, (False, False): neither}[
        faster[SMALL], faster[LARGE]
    ]


def gain(sizes: Mapping[str, Trace], size: str) -> float:
    """Time on one stream by time on four."""
    return window_ns(sizes[f"{size}, {ONE}"]) / window_ns(sizes[f"{size}, {FOUR}"])


def launches_answer(calls: Mapping[str, Trace]) -> str:
    """What a stream for each branch did to the time of a call."""
    less, same, more = QUIZZES["launches"][1]
    found = compared(window_ns(calls["sequential"]), window_ns(calls["cuda_streams"]))
    return {1: less, 0: same, -1: more, 2: NOT_KNOWN}[found]


def order_answer(orders: Mapping[str, Trace]) -> str:
    """Which order of launches ends sooner; simulated, so a difference is no chance."""
    depth, breadth, neither = QUIZZES["order"][1]
    first, second = window_ns(orders[DEPTH]), window_ns(orders[BREADTH])
    return neither if first == second else depth if first < second else breadth


def copies_answer(copies: Mapping[str, Trace]) -> str:
    """The least that lets copies and kernels overlap."""
    alone, streams_too, all_three, none = QUIZZES["copies"][1]
    for name, said in ((PINNED, alone), ("pinned, streams", streams_too), (ALL_THREE, all_three)):
        if hidden_ns(of_copies(copies, name)):
            return said
    return none


def race_answer(trace: Trace) -> str:
    """Whether the second kernel waited for the first."""
    waits, early = QUIZZES["race"][1]
    delays = launch_delays(trace)
    first, second = delays.start[np.argsort(trace.start_ns[delays.launch])][:2].tolist()
    return early if trace.start_ns[second] < trace.end_ns[first] else waits


# Sentences and tables, in Markdown ------------------------------------------------------------------------------------


def about_concurrent(trace: Trace) -> str:
    """Whether the calls of a recorded model were asynchronous, and whether its kernels were concurrent."""
    early, all_of_them = returned_early(trace)
    delay = int(np.median(launch_delays(trace).delay_ns))
    share = overlap_share(trace, "kernel")
    said = [
        f"So says {whose(trace)}. **Asynchronous:** for {early} of {all_of_them} kernels, the call that launched it "
        f"returned before the kernel had ended. The median kernel began {time_text(delay)} after its launch.",
        f"**Concurrent:** the kernels are on {counted(streams(trace), 'stream')}, "
        f"{'began in the order of their launches' if in_order(trace) else 'did not begin in the order of launches'}, "
        f"and two of them ran at the same time for **{share:.0%}** of the time.",
    ]
    if early and not share:
        said.append("So **asynchronous is not concurrent**: Python does not wait, but each kernel waits for the last.")
    return " ".join(said)


def about_timing(traces: Mapping[str, Trace]) -> str:
    """What a clock says with and without waiting for the GPU."""
    rows = []
    for name, trace in traces.items():
        at_once, waited = clocks_ns(trace)
        rows.append((name, time_text(at_once), time_text(waited), f"**{at_once / waited:.0%}**", whose(trace)))
    head = ("call", "stopped at once", "after waiting", "shown of the call", "so says")
    return markdown_table(head, "lrrrl", rows)


def about_sizes(sizes: Mapping[str, Trace]) -> str:
    """What four streams did to small and to large kernels."""
    rows = [
        (
            f"{size}: {counted(blocks, 'block')} of {SMS} that fit",
            *(time_text(window_ns(sizes[f"{size}, {name}"])) for name in (ONE, FOUR)),
            f"{times(gain(sizes, size))}x",
            f"{overlap_share(sizes[f'{size}, {FOUR}'], 'kernel'):.0%}",
            whose(sizes[f"{size}, {FOUR}"]),
        )
        for size, blocks in SIZES.items()
    ]
    head = (f"{BRANCHES} branches", ONE, FOUR, "gain", "two kernels at once, with streams", "so says")
    return markdown_table(head, "lrrrrl", rows)


def about_overlap(trace: Trace) -> str:
    """For how long kernels of a graph with streams overlapped."""
    added = int(trace.duration_ns[trace.of_category("kernel")].sum())
    return (
        f"So says {whose(trace)}: in a captured graph with {counted(streams(trace), 'stream')}, two kernels ran at the "
        f"same time for **{overlap_share(trace, 'kernel'):.0%}** of the time. The kernels' times add up to "
        f"{time_text(added)}, and the GPU worked for {time_text(gpu_busy_ns(trace))}."
    )


def about_launches(calls: Mapping[str, Trace]) -> str:
    """A call under each approach: its time, for how much of it the GPU works, and why not longer."""
    lead = window_ns(calls["sequential"])
    rows = [
        (
            f"`{name}`",
            time_text(window_ns(trace)),
            f"{window_ns(trace) / lead:.2f}",
            f"{gpu_busy_ns(trace) / window_ns(trace):.0%}",
            f"{overlap_share(trace, 'kernel'):.0%}",
            launch_bound(trace).verdict,
            whose(trace),
        )
        for name, trace in calls.items()
    ]
    head = (
        "approach",
        "first launch to end",
        "by sequential",
        "GPU works",
        "two kernels at once",
        "launch-bound?",
        "so says",
    )
    return markdown_table(head, "lrrrrll", rows)


def about_idle(trace: Trace) -> str:
    """Why the GPU is idle in a call, and whether more streams could change that."""
    found = launch_bound(trace)
    told = f"So says {whose(trace)}: **{found.verdict}**, {found.reason}"
    if found.verdict not in ("launch-bound", "partly launch-bound"):
        return told
    return (
        f"{told} When the next kernel is launched, the last one has ended already: there is nothing to overlap with. "
        "More streams change where a kernel waits, and not when it is launched."
    )


def about_captured(calls: Mapping[str, Trace], simulated: Mapping[str, Trace]) -> str:
    """How much of what a graph with streams gains comes from fewer launches, and how much from streams.

    Args:
        simulated: of :func:`kit.labs.gpu.programs.captured`.
    """
    one, both = calls["sequential"], calls["graphed_streams"]
    graph, streams_too = (window_ns(simulated[name]) for name in ("graphed", "graphed_streams"))
    off = window_ns(both) / streams_too
    return (
        f"So says {whose(both)}: a graph with streams took {time_text(window_ns(both))} instead of "
        f"{time_text(window_ns(one))}. Which part of the gain is the streams? So says {whose(simulated['graphed'])} of "
        f"the kernels of `sequential`: a graph on one stream takes {time_text(graph)}, with streams at best "
        f"{time_text(streams_too)}. By that, one launch instead of many gains {times(window_ns(one) / graph)}x, and "
        f"streams {times(graph / streams_too)}x more. It is a rough split: the recorded graph with streams took "
        f"{times(off)} times as long as the simulated one."
    )


def about_orders(orders: Mapping[str, Trace]) -> str:
    """How long each order of launches takes, on several hardware queues and on one."""
    rows = [
        (name, *(time_text(window_ns(orders[f"{order}{more}"])) for order in (DEPTH, BREADTH)), whose(orders[DEPTH]))
        for name, more in (("8 hardware queues", ""), (ONE_QUEUE, f", {ONE_QUEUE}"))
    ]
    return markdown_table(("", DEPTH, BREADTH, "so says"), "lrrl", rows)


def about_copies(copies: Mapping[str, Trace]) -> str:
    """How long each kind of copying takes, and how much of the copies is hidden behind kernels."""
    rows = []
    for name, trace in copies.items():
        pinned, non_blocking, own = COPIES[name.partition(", on this")[0]]
        sign = ["yes" if each else "no" for each in (pinned, non_blocking, own)]
        hidden = f"**{time_text(hidden_ns(trace))}**" if hidden_ns(trace) else "never"
        rows.append((*sign, time_text(window_ns(trace)), hidden, whose(trace)))
    head = ("pinned", "non_blocking", "streams", "first launch to end", "copy and kernel at once", "so says")
    return markdown_table(head, "lllrrl", rows)


def about_races(traces: Mapping[str, Trace]) -> str:
    """What of each program is left to chance."""
    rows = [
        (name, "<br>".join(trace.about["races"]) or "everything is ordered", whose(trace))
        for name, trace in traces.items()
    ]
    return markdown_table(("program", "what nothing orders", "so says"), "lll", rows)
