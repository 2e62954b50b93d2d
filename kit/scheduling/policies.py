"""Which lane each node of a task graph goes to, and in which order the nodes are launched.

A lane is a thread, a process or a CUDA stream. A policy turns a graph into placements. An executor launches them one
after the other: the nodes of one lane run in that order, nodes of different lanes may run at the same time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from kit.errors import KitError, UnknownNameError
from kit.scheduling.graph import Node, times_to_end


class Placement(NamedTuple):
    """The launch of one node on a lane."""

    node: int  # index into the nodes
    lane: int  # 0 .. lanes - 1


PolicyName = Literal["one_per_branch", "wavefront", "longest_path_first", "in_order", "single"]
Policy = Callable[[Sequence[Node], int], list[Placement]]  # (nodes, lanes) -> every node once, in order


def single(nodes: Sequence[Node], lanes: int) -> list[Placement]:
    """Everything on one lane: the default of PyTorch, with which several lanes are compared."""
    return [Placement(i, 0) for i in range(len(nodes))]


def one_per_branch(nodes: Sequence[Node], lanes: int) -> list[Placement]:
    """Branch i on lane i modulo their number, one branch launched after the other.

    Later branches wait for their launch: if launching takes longer than running, branches hardly overlap.
    """
    return [Placement(i, node.branch % lanes) for i, node in enumerate(nodes)]


def wavefront(nodes: Sequence[Node], lanes: int) -> list[Placement]:
    """Level by level: nodes without dependencies, then nodes that depend on these; each level is spread over the lanes.

    All lanes get work early, which helps if launching is the bottleneck. The policy ignores costs: a level with one
    long node and many short nodes is spread by number.

    Source: Ding et al., *IOS: Inter-Operator Scheduler for CNN Acceleration*, MLSys 2021, whose "greedy" it resembles.
    """
    level: list[int] = []
    for node in nodes:
        level.append(1 + max((level[i] for i in node.after), default=-1))
    place: dict[int, int] = {}
    for depth in range(max(level, default=-1) + 1):
        taken = [0] * lanes
        for i in (i for i in range(len(nodes)) if level[i] == depth):
            home = {place[before] for before in nodes[i].after}
            # Of the least loaded lanes, one that it waits for anyway: to go on there takes no event.
            place[i] = min(range(lanes), key=lambda lane: (taken[lane], lane not in home, lane))
            taken[place[i]] += 1
    return [Placement(i, lane) for i, lane in place.items()]


def longest_path_first(nodes: Sequence[Node], lanes: int) -> list[Placement]:
    """List scheduling: the node with the longest time to the end of the graph first, on the lane that starts it first.

    Helps if branches differ much in length and there are fewer lanes than branches. It needs accurate costs.

    Source: Topcuoglu, Hariri & Wu, *Performance-Effective and Low-Complexity Task Scheduling for Heterogeneous
    Computing* (HEFT), 2002, on equal lanes, without costs for data transfer.
    """
    to_end = times_to_end(nodes)
    return _list_schedule(nodes, lanes, sorted(range(len(nodes)), key=lambda i: (-to_end[i], i)))


def in_order(nodes: Sequence[Node], lanes: int) -> list[Placement]:
    """List scheduling in the order given: the lane that is free first takes the next node, as workers of a pool do.

    Source: Graham, *Bounds for Certain Multiprocessing Anomalies*, 1966: at most 2 - 1 / lanes times the shortest time.
    """
    return _list_schedule(nodes, lanes, range(len(nodes)))


def _list_schedule(nodes: Sequence[Node], lanes: int, order: Sequence[int]) -> list[Placement]:
    """List scheduling: no lane is idle while a node is ready; the first ready node in this order begins.

    A node that is not ready does not delay later nodes.
    """
    free = [0.0] * lanes
    ends: dict[int, float] = {}
    place: dict[int, int] = {}
    waiting = list(order)
    while waiting:
        ready = {
            i: max((ends[before] for before in nodes[i].after), default=0.0)
            for i in waiting
            if all(before in ends for before in nodes[i].after)
        }
        moment = max(min(free), min(ready.values()))
        i = next(i for i in waiting if ready.get(i, math.inf) <= moment)
        home = {place[before] for before in nodes[i].after}
        idle = [lane for lane in range(lanes) if free[lane] <= moment]
        place[i] = min(idle, key=lambda lane: (max(free[lane], ready[i]), lane not in home, lane))
        ends[i] = free[place[i]] = max(free[place[i]], ready[i]) + nodes[i].cost
        waiting.remove(i)
    return [Placement(i, lane) for i, lane in place.items()]


POLICIES: dict[str, Policy] = {
    each.__name__: each for each in (one_per_branch, wavefront, longest_path_first, in_order, single)
}


def policy(name: str, lanes: int) -> Policy:
    """A policy by name.

    Raises:
        UnknownNameError: no such policy.
        KitError: fewer than one lane.
    """
    if name not in POLICIES:
        raise UnknownNameError("policy", name, POLICIES)
    if lanes < 1:
        raise KitError(f"{lanes} streams are too few: give at least 1.")
    return POLICIES[name]
