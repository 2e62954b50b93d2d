"""Schedules on lanes that hand results to each other: no node too early, no lane twice at a time, near the bound."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.errors import KitError
from kit.scheduling import Node, lower_bound, span, work
from kit.scheduling.handing_over import heft
from kit.scheduling.phases import blocks, mixed, side_by_side, whole
from kit.scheduling.plans import ON_LANES
from kit.scheduling.simulate import Slot
from kit.scheduling.waiting import waits
from tests.scheduling.graphs import graphs


def check(nodes: list[Node], slots: list[Slot], lanes: int, hand_over: float) -> None:
    """Every node once, after what it waits for, and alone on its lane."""
    at = {slot.node: slot for slot in slots}
    assert sorted(at) == list(range(len(nodes)))
    assert len(slots) == len(nodes)
    for slot in slots:
        taken = [at[before] for before in nodes[slot.node].after]
        longer = hand_over * sum(before.lane != slot.lane for before in taken)
        assert slot.end == pytest.approx(slot.start + nodes[slot.node].cost + longer)
        assert all(slot.start >= before.end - 1e-9 for before in taken)
    for lane in range(lanes):
        own = sorted((slot.start, slot.end) for slot in slots if slot.lane == lane)
        assert all(end <= start + 1e-9 for (_, end), (start, _) in itertools.pairwise(own))


@settings(deadline=None)
@given(graphs(), st.integers(1, 4), st.floats(0.0, 3.0))
def test_heft_keeps_all_rules_and_never_beats_the_bound(nodes: list[Node], lanes: int, hand_over: float) -> None:
    slots = heft(nodes, lanes, hand_over)
    check(nodes, slots, lanes, hand_over)
    end = max((slot.end for slot in slots), default=0.0)
    assert end >= lower_bound(nodes, lanes) - 1e-9
    assert end <= work(nodes) + hand_over * len(nodes) + 1e-9


@settings(deadline=None)
@given(graphs())
def test_on_one_lane_it_is_one_after_the_other_and_on_many_the_span(nodes: list[Node]) -> None:
    assert max((s.end for s in heft(nodes, 1, 1.0)), default=0.0) == pytest.approx(work(nodes))
    many = heft(nodes, max(1, len(nodes)), 0.0)
    assert max((s.end for s in many), default=0.0) == pytest.approx(span(nodes))


def test_it_stays_on_a_lane_where_handing_over_costs_more_than_it_saves() -> None:
    fork = [Node(cost=1.0), Node(cost=1.0, after=(0,)), Node(cost=1.0, after=(0,)), Node(cost=1.0, after=(1, 2))]
    # One branch takes the fork's result from the other lane, and the join takes that branch's.
    assert max(slot.end for slot in heft(fork, 2, 0.1)) == pytest.approx(3.2)
    assert {slot.lane for slot in heft(fork, 2, 5.0)} == {0}


def test_a_short_node_fills_the_gap_that_a_lane_has_while_it_waits() -> None:
    # Node 0 is long; 1 -> 2 waits for it on the other lane; 3 is short, needs nothing and ranks last.
    nodes = [Node(cost=4.0), Node(cost=1.0), Node(cost=3.0, after=(0, 1)), Node(cost=2.0)]
    slots = {slot.node: slot for slot in heft(nodes, 2, 0.0)}
    assert slots[3].end <= 4.0
    assert max(slot.end for slot in slots.values()) == 7.0


@pytest.mark.parametrize("policy", ON_LANES)
def test_a_thousand_operators_are_scheduled_in_a_moment(policy: str) -> None:
    nodes = [Node(cost=1 + i % 7, after=tuple({max(0, i - 5), max(0, i - 11)}) if i else ()) for i in range(1000)]
    check(nodes, ON_LANES[policy](nodes, 2, 0.25), 2, 0.25)


# Where lanes wait -----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(graphs(), st.integers(2, 4), st.randoms(use_true_random=False))
def test_with_these_waits_no_node_begins_too_early_whichever_lane_is_fast(
    nodes: list[Node], lanes: int, random: object
) -> None:
    slots = heft(nodes, lanes, 0.5)
    on = [[slot.node for slot in slots if slot.lane == lane] for lane in range(lanes)]
    after = [node.after for node in nodes]
    waiting = waits(on, after)
    place = {node: lane for lane, some in enumerate(on) for node in some}
    assert all(place[other] != place[node] for node, others in waiting.items() for other in others)
    ended: set[int] = set()
    todo = [list(reversed(some)) for some in on]
    while any(todo):  # any lane that need not wait may go on
        able = [some for some in todo if some and ended.issuperset(waiting.get(some[-1], ()))]
        assert able, "the lanes wait for each other in a circle"
        node = random.choice(able).pop()  # type: ignore[attr-defined]
        assert ended.issuperset(after[node])
        ended.add(node)


def test_what_a_lane_knows_already_it_does_not_wait_for_again() -> None:
    # Lane 0: 0, 1. Lane 1: 2 waits for 1, and so need not wait for 0 in 3.
    after = [(), (0,), (1,), (0,)]
    assert waits([[0, 1], [2, 3]], after) == {2: (1,)}
    # By way of a third lane: 2 waited for 1, so who waits for 2 knows of 1.
    assert waits([[0, 1], [2], [3]], [(), (0,), (1,), (1, 2)]) == {2: (1,), 3: (2,)}


def test_lanes_that_wait_in_a_circle_are_refused() -> None:
    with pytest.raises(KitError, match="in a circle"):
        waits([[0, 1], [2, 3]], [(3,), (), (1,), ()])


# Phases ---------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(graphs())
def test_blocks_are_all_nodes_in_order_and_joined_by_one_node(nodes: list[Node]) -> None:
    found = blocks(nodes)
    assert [i for block in found for i in block] == list(range(len(nodes)))
    for block in found:
        for i in range(block[-1] + 1, len(nodes)):
            assert all(before == block[-1] or before > block[-1] for before in nodes[i].after)


def inception(large: float, small: float) -> tuple[list[Node], list[float]]:
    """A chain of large nodes that all cores halve, then four small ones side by side, which they do not, and a join."""
    nodes = [Node(cost=large), Node(cost=large, after=(0,))]
    nodes += [Node(cost=small, after=(1,)) for _ in range(4)]
    nodes.append(Node(cost=small, after=(2, 3, 4, 5)))
    return nodes, [node.cost / (2 if node.cost == large else 1) for node in nodes]


def test_large_nodes_are_on_all_cores_and_small_ones_side_by_side() -> None:
    nodes, on_all = inception(10.0, 1.0)
    phases = mixed(nodes, on_all, 2, 0.0, 0.1, heft)
    assert [phase.lanes for phase in phases] == [1, 2]
    assert phases[0].on_lanes == [[0, 1]]
    assert phases[-1].end == pytest.approx(10.0 + 0.1 + 3.0)
    assert whole(nodes, on_all)[-1].end == pytest.approx(15.0)
    assert side_by_side(nodes, 2, 0.0, 0.5, heft)[-1].end == pytest.approx(23.5)


def test_a_fork_that_costs_more_than_it_saves_is_not_made() -> None:
    nodes, on_all = inception(10.0, 1.0)
    assert [phase.lanes for phase in mixed(nodes, on_all, 2, 0.0, 5.0, heft)] == [1]


@settings(deadline=None)
@given(graphs(), st.integers(2, 3), st.floats(0.0, 1.0))
def test_mixed_phases_hold_every_node_after_what_it_needs(nodes: list[Node], lanes: int, fork: float) -> None:
    phases = mixed(nodes, [node.cost * 0.7 for node in nodes], lanes, 0.1, fork, heft)
    at = {slot.node: slot for phase in phases for slot in phase.slots}
    assert sorted(at) == list(range(len(nodes)))
    for node, slot in at.items():
        assert all(slot.start >= at[before].end - 1e-9 for before in nodes[node].after)
    ends = [phase.end for phase in phases]
    assert ends == sorted(ends)
