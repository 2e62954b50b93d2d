"""The exercises of notebook 04, and what its cells compute."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kit.approaches import Rewrites, parse
from kit.graphs import Cost, Graph, Unit
from kit.labs.checks import check, first_wrong
from kit.labs.sentences import reached
from kit.labs.speed import size
from kit.labs.threads import versus
from kit.measuring.comparison import Comparison, Row
from kit.models import googlenet, inception_v3, two_stream_i3d
from kit.spans import clock
from kit.text import counted, markdown_table, milliseconds, with_prefix
from kit.trace.kernels import caveats, exchanged
from kit.verbs import graph as find

PEER = "onnxruntime"
UNITS: tuple[Unit, ...] = ("macs", "ms")


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


def branches_table(graph: Graph) -> str:
    """The branches of a graph's first region, with their MACs and milliseconds on one thread, as Markdown."""
    region = graph.regions[0]
    rows = [
        (branch.name, _millions(graph.cost(branch)), milliseconds(graph.cost(branch, "ms").work))
        for branch in region.branches
    ]
    last = ("all of them", _millions(graph.cost(region)), milliseconds(graph.cost(region, "ms").work))
    cost = graph.cost(region)
    longest = max(region.branches, key=lambda branch: graph.cost(branch).work)
    return (
        markdown_table(("branch", "million MACs", "on one thread"), "lrr", [*rows, last])
        + f"\n\nIf its branches run at the same time, the region takes as long as its longest one, `{longest.name}`: "
        f"{cost.span / cost.work:.0%} of all MACs. So its parallelism by MACs is **{cost.parallelism:.2f}**, although "
        f"it has {len(region.branches)} of them."
    )


def regions_table(graph: Graph) -> str:
    """The outermost regions of a graph, with their work and span in MACs, as Markdown."""
    head = ("region", "branches", "work, million MACs", "span, million MACs", "parallelism", "by operators")
    rows = [
        (
            region.name,
            ", ".join(branch.name for branch in region.branches),
            _millions(graph.cost(region)),
            f"{graph.cost(region).span / 1e6:.0f}",
            f"{graph.cost(region).parallelism:.2f}",
            f"{graph.cost(region, 'operators').parallelism:.2f}",
        )
        for region in graph.regions
    ]
    return markdown_table(head, "llrrrr", rows)


PARALLELISM = {1.3: "less than 1.3 times", 2: "1.3 to 2 times", 3: "2 to 3 times", math.inf: "more than 3 times"}


def how_parallel(graph: Graph) -> str:
    """The answer of the quiz on a whole network's parallelism: one of ``PARALLELISM``."""
    return next(text for limit, text in PARALLELISM.items() if graph.parallelism_by_macs < limit)


def network_told(graph: Graph) -> str:
    """What limits the parallelism of a whole network, in Markdown."""
    cost, by_operators = graph.cost(), graph.cost(by="operators").parallelism
    widest = max(graph.regions, key=lambda region: graph.cost(region).parallelism)
    between = 1 - sum(graph.cost(region).work for region in graph.regions) / cost.work
    return (
        f"Work {cost.work / 1e9:.2f} GMACs, span {cost.span / 1e9:.2f} GMACs: **parallelism {cost.parallelism:.2f}**. "
        f"Even the best region, {widest.name}, has only {graph.cost(widest).parallelism:.2f}; and {between:.0%} of the "
        "work is in the stem and the classifier, which are chains. Counted by operators instead, as if a small "
        f"convolution took as long as a large one, it is {by_operators:.2f}: the better guess on a device where small "
        "operators cost about as much as large ones."
    )


def networks_table(graphs: Mapping[str, Graph]) -> str:
    """Work and parallelism of some networks, as Markdown."""
    rows = [
        (
            name,
            with_prefix(int(graph.cost().work)),
            f"{graph.parallelism_by_macs:.2f}",
            f"{graph.cost(by='operators').parallelism:.2f}",
            str(len(list(graph.all_regions()))),
        )
        for name, graph in graphs.items()
    ]
    best = max(graphs, key=lambda name: graphs[name].parallelism_by_macs)
    table = markdown_table(("network", "MACs", "parallelism", "by operators", "regions"), "lrrrr", rows)
    return f"{table}\n\nThe most parallel by MACs is the **{best}**."


def other_networks(seen: Graph) -> dict[str, Graph]:
    """Graphs of GoogLeNet and of a two-stream I3D beside this one of Inception v3; narrow ones for tests."""
    width = 1.0 if size(1, 0) else 0.125
    side = size(224, 64)
    clip = torch.rand(1, 3, 8, side, side), torch.rand(1, 2, 8, side, side)
    return {
        "GoogLeNet": find(googlenet(width=width), torch.rand(1, 3, side, side)),
        "Inception v3": seen,
        "two-stream I3D": find(two_stream_i3d(width=width), clip),
    }


