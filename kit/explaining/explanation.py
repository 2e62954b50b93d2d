"""Why an approach is faster or slower: its speed-up as a product of factors, its bounds, and advice."""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from kit.approaches.workload import FOUND
from kit.errors import MeasureError
from kit.explaining.snippets import snippet
from kit.measuring.comparison import Comparison, Ratio, Row, Timing
from kit.measuring.factors import Bounds, BranchTimes, Excess, RowBreakdown, has_task_times, in_steps, regions_ms
from kit.measuring.statistics import interval
from kit.reprs import one_line
from kit.text import between, counted, milliseconds, with_prefix
from kit.trace import Trace, kernels

LOSSES = {  # factor -> what it means where it is below 1
    "thread efficiency": "a branch has fewer intra-op threads than in {baseline}; more cores would allow more",
    "contention efficiency": "branches slow each other down, mostly by {waiting}",
    "computation efficiency": "branches take longer than in {baseline}; the causes were not measured separately",
    "load balance": "the other lanes wait for {waits}",
    "scheduling efficiency": "time outside the branches, mostly {overhead}",
    "rewriting": "the branches one after the other, {baseline}, take longer than the model as given",
}
GAINS = {  # factor -> what it means where it is above 1; the others never are
    "thread efficiency": "branches alone are faster with a lane's number of intra-op threads than with the baseline's",
    "contention efficiency": "branches are faster side by side than alone, which is unusual: measure again",
    "computation efficiency": "branches take less time than in the baseline; the causes were not measured separately",
    "rewriting": "the branches one after the other take less time than the model as given, without any concurrency",
}
ON_THE_HOST = " These are times of the host, which launches kernels: kit.trace.launch_bound says if the GPU waits."
NOTABLE = 0.05  # beyond which a gain, or another sharing of the branches, is told


@one_line
class Prediction(NamedTuple):
    """What the branch times predict for another number of lanes or grouping of branches."""

    ms: float  # of a call
    speed_up: float  # over the baseline
    errors: dict[str, float]  # approach that was measured -> predicted / measured - 1, by the same arithmetic


