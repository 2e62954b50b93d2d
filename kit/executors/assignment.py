"""Which stream each piece of a region goes to, and in which order the pieces are launched. Pure functions.

A region is a small graph: a branch is a chain of stages, and nothing ties the branches to each other. A policy turns
that graph into steps, which an executor launches one after the other: those of one stream run in that order, those of
different streams may run at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from kit.errors import KitError, UnknownNameError


class Node(NamedTuple):
    """One stage of a branch."""

    branch: int
    cost: float = 1.0  # estimated time, in any unit, >= 0
    after: tuple[int, ...] = ()  # indices of the nodes that it needs, all smaller than its own


class Step(NamedTuple):
    """One launch."""

    node: int  # index into the nodes
    stream: int  # 0 .. streams - 1


PolicyName = Literal["one_per_branch", "wavefront", "longest_path_first", "single"]
Policy = Callable[[Sequence[Node], int], list[Step]]  # (nodes, streams) -> every node once, after those that it needs


def single(nodes: Sequence[Node], streams: int) -> list[Step]:
    """Everything on one stream: what PyTorch does by itself, and what streams must beat."""
    return [Step(i, 0) for i in range(len(nodes))]


def one_per_branch(nodes: Sequence[Node], streams: int) -> list[Step]:
    """Branch i on stream i modulo their number, one branch launched after the other.

    The later branches wait for their launch: where launching takes longer than running, they hardly overlap.
    """
    return [Step(i, node.branch % streams) for i, node in enumerate(nodes)]


def wavefront(nodes: Sequence[Node], streams: int) -> list[Step]:
    """Level by level: first stages of all branches, then second stages, each level spread over the streams.

    All streams get work early, which helps where launching is the slow part. A level that is one long stage beside
    short ones is spread no better for it: costs are not looked at.

    Source: Ding et al., *IOS: Inter-Operator Scheduler for CNN Acceleration*, MLSys 2021, whose "greedy" it resembles.
    """
    level: list[int] = []
    for node in nodes:
        level.append(1 + max((level[i] for i in node.after), default=-1))
    place: dict[int, int] = {}
    for depth in range(max(level, default=-1) + 1):
        taken = [0] * streams
        for i in (i for i in range(len(nodes)) if level[i] == depth):
            home = {place[before] for before in nodes[i].after}
            # Of the least loaded, the stream of what it needs: going on there takes no event.
            place[i] = min(range(streams), key=lambda stream: (taken[stream], stream not in home, stream))
            taken[place[i]] += 1
    return [Step(i, stream) for i, stream in place.items()]


def longest_path_first(nodes: Sequence[Node], streams: int) -> list[Step]:
    """List scheduling: of all stages, the one with the longest way to the end first, on the stream that ends it first.

    Helps where branches differ much in length and there are fewer streams than branches. It is as good as the costs.

    Source: Topcuoglu, Hariri & Wu, *Performance-Effective and Low-Complexity Task Scheduling for Heterogeneous
    Computing* (HEFT), 2002, on streams that are all equal and talk to each other for nothing.
    """
    way = [node.cost for node in nodes]  # from a node's start to the end of the graph
    for i in reversed(range(len(nodes))):
        for before in nodes[i].after:
            way[before] = max(way[before], nodes[before].cost + way[i])
    free = [0.0] * streams
    ends: dict[int, float] = {}
    place: dict[int, int] = {}
    for i in sorted(range(len(nodes)), key=lambda i: (-way[i], i)):
        ready = max((ends[before] for before in nodes[i].after), default=0.0)
        home = {place[before] for before in nodes[i].after}
        place[i] = min(range(streams), key=lambda stream: (max(free[stream], ready), stream not in home, stream))
        ends[i] = free[place[i]] = max(free[place[i]], ready) + nodes[i].cost
    return [Step(i, stream) for i, stream in place.items()]


POLICIES: dict[str, Policy] = {each.__name__: each for each in (one_per_branch, wavefront, longest_path_first, single)}


def policy(name: str, streams: int) -> Policy:
    """A policy by name.

    Raises:
        UnknownNameError: no such policy.
        KitError: fewer than one stream.
    """
    if name not in POLICIES:
        raise UnknownNameError("policy", name, POLICIES)
    if streams < 1:
        raise KitError(f"{streams} streams can run nothing: give at least 1.")
    return POLICIES[name]