def macs_and_ms(graph: Graph) -> str:
    """Work by longest branch of each region, by MACs and by milliseconds; and how fast MACs are, as Markdown."""
    rows = []
    speeds: dict[str, tuple[float, float]] = {}  # kind of branch -> MACs, milliseconds
    for region in graph.regions:
        costs = {by: {each.name: graph.cost(each, by).work for each in region.branches} for by in UNITS}
        ratios = (f"{sum(each.values()) / max(each.values()):.2f}" for each in costs.values())
        rows.append((region.name, *ratios, *(max(each, key=each.__getitem__) for each in costs.values())))
        for branch in region.branches:
            macs, ms = speeds.get(branch.name, (0.0, 0.0))
            speeds[branch.name] = macs + costs["macs"][branch.name], ms + costs["ms"][branch.name]
    head = ("region", "work / longest branch, MACs", "the same, ms", "longest by MACs", "longest by ms")
    rates = {name: macs / ms / 1e6 for name, (macs, ms) in speeds.items()}
    fast, slow = max(rates, key=rates.__getitem__), min(rates, key=rates.__getitem__)
    return (
        f"{markdown_table(head, 'lrrll', rows)}\n\nCounted, the parallelism is {graph.parallelism_by_macs:.2f}. "
        f"Measured, work is {milliseconds(graph.work_ms)}, span {milliseconds(graph.span_ms)} and parallelism "
        f"**{graph.parallelism:.2f}**. A MAC is not always as fast: here branches named `{fast}` do "
        f"{rates[fast]:.1f} GMACs a second, those named `{slow}` {rates[slow]:.1f}. Pooling has no MACs at all, but "
        "reads and writes every element, and so does batch norm."
    )


def _millions(cost: Cost) -> str:
    return f"{cost.work / 1e6:.0f}"


def lanes_of(graph: Graph) -> int:
    """How many branches of its first region this machine can run at the same time."""
    return min(len(graph.regions[0].branches), graph.cores)


def bound_ms(graph: Graph) -> float:
    """The least milliseconds that a graph can take with a branch on each core, by the times of one thread."""
    return max(graph.span_ms, graph.work_ms / lanes_of(graph))


def side_told(side: Comparison, graph: Graph) -> str:
    """What branches on threads reached of what is possible, in Markdown.

    Args:
        side: ``sequential``, ``sequential(threads=1)`` and ``threads(threads=1)`` on a model of one region.
        graph: of that model.
    """
    threads, bound = side["threads(threads=1)"], bound_ms(graph)
    over = {name: versus(side, name, "sequential(threads=1)").ratio for name in ("sequential", threads.name)}
    took = threads.timing.median_ms if threads.timing else math.nan
    return (
        f"At one thread the block takes {milliseconds(graph.work_ms)}, its span is {milliseconds(graph.span_ms)}: "
        f"parallelism {graph.parallelism:.2f}. With a branch on each of {counted(lanes_of(graph), 'core')} it cannot "
        f"take less than **{milliseconds(bound)}** by these times, {graph.work_ms / bound:.2f} times as fast as one "
        f"thread. Measured over one thread: branches on threads **{over[threads.name]}**, operators on all cores "
        f"**{over['sequential']}**. Branches on threads take {milliseconds(took)}: {reached(bound / took)}. One "
        f"against the other, branches on threads: **{threads.verdict}** ({threads.ratio})."
    )


def network_against_block(chain: Comparison, block: Comparison, title: str, graph: Graph) -> str:
    """What the approaches gave on a whole network, and on a block of it, in Markdown."""
    lines = [f"On {title}, whose parallelism is {graph.parallelism_by_macs:.2f} by MACs:", ""]
    for row in chain.rows[1:]:
        other = block[row.name]
        lines.append(f"- {row.name}: **{row.verdict}** ({row.ratio}); on the block {other.verdict} ({other.ratio})")
    return "\n".join(lines)


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


def gpu_told(reason: str | None, shares: Mapping[str, float], streams: Comparison | None) -> str:
    """What a GPU did with the block's branches, in Markdown.

    Args:
        reason: why there is none.
        shares: approach -> share of the kernels' time in which two ran at once.
        streams: ``graphed`` and ``graphed_streams`` on the block.
    """
    if reason or streams is None:
        return f"not run here: {reason}"
    graphs = versus(streams, "graphed_streams", "graphed")
    return (
        f"of the time of the block's kernels, two ran at once for: {shares_told(shares)}. A captured graph with "
        f"streams, against one without: **{graphs.verdict}** ({graphs.ratio})."
    )


def shares_told(shares: Mapping[str, float]) -> str:
    """Shares of approaches, in Markdown."""
    return ", ".join(f"{name} **{share:.0%}**" for name, share in shares.items())


def by_themselves(share: float, gpu: str, title: str, block: Graph, network: Graph) -> str:
    """What was found of "branches run at the same time by themselves", and what is possible at best, in Markdown."""
    possible = block.work_ms / bound_ms(block)
    return (
        f"- By themselves, on this CPU: **{'false' if share == 0 else 'true in part'}**. Two branches of {title} "
        f"overlapped for {share:.0%} of their time. On a GPU: {gpu}\n"
        f"- At best: parallelism {block.parallelism:.2f} in the block and {network.parallelism:.2f} in the network, in "
        f"milliseconds at one thread; {counted(lanes_of(block), 'core')} with a branch each allow the block "
        f"{possible:.2f}.\n"
    )


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
    x = torch.zeros(1, 64, 16, 16)
    with torch.inference_mode():
        shape = tuple(model.eval()(x).shape)
    if shape != (1, 96, 16, 16):
        return (
            f"the output is {shape} and should be (1, 96, 16, 16): channels of branches add up, and padding keeps 16."
        )
    graph = find(model, x)
    if not graph.regions:
        return "there is no region yet: build kit.Branches({...}, merge=kit.Concat(1)) with three branches or more."
    cost = graph.cost(graph.regions[0])
    if cost.parallelism < 2.99:
        longest = max(graph.regions[0].branches, key=lambda branch: graph.cost(branch).work)
        share = graph.cost(longest).work / cost.work
        return f"its parallelism is {cost.parallelism:.2f}: {longest.name!r} alone has {share:.0%} of the MACs."
    return None
