"""What notebook 04 concludes: its quizzes and their answers, its sentences about measurements, and its card."""

from __future__ import annotations

import math

from kit.explaining.explanation import Explanation, explain
from kit.explaining.schedules import Schedule
from kit.graphs import Graph
from kit.labs import conclusions
from kit.labs.conclusions import Claim, card, claim_faster, decided, in_a_cell, row_of
from kit.labs.inception.counting import PARALLELISM
from kit.labs.inception.gpu import OnGpu, gpu_claim
from kit.labs.inception.schedules import GANTT
from kit.labs.sentences import overlap_share
from kit.measuring.comparison import SMALLEST_EFFECT, Comparison, Row
from kit.measuring.statistics import interval
from kit.scheduling.plans import ALL_CORES
from kit.text import between, counted, markdown_table, milliseconds
from kit.trace import Trace
from kit.trace.kernels import caveats, exchanged
from kit.views.quiz import Quiz

SIDE = "threads(threads=1)"
ALONE = "sequential(threads=1)"
QUIZZES = {
    "free": (
        "Inception v3 on unlimited cores, each branch on a core of its own: how much faster than on one core could it "
        "be at best?",
        [*PARALLELISM.values()],
    ),
    "lane": (
        "The same network in plain PyTorch on this CPU: for how much of the branches' time do two of them run at once?",
        ["for none of it", "for some of it", "for most of it"],
    ),
    "side": (
        "The block's branches on threads, a core each, against one after the other with each operator on all cores. "
        "The threads are ...",
        ["faster", "slower", "no difference found"],
    ),
    "gantt": (
        "The schedule below is computed from the time of each operator. How long will a call really take?",
        GANTT,
    ),
    "fastest": (
        "Which is the fastest on the block, once it is prepared?",
        [
            "sequential",
            "threads",
            "merged",
            "folded + merged + channels_last",
            "compiled",
            "channels_last + compiled + threads",
            "onnxruntime",
        ],
    ),
}


def quiz(name: str) -> Quiz:
    """A quiz of the notebook; its answer is given by ``<name>_answer``."""
    return conclusions.quiz(QUIZZES, name)


# What the quizzes reveal ----------------------------------------------------------------------------------------------


def free_answer(graph: Graph) -> str:
    """How parallel a whole network is, by MACs."""
    return next(text for limit, text in PARALLELISM.items() if graph.parallelism_by_macs < limit)


def lane_answer(recorded: Trace) -> str:
    """For how much of a recorded call two branches ran at once."""
    none, some, most = QUIZZES["lane"][1]
    share = overlap_share(recorded)
    return none if share == 0 else some if share < 0.5 else most


def side_answer(side: Comparison) -> str:
    """The verdict on branches on threads, or why there is none."""
    return decided(side, SIDE)


def fastest_answer(compared: Comparison) -> str:
    """The approach that is faster than each of the others, or why none is known to be."""
    return conclusions.fastest(compared)


# Sentences and tables, in Markdown ------------------------------------------------------------------------------------


def lane_told(recorded: Trace, title: str) -> str:
    """How many branches a recorded call had, and for how long they overlapped."""
    count, share = len(recorded.select(categories=["task"]).start_ns), overlap_share(recorded)
    told = (
        f"{title[0].upper()}{title[1:]}: {count} branches, and two of them overlapped for **{share:.0%}** of their "
        "time."
    )
    if share > 0:
        return told
    return (
        f"{told} On a CPU the call of an operator returns when its result is there. So the next branch begins when the "
        "last one has ended: one lane."
    )


def side_told(side: Comparison) -> str:
    """What branches on threads reached of what is possible.

    Args:
        side: ``sequential``, ``sequential(threads=1)`` and ``threads(threads=1)`` on a model of one region.
    """
    lines = [
        f"- {_verdict(side, SIDE)}",
        f"- {_verdict(side, SIDE, ALONE)}",
        f"- {_verdict(side, 'sequential', ALONE)}",
    ]
    if row_of(side, SIDE) is not None:
        lines.insert(0, f"- {_of_the_bound(explain(side, SIDE), side[SIDE])}")
    return "\n".join([*lines, *(f"- {caveat}" for caveat in kernel_caveats(side))])