@one_line
class Advice(NamedTuple):
    """A sentence of advice with numbers, and the event on the comparison's timeline that shows them."""

    text: str
    approach: str  # whose trace
    event: str  # name of the event
    start_ns: int  # from the beginning of that trace
    duration_ns: int


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why one approach of a comparison is faster or slower, as data; ``str()`` and notebooks show it as text."""

    approach: str
    baseline: str
    verdict: str
    ratio: Ratio | None  # of the table: the median of the rounds
    factors: dict[str, float] | None  # of FACTORS, and REWRITING; None where there are no tasks to explain it by
    computation: dict[str, float] | None  # thread efficiency * contention efficiency; None: not separated
    intervals: dict[str, tuple[float, float]]  # factor -> its 95% interval over the rounds; lanes apart
    waiting_ms: dict[str, float]  # branches side by side less alone, a call; what is not there could not be told from 0
    overhead_ms: dict[str, float]  # the typical round's call outside the busiest lane's tasks, by kind
    carried: tuple[float, float] | None  # bytes of tensors to other processes, and back, a call; None: nothing left
    parts_ms: dict[str, float]  # its regions and its serial rest, which add up to the call
    bounds: Bounds | None
    excess: Excess | None  # the limit that the result is beyond, from which nothing is concluded; None: within all
    advice: tuple[Advice, ...]  # none where a result is beyond its limits
    snippet: str | None  # the advised approach in plain PyTorch; None: no short form, or no advice
    notes: tuple[str, ...]  # what could not be told, in sentences
    branch_times: BranchTimes | None  # what predictions are made from; None: it has no tasks
    prediction_errors: dict[str, float] | None  # approach that was measured -> predicted / measured - 1

    def what_if(self, lanes: int, merged: Sequence[Collection[str]] = ()) -> Prediction:
        """Predict this approach with another number of lanes, or with groups of branches merged into one each.

        The prediction uses each branch's time alone and the measured overhead; on several lanes also the measured
        contention. A free lane takes the longest branch that is left.

        Raises:
            MeasureError: fewer than 1 lane, or an approach whose branch times are not known.
        """
        if lanes < 1 or self.branch_times is None:
            raise MeasureError(f"cannot predict {self.approach} on {lanes} lanes: it needs a lane and branch times.")
        ms = self.branch_times.call_ms(lanes, merged)
        return Prediction(ms, self.branch_times.baseline_ms / ms, self.prediction_errors or {})

    def steps(self) -> list[tuple[str, float]]:
        """The factors in order: from the ideal, the number of lanes, to the measured speed-up."""
        return [] if self.factors is None else [*in_steps(self.factors, self.computation).items()]

    @property
    def parallel_efficiency(self) -> float | None:
        """Load balance * scheduling efficiency: the share of the lanes' time in tasks; None: no factors."""
        return None if self.factors is None else self.factors["load balance"] * self.factors["scheduling efficiency"]

    @property
    def reached(self) -> str:
        """Which share of the speed allowed by the bound was reached, as text; empty without a bound."""
        if self.excess is not None:
            return f"not decided, since the result exceeds {self.excess.what} by a factor of {self.excess.factor:.2f}"
        if self.bounds is None:
            return ""
        if self.bounds.share > 1:  # of medians, by less than what was once reached
            return "as fast as the bound, within the variation of the rounds"
        return f"{self.bounds.share:.0%} reached"

    def table(self) -> list[tuple[str, str, str]]:
        """Rows of (factor, its value, the product so far), as text."""
        values = [value for _, value in self.steps()]
        return [(n, f"x {v:.3f}", f"{math.prod(values[: i + 1]):.3f}x") for i, (n, v) in enumerate(self.steps())]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        named = {key: plain[key] and plain[key]._asdict() for key in ("ratio", "bounds", "excess", "branch_times")}
        return plain | named | {"advice": [each._asdict() for each in self.advice], "notes": list(self.notes)}

    def __repr__(self) -> str:  # no times: a notebook's stored output must not change from run to run
        return f"Explanation({self.approach} over {self.baseline})"

    def __str__(self) -> str:
        lines = [f"{self.approach}: {self.verdict}" + (f", {self.ratio} over {self.baseline}" if self.ratio else "")]
        if self.excess is not None:
            lines.append(f"  ! {self.excess}")
        ends = {name: f"[{low:.3f}, {high:.3f}]" for name, (low, high) in self.intervals.items()}
        lines += [f"  {name:28} {by:9} {ends.get(name, ''):16} {reached}" for name, by, reached in self.table()]
        if self.factors is not None:
            lines.append(f"  parallel efficiency {self.parallel_efficiency:.0%}: load balance * scheduling efficiency")
        product = math.prod(by for _, by in self.steps())
        if self.ratio is not None and self.factors and not 0.95 < product / self.ratio.estimate < 1.05:
            lines.append(f"  timings vary a lot: the factors multiply to the geometric mean, {product:.2f}x")
        parts = {"side by side, against alone": self.waiting_ms, "overhead": self.overhead_ms, "a call": self.parts_ms}
        lines += [f"  {name}: {_in_words(each)}" for name, each in parts.items() if each]
        if self.carried is not None:
            there, back = (with_prefix(round(each)) for each in self.carried)
            lines.append(f"  tensors handed over, a call: {there}B to other processes or hosts, {back}B back")
        if self.bounds is not None:
            work, span, serial, least = map(milliseconds, self.bounds[:4])
            least += f" {between(*self.bounds[-2:])}"
            lines.append(f"  at best {least} (work {work}, span {span}, serial {serial}; medians): {self.reached}")
            lines[-1] += f"; Amdahl's limit is {self.bounds.amdahl:.2f}x over one lane"
        return "\n".join([*lines, *(f"  - {each.text}" for each in self.advice), *(f"  ! {n}" for n in self.notes)])

    def _repr_html_(self) -> str:
        return f"<pre style='word-break:normal'>{html.escape(str(self))}</pre>"  # JupyterLab breaks inside words


def explain(comparison: Comparison, approach: str | None = None) -> Explanation:
    """Explain why an approach of this comparison is faster or slower, and give advice; nothing is measured again.

    >>> from kit import models
    >>> model, inputs = models.toy_two_stream(), (torch.rand(1, 3, 25, 25), torch.rand(1, 2, 25, 25))
    >>> why = kit.explain(kit.compare(model, inputs, "sequential, threads", rounds=6, progress=False), "threads")
    >>> why  # in a notebook: factors, bound, advice; print(why) elsewhere
    Explanation(threads over sequential)
    >>> why.what_if(4).speed_up > 0  # predicted for four lanes
    True

    Args:
        approach: name of a row; by default the fastest row with the right output, the baseline left out.

    Raises:
        UnknownNameError: the comparison has no such row.
    """
    right = [row for row in comparison.rows[1:] if row.ratio and row.verdict != "wrong output"]
    row = comparison[approach] if approach is not None else max(right, key=_estimate, default=comparison.baseline)
    return _explained(comparison, row, _Known.of(comparison))


def explain_all(comparison: Comparison) -> list[Explanation]:
    """The explanation of every row, in the order of the table."""
    known = _Known.of(comparison)
    return [_explained(comparison, row, known) for row in comparison.rows]


