"""Policies put every stage on a stream, after what it needs, and where their names say."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.errors import KitError, UnknownNameError
from kit.scheduling import POLICIES, Node, makespan, policy
from kit.scheduling.policies import in_order, longest_path_first, one_per_branch, single, wavefront
from tests.scheduling.graphs import graphs


def chains(*costs: tuple[float, ...]) -> list[Node]:
    """A branch for each tuple of its stages' costs."""
    nodes: list[Node] = []
    for branch, stages in enumerate(costs):
        for i, cost in enumerate(stages):
            nodes.append(Node(branch, cost, (len(nodes) - 1,) if i else ()))
    return nodes


@given(graphs(), st.integers(1, 4), st.sampled_from(sorted(POLICIES)))
@settings(deadline=None)
def test_every_node_once_after_what_it_needs_on_a_stream_that_exists(nodes: list[Node], lanes: int, name: str) -> None:
    steps = POLICIES[name](nodes, lanes)
    assert sorted(step.node for step in steps) == list(range(len(nodes)))
    assert all(0 <= step.lane < lanes for step in steps)
    launched = {step.node: i for i, step in enumerate(steps)}
    assert all(launched[before] < launched[i] for i, node in enumerate(nodes) for before in node.after)


@given(graphs(), st.integers(1, 4))
@settings(deadline=None)
def test_list_scheduling_keeps_grahams_bound(nodes: list[Node], lanes: int) -> None:
    work, way = sum(node.cost for node in nodes), [0.0] * len(nodes)
    for i, node in enumerate(nodes):
        way[i] = node.cost + max((way[before] for before in node.after), default=0.0)
    found = makespan(nodes, longest_path_first(nodes, lanes))
    assert found <= work / lanes + (1 - 1 / lanes) * max(way, default=0.0) + 1e-9


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 3))
@settings(deadline=None, max_examples=50)
def test_list_scheduling_against_the_best_of_all_assignments(costs: list[int], lanes: int) -> None:
    """Independent tasks: at most 4/3 - 1/(3k) times the best (Graham, 1969), and in any order 2 - 1/k (1966)."""
    nodes = chains(*((cost,) for cost in costs))
    best = min(
        max(sum(cost for cost, at in zip(costs, places, strict=True) if at == stream) for stream in range(lanes))
        for places in itertools.product(range(lanes), repeat=len(costs))
    )
    assert best <= makespan(nodes, longest_path_first(nodes, lanes)) <= (4 / 3 - 1 / (3 * lanes)) * best + 1e-9
    assert best <= makespan(nodes, in_order(nodes, lanes)) <= (2 - 1 / lanes) * best + 1e-9


@pytest.mark.parametrize("lanes", [2, 3, 4])
def test_a_long_task_at_the_end_costs_a_pool_the_whole_of_grahams_bound(lanes: int) -> None:
    nodes = chains(*[(1,)] * (lanes * (lanes - 1)), (lanes,))
    assert makespan(nodes, in_order(nodes, lanes)) == 2 * lanes - 1
    assert makespan(nodes, longest_path_first(nodes, lanes)) == lanes


BLOCK = chains((3,), (3, 3), (3, 3, 3), (1, 3))  # the Inception block in kernels


def test_single_is_the_order_of_the_branches_on_one_stream() -> None:
    assert single(BLOCK, 4) == [(i, 0) for i in range(8)]


def test_one_per_branch() -> None:
    assert one_per_branch(BLOCK, 4) == [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (6, 3), (7, 3)]
    assert [step.lane for step in one_per_branch(BLOCK, 2)] == [0, 1, 1, 0, 0, 0, 1, 1]


def test_wavefront_goes_level_by_level_and_stays_on_its_stream() -> None:
    assert wavefront(BLOCK, 4) == [(0, 0), (1, 1), (3, 2), (6, 3), (2, 1), (4, 2), (7, 3), (5, 2)]
    steps = dict(wavefront(BLOCK, 2))
    assert sorted(steps[i] for i in (0, 1, 3, 6)) == [0, 0, 1, 1]  # a level is spread evenly


def test_longest_path_first_begins_with_the_longest_branch() -> None:
    steps = longest_path_first(BLOCK, 2)
    assert steps[0].node == 3
    assert makespan(BLOCK, steps) == 12  # of 22 in pieces of 3, no assignment to 2 lanes ends sooner
    assert makespan(BLOCK, single(BLOCK, 1)) == 22
    uneven = chains((4,), (4,), (8,))
    assert makespan(uneven, longest_path_first(uneven, 2)) == 8
    assert makespan(uneven, one_per_branch(uneven, 2)) == 12


def test_a_chain_never_changes_its_stream_without_need() -> None:
    for name in POLICIES:
        assert {step.lane for step in POLICIES[name](chains((1, 2, 3)), 3)} == {0}


def test_unknown_policies_and_no_lanes() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'wavefront'"):
        policy("wave", 2)
    with pytest.raises(KitError, match="0 streams are too few"):
        policy("single", 0)


def test_a_node_that_waits_holds_up_no_later_one() -> None:
    """The third one waits for the first, and the fourth for none: it does not wait for the third."""
    nodes = [Node(0, 3), Node(1, 0), Node(0, 0, (0,)), Node(1, 4)]
    assert makespan(nodes, in_order(nodes, 2)) == 4
