"""The factors of a speed-up, its bounds and its predictions, from the rounds of one measurement.

With s the time of a task in the baseline, c its time in the approach, C the time that a lane runs tasks, P the number
of lanes, and T the time of a call, every round has exactly ::

    T_base / T = P * (T_base / sum s) * (sum s / sum c) * (mean C / max C) * (max C / T)

where max C is the busiest lane of each region, summed over the regions of a call. The factors, in this order:

- ``lanes``: P, the ideal.
- ``1 / baseline efficiency``: the baseline's call / its tasks, which is 1 / the baseline's parallel efficiency.
- ``computation efficiency``: the tasks of the baseline / the tasks here. Where the branches were measured one by one at
  the intra-op threads of a lane (time a), it is the product of ``thread efficiency``, sum s / sum a, and ``contention
  efficiency``, sum a / sum c.
- ``load balance``: the mean of the lanes' tasks / those of the busiest lane.
- ``scheduling efficiency``: the tasks of the busiest lane / the call. The rest is start-up, transfer, merging, waiting,
  and what is outside of regions.

Where branches were found in a model, s and T_base are those of the rewritten model, whose branches run one after the
other. The model as given is the baseline of the table, so there is one factor more:

- ``rewriting``: the call of the model as given / T_base. It is not due to concurrency.

``parallel efficiency`` is load balance * scheduling efficiency. Factors are averaged over the rounds as logarithms, so
that their product stays exact: it is the geometric mean of the rounds' ratios.

Source: the POP project's metrics (https://pop-coe.eu/node/69). Load balance is the same there. Computation efficiency
is POP's computation scalability against the baseline. Scheduling efficiency has the formula of POP's communication
efficiency, computation time / runtime; its name differs because serial computation outside of regions counts as lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kit.measuring.comparison import SMALLEST_EFFECT, Comparison, Row, Timing
from kit.measuring.statistics import MIN_ROUNDS, interval, mean_interval
from kit.reprs import one_line
from kit.scheduling import Node, lower_bound, makespan
from kit.scheduling.policies import in_order

FACTORS = ("lanes", "1 / baseline efficiency", "computation efficiency", "load balance", "scheduling efficiency")
REWRITING = "rewriting"  # the last factor, where branches were found


@one_line
class Bounds(NamedTuple):
    """Bounds that no schedule of these branches on these lanes can beat, from each branch's time alone on one thread.

    Each is the median over the rounds. Single rounds may be faster than such a bound.
    """

    work_ms: float  # T1 of all regions
    span_ms: float  # the longest branch of each region, summed
    serial_ms: float  # outside regions, in the baseline
    least_ms: float  # serial + for each region the larger of span / threads and work / (lanes * threads)
    speed_up: float  # over the baseline, at that least time
    share: float  # least / measured: 1 is as fast as can be
    amdahl: float  # the speed-up over one lane of the same threads that the serial part leaves to these lanes
    least_low_ms: float  # 95% interval of the least time
    least_high_ms: float


@one_line
class Excess(NamedTuple):
    """A result beyond a limit that nothing can beat: at least one of the measurements was disturbed."""

    speed_up: float  # measured
    limit: float  # the most that is possible
    what: str  # which speed-up, and what limits it
    remedy: str  # what would tell more

    @property
    def factor(self) -> float:
        """Measured speed-up / limit; above 1."""
        return self.speed_up / self.limit

    def __str__(self) -> str:
        return (
            f"{self.speed_up:.2f}x exceeds {self.what}, {self.limit:.2f}x, by a factor of {self.factor:.2f}: at least "
            f"one of these measurements was disturbed, so nothing is concluded from them. {self.remedy}"
        )


@one_line
class BranchTimes(NamedTuple):
    """Branch times, from which the time of another number of lanes or grouping of branches is predicted."""

    regions_ms: list[dict[str, float]]  # of each region: branch -> its time, alone where that was measured
    contention: float  # branches side by side take so many times as long as alone; 1 where that was not measured
    rest_ms: float  # of the call outside the tasks of the busiest lane
    lanes: int  # that were measured
    measured_ms: float  # a call: median of the rounds
    baseline_ms: float  # a call of the baseline in the same rounds

    def call_ms(self, lanes: int, merged: Sequence[Collection[str]] = ()) -> float:
        """Predicted milliseconds of a call whose lanes take the longest branch first, as threads do.

        A branch that runs beside branches on other lanes takes longer, by the measured contention.

        Args:
            lanes: at least 1.
            merged: groups of branch names; the branches of a group become one branch.
        """
        total = self.rest_ms
        for region in self.regions_ms:
            groups: dict[str, float] = {}
            for name, ms in region.items():
                group = next(("+".join(names) for names in merged if name in names), name)
                groups[group] = groups.get(group, 0) + ms
            slow = self.contention if min(lanes, len(groups)) > 1 else 1.0
            nodes = [Node(cost=ms * slow) for ms in sorted(groups.values(), reverse=True)]
            total += makespan(nodes, in_order(nodes, lanes))
        return total

    @property
    def error(self) -> float:
        """Relative error of the prediction for the measured arrangement: predicted / measured - 1."""
        return self.call_ms(self.lanes) / self.measured_ms - 1


def in_steps(factors: dict[str, float], computation: dict[str, float] | None) -> dict[str, float]:
    """The factors in order; computation efficiency is replaced by its parts if they are known."""
    whole, parts = [*factors.items()], computation or {FACTORS[2]: factors[FACTORS[2]]}
    return dict([*whole[:2], *parts.items(), *whole[3:]])


def has_task_times(row: Row) -> bool:
    """Whether its tasks are known in every round. An approach that only rewrites the model has no tasks of its own."""
    if row.rewritten and row.timing is not None and {turn.lanes for turn in row.timing.turns if turn} == {1}:
        return False
    return all(
        timing is not None and timing.turns and all(turn is not None and turn.busiest > 0 for turn in timing.turns)
        for timing in (row.one_by_one or row.paired_baseline, row.timing)
    )


def _of(timing: Timing, name: str) -> NDArray[np.float64]:
    """The field ``name`` of each round's breakdown, ``(rounds,)``; NaN where it is not known."""
    return np.array([math.nan if (value := getattr(turn, name)) is None else value for turn in timing.turns], float)