class _Known(NamedTuple):
    """What is known of a comparison, and used to explain each of its rows."""

    cases: dict[str, RowBreakdown]  # row -> where its time went
    errors: dict[str, float]  # row -> how far off a prediction of what was measured is

    @classmethod
    def of(cls, comparison: Comparison) -> _Known:
        cases = {row.name: RowBreakdown(comparison, row) for row in comparison.rows if has_task_times(row)}
        times = {name: case.branch_times() for name, case in cases.items()}
        return cls(cases, {name: each.error for name, each in times.items()})


def _explained(comparison: Comparison, row: Row, known: _Known) -> Explanation:
    baseline, case = comparison.baseline, known.cases.get(row.name)
    notes = []
    if row.timing is None:
        notes.append(f"it was not measured: {row.reason}")
    elif case is None:
        notes.append(
            "this approach has no tasks, or no task that takes time: it runs a rewritten model, so its speed-up cannot "
            "be divided into factors. kit.trace.changes shows from two recordings how its operators differ."
            if row.rewritten
            else "its branches run one after the other: its speed-up is due only to rewriting the model."
            if row.name == FOUND
            else "no task of this approach was recorded, so its speed-up cannot be divided into factors."
        )
    elif case.branches_alone is None:
        notes.append("not separated: the effects of other intra-op threads and of running side by side.")
    if case is not None and not case.on_cpu:
        notes.append("on a GPU a task only launches kernels: no bound, and overhead is not separated.")
    gain, cores = comparison.core_scaling, comparison.cores
    if case is not None and case.lanes > 1 and gain is not None and gain.high < 0.9 * cores:
        notes.append(
            f"independent work ran {gain} as fast on the {cores} cores together as on one: a contention efficiency of "
            f"x {gain.estimate / cores:.2f} may be due to the cores, not to the branches."
        )
    excess = case.excess(comparison) if case else None
    if case is not None and excess is None:
        gains = {name: value for name, value in _efficiencies(case).items() if value > 1 + NOTABLE}
        notes += [f"{name}, x {value:.2f}, is a gain: {GAINS[name]}." for name, value in gains.items()]
    notes += kernels.caveats(baseline.name, baseline.kernels, [(row.name, row.kernels, row.rewritten)])
    best = max((each for each in comparison.rows if each.verdict == "faster"), key=_estimate, default=baseline)
    advised = known.cases.get(best.name)
    undecided = next((each for each in comparison.rows if each.verdict == "not decided"), None)
    if undecided and excess is None:
        notes.append(f"no advice: {undecided.name} is not decided: {undecided.doubt}")
    believed = excess is None and undecided is None
    return Explanation(
        approach=row.name,
        baseline=baseline.name,
        verdict=row.verdict,
        ratio=row.ratio,
        factors=case.factors() if case else None,
        computation=case.computation() if case else None,
        intervals=case.intervals() if case else {},
        waiting_ms=case.waiting_ms() if case else {},
        overhead_ms=case.overhead_ms() if case else {},
        carried=case.carried() if case else None,
        parts_ms=case.parts_ms() if case else {},
        bounds=case.bounds(comparison) if case else None,
        excess=excess,
        advice=tuple(_advice(comparison, best, case)) if believed else (),
        snippet=snippet(best.name, advised.lanes, best.lane_threads or 1) if advised and believed else None,
        notes=tuple(notes),
        branch_times=case.branch_times() if case else None,
        prediction_errors=known.errors if case else None,
    )


def _estimate(row: Row) -> float:
    return row.ratio.estimate if row.ratio else 0.0


# Advice ---------------------------------------------------------------------------------------------------------------


def _advice(comparison: Comparison, best: Row, case: RowBreakdown | None) -> list[Advice]:
    """Advice for latency, for throughput, and on what would change the result."""
    baseline, alone = comparison.baseline, comparison.branches_alone.get(1)
    if baseline.timing is None or best.timing is None:
        return []
    verb = "keep" if best is baseline else "use"
    verb = f"For one request at a time {verb}" if comparison.latency else verb.capitalize()
    text = f"{verb} {best.name}: {comparison.value_text(best)} against {comparison.value_text(baseline)}, {best.ratio}."
    if best is baseline:
        text = f"{verb} {best.name}, {comparison.value_text(best)}: nothing compared here was found faster."
    sentences = [_point(text, best, "call")]
    if alone is not None and comparison.latency and comparison.device == "cpu":  # a GPU is shared by all threads
        sentences.append(_point(_for_many_requests(comparison, alone, best, best.timing), best, "call"))
    if case is not None and case.row is not baseline:
        sentences.append(_what_would_change(comparison, case))
    return sentences


