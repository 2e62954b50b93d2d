"""The whole graph on lanes: each operator on one of them, or on all cores, as a schedule of measured costs says."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from kit import spans
from kit.errors import KitError
from kit.executors import Executor
from kit.executors.lanes import Lanes
from kit.graphs.any_model import analysed
from kit.graphs.costs import RUNS, between_lanes_ms, between_phases_ms, costs
from kit.graphs.found import Found
from kit.graphs.lanes import OnLanes, needed
from kit.graphs.rewriting import wrapped
from kit.graphs.values import form_of
from kit.machine import hardware
from kit.progress import progress_bar
from kit.scheduling import Node
from kit.scheduling.plans import ALL_CORES, Overheads, Plan, Tried, schedules
from kit.text import counted, milliseconds
from kit.transforms.base import Transform

TRIALS = 9  # rounds in which the schedules are compared
LEAST_TRIALS, TRIALS_S = 3, 5.0  # of a model whose calls are long: fewer, after so many seconds
MARGIN = 0.98  # of the time on all cores in the same round: a schedule on lanes has to be faster than that
MOSTLY = 0.7  # of the rounds


@dataclass(frozen=True, kw_only=True)
class Scheduled(Transform):
    """The operators of a captured model on lanes, a thread each, in the order of a schedule of their measured costs.

    Helps where many small operators need nothing of each other, in regions or not. Does not help where the operators
    are large enough for all cores, or follow each other: then the schedule is to run them so, one after the other.

    Source: operators between lanes are ordered as in HEFT (Topcuoglu, Hariri & Wu, 2002); mixing phases on all cores
    and phases side by side follows Ding et al., *IOS: Inter-Operator Scheduler for CNN Acceleration*, MLSys 2021.
    """

    policy: Literal["heft", "stages", "wavefront"] = "heft"  # how the operators of a phase are placed
    lanes: int | None = None  # threads, >= 2; by default as many as there are cores

    opaque: ClassVar[str] = "a schedule of its own"
    captures: ClassVar[bool] = True

    def rewrite(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        if self.lanes is not None and self.lanes < 2:
            raise KitError(f"scheduled needs 2 lanes or more, not {self.lanes}: give lanes=2, or leave it out.")
        found = analysed(model, args).found
        lanes = Lanes(self.lanes or max(2, hardware.detect().cores))
        leaves, _ = form_of(args)
        try:
            with torch.inference_mode(), progress_bar(2 * (1 + RUNS) + TRIALS, None, "schedule") as advance:
                best = _fastest(found, self.policy, lanes, leaves, advance)
        except BaseException:
            lanes.close()
            raise
        return wrapped(found, best, model, leaves)

    def runs_on(self, rewritten: nn.Module) -> Executor | None:
        return rewritten.body.lanes if isinstance(rewritten.body, OnLanes) else None

    def remark(self, args: tuple[Any, ...], rewritten: nn.Module) -> str:
        return said(plan_of(rewritten))


def body_of(rewritten: nn.Module) -> OnLanes:
    """What runs the operators of a model that ``scheduled`` has rewritten."""
    body = rewritten.body
    assert isinstance(body, OnLanes)
    return body


def plan_of(rewritten: nn.Module) -> Plan:
    """The plan of a model that ``scheduled`` has rewritten."""
    plan = body_of(rewritten).plan
    assert plan is not None
    return plan


def said(plan: Plan) -> str:
    """What a reader must know of a plan, in a sentence with numbers."""
    best, given = plan.best, f"{milliseconds(plan.best.predicted)} a call predicted"
    if plan.taken == ALL_CORES:
        other, tried = max(
            (each for each in plan.tried.items() if each[0] != ALL_CORES), key=lambda each: each[1].faster
        )
        return (
            "no schedule on lanes was clearly faster than one operator after the other on all cores: "
            f"{other} was more than {1 - MARGIN:.0%} faster in {tried.faster} of {tried.calls} trial calls, and "
            f"{MOSTLY:.0%} of them are needed, so it runs them so; {given}."
        )
    beside = sum(len(phase.slots) for phase in best.phases if phase.lanes > 1)
    all_cores = len(plan.names) - beside
    return (
        f"{beside} of {counted(len(plan.names), 'operator')} run on {plan.lanes} lanes in "
        f"{counted(sum(phase.lanes > 1 for phase in best.phases), 'phase')}, "
        f"{all_cores or 'none'} on all cores; {given}."
    )


def _fastest(found: Found, policy: str, lanes: Lanes, leaves: Sequence[Tensor], advance: Any) -> OnLanes:
    """The schedule whose calls take the least, by some rounds of all; on all cores unless another is clearly faster."""
    cores, after = hardware.detect().cores, needed(found)
    one = costs(found, leaves, 1, beside=lanes.workers, advance=advance)
    every = costs(found, leaves, cores, advance=advance)
    overheads = Overheads(between_lanes_ms(), between_phases_ms())
    nodes = [Node(cost=cost, after=each) for cost, each in zip(one, after, strict=True)]
    made = schedules(nodes, every, lanes.workers, overheads, policy)
    bodies = {name: OnLanes(found, [phase.on_lanes for phase in phases], lanes) for name, phases in made.items()}
    took = _trial(bodies, leaves, advance)
    taken = choice(took)
    plan = Plan(
        names=tuple(node.name for node in found.nodes),
        after=tuple(after),
        one_ms=tuple(one),
        all_ms=tuple(every),
        cores=cores,
        lanes=lanes.workers,
        policy=policy,
        overheads=overheads,
        tried={
            name: Tried(phases, statistics.median(took[name]), clearly_faster(took, name), len(took[name]))
            for name, phases in made.items()
        },
        taken=taken,
    )
    bodies[taken].plan = plan
    return bodies[taken]


def _trial(bodies: dict[str, OnLanes], leaves: Sequence[Tensor], advance: Any) -> dict[str, list[float]]:
    """Milliseconds of a call of each in some rounds, after one that does not count."""
    took: dict[str, list[float]] = {name: [] for name in bodies}
    begin = spans.clock()
    for trial in range(1 + TRIALS):
        for name, body in bodies.items():
            given = copy.deepcopy(leaves)
            body(*given)  # threads of the one before may still spin
            start = spans.clock()
            body(*given)
            if trial:
                took[name].append((spans.clock() - start) / 1e6)
        advance(trial)
        if trial >= LEAST_TRIALS and spans.clock() - begin > TRIALS_S * 1e9:
            break
    return took


def choice(took: dict[str, list[float]]) -> str:
    """Which schedule to take: the fastest, but the one on all cores unless another is clearly faster in most rounds.

    Args:
        took: how long a call took with each, in each round, in any unit.
    """
    faster = {
        name: statistics.median(ms) for name, ms in took.items() if clearly_faster(took, name) >= MOSTLY * len(ms)
    }
    return min(faster, key=faster.__getitem__, default=ALL_CORES)


def clearly_faster(took: dict[str, list[float]], name: str) -> int:
    """In how many rounds a schedule was faster than all cores in the same round, by more than the margin."""
    return sum(own < MARGIN * other for own, other in zip(took[name], took[ALL_CORES], strict=True))