def _of_the_bound(why: Explanation, row: Row) -> str:
    if why.bounds is None or row.timing is None:
        return "How much of what is possible was reached is not known: the branches were not measured one by one."
    bounds, (low, high) = why.bounds, (ns / 1e6 for ns in interval(row.timing.samples_ns))
    told = (
        f"On one thread the branches take {milliseconds(bounds.work_ms)}, the longest {milliseconds(bounds.span_ms)} "
        f"(medians of {len(row.timing.samples_ns)} rounds), and what is outside of them "
        f"{milliseconds(bounds.serial_ms)}. If each branch stays on one core, the call cannot take less than "
        f"**{milliseconds(bounds.least_ms)}** {between(bounds.least_low_ms, bounds.least_high_ms)}. It took "
        f"{milliseconds(row.timing.median_ms)} {between(low, high)}: "
    )
    if why.excess is not None:
        return (
            f"{told}less than the bound, which cannot be. One of the measurements was disturbed, and decides nothing."
        )
    if row.verdict == "not decided":
        return f"{told}how close that is to the bound is not decided: {row.doubt}."
    if bounds.share > 1 - SMALLEST_EFFECT:
        return f"{told}these rounds cannot tell it from the bound."
    most = min(1.0, bounds.least_high_ms / low)
    return f"{told}**{bounds.share:.0%}** [{bounds.least_low_ms / high:.0%}, {most:.0%}] of the speed that is possible."


def _verdict(comparison: Comparison, name: str, baseline: str | None = None) -> str:
    """An approach against another, its verdict, and its speed-up with the interval."""
    row = row_of(comparison, name, baseline)
    ratio = f" ({row.ratio_text})" if row and row.ratio else ""
    return (
        f"`{name}` against `{baseline or comparison.baseline.name}`: **{decided(comparison, name, baseline)}**{ratio}"
    )


def kernel_caveats(side: Comparison) -> list[str]:
    """Where threads ran on other kernels than the baseline, and whether one thread for everything runs on theirs."""
    lead, rows = side.baseline, {row.name: row for row in side.rows}
    if not {SIDE, ALONE} <= rows.keys():
        return []
    threads, alone = rows[SIDE], rows[ALONE]
    said = caveats(lead.name, lead.kernels, [(threads.name, threads.kernels, threads.rewritten)])
    if not said or exchanged(alone.kernels or {}, threads.kernels or {}):
        return said
    return [*said, f"`{SIDE}` and `{ALONE}` run the same kernels: only the order of the branches differs."]


def approaches_table(compared: Comparison) -> str:
    """A comparison as a table, with the seconds of preparing and after how many calls they break even; the fastest."""
    head = ("approach", "a call", "speed-up", "verdict", "preparing", "break-even after")
    table = markdown_table(head, "lrllrl", [_cells(compared, row) for row in compared.rows])
    best, slow = fastest_answer(compared), max(compared.rows, key=lambda row: row.prepare_s)
    said = (
        f"Which is the fastest, these rounds cannot tell: {in_a_cell(best)}."
        if best.startswith("not ")
        else f"**{best}** is faster than every other row."
    )
    said += f" The longest to prepare was `{slow.name}`, {slow.prepare_s:.1f} s, which is in none of its times."
    return "\n".join([table, "", said, "", *(f"- &#9888; {in_a_cell(caveat)}" for caveat in compared.caveats)])