def _for_many_requests(comparison: Comparison, alone: Timing, best: Row, timing: Timing) -> str:
    """Advice for throughput: undecided if the intervals of both rates overlap."""
    side = "several at the same time, each on one thread with its branches one after the other"
    cores, gain, (low, high) = comparison.cores, comparison.core_scaling, _rates(timing)
    known = f"independent work ran {gain} as fast on them as on one" if gain else "if none slows another down"
    together = (gain.low, gain.high) if gain else (cores, cores)
    least, most = (rate * min(cores, each) for rate, each in zip(_rates(alone), together, strict=True))
    use = f"run {side}" if least > high else f"use {best.name}" if low > most else "these rounds cannot decide"
    return (
        f"For many requests {use}: a call takes {milliseconds(alone.median_ms)} on one core, so "
        f"{counted(cores, 'core')} ({known}) can serve {least:,.3g} to {most:,.3g} a second; {best.name}, "
        f"with one request at a time, serves {low:,.3g} to {high:,.3g} (95% intervals). Measure it with kit.throughput."
    )


def _rates(timing: Timing) -> tuple[float, float]:
    """The 95% interval of calls per second."""
    fast, slow = interval(timing.samples_ns)
    return 1e9 / slow, 1e9 / fast


def _efficiencies(case: RowBreakdown) -> dict[str, float]:
    """The factors that can cost speed; a value above 1 is a gain."""
    return {name: by for name, by in in_steps(case.factors(), case.computation()).items() if name in LOSSES}


def costliest(costs: Mapping[str, float], intervals: Mapping[str, Sequence[float]]) -> tuple[str, list[str]]:
    """The factor that costs most; and those that may cost more, as far as these rounds tell: the intervals overlap."""
    name = min(costs, key=costs.__getitem__)
    return name, [each for each in costs if each != name and intervals[each][0] <= intervals[name][1]]


def _what_would_change(comparison: Comparison, case: RowBreakdown) -> Advice:
    """The factor that costs most speed, what it means, and what more lanes would change."""
    factors, intervals = _efficiencies(case), case.intervals()
    shown = {each: "{}, x {:.2f} [{:.2f}, {:.2f}]".format(each, by, *intervals[each]) for each, by in factors.items()}
    name, near = costliest(factors, intervals)
    regions = regions_ms(case.own, np.median)
    longest = max((ms, branch) for region in regions for branch, ms in region.items())[1]
    waiting, overhead = (_largest(parts) for parts in (case.waiting_ms(), case.overhead_ms()))
    baseline, cores = FOUND if case.row.one_by_one else comparison.baseline.name, comparison.cores
    times = case.branch_times()
    busiest = times.measured_ms - times.rest_ms
    even = times._replace(regions_ms=regions, contention=1.0, rest_ms=0.0).call_ms(case.lanes)
    waits = f"the longest branch, {longest}"
    if even < (1 - NOTABLE) * busiest:  # a lane that starts late leaves its branches to others
        waits = f"the busiest one: {milliseconds(busiest)} of branches, {milliseconds(even)} if shared out well"
    meaning = LOSSES[name].format(baseline=baseline, waits=waits, waiting=waiting, overhead=overhead)
    if case.lanes > cores:
        meaning += f"; {case.lanes} lanes share {cores} cores, {cores}x at most"
    text = f"The factor that costs {case.row.name} most {'may be' if near else 'is'} {shown[name]}: {meaning}."
    text += (
        f" These rounds do not decide it: it may also be {' or '.join(shown[each] for each in near)}." if near else ""
    )
    if round(factors[name], 2) >= 1:
        text = f"No factor costs {case.row.name} speed: the smallest is {shown[name]}."
    if (widest := max(map(len, regions))) > case.lanes and case.on_cpu:
        text += f" With {widest} cores, one per branch, {times.baseline_ms / times.call_ms(widest):.2f}x is predicted"
        text += f" (error of the same prediction with the measured lanes: {times.error:+.0%})."
    elsewhere = " This says nothing about a GPU, which needs its own comparison."
    return _point(text + (elsewhere if case.on_cpu else ON_THE_HOST), case.row, longest)


def _point(text: str, row: Row, name: str) -> Advice:
    """The advice with the longest event of that name on the row's timeline."""
    trace = row.timing.trace if row.timing is not None else Trace.build([])
    found = ((e.duration_ns, e.start_ns) for e in trace.events() if e.name == name)
    duration, start = max(found, default=(0, 0))
    return Advice(text, row.name, name, start - int(min(trace.start_ns, default=0)), duration)


def _largest(parts: Mapping[str, float]) -> str:
    kind = max(parts, key=parts.__getitem__, default="")
    return f"{kind} ({milliseconds(parts[kind])})" if kind and parts[kind] > 0 else "unknown causes"


def _in_words(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {milliseconds(ms)}" for name, ms in parts.items() if ms)
