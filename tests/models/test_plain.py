"""The plain models: what is found in them, by ``kit.graph`` and from the command line."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

import kit
from kit.equality import as_args, compare_outputs
from kit.executors import use
from kit.executors.threads import Threads
from kit.graphs import Graph
from kit.graphs.operators import WORTH_IT
from kit.models import plain
from kit.workloads.factories import load

MAKERS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    make.__name__: make for make in (plain.inception, plain.two_towers, plain.resnet)
}


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    return {name: kit.graph(*make()) for name, make in MAKERS.items()}


def names(graph: Graph) -> list[list[str]]:
    return [sorted(branch.name for branch in region.branches) for region in graph.all_regions()]


def test_nothing_of_the_kit_is_in_them() -> None:
    tree = ast.parse(Path(plain.__file__).read_text(encoding="utf-8"))
    imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert not [name for name in imported if name and name.partition(".")[0] == "kit"]


@pytest.mark.parametrize("name", MAKERS)
def test_a_factory_gives_the_same_each_time_and_leaves_the_random_numbers_alone(name: str) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, second = (MAKERS[name]() for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    assert not first[0].training
    one, other = (tree_leaves((dict(model.state_dict()), inputs)) for model, inputs in (first, second))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", MAKERS)
def test_the_command_line_takes_it(name: str) -> None:
    model, _ = load(f"kit.models.plain:{name}")
    assert type(model) is type(MAKERS[name]()[0])


@pytest.mark.parametrize("name", MAKERS)
def test_branched_computes_the_same_side_by_side(name: str) -> None:
    model, inputs = MAKERS[name]()
    branched = kit.branched(model, inputs)
    other = tuple(x.flip(-1) for x in as_args(inputs))  # other values than those that it was made from
    with torch.inference_mode(), Threads(2) as threads:
        expected = model(*other)
        assert not compare_outputs(expected, model(*as_args(inputs))).equal, "outputs that stay would show nothing"
        with use(threads):
            found = branched(*other)
    assert compare_outputs(expected, found).equal


def test_the_regions_of_the_inception(graphs: dict[str, Graph]) -> None:
    graph = graphs["inception"]
    assert names(graph) == [["branch1x1", "branch3x3", "branch5x5", "branch_pool"]] * 3
    assert graph.parallelism_by_macs == pytest.approx(1.71, abs=0.01)


def test_the_region_of_the_two_towers(graphs: dict[str, Graph]) -> None:
    graph = graphs["two_towers"]
    assert names(graph) == [["image", "text"]]
    assert graph.parallelism_by_macs > 1.8
    assert graph.not_series_parallel == 0


def test_the_resnet_has_nothing_to_gain(graphs: dict[str, Graph]) -> None:
    graph = graphs["resnet"]
    assert names(graph) == [["conv1", "shortcut"]] * 3  # found, and far too little
    assert graph.parallelism_by_macs < WORTH_IT
