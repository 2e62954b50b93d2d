"""Stages one after the other, in each of them chains of operators side by side: the schedules of IOS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from kit.scheduling.graph import Node, times_to_end
from kit.scheduling.handing_over import timed
from kit.scheduling.policies import Placement
from kit.scheduling.simulate import Slot

KEPT = 8  # partial schedules of as many chains; IOS keeps all, which takes minutes
PAIRED = 6  # of the chains that could begin, the most urgent ones, of which all pairs are tried

Stage = tuple[int, ...]  # the chains that run in it


class _Partial(NamedTuple):
    """A schedule of some chains."""

    time: float
    work: float
    ready: frozenset[int]  # the chains that could begin now
    last: Stage
    before: _Partial | None  # with the stages before the last one


def stages(nodes: Sequence[Node], lanes: int, hand_over: float) -> list[Slot]:
    """The stages that take the least time, if the next stage begins when the last chain of this one has ended.

    A chain is a sequence of nodes in which each needs only the one before it. In a stage, the longest chain goes first
    to the lane that is free first.

    Source: Ding et al., *IOS: Inter-Operator Scheduler for CNN Acceleration*, MLSys 2021: dynamic programming over
    the sets of nodes that have run. Here, of each size only the best sets are kept.
    """
    chains = _chains(nodes)
    of = {i: c for c, chain in enumerate(chains) for i in chain}
    after = [{of[j] for j in nodes[chain[0]].after} for chain in chains]
    cost = [sum(nodes[i].cost for i in chain) for chain in chains]
    rank = times_to_end([Node(cost=ms, after=tuple(sorted(each))) for ms, each in zip(cost, after, strict=True)])
    followers: list[list[int]] = [[] for _ in chains]
    for c, each in enumerate(after):
        for before in each:
            followers[before].append(c)
    needs = [sum(1 << c for c in each) for each in after]
    # Number of chains that have run -> which, as bits -> the best schedule of them.
    found: list[dict[int, _Partial]] = [{} for _ in range(len(chains) + 1)]
    found[0] = {0: _Partial(0.0, 0.0, frozenset(c for c, each in enumerate(after) if not each), (), None)}
    for done in range(len(chains)):
        # By what is certain to be left: the time so far, less a full share of the work that is done.
        best = sorted(found[done].items(), key=lambda each: each[1].time - each[1].work / lanes)
        for have, partial in best[:KEPT]:
            for stage in _choices(sorted(partial.ready, key=lambda c: (-rank[c], c)), lanes):
                time = partial.time + max(sum(cost[c] for c in on) for on in _spread(stage, cost, lanes)) + hand_over
                now = have | sum(1 << c for c in stage)
                others = found[done + len(stage)]
                if now not in others or time < others[now].time:
                    new = {c for each in stage for c in followers[each] if needs[c] & now == needs[c]}
                    ready = partial.ready.difference(stage) | new
                    others[now] = _Partial(time, partial.work + sum(cost[c] for c in stage), ready, stage, partial)
        found[done] = {}
    (last,) = found[-1].values()
    return _slots(nodes, chains, _in_order(last), cost, lanes, hand_over)


def _in_order(last: _Partial) -> list[Stage]:
    """The stages of a schedule, the first one first."""
    found = []
    partial: _Partial | None = last
    while partial is not None:
        found.append(partial.last)
        partial = partial.before
    return found[::-1]


def _chains(nodes: Sequence[Node]) -> list[list[int]]:
    """The nodes as chains, each after those that it needs."""
    followers = [0] * len(nodes)
    for node in nodes:
        for before in node.after:
            followers[before] += 1
    chains: list[list[int]] = []
    at: dict[int, int] = {}  # last node of a chain -> the chain
    for i, node in enumerate(nodes):
        if len(node.after) == 1 and followers[node.after[0]] == 1:
            at[i] = at.pop(node.after[0])
            chains[at[i]].append(i)
        else:
            at[i] = len(chains)
            chains.append([i])
    return chains


def _choices(ready: Sequence[int], lanes: int) -> Iterator[Stage]:
    """The stages that are tried: the most urgent chains, so many as you like, and all pairs of the first few."""
    for count in range(1, len(ready) + 1):
        yield tuple(ready[:count])
    if lanes > 1:
        yield from combinations(ready[:PAIRED], 2)
    yield from ((c,) for c in ready[1:PAIRED])


def _spread(stage: Stage, cost: Sequence[float], lanes: int) -> list[list[int]]:
    """For each lane, its chains: the longest one first, where there is least to do."""
    on: list[list[int]] = [[] for _ in range(lanes)]
    load = [0.0] * lanes
    for c in sorted(stage, key=lambda c: -cost[c]):
        lane = load.index(min(load))
        on[lane].append(c)
        load[lane] += cost[c]
    return on


def _slots(
    nodes: Sequence[Node],
    chains: Sequence[Sequence[int]],
    stages: Sequence[Stage],
    cost: Sequence[float],
    lanes: int,
    hand_over: float,
) -> list[Slot]:
    """The slots: no barrier between stages, since a node waits for what it needs anyway."""
    placements = [
        Placement(i, lane)
        for stage in stages
        for lane, on in enumerate(_spread(stage, cost, lanes))
        for c in on
        for i in chains[c]
    ]
    return timed(nodes, placements, hand_over)
