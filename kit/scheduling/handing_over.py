"""Schedules on lanes that exchange results at a cost: HEFT, and wavefronts."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence

from kit.scheduling.graph import Node, times_to_end
from kit.scheduling.policies import wavefront as by_level
from kit.scheduling.simulate import Slot, simulate

LanePolicy = Callable[
    [Sequence[Node], int, float], list[Slot]
]  # (nodes, lanes, cost of handing over) -> slots, in order


def heft(nodes: Sequence[Node], lanes: int, hand_over: float) -> list[Slot]:
    """List scheduling by critical path: the node with the longest time to the end first, where it ends first.

    A node may begin in a gap that its lane has left while it waited.

    Source: Topcuoglu, Hariri & Wu, *Performance-Effective and Low-Complexity Task Scheduling for Heterogeneous
    Computing* (HEFT), 2002.

    Args:
        hand_over: what it costs, in the unit of the costs, when a node needs a result of another lane.
    """
    rank = times_to_end([node._replace(cost=node.cost + hand_over) for node in nodes])
    lane_slots: list[list[tuple[float, float]]] = [[] for _ in range(lanes)]
    placed: dict[int, Slot] = {}
    for i in sorted(range(len(nodes)), key=lambda i: (-rank[i], i)):
        best: Slot | None = None
        for lane in range(lanes):
            ready = max(
                (placed[j].end + (hand_over if placed[j].lane != lane else 0.0) for j in nodes[i].after), default=0.0
            )
            start = _gap(lane_slots[lane], ready, nodes[i].cost)
            if best is None or start + nodes[i].cost < best.end - 1e-12:
                best = Slot(i, lane, start, start + nodes[i].cost)
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
    return simulate(nodes, by_level(nodes, lanes))


ON_LANES: dict[str, LanePolicy] = {"heft": heft, "wavefront": wavefront}
