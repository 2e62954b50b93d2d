"""A plan: the schedules made of a graph's measured costs, which one was taken, and what more cores would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from kit.reprs import one_line
from kit.scheduling.graph import Node, span, work
from kit.scheduling.handing_over import LanePolicy, heft, wavefront
from kit.scheduling.phases import Phase, mixed, retimed, side_by_side, whole
from kit.scheduling.stages import stages

ON_LANES: dict[str, LanePolicy] = {"heft": heft, "stages": stages, "wavefront": wavefront}
ALL_CORES, SIDE_BY_SIDE, MIXED = "all cores", "side by side", "mixed"


@one_line
class Overheads(NamedTuple):
    """What lanes cost, in the unit of the costs."""

    hand_over: float  # a node needs a result of another lane
    fork: float  # to begin and to end a phase on several lanes


def schedules(
    nodes: Sequence[Node], on_all: Sequence[float], lanes: int, overheads: Overheads, policy: str
) -> dict[str, tuple[Phase, ...]]:
    """The schedules that could be the shortest: all nodes on all cores, all of them on lanes, and a mixture.

    Args:
        nodes: with what each costs on one core.
        on_all: what each costs on all cores.
        policy: a name of :data:`ON_LANES`.
    """
    place = ON_LANES[policy]
    return {
        ALL_CORES: tuple(whole(nodes, on_all)),
        SIDE_BY_SIDE: tuple(side_by_side(nodes, lanes, *overheads, place)),
        MIXED: tuple(mixed(nodes, on_all, lanes, *overheads, place)),
    }


@one_line
class Tried(NamedTuple):
    """A schedule, and how long calls took with it."""

    phases: tuple[Phase, ...]
    measured: float  # a call, the median of some
    faster: int  # of these calls, in how many it was clearly faster than on all cores right before or after
    calls: int

    @property
    def predicted(self) -> float:
        """The makespan by the costs."""
        return ends(self.phases)

    @property
    def error(self) -> float:
        """Of the prediction, relative: predicted / measured - 1."""
        return self.predicted / self.measured - 1


@one_line
class Forecast(NamedTuple):
    """What a plan predicts for another number of cores."""

    cores: int
    ms: float  # a call with the shortest schedule
    sequential_ms: float  # a call with every operator on all those cores, one after the other
    bound_ms: float  # no schedule of these operators ends earlier
    error: float  # of the same prediction with the cores that are here: predicted / measured - 1

    @property
    def speed_up(self) -> float:
        """Over one operator after the other on as many cores."""
        return self.sequential_ms / self.ms

    def __str__(self) -> str:
        return (
            f"{self.cores} cores: {self.ms:.3g} ms predicted, {self.speed_up:.2f}x over one operator after the other "
            f"({self.sequential_ms:.3g} ms); no schedule ends before {self.bound_ms:.3g} ms. Error of the same "
            f"prediction here: {self.error:+.0%}."
        )


@one_line
@dataclass(frozen=True)
class Plan:
    """Operators with their measured costs, the schedules that were made of these, and the one that was taken."""

    names: tuple[str, ...]  # of the operators, in the order of the program
    after: tuple[tuple[int, ...], ...]  # for each, those that have to end before
    one_ms: tuple[float, ...]  # on one core, while the other cores are busy too
    all_ms: tuple[float, ...]  # on all cores
    cores: int
    lanes: int
    policy: str
    overheads: Overheads  # in ms
    tried: dict[str, Tried]
    taken: str  # which of them

    @property
    def best(self) -> Tried:
        """The schedule that was taken."""
        return self.tried[self.taken]

    def retimed(self, one_ms: Sequence[float], all_ms: Sequence[float]) -> Plan:
        """The same schedules with other costs, as of a machine that has become slower since."""
        nodes = _nodes(one_ms, self.after)
        tried = {
            name: each._replace(phases=tuple(retimed(each.phases, nodes, all_ms, *self.overheads)))
            for name, each in self.tried.items()
        }
        return replace(self, one_ms=tuple(one_ms), all_ms=tuple(all_ms), tried=tried)

    def what_if(self, cores: int) -> Forecast:
        """Predict a call on another number of cores, with a lane for each.

        An operator's time on k cores is taken as a serial part and a part that is divided by k, both from its measured
        times on one core and on all of them here; one that gains nothing here gains nothing there. Caches and memory
        are those of this machine.

        Source: Amdahl, *Validity of the Single Processor Approach to Achieving Large Scale Computing Capabilities*,
        1967, for each operator.

        Args:
            cores: at least 1.
        """
        on_all = [_on(cores, one, here, self.cores) for one, here in zip(self.one_ms, self.all_ms, strict=True)]
        nodes = _nodes(self.one_ms, self.after)
        found = {
            name: ends(each) for name, each in schedules(nodes, on_all, cores, self.overheads, self.policy).items()
        }
        least = [node._replace(cost=min(node.cost, many)) for node, many in zip(nodes, on_all, strict=True)]
        bound = max(work(nodes) / cores, span(least))
        return Forecast(cores, min(found.values()), found[ALL_CORES], bound, self.best.error)


def _nodes(costs: Sequence[float], after: Sequence[tuple[int, ...]]) -> list[Node]:
    return [Node(cost=cost, after=each) for cost, each in zip(costs, after, strict=True)]


def ends(phases: Sequence[Phase]) -> float:
    """When a schedule ends."""
    return max((phase.end for phase in phases), default=0.0)


def _on(cores: int, one: float, here: float, cores_here: int) -> float:
    """What an operator costs on so many cores, from its costs on one core and on those that are here."""
    if cores == 1 or cores_here == 1:  # what one core gains from others cannot be known
        return one
    if here >= one:
        return here
    divided = min(one, (one - here) / (1 - 1 / cores_here))
    return one - divided + divided / cores
