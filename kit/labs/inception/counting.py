"""What notebook 04 says of graphs: work, span and parallelism, counted in MACs and measured in milliseconds."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kit.graphs import Branch, Graph, Region, Unit
from kit.labs.speed import size
from kit.models import googlenet, inception_v3, two_stream_i3d
from kit.spans import clock
from kit.text import markdown_table, milliseconds, with_prefix
from kit.verbs import graph as find

UNITS: tuple[Unit, ...] = ("macs", "ms")
PARALLELISM = {
    1.3: "less than 1.3 times as fast",
    2: "1.3 to 2 times",
    3: "2 to 3 times",
    math.inf: "3 times or more",
}


def affordable(limit_s: float = 1.0) -> tuple[str, nn.Module, Tensor]:
    """Inception v3 and an image for it; a narrow one where a call of the whole takes longer than this, and for tests.

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
    narrow = "a narrow Inception v3 (a quarter of the channels, images of 139x139 pixels)"
    return narrow, inception_v3(width=0.25), torch.rand(1, 3, 139, 139)


def macs_text(macs: float) -> str:
    """A number of MACs with the unit that fits: ``34.8 M``, ``57.6 k``, ``0``."""
    return with_prefix(int(macs)).strip()


def branches_table(graph: Graph) -> str:
    """The branches of a graph's first region, with their MACs and milliseconds on one thread, as Markdown."""
    region = graph.regions[0]
    cost, longest = graph.cost(region), max(region.branches, key=lambda branch: graph.cost(branch).work)
    parts: list[tuple[str, Branch | Region]] = [(branch.name, branch) for branch in region.branches]
    parts.append(("all branches", region))
    rows = [(name, macs_text(graph.cost(part).work), milliseconds(graph.cost(part, "ms").work)) for name, part in parts]
    return (
        f"{markdown_table(('branch', 'MACs', 'on one thread'), 'lrr', rows)}\n\n"
        "The milliseconds are of a few calls only: a rough guide. "
        "If the branches run at the same time, the region takes as long as its longest branch, by MACs "
        f"`{longest.name}`, which has {cost.span / cost.work:.0%} of all MACs. So the parallelism "
        f"by MACs is **{cost.parallelism:.2f}**, although there are {len(region.branches)} branches."
    )


def regions_table(graph: Graph) -> str:
    """The outermost regions of a graph, with their work and span in MACs, as Markdown."""
    head = ("region", "branches", "work, MACs", "span, MACs", "parallelism by MACs", "by operators")
    rows = [
        (
            region.name,
            ", ".join(branch.name for branch in region.branches),
            macs_text(graph.cost(region).work),
            macs_text(graph.cost(region).span),
            f"{graph.cost(region).parallelism:.2f}",
            f"{graph.cost(region, 'operators').parallelism:.2f}",
        )
        for region in graph.regions
    ]
    return markdown_table(head, "llrrrr", rows)


def network_told(graph: Graph, title: str) -> str:
    """What limits the parallelism of a whole network, in Markdown.

    Args:
        title: which network it is.
    """
    cost, by_operators = graph.cost(), graph.cost(by="operators").parallelism
    if not graph.regions:
        return f"Of {title}, the work is {macs_text(cost.work)} MACs, and no branches were found in it."
    widest = max(graph.regions, key=lambda region: graph.cost(region).parallelism)
    between = 1 - sum(graph.cost(region).work for region in graph.regions) / cost.work
    return (
        f"Of {title}, the work is {macs_text(cost.work)} MACs and the span {macs_text(cost.span)} MACs: "
        f"**parallelism {cost.parallelism:.2f}**. Even the best region, {widest.name}, has only "
        f"{graph.cost(widest).parallelism:.2f}; and {between:.0%} of the work is in the stem and the classifier, which "
        f"are chains. Counted in operators the parallelism is {by_operators:.2f}. That count fits a device on which a "
        "small operator takes as long as a large one."
    )


def networks_table(graphs: Mapping[str, Graph]) -> str:
    """Work and parallelism of some networks, as Markdown."""
    rows = [
        (
            name,
            macs_text(graph.cost().work),
            f"{graph.parallelism_by_macs:.2f}",
            f"{graph.cost(by='operators').parallelism:.2f}",
            str(len(list(graph.all_regions()))),
        )
        for name, graph in graphs.items()
    ]
    best = max(graphs, key=lambda name: graphs[name].parallelism_by_macs)
    head = ("network", "MACs", "parallelism by MACs", "by operators", "regions, with those inside of branches")
    return f"{markdown_table(head, 'lrrrr', rows)}\n\nThe highest parallelism by MACs is that of **{best}**."


def other_networks(seen: Graph, title: str) -> dict[str, Graph]:
    """Graphs of GoogLeNet and of a two-stream I3D beside this one; narrow ones, which say so, for tests.

    Args:
        title: which network ``seen`` is of.
    """
    width, side = (1.0, 224) if size(1, 0) else (0.125, 64)
    narrow = "" if width == 1 else f" (an eighth of the channels, {side}x{side} pixels)"
    clip = torch.rand(1, 3, 8, side, side), torch.rand(1, 2, 8, side, side)
    return {
        f"GoogLeNet{narrow}": find(googlenet(width=width), torch.rand(1, 3, side, side)),
        title: seen,
        f"two-stream I3D{narrow}": find(two_stream_i3d(width=width), clip),
    }


def macs_and_ms(graph: Graph) -> str:
    """The parallelism of each region, by MACs and by milliseconds; and how fast MACs are, as Markdown."""
    rows = []
    speeds: dict[str, tuple[float, float]] = {}  # kind of branch -> MACs, milliseconds
    for region in graph.regions:
        costs = {by: {each.name: graph.cost(each, by).work for each in region.branches} for by in UNITS}
        ratios = (f"{graph.cost(region, by).parallelism:.2f}" for by in UNITS)
        spans = [{each.name: graph.cost(each, by).span for each in region.branches} for by in UNITS]
        rows.append((region.name, *ratios, *(max(each, key=each.__getitem__) for each in spans)))
        for branch in region.branches:
            macs, ms = speeds.get(branch.name, (0.0, 0.0))
            speeds[branch.name] = macs + costs["macs"][branch.name], ms + costs["ms"][branch.name]
    head = ("region", "parallelism by MACs", "by milliseconds", "longest branch by MACs", "by milliseconds")
    rates = {name: macs / ms / 1e6 for name, (macs, ms) in speeds.items()}
    fast, slow = max(rates, key=rates.__getitem__), min(rates, key=rates.__getitem__)
    return (
        f"{markdown_table(head, 'lrrll', rows)}\n\nBy MACs, the parallelism of the whole is "
        f"{graph.parallelism_by_macs:.2f}; by milliseconds about {graph.parallelism:.2f}. A MAC does not always take "
        f"the same time: here branches named `{fast}` did about {rates[fast]:.1f} GMACs a second, those named `{slow}` "
        f"about {rates[slow]:.1f}. Pooling has no MACs at all, but reads and writes every element, and so does batch "
        "norm. The milliseconds are those of `kit.graph`: a few calls of each operator on one thread. They have no "
        "interval, so take them as a rough guide."
    )
