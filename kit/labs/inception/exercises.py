"""The exercises of notebook 04."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from kit.labs.checks import check, first_wrong
from kit.verbs import graph as find


@check
def check_parallelism(parallelism: Callable[[float, list[list[float]]], Any]) -> str | None:
    """``parallelism(between, regions)``: work / span, of the work between regions and of each region's branches."""
    cases = [
        ((0.0, [[4.0, 4.0]]), 2.0, "two branches of the same work, and nothing else, have parallelism 2."),
        ((0.0, [[1.0, 3.0]]), 4 / 3, "of a region only the longest branch is on the span: 4 / 3."),
        ((2.0, [[3.0, 5.0]]), 10 / 7, "the work between regions is in the work and in the span: (2 + 8) / (2 + 5)."),
        ((1.0, [[2.0, 2.0], [6.0, 1.0]]), 12 / 9, "regions run one after the other: add up their longest branches."),
    ]
    if hint := first_wrong(parallelism, cases):
        return hint
    chain = "without any region all work is one chain, and the parallelism of a chain is 1."
    try:
        return first_wrong(parallelism, [((8.0, []), 1.0, chain)])
    except ValueError:  # max() of no regions
        return f"for 8.0, [] it raises ValueError: {chain}"


@check
def check_balanced(model: Any) -> str | None:
    """A region that maps ``(1, 64, 16, 16)`` to ``(1, 96, 16, 16)`` with a parallelism of 3."""
    if not isinstance(model, nn.Module):
        return f"give the region itself, a kit.Branches, not a {type(model).__name__}."
    x = torch.zeros(1, 64, 16, 16)
    with torch.inference_mode():
        out = model.eval()(x)
    if not isinstance(out, torch.Tensor):
        return f"the output is a {type(out).__name__}, and should be one tensor: merge=kit.Concat(1) joins channels."
    if tuple(out.shape) != (1, 96, 16, 16):
        return (
            f"the output is {tuple(out.shape)} and should be (1, 96, 16, 16): kit.Concat(1) adds up the channels of "
            "the branches, and padding keeps 16x16."
        )
    graph = find(model, x)
    if not graph.regions:
        return "there is no region yet: build kit.Branches({...}, merge=kit.Concat(1)) with three branches or more."
    cost = graph.cost(graph.regions[0])
    if cost.parallelism < 2.99:
        longest = max(graph.regions[0].branches, key=lambda branch: graph.cost(branch).work)
        share, count = graph.cost(longest).work / cost.work, len(graph.regions[0].branches)
        if count < 3:
            return f"its parallelism is {cost.parallelism:.2f}, and with {count} branches it can be {count} at most."
        return f"its parallelism is {cost.parallelism:.2f}: {longest.name!r} alone has {share:.0%} of the MACs."
    if graph.parallelism_by_macs < 2.99:
        return "the region has it, but there is more than the region: give the kit.Branches alone."
    return None
