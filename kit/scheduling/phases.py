"""Schedules in phases: some operators one after the other on all cores, others side by side on a lane each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from kit.reprs import one_line
from kit.scheduling.graph import Node
from kit.scheduling.handing_over import LanePolicy, timed
from kit.scheduling.policies import Placement
from kit.scheduling.simulate import Slot


@one_line
class Phase(NamedTuple):
    """Nodes that run side by side, or one after the other on all cores: then there is one lane."""

    slots: tuple[Slot, ...]  # in the order of their start; the first phase starts at 0, each after the one before it
    lanes: int

    @property
    def end(self) -> float:
        """When its last node ends."""
        return max((slot.end for slot in self.slots), default=0.0)

    @property
    def on_lanes(self) -> list[list[int]]:
        """For each lane, its nodes in order."""
        return [[slot.node for slot in self.slots if slot.lane == lane] for lane in range(self.lanes)]


def blocks(nodes: Sequence[Node]) -> list[list[int]]:
    """The graph cut wherever all that follows needs the result of a single node, the last one before the cut."""
    last = list(range(len(nodes)))  # for each node, the last one that needs it
    for i, node in enumerate(nodes):
        for before in node.after:
            last[before] = max(last[before], i)
    found: list[list[int]] = []
    alive: set[int] = set()
    begin = 0
    for i in range(len(nodes)):
        alive = {each for each in (*alive, i) if last[each] > i}
        if alive <= {i}:
            found.append(list(range(begin, i + 1)))
            begin = i + 1
    return [*found, list(range(begin, len(nodes)))] if begin < len(nodes) else found


def whole(nodes: Sequence[Node], on_all: Sequence[float]) -> list[Phase]:
    """One phase: every node on all cores, in order."""
    return [_one_by_one(range(len(nodes)), on_all, 0.0)]


def side_by_side(nodes: Sequence[Node], lanes: int, hand_over: float, fork: float, policy: LanePolicy) -> list[Phase]:
    """One phase: every node on a lane."""
    return [Phase(_later(policy(nodes, lanes, hand_over), range(len(nodes)), fork), lanes)]


def mixed(
    nodes: Sequence[Node], on_all: Sequence[float], lanes: int, hand_over: float, fork: float, policy: LanePolicy
) -> list[Phase]:
    """Each block either on all cores or side by side with its neighbours, so that the estimated makespan is least.

    Args:
        nodes: with what each costs on one core.
        on_all: what each costs on all cores.
        hand_over: what it costs when a node needs a result of another lane.
        fork: what it costs to begin and to end a phase on several lanes.
    """
    parts = blocks(nodes)
    best: dict[bool, tuple[float, tuple[bool, ...]]] = {False: (0.0, ())}  # on lanes? -> cost so far, and the choices
    for part in parts:
        took = {
            False: sum(on_all[i] for i in part),
            True: max((slot.end for slot in policy(_only(nodes, part), lanes, hand_over)), default=0.0),
        }
        best = {
            mode: min(
                (cost + took[mode] + (fork if mode and not before else 0.0), (*chosen, mode))
                for before, (cost, chosen) in best.items()
            )
            for mode in took
        }
    _, chosen = min(best.values())
    phases: list[Phase] = []
    for mode, run in groupby(zip(chosen, parts, strict=True), key=lambda pair: pair[0]):
        some = [i for _, part in run for i in part]
        start = phases[-1].end if phases else 0.0
        if mode:
            slots = policy(_only(nodes, some), lanes, hand_over)
            phases.append(Phase(_later(slots, some, start + fork), lanes))
        else:
            phases.append(_one_by_one(some, on_all, start))
    return phases


def retimed(
    phases: Sequence[Phase], nodes: Sequence[Node], on_all: Sequence[float], hand_over: float, fork: float
) -> list[Phase]:
    """The same phases, lanes and orders with other costs; the arguments are those of :func:`mixed`."""
    found: list[Phase] = []
    for phase in phases:
        start, some = found[-1].end if found else 0.0, [slot.node for slot in phase.slots]
        if phase.lanes == 1:
            found.append(_one_by_one(some, on_all, start))
            continue
        placements = [Placement(k, slot.lane) for k, slot in enumerate(phase.slots)]
        slots = timed(_only(nodes, some), placements, hand_over)
        found.append(Phase(_later(slots, some, start + fork), phase.lanes))
    return found


def _later(slots: Sequence[Slot], some: Sequence[int], by: float) -> tuple[Slot, ...]:
    """Slots of a part of the graph, whose nodes are these, at their time in the whole."""
    return tuple(Slot(some[slot.node], slot.lane, slot.start + by, slot.end + by) for slot in slots)


def _one_by_one(some: Sequence[int], costs: Sequence[float], start: float) -> Phase:
    slots = []
    for i in some:
        slots.append(Slot(i, 0, start, start + costs[i]))
        start += costs[i]
    return Phase(tuple(slots), 1)


def _only(nodes: Sequence[Node], some: Sequence[int]) -> list[Node]:
    """These nodes as a graph of their own: what they wait for outside of it has ended."""
    at = {node: k for k, node in enumerate(some)}
    return [nodes[i]._replace(after=tuple(at[j] for j in nodes[i].after if j in at)) for i in some]
