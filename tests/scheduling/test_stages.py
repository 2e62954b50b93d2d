"""Stages: the best partition where all can be tried, and a thousand operators in a second."""

import itertools
import time

import pytest

from kit.scheduling import Node
from kit.scheduling.stages import stages


def end(nodes: list[Node], lanes: int = 2, hand_over: float = 0.0) -> float:
    return max(slot.end for slot in stages(nodes, lanes, hand_over))


def test_it_pairs_long_with_long_chains_where_a_level_would_pair_long_with_short() -> None:
    # Two chains of 3 + 3 and two of 1, all independent.
    nodes = [
        *(Node(cost=3.0), Node(cost=3.0), Node(cost=1.0), Node(cost=1.0)),
        *(Node(cost=3.0, after=(0,)), Node(cost=3.0, after=(1,))),
    ]
    assert end(nodes) == pytest.approx(7.0)


def test_a_chain_stays_on_one_lane() -> None:
    nodes = [Node(cost=1.0), *(Node(cost=1.0, after=(i,)) for i in range(5))]
    slots = stages(nodes, 3, 1.0)
    assert {slot.lane for slot in slots} == {slots[0].lane}
    assert end(nodes, 3, 1.0) == pytest.approx(6.0)


def test_results_of_another_lane_cost_what_handing_over_costs() -> None:
    fork = [Node(cost=1.0), Node(cost=1.0, after=(0,)), Node(cost=1.0, after=(0,)), Node(cost=1.0, after=(1, 2))]
    assert end(fork, 2, 0.1) == pytest.approx(3.2)


def test_of_a_few_chains_the_shortest_stages_are_found() -> None:
    costs = (5.0, 4.0, 3.0, 2.0)
    nodes = [Node(cost=cost) for cost in costs]
    best = min(
        max(sum(c for c, on in zip(costs, lanes, strict=True) if on == lane) for lane in (0, 1))
        for lanes in itertools.product((0, 1), repeat=4)
    )
    assert end(nodes) == pytest.approx(best)


def test_a_thousand_operators_are_scheduled_in_seconds() -> None:
    nodes: list[Node] = [Node()]
    for cell in range(50):
        first = len(nodes) - 1
        for _ in range(5):
            start = len(nodes)
            nodes += [Node(cost=1.0, after=(first,)), *(Node(cost=1.0, after=(start + k,)) for k in range(2))]
        nodes.append(Node(cost=1.0 + cell % 3, after=tuple(len(nodes) - 1 - 3 * k for k in range(5))))
    start = time.process_time()
    assert end(nodes, 2, 0.1) < sum(node.cost for node in nodes)
    assert time.process_time() - start < 20  # far above what it takes, to find what grows without bound
