"""Work, span and parallelism of a graph: against the published networks, and against sums made by hand."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import kit
from kit.graphs import Graph
from kit.models import googlenet, inception_block, inception_v3


def macs_of(graph: Graph, name: str) -> dict[str, float]:
    """Branch -> its work in MACs, of a region."""
    (region,) = (each for each in graph.all_regions() if each.name == name)
    return {branch.name: graph.cost(branch).work for branch in region.branches}


@pytest.mark.parametrize(
    ("model", "size", "macs", "parallelism", "by_operators", "regions"),
    [(inception_v3(), 299, 5.71e9, 1.51, 1.98, 11), (googlenet(), 224, 1.50e9, 1.23, 2.64, 9)],
)
def test_the_published_networks(
    model: nn.Module, size: int, macs: float, parallelism: float, by_operators: float, regions: int
) -> None:
    graph = kit.graph(model, torch.rand(1, 3, size, size))
    assert graph.cost().work == pytest.approx(macs, rel=2e-3)
    assert graph.cost().parallelism == pytest.approx(parallelism, abs=0.005)
    assert graph.cost(by="operators").parallelism == pytest.approx(by_operators, abs=0.005)
    assert len(graph.regions) == regions
    # The whole is a chain of its regions and of what is between them.
    between = graph.cost().work - sum(graph.cost(region).work for region in graph.regions)
    assert graph.cost().span == between + sum(graph.cost(region).span for region in graph.regions)


def test_a_region_by_hand() -> None:
    graph = kit.graph(inception_block(), torch.zeros(2, 192, 35, 35))
    pixels = 2 * 35 * 35
    macs = {
        "1x1": pixels * 192 * 64,
        "5x5": pixels * (192 * 48 + 48 * 64 * 25),
        "double 3x3": pixels * (192 * 64 + 64 * 96 * 9 + 96 * 96 * 9),
        "pool": pixels * 192 * 32,
    }
    (region,) = graph.regions
    assert macs_of(graph, region.name) == macs
    assert [graph.cost(branch, "operators").work for branch in region.branches] == [1, 2, 3, 1]
    assert graph.cost(region) == graph.cost()
    assert (graph.cost().work, graph.cost().span) == (sum(macs.values()), macs["double 3x3"])
    assert (graph.cost(by="operators").work, graph.cost(by="operators").span) == (7, 3)
    assert all(graph.cost(branch).parallelism == 1 for branch in region.branches)
    assert graph.cost(region, "ms").span <= graph.cost(region, "ms").work == pytest.approx(graph.work_ms, rel=0.2)


def chain(*widths: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in pairwise(widths)))


def test_a_region_within_a_branch_counts_with_its_longest_branch() -> None:
    inner = kit.Branches({"long": chain(4, 8, 4), "short": chain(4, 4)}, kit.Concat(1))  # 64 and 16 MACs
    outer = kit.Branches({"split": nn.Sequential(chain(4, 4), inner), "wide": chain(4, 9, 8)}, kit.Concat(1))  # 108
    graph = kit.graph(nn.Sequential(chain(4, 4), outer, chain(16, 1)).eval(), torch.ones(1, 4))
    assert [region.name for region in graph.all_regions()] == ["1", "1.branches.split.1"]
    (region,) = graph.regions
    split, wide = region.branches
    (nested,) = split.regions
    assert (graph.cost(split).work, graph.cost(split).span) == (16 + 64 + 16, 16 + 64)
    assert (graph.cost(wide).work, graph.cost(wide).span) == (108, 108)
    assert (graph.cost(region).work, graph.cost(region).span) == (96 + 108, 108)
    # By operators the other branch is the longest: the two spans need not be on one path.
    assert (graph.cost(region, "operators").work, graph.cost(region, "operators").span) == (6, 3)
    assert graph.cost(nested).parallelism == 80 / 64
    assert (graph.cost().work, graph.cost().span) == (16 + 204 + 16, 16 + 108 + 16)


def test_a_shared_layer_counts_in_each_branch_and_a_merge_outside() -> None:
    shared = nn.Linear(4, 4)
    merge = nn.Sequential(kit.Concat(1), nn.Linear(8, 2))
    graph = kit.graph(kit.Branches({"a": shared, "b": shared}, merge).eval(), torch.ones(1, 4))
    assert graph.cost(graph.regions[0]).work == 32
    assert (graph.cost().work, graph.cost().span) == (32 + 16, 16 + 16)


def test_regions_that_share_a_branch_keep_their_names() -> None:
    shared = nn.Linear(4, 4)
    first = kit.Branches({"a": shared, "b": nn.Linear(4, 4)}, kit.Concat(1))
    second = kit.Branches({"a": shared, "b": nn.Linear(4, 2)}, kit.Concat(1))
    model = kit.Branches({"left": first, "right": second}, kit.Concat(1)).eval()
    graph = kit.graph(model, torch.ones(1, 4))
    assert [branch.name for branch in graph.regions[0].branches] == ["left", "right"]
    assert [graph.cost(branch).work for branch in graph.regions[0].branches] == [32, 24]


def test_branches_that_take_several_inputs_or_none_are_counted_with_what_they_take() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.prior = nn.Linear(4, 4, bias=False)

        def forward(self) -> Tensor:
            return self.prior(torch.ones(1, 4))

    branches = {"both": nn.Bilinear(4, 2, 3, bias=False), "one": chain(2, 8), "none": Fixed()}
    model = kit.Branches(branches, kit.Concat(1), takes={"both": (1, 0), "one": 0, "none": ()}).eval()
    graph = kit.graph(model, (torch.ones(1, 2), torch.ones(1, 4)))
    assert macs_of(graph, "") == {"both": 24, "one": 16, "none": 16}
    assert graph.cost().span == 24


def test_the_fused_layer_of_a_transformer_is_work_so_that_two_of_them_are_branches() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.a(x), self.b(x)], 1)

    graph = kit.graph(Two().eval(), torch.randn(1, 5, 8))
    assert macs_of(graph, "") == dict.fromkeys("ab", 5 * (4 * 64 + 2 * 128) + 5 * 5 * 8 * 2)


def test_nothing_is_said_of_milliseconds_that_were_not_measured() -> None:
    measured = kit.graph(inception_block(16), torch.zeros(1, 16, 9, 9))
    graph = replace(measured, operators=tuple(replace(each, ms=math.nan) for each in measured.operators))
    assert math.isnan(graph.cost(by="ms").work)
    assert graph.parallelism == graph.cost().parallelism > 1
