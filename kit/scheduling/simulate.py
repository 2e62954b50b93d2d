"""What a schedule comes to: when each task starts and ends, if lanes and costs are as they are said to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kit.scheduling.graph import Node
from kit.scheduling.policies import Placement


class Slot(NamedTuple):
    """The time that one node takes of one lane, in the unit of the costs."""

    node: int  # index into the nodes
    lane: int
    start: float
    end: float


def simulate(nodes: Sequence[Node], placements: Sequence[Placement]) -> list[Slot]:
    """The slots of a schedule, in its order: a node starts when its lane is free and all that it waits for has ended.

    Args:
        placements: every node once, after those that it waits for.
    """
    free: dict[int, float] = {}
    ends: dict[int, float] = {}
    slots = []
    for node, lane in placements:
        start = max([free.get(lane, 0.0), *(ends[before] for before in nodes[node].after)])
        ends[node] = free[lane] = start + nodes[node].cost
        slots.append(Slot(node, lane, start, ends[node]))
    return slots


def makespan(nodes: Sequence[Node], placements: Sequence[Placement]) -> float:
    """When the last node of a schedule ends."""
    return max((slot.end for slot in simulate(nodes, placements)), default=0.0)
