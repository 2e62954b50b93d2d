"""The exercises of notebook 04, and what its cells compute."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kit.approaches import Rewrites, parse
from kit.labs.checks import check, first_wrong
from kit.labs.speed import size
from kit.labs.threads import versus
from kit.measuring.comparison import Comparison, Row
from kit.models import describe, inception_v3
from kit.regions import regions
from kit.spans import clock
from kit.text import milliseconds
from kit.trace import Event, Trace
from kit.trace.kernels import caveats, exchanged
from kit.trace.lanes import parents

PEER = "onnxruntime"


def affordable(limit_s: float = 1.0) -> tuple[str, nn.Module, Tensor]:
    """Inception v3 and an image for it, narrow where a call of the whole takes longer than this, and for tests.

    Returns:
        What it is in words, the network, and ``(1, 3, H, W)``.
    """
    whole, image = inception_v3(), torch.rand(1, 3, 299, 299)
    if size(1, 0):
        with torch.inference_mode():
            whole(image)  # the first call also chooses kernels
            start = clock()
            whole(image)
        if clock() - start < limit_s * 1e9:
            return "Inception v3", whole, image
    narrow = "an Inception v3 with a quarter of its channels, on 139x139 pixels"
    return narrow, inception_v3(width=0.25), torch.rand(1, 3, 139, 139)


def _nested(trace: Trace) -> tuple[list[Event], list[list[int]]]:
    """Calls, regions and tasks of a trace of one lane, outer ones first, and which of them lie right within each."""
    spans = trace.select(categories=["call", "region", "task"])
    within: list[list[int]] = [[] for _ in range(len(spans))]
    for i, around in enumerate(parents(spans).tolist()):
        if around >= 0:
            within[around].append(i)
    return list(spans.events()), within


def region_ms(trace: Trace) -> list[dict[str, float]]:
    """Milliseconds of each branch, region by region, in the order of ``describe(model, inputs).regions``.

    Args:
        trace: one call, one branch after the other.
    """
    events, within = _nested(trace)
    return [
        {events[j].name: events[j].duration_ns / 1e6 for j in within[i]}
        for i, event in enumerate(events)
        if event.category == "region"
    ]


def work_and_span_ms(trace: Trace) -> tuple[float, float]:
    """How long a recorded call took, and how long if in each region only its longest branch counted.

    Args:
        trace: one call, one branch after the other; with the times of one thread the first is the work.
    """
    events, within = _nested(trace)
    spans = [event.duration_ns for event in events]
    for i in reversed(range(len(events))):  # inner ones come after the outer ones
        inner = [spans[j] for j in within[i]]
        counts = max(inner, default=0) if events[i].category == "region" else sum(inner)
        spans[i] += counts - sum(events[j].duration_ns for j in within[i])
    return events[0].duration_ns / 1e6, spans[0] / 1e6


def one_at_a_time(name: str) -> bool:
    """Whether an approach leaves the branches one after the other, so that only its rewriting can make it faster."""
    last = parse(name).terms[-1]
    return last.kind == "sequential" or isinstance(last.entry, Rewrites)


def fastest(comparison: Comparison, *, peer: bool = True) -> Row | None:
    """The row with the greatest speed-up of those found faster than the baseline, or None."""
    found = [row for row in comparison.rows if row.verdict == "faster" and (peer or row.name != PEER)]
    return max(found, key=lambda row: row.ratio.estimate if row.ratio else 0, default=None)


def approaches_table(comparison: Comparison) -> str:
    """A comparison as a Markdown table, with the seconds of preparing and after how many calls they break even."""
    lines = [
        "| approach | a call | speed-up | verdict | preparing | break-even after |",
        "|---|---:|---|---|---:|---:|",
    ]
    lead = comparison.baseline
    for row in comparison.rows:
        if row.timing is None or row.ratio is None or lead.timing is None:
            reason = " ".join(str(row.reason).split()).replace("|", "&#124;")  # in one cell of the table
            lines.append(f"| {row.name} | | | not available: {reason} | | |")
            continue
        back = ""
        if row.verdict == "faster":
            saved_ms = lead.timing.median_ms * (1 - 1 / row.ratio.estimate)
            back = f"{math.ceil(row.prepare_s * 1000 / saved_ms):,} calls"
        ratio = "1" if row.baseline else str(row.ratio)
        took = milliseconds(row.timing.median_ms)
        lines.append(f"| {row.name} | {took} | {ratio} | {row.verdict} | {row.prepare_s:.1f} s | {back} |")
    return "\n".join([*lines, "", *(f"- &#9888; {caveat}" for caveat in comparison.caveats)])


def kernel_caveats(side: Comparison) -> list[str]:
    """Where threads ran on other kernels than the baseline, and whether one thread for everything runs on theirs."""
    lead, threads, alone = side.baseline, side["threads(threads=1)"], side["sequential(threads=1)"]
    said = caveats(lead.name, lead.kernels, [(threads.name, threads.kernels, threads.rewritten)])
    if not said or exchanged(alone.kernels or {}, threads.kernels or {}):
        return said
    return [*said, "Against one thread for everything, the kernels are the same."]


def settled(side: Comparison, others: Comparison) -> str:
    """What these measurements say of "one branch after the other wastes performance", in Markdown.

    Args:
        side: ``sequential``, ``sequential(threads=1)`` and ``threads(threads=1)`` on a model.
        others: ``sequential`` first, and other approaches on the same model.
    """
    threads = side["threads(threads=1)"]
    alone = versus(side, "threads(threads=1)", "sequential(threads=1)")
    meaning = {
        "faster": "one after the other did waste time"
        if alone.verdict == "faster"
        else "what wasted time was splitting the operators, not the order of the branches",
        "slower": "one after the other did not waste time, side by side did",
        "no difference found": "that one after the other wastes time was not found",
    }.get(threads.verdict, "nothing can be said of it")
    lines = [
        f"- Branches on threads, a core each, against all cores in each operator: **{threads.verdict}** "
        f"({threads.ratio or threads.reason}); against one thread for everything: **{alone.verdict}** ({alone.ratio}). "
        f"Here {meaning}."
    ]
    lines += [f"- {caveat}" for caveat in kernel_caveats(side)]
    faster = [row for row in others.rows if row.verdict == "faster"]
    calm = [f"{row.name} ({row.ratio})" for row in faster if row.name != PEER and one_at_a_time(row.name)]
    lines.append(
        f"- Found faster with the branches still in order: {', '.join(calm)}."
        if calm
        else "- Nothing of the kit's was found faster with the branches still in order."
    )
    best, peer = fastest(others, peer=False), others[PEER]
    lines.append(
        f"- The fastest of the kit's approaches: **{best.name}** ({best.ratio})."
        if best
        else "- None of the kit's approaches was found faster than plain PyTorch."
    )
    if peer.timing is None:
        lines.append(f"- The peer, ONNX Runtime, did not take part: {peer.reason}")
    else:
        other = best.name if best else others.baseline.name
        row = versus(others, PEER, other)
        lines.append(f"- The peer, ONNX Runtime, against {other}: **{row.verdict}** ({row.ratio}).")
    return "\n".join(lines)


@check
def check_parallelism(parallelism: Callable[[float, list[list[float]]], Any]) -> str | None:
    """``parallelism(between, regions)``: work by span, of the work between regions and of each region's branches."""
    cases = [
        ((8.0, []), 1.0, "with nothing in regions all work is one chain, and a chain has parallelism 1."),
        ((0.0, [[4.0, 4.0]]), 2.0, "two branches of the same work, and nothing else, have parallelism 2."),
        ((0.0, [[1.0, 3.0]]), 4 / 3, "of a region, the longest branch is on the span: 4 by 3."),
        ((2.0, [[3.0, 5.0]]), 10 / 7, "the work between regions is on the span too: 2 + 8 by 2 + 5."),
        ((1.0, [[2.0, 2.0], [6.0, 1.0]]), 12 / 9, "regions come one after the other: their spans add up."),
    ]
    return first_wrong(parallelism, cases)


@check
def check_balanced(model: Any) -> str | None:
    """A region that maps ``(1, 64, 16, 16)`` to ``(1, 96, 16, 16)`` with a parallelism of 3."""
    if not isinstance(model, nn.Module):
        return f"give the region itself, not a {type(model).__name__}."
    if not list(regions(model)):
        return "there is no region yet: build kit.Branches({...}, merge=kit.Concat(1))."
    x = torch.zeros(1, 64, 16, 16)
    with torch.inference_mode():
        shape = tuple(model.eval()(x).shape)
    if shape != (1, 96, 16, 16):
        return (
            f"the output is {shape} and should be (1, 96, 16, 16): channels of branches add up, and padding keeps 16."
        )
    region = describe(model, x).regions[0]
    if region.parallelism < 2.99:
        longest = max(region.branches, key=lambda branch: branch.macs)
        share = longest.macs / region.macs if region.macs else 1
        return f"its parallelism is {region.parallelism:.2f}: {longest.name!r} alone has {share:.0%} of the MACs."
    return None