def _cells(compared: Comparison, row: Row) -> tuple[str, ...]:
    lead = compared.baseline
    if row.timing is None or row.ratio is None or lead.timing is None:
        return row.name, "", "", f"not available: {in_a_cell(row.reason)}", "", ""
    back = ""
    if row.verdict == "faster":
        ends = (row.prepare_s * 1000 / (lead.timing.median_ms * (1 - 1 / by)) for by in (row.ratio.high, row.ratio.low))
        few, many = (max(1, math.ceil(calls)) for calls in ends)
        back = f"{few:,} to {many:,} calls" if few < many else f"{few:,} call{'s' * (few > 1)}"
    took = milliseconds(row.timing.median_ms)
    return row.name, took, row.ratio_text, row.verdict, f"{row.prepare_s:.1f} s", back


def network_against_block(chain: Comparison, block: Comparison, title: str, graph: Graph) -> str:
    """What the approaches gave on a whole network, and on a block of it.

    Args:
        title, graph: of the network.
    """
    lines = [f"On {title}, whose parallelism is {graph.parallelism_by_macs:.2f} by MACs, over `sequential`:", ""]
    for row in chain.rows[1:]:
        found = (f"**{decided(each, row.name)}**{_ratio(row_of(each, row.name))}" for each in (chain, block))
        lines.append(f"- `{row.name}`: {' on the network, '.join(found)} on the block")
    return "\n".join(lines)


def _ratio(row: Row | None) -> str:
    return f" ({row.ratio_text})" if row and row.ratio else ""


def conclusion(seen: Graph, title: str, side: Comparison, compared: Comparison, plan: Schedule, gpu: OnGpu) -> str:
    """The notebook's claims, and for each what this machine said: true, false, or not decided.

    Args:
        seen, title: of the whole network.
        side: of :func:`side_told`.
        compared: of :func:`approaches_table`.
        plan: of the whole network.
    """
    parallel = seen.parallelism_by_macs
    return card(
        [
            _by_themselves(side),
            gpu_claim(gpu),
            Claim(
                "Counted in MACs, unlimited cores could run the whole network at least 2x as fast as one core",
                "true" if parallel >= 2 else "false",
                f"{title}: work / span is {parallel:.2f} by MACs",
            ),
            claim_faster(
                "Branches on threads, a core each, are faster than one by one with operators on all cores", side, SIDE
            ),
            claim_faster("Branches on threads, a core each, are faster than one by one on one core", side, SIDE, ALONE),
            claim_faster("One merged 1x1 convolution is faster than three", compared, "merged"),
            claim_faster(
                "Compiled, with its branches still one by one, the block is faster than in plain PyTorch",
                compared,
                "compiled",
            ),
            _scheduled(plan),
        ]
    )


def _scheduled(plan: Schedule) -> Claim:
    """Whether a schedule on lanes was faster than the same operators one after the other."""
    text = "A schedule of the whole network on lanes is faster than its operators one after the other on all cores"
    if plan.doubt:
        return Claim(text, "not decided", plan.doubt)
    alone = plan.plan.tried[ALL_CORES].measured
    if plan.plan.taken == ALL_CORES:
        return Claim(text, "false", f"{milliseconds(alone)} one after the other, and no schedule took less")
    took = milliseconds(plan.plan.best.measured)
    return Claim(text, "true", f"{took} against {milliseconds(alone)}, medians of calls in turn")


def _by_themselves(side: Comparison) -> Claim:
    """Whether branches of the model as given ran at the same time, in any round."""
    text = "On this CPU, plain PyTorch runs independent branches at the same time"
    lead = side.baseline
    turns = [turn for turn in (lead.timing.turns if lead.timing else ()) if turn is not None]
    overlaps = [turn.overlap for turn in turns if turn.overlap is not None]
    if not turns or len(overlaps) < len(turns):
        return Claim(text, "not decided", "not measured: no branches were recorded")
    share = sum(overlaps) / sum(turn.work for turn in turns)
    by = f"two branches ran at once for {share:.0%} of the branches' time, in {counted(len(turns), 'round')}"
    return Claim(text, "true" if share else "false", by)