def _mean(ratios: NDArray[np.float64]) -> float:
    """Geometric mean."""
    return float(np.exp(np.log(ratios).mean()))


def _differs(rounds: NDArray[np.float64]) -> bool:
    """Whether the interval of these values' median excludes 0."""
    return len(rounds) >= MIN_ROUNDS and not interval(rounds)[0] <= 0 <= interval(rounds)[1]


class RowBreakdown:
    """A row whose tasks are known in every round, with the same rounds of its baseline and of its branches alone."""

    def __init__(self, comparison: Comparison, row: Row) -> None:
        assert row.timing is not None and row.paired_baseline is not None  # noqa: PT018 - of rows that have task times
        # Where branches were found in a model, what rewriting changed is no factor of running them at the same time.
        self.row, self.own, self.base = row, row.timing, row.one_by_one or row.paired_baseline
        self.given = row.paired_baseline
        self.on_cpu = comparison.device == "cpu"
        same = row.paired_baseline is comparison.baseline.timing and not row.rewritten
        # Of a rewritten model nothing is known alone: the branches that were run one by one are the original's.
        self.branches_alone = comparison.branches_alone.get(row.lane_threads or 0) if same else None
        self.lanes = int(_of(self.own, "lanes").max())
        self.median_round = int(np.argmin(np.abs(self.own.samples_ns - np.median(self.own.samples_ns))))

    def factors(self) -> dict[str, float]:
        return {FACTORS[0]: float(self.lanes)} | {name: _mean(rounds) for name, rounds in self._factors().items()}

    def _factors(self) -> dict[str, NDArray[np.float64]]:
        """The factors of each round, without ``lanes``."""
        own, base, busiest = _of(self.own, "work"), _of(self.base, "work"), _of(self.own, "busiest")
        rounds = (self.base.samples_ns / base, base / own, own / self.lanes / busiest, busiest / self.own.samples_ns)
        found = dict(zip(FACTORS[1:], rounds, strict=True))
        return found | ({REWRITING: self.given.samples_ns / self.base.samples_ns} if self.row.one_by_one else {})

    def computation(self) -> dict[str, float] | None:
        parts = self._computation()
        return None if parts is None else {name: _mean(rounds) for name, rounds in parts.items()}

    def _computation(self) -> dict[str, NDArray[np.float64]] | None:
        if self.branches_alone is None:
            return None
        own, base, solo = (_of(timing, "work") for timing in (self.own, self.base, self.branches_alone))
        return {"thread efficiency": base / solo, "contention efficiency": solo / own}

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Factor -> the 95% interval of its geometric mean; also for the parts of computation efficiency."""
        return {name: mean_interval(rounds) for name, rounds in (self._factors() | (self._computation() or {})).items()}

    def waiting_ms(self) -> dict[str, float]:
        """Extra milliseconds of branches side by side against alone, by cause: medians over the rounds, if not 0."""
        if self.branches_alone is None:
            return {}
        work, cpu, queued = (_of(self.own, name) - _of(self.branches_alone, name) for name in ("work", "cpu", "queued"))
        off = work - cpu
        core = np.clip(queued, np.minimum(0, off), np.maximum(0, off))  # a thread can wait outside tasks too
        kinds = {
            "CPU time (memory, caches)": cpu,
            "waiting for a core": core,
            "waiting for the GIL or a lock": off - core,
        }
        found = {kind: np.sort(rounds[~np.isnan(rounds)]) / 1e6 for kind, rounds in kinds.items()}
        return {kind: float(np.median(rounds)) for kind, rounds in found.items() if _differs(rounds)}

    def parts_ms(self) -> dict[str, float]:
        inside = float(_of(self.own, "regions")[self.median_round]) / 1e6
        return {"regions": inside, "serial rest": float(self.own.samples_ns[self.median_round]) / 1e6 - inside}

    def overhead_ms(self) -> dict[str, float]:
        turn = self.own.turns[self.median_round]
        inside = {} if turn is None else {kind: ns / 1e6 for kind, ns in turn.overhead.items()}
        return inside | {"serial rest": self.parts_ms()["serial rest"]}

    def carried(self) -> tuple[float, float] | None:
        """Bytes of tensors to other processes and back, a call; None: its tasks run in this process."""
        turn = self.own.turns[self.median_round]
        return None if turn is None or turn.sent is None or turn.received is None else (turn.sent, turn.received)

    def branch_times(self) -> BranchTimes:
        rest_ms = float(np.median(self.own.samples_ns - _of(self.own, "busiest"))) / 1e6
        regions, contention = regions_ms(self.branches_alone or self.own, np.median), 1.0
        if self.branches_alone is not None and self.lanes > 1:
            contention = float(np.median(_of(self.own, "work") / _of(self.branches_alone, "work")))
        return BranchTimes(regions, contention, rest_ms, self.lanes, self.own.median_ms, self.given.median_ms)

    def bounds(self, comparison: Comparison) -> Bounds | None:
        """The bounds; None on a GPU, for a rewritten model, or without the branches' times on one thread."""
        alone, threads = comparison.branches_alone.get(1), self.row.lane_threads
        if alone is None or threads is None or not self.on_cpu or self.row.rewritten:
            return None
        one, regions = self.branches_alone or self.base, regions_ms(alone, np.median)
        share = float(np.median(1 - _of(one, "regions") / one.samples_ns))
        ends = (np.median, lambda rounds: interval(rounds)[0], lambda rounds: interval(rounds)[1])
        least, low, high = (sum(self._least_ms(comparison, alone, end)) for end in ends)
        return Bounds(
            work_ms=sum(sum(region.values()) for region in regions),
            span_ms=sum(max(region.values()) for region in regions),
            serial_ms=self._least_ms(comparison, alone, np.median)[0],
            least_ms=least,
            speed_up=self.given.median_ms / least,
            share=least / self.own.median_ms,
            amdahl=1 / (share + (1 - share) / self.lanes),
            least_low_ms=low,
            least_high_ms=high,
        )

    def _least_ms(self, comparison: Comparison, alone: Timing, end: Callable[[Any], Any]) -> tuple[float, float]:
        """The least time outside and inside regions, in ms; ``end`` picks one of a branch's times on one thread."""
        threads, shares = self.row.lane_threads or 1, (_of(alone, "cpu") / _of(alone, "work")).tolist()
        needs = max((share for share in shares if share > 0), default=1.0)  # of a core: who sleeps or reads needs less
        lanes = min(self.lanes * threads, comparison.cores / min(1, needs)) / threads
        regions = [[Node(cost=ms) for ms in region.values()] for region in regions_ms(alone, end)]
        serial_ms = float(end(self.base.samples_ns - _of(self.base, "regions"))) / 1e6
        return serial_ms, sum(lower_bound(each, lanes) for each in regions) / threads

    def excess(self, comparison: Comparison) -> Excess | None:
        """The limit that this result exceeds most; None if it exceeds no known limit by more than 1%.

        On a GPU, and for a rewritten model, no limit is known.
        """
        if not self.on_cpu or self.row.rewritten:
            return None
        measured = max(self.row.ratio.estimate if self.row.ratio else 0.0, self.given.median_ms / self.own.median_ms)
        by_lanes = self.base.median_ms / self.own.median_ms if self.row.one_by_one else measured
        again, name, most = "Measure again while nothing else runs.", self.row.name, max(self.lanes, comparison.cores)
        fair = f"Compare with sequential(threads={self.row.lane_threads or 1}) while nothing else runs."
        found = []
        if int(_of(self.base, "lanes").max()) == 1:  # several lanes may lose to each other what no lane can win back
            found.append(Excess(by_lanes, most, f"what {self.lanes} lanes on {comparison.cores} cores can give", fair))
        alone = comparison.branches_alone.get(1)
        if alone is not None and self.row.lane_threads is not None:
            # Whatever was reached once is possible, however it is bounded by medians.
            serial_ms, in_regions_ms = self._least_ms(comparison, alone, min)
            limit = self.given.median_ms / (serial_ms + in_regions_ms)
            found.append(Excess(measured, limit, f"the bound of {name} from its branches' times alone", again))
            # One lane against one lane is 1.00x: a few percent more are noise, and no sign of a disturbed measurement.
            if self.lanes > 1:
                one = self.branches_alone or self.base
                # What is outside of regions keeps all cores here, which one lane of few threads does not.
                limit = one.median_ms / (serial_ms + float(np.median(_of(one, "regions"))) / 1e6 / self.lanes)
                over_one = one.median_ms / self.own.median_ms
                found.append(Excess(over_one, limit, f"Amdahl's limit over one lane for {name}", again))
        worst = max(found, key=lambda each: each.factor, default=None)
        return worst if worst and worst.factor > 1 + SMALLEST_EFFECT else None


def regions_ms(timing: Timing, middle: Callable[[Any], Any]) -> list[dict[str, float]]:
    """For each region, branch -> its time in milliseconds; ``middle`` reduces the rounds, as ``np.median``."""
    turns = [turn.tasks for turn in timing.turns if turn is not None]
    found: dict[int, dict[str, float]] = {}
    for region, name in turns[0]:
        times = [tasks.get((region, name), 0.0) for tasks in turns]
        found.setdefault(region, {})[name] = float(middle(times)) / 1e6
    return list(found.values())
