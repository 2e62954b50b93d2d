"""Schedules on lanes that hand results to each other at a cost: HEFT, and wavefronts."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence

from kit.scheduling.graph import Node, times_to_end
from kit.scheduling.policies import Placement
from kit.scheduling.policies import wavefront as by_level
from kit.scheduling.simulate import Slot, simulate

# (nodes, lanes, cost of handing over) -> slots, in order
LanePolicy = Callable[[Sequence[Node], int, float], list[Slot]]


def heft(nodes: Sequence[Node], lanes: int, hand_over: float) -> list[Slot]:
    """List scheduling by critical path: the node with the longest time to the end first, where it ends first.

    A node may begin in a gap that its lane has left while it waited. A result of another lane makes the node that takes
    it longer: its lane waits for a lock, and reads what another core has written.

    Source: Topcuoglu, Hariri & Wu, *Performance-Effective and Low-Complexity Task Scheduling for Heterogeneous
    Computing* (HEFT), 2002.

    Args:
        hand_over: what each result of another lane costs, in the unit of the costs.
    """
    rank = times_to_end([node._replace(cost=node.cost + hand_over) for node in nodes])
    lane_slots: list[list[tuple[float, float]]] = [[] for _ in range(lanes)]
    placed: dict[int, Slot] = {}
    for i in sorted(range(len(nodes)), key=lambda i: (-rank[i], i)):
        best: Slot | None = None
        ready = max((placed[j].end for j in nodes[i].after), default=0.0)
        for lane in range(lanes):
            cost = nodes[i].cost + hand_over * sum(placed[j].lane != lane for j in nodes[i].after)
            start = _gap(lane_slots[lane], ready, cost)
            if best is None or start + cost < best.end - 1e-12:
                best = Slot(i, lane, start, start + cost)
        assert best is not None
        placed[i] = best
        insort(lane_slots[best.lane], (best.start, best.end))
    return sorted(placed.values(), key=lambda slot: (slot.start, slot.end, slot.node))


def _gap(taken: list[tuple[float, float]], ready: float, cost: float) -> float:
    """The earliest start from ``ready`` on at which a lane is free for so long."""
    # Nearly all nodes come at the end: look for a gap from there.
    start = ready
    i = len(taken)
    while i and taken[i - 1][1] > ready:
        i -= 1
    for begin, end in taken[i:]:
        if start + cost <= begin:
            return start
        start = max(start, end)
    return start


def wavefront(nodes: Sequence[Node], lanes: int, hand_over: float) -> list[Slot]:
    """Level by level, spread over the lanes by number; see :func:`kit.scheduling.policies.wavefront`."""
    return timed(nodes, by_level(nodes, lanes), hand_over)


def timed(nodes: Sequence[Node], placements: Sequence[Placement], hand_over: float) -> list[Slot]:
    """The slots of these placements, in which each result of another lane makes a node longer."""
    lane = dict(placements)
    taken = [sum(lane[j] != lane[i] for j in node.after) for i, node in enumerate(nodes)]
    longer = [node._replace(cost=node.cost + hand_over * count) for node, count in zip(nodes, taken, strict=True)]
    return simulate(longer, placements)
