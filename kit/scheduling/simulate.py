"""Simulates a schedule: when each task starts and ends, given the lanes and costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kit.scheduling.graph import Node
from kit.scheduling.policies import Placement


class Slot(NamedTuple):
    """The start and end of one node on one lane, in the unit of the costs."""

    node: int  # index into the nodes
    lane: int
    start: float
    end: float


def simulate(nodes: Sequence[Node], placements: Sequence[Placement]) -> list[Slot]:
    """The slots of a schedule, in its order: a node starts when its lane is free and its dependencies have ended.

    Args:
        placements: every node once, after the nodes that it depends on.
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
    """The end of a schedule's last node, in the unit of the costs."""
    return max((slot.end for slot in simulate(nodes, placements)), default=0.0)
