"""A task graph, its work and its span, and the bounds that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kit.reprs import one_line


@one_line
class Node(NamedTuple):
    """One task of a graph. A graph is a sequence of nodes in topological order."""

    branch: int = 0  # which branch the task belongs to, for policies that keep branches together
    cost: float = 1.0  # estimated time, in any unit, >= 0
    after: tuple[int, ...] = ()  # indices of the nodes that it waits for, all smaller than its own


def work(nodes: Sequence[Node]) -> float:
    """T1, the time on one lane: the sum of all costs."""
    return sum(node.cost for node in nodes)


def span(nodes: Sequence[Node]) -> float:
    """T-infinity, the time on unlimited lanes: the length of the critical path."""
    return max(times_to_end(nodes), default=0.0)


def critical_path(nodes: Sequence[Node]) -> list[int]:
    """The indices of the longest chain of dependent nodes, in order; the first one if several are equally long."""
    to_end = times_to_end(nodes)
    followers: list[list[int]] = [[] for _ in nodes]
    for i, node in enumerate(nodes):
        for before in node.after:
            followers[before].append(i)
    path: list[int] = []
    choices = [i for i, node in enumerate(nodes) if not node.after]
    while choices:
        path.append(max(choices, key=to_end.__getitem__))
        choices = followers[path[-1]]
    return path


def lower_bound(nodes: Sequence[Node], lanes: float) -> float:
    """The earliest end of any schedule on this many lanes: the larger of work / lanes and span.

    Source: Brent, *The Parallel Evaluation of General Arithmetic Expressions*, 1974.

    Args:
        lanes: more than 0; may be a fraction if a lane is only partly available.
    """
    return max(work(nodes) / lanes, span(nodes))


def times_to_end(nodes: Sequence[Node]) -> list[float]:
    """For each node, the longest time from its start to the end of the graph."""
    times = [node.cost for node in nodes]
    for i in reversed(range(len(nodes))):
        for before in nodes[i].after:
            times[before] = max(times[before], nodes[before].cost + times[i])
    return times
