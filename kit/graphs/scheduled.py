"""The whole graph on lanes: each operator on one of them, or on all cores, as a schedule of measured costs says."""

from __future__ import annotations

import copy
import statistics
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, fx, nn

from kit import spans
from kit.executors import Executor, Task
from kit.executors.lanes import Lanes
from kit.executors.thread_counts import intra_op_threads
from kit.graphs.any_model import analysed, handing_over_ms
from kit.graphs.found import Found
from kit.graphs.lanes import OnLanes, needed
from kit.graphs.rewriting import wrapped
from kit.graphs.values import form_of
from kit.machine import hardware
from kit.scheduling import Node
from kit.scheduling.handing_over import ON_LANES
from kit.scheduling.phases import Phase, mixed, side_by_side, whole
from kit.transforms.base import Transform

RUNS = 3  # that are timed, of each operator, after one that is not
TRIALS = 7  # rounds in which the candidate schedules are compared
MARGIN = 0.98  # of the time on all cores: a schedule on lanes has to be faster than that


@dataclass(frozen=True, kw_only=True)
class Scheduled(Transform):
    """The operators of a captured model on lanes, a thread each, in the order of a schedule of their measured costs.

    Helps where many small operators need nothing of each other, in regions or not. Does not help where the operators
    are large enough for all cores, or follow each other: then the schedule is to run them so, one after the other.

    Source: operators between lanes are ordered as in HEFT (Topcuoglu, Hariri & Wu, 2002); mixing phases on all cores
    and phases side by side follows Ding et al., *IOS: Inter-Operator Scheduler for CNN Acceleration*, MLSys 2021.
    """

    policy: Literal["heft", "wavefront"] = "heft"  # how the operators of a phase are placed
    lanes: int | None = None  # threads, >= 2; by default as many as there are cores

    opaque: ClassVar[str] = "a schedule of its own"

    def rewrite(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        found = analysed(model, args).found
        lanes = Lanes(self.lanes or max(2, hardware.detect().cores))
        leaves, _ = form_of(args)
        try:
            with torch.inference_mode():
                best = _fastest(found, _candidates(found, leaves, lanes, self.policy), lanes, leaves)
        except BaseException:
            lanes.close()
            raise
        return wrapped(found, best, model, leaves)

    def runs_on(self, rewritten: nn.Module) -> Executor | None:
        return rewritten.body.lanes if isinstance(rewritten.body, OnLanes) else None


def _candidates(found: Found, leaves: Sequence[Tensor], lanes: Lanes, policy: str) -> list[list[Phase]]:
    """Schedules that could be the fastest: on all cores first, then those with lanes."""
    cores = hardware.detect().cores
    one, every = costs(found, leaves, 1), costs(found, leaves, cores)
    nodes = [Node(cost=cost, after=after) for cost, after in zip(one, needed(found), strict=True)]
    place = ON_LANES[policy]
    return [
        whole(nodes, every),
        side_by_side(nodes, lanes.workers, between_lanes_ms(), place),
        mixed(nodes, every, lanes.workers, between_lanes_ms(), handing_over_ms(), place),
    ]


def costs(found: Found, leaves: Sequence[Tensor], threads: int) -> list[float]:
    """Milliseconds of each operator on so many threads: the median of some runs; of equal operators, of all of them."""
    alone = OnLanes(found, [[range(len(found.nodes))]], Lanes(1))
    took: dict[str, list[int]] = defaultdict(list)
    with intra_op_threads(threads):
        for run in range(1 + RUNS):
            with spans.collect(operators=True) as log:
                alone(*copy.deepcopy(leaves))
            for each in log.spans if run else ():
                took[each.name].append(each.end_ns - each.start_ns)
    alike: dict[Any, list[int]] = defaultdict(list)
    for node in found.nodes:
        alike[_kind(found, node)] += took[node.name]
    return [statistics.median(alike[_kind(found, node)]) / 1e6 for node in found.nodes]


def _kind(found: Found, node: fx.Node) -> str:
    """What operators that take equally long have in common."""
    target = found.captured.module.get_submodule(str(node.target)) if node.op == "call_module" else node.target
    shapes = [found.effects[each].shape for each in (*node.all_input_nodes, node)]
    others = fx.node.map_arg((node.args, node.kwargs), lambda each: None)
    return f"{node.op} {target} {shapes} {others}"


def _fastest(found: Found, candidates: Sequence[Sequence[Phase]], lanes: Lanes, leaves: Sequence[Tensor]) -> OnLanes:
    """The schedule whose calls take the least, by some rounds of all; on all cores unless another is clearly faster."""
    bodies = [OnLanes(found, [phase.on_lanes for phase in phases], lanes) for phases in candidates]
    took: list[list[int]] = [[] for _ in bodies]
    for trial in range(1 + TRIALS):
        for body, ns in zip(bodies, took, strict=True):
            given = copy.deepcopy(leaves)
            body(*given)
            start = spans.clock()
            body(*given)
            if trial:
                ns.append(spans.clock() - start)
    return bodies[choice([statistics.median(ns) for ns in took])]


def choice(took: Sequence[float]) -> int:
    """Which schedule to take: the fastest, but the first one, on all cores, unless another is clearly faster.

    Args:
        took: how long a call takes with each, in any unit.
    """
    best = min(range(len(took)), key=took.__getitem__)
    return best if took[best] < MARGIN * took[0] else 0


@cache
def between_lanes_ms() -> float:
    """What it costs on this machine when an operator needs a result of another lane, in milliseconds."""
    there, back = threading.Lock(), threading.Lock()
    there.acquire()
    back.acquire()
    count = 500

    def ping() -> int:
        start = spans.clock()
        for _ in range(count):
            there.release()
            back.acquire()
        return spans.clock() - start

    def pong() -> None:
        for _ in range(count):
            there.acquire()
            back.release()

    with Lanes(2) as lanes:
        took, _ = lanes.run([Task("ping", ping), Task("pong", pong)])
    return float(took) / (2 * count) / 1e6
