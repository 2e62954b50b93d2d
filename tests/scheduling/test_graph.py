"""Work, span, critical path and the lower bound, against every path and every schedule of small graphs."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.scheduling import POLICIES, Node, critical_path, lower_bound, makespan, simulate, span, work
from tests.scheduling.graphs import best, graphs


def paths(nodes: list[Node]) -> list[list[int]]:
    """Every chain of nodes that wait for each other."""
    chains = [
        list(chosen)
        for size in range(1, len(nodes) + 1)
        for chosen in itertools.combinations(range(len(nodes)), size)
        if all(one in nodes[other].after for one, other in itertools.pairwise(chosen))
    ]
    return chains or [[]]


@given(graphs())
def test_the_span_is_the_longest_of_all_paths_and_the_critical_path_is_one(nodes: list[Node]) -> None:
    longest = max(sum(nodes[i].cost for i in path) for path in paths(nodes))
    assert span(nodes) == longest
    found = critical_path(nodes)
    assert found in paths(nodes) or not nodes
    assert sum(nodes[i].cost for i in found) == longest


@given(graphs(size=5), st.integers(1, 3))
@settings(deadline=None, max_examples=40)
def test_policies_between_the_bounds_and_the_best_of_all_schedules(nodes: list[Node], lanes: int) -> None:
    """No schedule ends before the lower bound. List scheduling is within Graham's 2 - 1 / lanes of the best."""
    shortest = best(nodes, lanes)
    assert lower_bound(nodes, lanes) <= shortest
    for policy in POLICIES.values():
        assert shortest <= makespan(nodes, policy(nodes, lanes)) <= work(nodes)
    for name in ("in_order", "longest_path_first"):
        assert makespan(nodes, POLICIES[name](nodes, lanes)) <= (2 - 1 / lanes) * shortest + 1e-9


@given(graphs(), st.integers(1, 4), st.sampled_from(sorted(POLICIES)))
def test_slots_of_a_lane_do_not_overlap_and_nothing_waits_for_no_reason(
    nodes: list[Node], lanes: int, name: str
) -> None:
    slots = simulate(nodes, POLICIES[name](nodes, lanes))
    ends = {slot.node: slot.end for slot in slots}
    assert [slot.end - slot.start for slot in slots] == [nodes[slot.node].cost for slot in slots]
    for i, slot in enumerate(slots):
        reasons = [0.0, *(ends[before] for before in nodes[slot.node].after)]
        reasons += [other.end for other in slots[:i] if other.lane == slot.lane]
        assert slot.start == max(reasons)


def test_known_values() -> None:
    diamond = [Node(0, 1), Node(1, 4, (0,)), Node(2, 2, (0,)), Node(0, 1, (1, 2))]
    assert (work(diamond), span(diamond), critical_path(diamond)) == (8, 6, [0, 1, 3])
    assert lower_bound(diamond, 1) == 8
    assert lower_bound(diamond, 2) == 6
    assert lower_bound(diamond, 0.5) == 16
    assert (work([]), span([]), critical_path([]), lower_bound([], 2)) == (0, 0, [], 0)


@pytest.mark.parametrize(("lanes", "ends"), [(1, 6), (2, 5)])
def test_a_pool_takes_tasks_in_their_order(lanes: int, ends: float) -> None:
    nodes = [Node(cost=cost) for cost in (1.0, 1.0, 4.0)]
    assert makespan(nodes, POLICIES["in_order"](nodes, lanes)) == ends
