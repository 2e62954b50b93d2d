"""Why an approach is as fast as it is: its speed-up as a product of factors, bounds, and what to do with that.

With s the time of a task in the baseline, c its time in the approach, C what a lane was busy with tasks, P the number
of lanes, and T the time of a call, every round has exactly ::

    T_base / T = (T_base / sum s) * P * (sum s / sum c) * (mean C / max C) * (max C / T)

where max C is the busiest lane of each region, summed over the regions of a call. Factors are averaged over the rounds
as logarithms, so that their product stays exact: it is the geometric mean of the rounds' ratios.

Source: load balance and communication efficiency are those of the POP project's metrics (https://pop-coe.eu).
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kit.comparison import Comparison, Ratio, Row, Timing, milliseconds
from kit.errors import MeasureError
from kit.snippets import snippet
from kit.turns import Turn

FACTORS = ("baseline's overhead", "lanes", "no inflation", "load balance", "no overhead")
LOSSES = {  # factor -> what its being below 1 is called, and what it means
    "lost intra-op parallelism": (
        "lost intra-op parallelism",
        "a branch has fewer intra-op threads than in {baseline}, which more cores would change",
    ),
    "contention": ("contention", "branches slow each other down, {waiting}"),
    "no inflation": ("inflation", "branches take longer than in {baseline}, and why is not separated"),
    "load balance": (
        "imbalance",
        "the longest branch, {longest}, keeps the others waiting: split it, or merge the rest",
    ),
    "no overhead": ("overhead", "{overhead} outside the branches, which counts for less in larger batches"),
}


class Bounds(NamedTuple):
    """What no schedule of these branches on these lanes can beat: from their fastest times, alone, at one thread."""

    work_ms: float  # T1 of all regions
    span_ms: float  # the longest branch of each region, summed
    serial_ms: float  # outside regions, in the baseline
    least_ms: float  # serial + for each region the larger of span / threads and work / (lanes * threads)
    share: float  # least / measured: 1 is as fast as can be
    amdahl: float  # the speed-up over the baseline that its serial part leaves at most to these lanes


class Prediction(NamedTuple):
    """What branch times say of another arrangement."""

    ms: float  # of a call
    speed_up: float  # over the baseline
    errors: dict[str, float]  # approach that was measured -> predicted / measured - 1, by the same arithmetic


class Advice(NamedTuple):
    """A sentence with numbers, and the place on the comparison's timeline where they can be seen."""

    text: str
    approach: str  # whose trace
    event: str  # name of the event
    start_ns: int
    duration_ns: int


@dataclass(frozen=True)
class _Case:
    """One approach as arithmetic, in milliseconds: what a prediction starts from."""

    serial: float
    overhead: float  # inside regions
    tasks: Mapping[tuple[int, str], float]  # (region, branch) -> alone, at the lane's thread count
    lanes: int
    measured: float

    def predict(self, lanes: int, merged: Sequence[Collection[str]] = ()) -> float:
        """Milliseconds of a call with branches taken in order by whichever lane is free."""
        group = {name: i for i, names in enumerate(merged) for name in names}
        total = self.serial + self.overhead
        for region in sorted({region for region, _ in self.tasks}):
            lengths: dict[int | str, float] = {}
            for (at, name), ms in self.tasks.items():
                if at == region:
                    lengths[group.get(name, name)] = lengths.get(group.get(name, name), 0) + ms
            ends = [0.0] * lanes
            for ms in lengths.values():
                ends[ends.index(min(ends))] += ms
            total += max(ends)
        return total


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why one approach of a comparison is as fast as it is. Data first; ``str()`` and a notebook show it as text."""

    approach: str
    baseline: str
    verdict: str
    ratio: Ratio | None  # of the table: the median of the rounds
    speed_up: float | None  # geometric mean of the rounds: the product of the factors
    factors: dict[str, float] | None  # of FACTORS; None where there are no tasks to explain it by
    inflation: dict[str, float] | None  # "lost intra-op parallelism" * "contention"; None: not separated
    waiting_ms: dict[str, float] | None  # contention a call: CPU time, a core, the GIL or a lock; None: not separated
    overhead_ms: dict[str, float]  # the typical round's call outside the busiest lane's tasks, by kind
    parts_ms: dict[str, float]  # its regions and its serial rest, which add up to the call
    bounds: Bounds | None
    advice: tuple[Advice, ...]
    snippet: str | None  # plain PyTorch that runs branches as the advised approach does; None: no short form of it
    notes: tuple[str, ...]  # what could not be told, in sentences
    cases: Mapping[str, _Case]  # approach -> what predictions start from
    baseline_ms: float | None

    def what_if(self, lanes: int, merged: Sequence[Collection[str]] = ()) -> Prediction:
        """Predict this approach with another number of lanes, or with groups of branches merged into one each.

        It takes each branch's time alone, the overhead as measured, and no contention.

        Raises:
            MeasureError: no lanes, or an approach that has no tasks to schedule.
        """
        if lanes < 1 or self.approach not in self.cases or self.baseline_ms is None:
            raise MeasureError(f"cannot predict {self.approach} on {lanes} lanes: it takes a lane or more, and tasks.")
        ms = self.cases[self.approach].predict(lanes, merged)
        errors = {name: case.predict(case.lanes) / case.measured - 1 for name, case in self.cases.items()}
        return Prediction(ms, self.baseline_ms / ms, errors)

    def table(self) -> list[tuple[str, str, str]]:
        """What multiplies, by how much, and where the product has got to."""
        lines, reached = [("factor", "", "reached")], 1.0
        for name, value in self.steps():
            reached *= value
            lines.append((name, f"x {value:.3f}", f"{reached:.3f}x"))
        return lines

    def steps(self) -> list[tuple[str, float]]:
        """The factors from the ideal, one for each lane, down to what was measured; inflation split where it can be."""
        if self.factors is None:
            return []
        parts = self.inflation or {"no inflation": self.factors["no inflation"]}
        first = {name: self.factors[name] for name in ("lanes", "baseline's overhead")}
        return [*(first | parts | {name: self.factors[name] for name in FACTORS[3:]}).items()]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        named = (self.ratio, self.bounds, *self.advice)
        ratio, bounds, *advice = (each and each._asdict() for each in named)
        skipped = {"cases", "baseline_ms"}
        plain = {name: value for name, value in vars(self).items() if name not in skipped}
        errors = self.what_if(1).errors if self.approach in self.cases else None
        return plain | {"ratio": ratio, "bounds": bounds, "advice": advice, "prediction_errors": errors}

    def __repr__(self) -> str:  # no times: a notebook's stored output must not change from run to run
        return f"Explanation({self.approach} over {self.baseline})"

    def __str__(self) -> str:
        lines = [f"{self.approach}: {self.verdict}" + (f", {self.ratio} over {self.baseline}" if self.ratio else "")]
        lines += [f"  {name:28} {by:9} {reached}" for name, by, reached in self.table()]
        lines += [f"  {line}" for line in self.details()]
        return "\n".join([*lines, *(f"  - {each.text}" for each in self.advice), *(f"  ! {n}" for n in self.notes)])

    def details(self) -> list[str]:
        """Where contention and overhead went, and the bound, as lines."""
        named = {"contention": self.waiting_ms or {}, "overhead": self.overhead_ms, "a call": self.parts_ms}
        lines = [f"{name}: {_in_words(parts)}" for name, parts in named.items() if parts]
        if self.bounds is not None:
            lines.append(
                f"at best {milliseconds(self.bounds.least_ms)} (work {milliseconds(self.bounds.work_ms)}, span "
                f"{milliseconds(self.bounds.span_ms)}, serial {milliseconds(self.bounds.serial_ms)}): "
                f"{self.bounds.share:.0%} of that speed is reached; Amdahl's limit here is {self.bounds.amdahl:.2f}x"
            )
        return lines

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in line)}</tr>" for line in self.table())
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in [*self.details(), *self.notes])
        advice = "".join(f"<p>{html.escape(each.text)}</p>" for each in self.advice)
        title = html.escape(f"{self.approach}: {self.verdict}")
        code = f"<pre>{html.escape(self.snippet)}</pre>" if self.snippet else ""
        return f"<b>{title}</b><table>{rows}</table><ul>{lines}</ul>{advice}{code}"


def explain(comparison: Comparison, approach: str | None = None) -> Explanation:
    """Why an approach of this comparison is as fast as it is, and what to do with that; nothing is measured anew.

    >>> kit.explain(kit.compare(model, inputs, ["sequential", "threads"]))

    Args:
        approach: one of its rows; where none is named, the best of those with the right output beside the baseline.

    Raises:
        KeyError: no such row.
    """
    baseline = comparison.rows[0]
    ranked = sorted(comparison.rows[1:], key=lambda row: row.ratio.estimate if _is_right(row) and row.ratio else 0)
    row = comparison[approach] if approach is not None else ranked[-1] if ranked else baseline
    cases = {each.name: case for each in comparison.rows if (case := _case(comparison, each)) is not None}
    notes = []
    factors = inflation = waiting = bounds = None
    if row.timing is None or row.against is None:
        notes.append(f"{row.name} was not measured: {row.reason}")
    elif row.name not in cases:
        notes.append(
            "it has no tasks: it changes the model's operators, not when branches run. Record both and compare."
        )
    else:
        factors = _factors(row.against, row.timing)
        solo = _solo(comparison, row)
        if solo is None:
            notes.append("not separated: how much of the inflation is lost intra-op parallelism, how much contention.")
        else:
            inflation = {
                "lost intra-op parallelism": _mean(_work(row.against) / _work(solo)),
                "contention": _mean(_work(solo) / _work(row.timing)),
            }
            waiting = _waiting(solo, row.timing)
        bounds = _bounds(comparison, row, cases[row.name].lanes)
    typical = _typical(row.timing)
    call_ms = row.timing.samples_ns[_typical_round(row.timing)] / 1e6 if row.timing is not None else 0.0
    inside = typical.regions / 1e6 if typical else 0.0
    found = Explanation(
        row.name,
        baseline.name,
        row.verdict,
        row.ratio,
        math.prod(factors.values()) if factors else None,
        factors,
        inflation,
        waiting,
        {**{k: ns / 1e6 for k, ns in typical.overhead.items()}, "serial rest": call_ms - inside} if typical else {},
        {"regions": inside, "serial rest": call_ms - inside} if typical else {},
        bounds,
        (),
        None,
        tuple(notes),
        cases,
        baseline.timing.median_ms if baseline.timing else None,
    )
    best = max((each for each in comparison.rows if each.verdict == "faster"), key=_estimate, default=baseline)
    code = snippet(best.name, cases[best.name].lanes, best.lane_threads or 1) if best.name in cases else None
    fields = vars(found) | {"advice": tuple(_advice(comparison, found, best)), "snippet": code}
    return Explanation(**fields)


# The arithmetic -------------------------------------------------------------------------------------------------------


def _of(timing: Timing, value: Callable[[Turn], float | None]) -> NDArray[np.float64]:
    """A number of each round, NaN where it is not known."""
    numbers = [None if turn is None else value(turn) for turn in timing.turns]
    return np.array([math.nan if number is None else number for number in numbers], float)


def _work(timing: Timing) -> NDArray[np.float64]:
    return _of(timing, lambda turn: turn.work)


def _mean(ratios: NDArray[np.float64]) -> float:
    """Geometric mean."""
    return float(np.exp(np.log(ratios).mean()))


def _factors(base: Timing, own: Timing) -> dict[str, float]:
    lanes, busiest = _lanes(own), _of(own, lambda turn: turn.busiest)
    values = (
        _mean(base.samples_ns / _work(base)),
        float(lanes),
        _mean(_work(base) / _work(own)),
        _mean(_work(own) / lanes / busiest),
        _mean(busiest / own.samples_ns),
    )
    return dict(zip(FACTORS, values, strict=True))


def _lanes(timing: Timing) -> int:
    return max(turn.lanes for turn in timing.turns if turn is not None)


def _solo(comparison: Comparison, row: Row) -> Timing | None:
    """The branches one by one at the lanes' thread count, if that was measured in this row's rounds."""
    solo = comparison.solo.get(row.lane_threads or 0)
    known = solo is not None and row.against is comparison.rows[0].timing and _explicable(solo)
    return solo if known else None


def _explicable(timing: Timing | None) -> bool:
    return timing is not None and bool(timing.turns) and None not in timing.turns


def _is_right(row: Row) -> bool:
    return row.equality is not None and row.equality.equal


def _estimate(row: Row) -> float:
    return row.ratio.estimate if row.ratio else 0.0


def _waiting(solo: Timing, own: Timing) -> dict[str, float] | None:
    """What branches side by side spend more than alone, in milliseconds a call; None where CPU time is not known."""
    cpu, off = (
        np.median(_of(own, value) - _of(solo, value)) / 1e6
        for value in (lambda turn: turn.cpu, lambda turn: None if turn.cpu is None else turn.work - turn.cpu)
    )
    queued = [ns for ns in _of(own, _queued) - _of(solo, _queued) if not math.isnan(ns)]
    if math.isnan(cpu) or not queued:
        return None
    core = float(np.clip(np.median(queued) / 1e6, min(0, off), max(0, off)))  # outside tasks a thread can wait as well
    return {
        "more CPU time (memory, caches, clock)": float(cpu),
        "waiting for a core": core,
        "waiting for the GIL or a lock": float(off) - core,
    }


def _queued(turn: Turn) -> float | None:
    return turn.queued


def _typical_round(timing: Timing) -> int:
    return int(np.argmin(np.abs(timing.samples_ns - np.median(timing.samples_ns))))


def _typical(timing: Timing | None) -> Turn | None:
    return timing.turns[_typical_round(timing)] if timing is not None and timing.turns else None


def _case(comparison: Comparison, row: Row) -> _Case | None:
    if row.timing is None or not _explicable(row.timing) or not _explicable(row.against):
        return None
    own, source = row.timing, _solo(comparison, row) or row.timing
    return _Case(
        serial=float(np.median(own.samples_ns - _of(own, lambda turn: turn.regions))) / 1e6,
        overhead=float(np.median(_of(own, lambda turn: turn.regions - turn.busiest))) / 1e6,
        tasks=_branch_ms(source),
        lanes=_lanes(own),
        measured=own.median_ms,
    )


def _branch_ms(timing: Timing, middle: Callable[[Any], Any] = np.median) -> dict[tuple[int, str], float]:
    """Each branch over the rounds, in milliseconds."""
    turns = [turn for turn in timing.turns if turn is not None]
    return {key: float(middle([turn.tasks.get(key, 0.0) for turn in turns])) / 1e6 for key in turns[0].tasks}


def _bounds(comparison: Comparison, row: Row, lanes: int) -> Bounds | None:
    """None where the branches were not measured at one thread, or the lanes' thread count is not known."""
    alone, base = comparison.solo.get(1), row.against
    if not _explicable(alone) or alone is None or base is None or row.timing is None or row.lane_threads is None:
        return None
    threads = row.lane_threads
    tasks = _branch_ms(alone, min)  # what a bound is made of was possible: the fastest round's times
    rest = base.samples_ns - _of(base, lambda turn: turn.regions)
    serial, share = float(rest.min()) / 1e6, float(np.median(rest / base.samples_ns))
    regions = [[ms for (at, _), ms in tasks.items() if at == region] for region in sorted({at for at, _ in tasks})]
    at_once = min(lanes * threads, comparison.cores)
    least = serial + sum(max(max(each) / threads, sum(each) / at_once) for each in regions)
    return Bounds(
        work_ms=sum(tasks.values()),
        span_ms=sum(map(max, regions)),
        serial_ms=serial,
        least_ms=least,
        share=least / row.timing.median_ms,
        amdahl=1 / (share + (1 - share) / lanes),
    )


# Advice ---------------------------------------------------------------------------------------------------------------


def _advice(comparison: Comparison, found: Explanation, best: Row) -> list[Advice]:
    """For latency, for throughput, and what would change the answer."""
    baseline = comparison.rows[0]
    if baseline.timing is None or best.timing is None:
        return []
    took = milliseconds(best.timing.median_ms)
    if best is baseline:
        text = (
            f"For one request at a time keep {best.name}, {took} a call: nothing compared here was found to be faster."
        )
    else:
        text = (
            f"For one request at a time use {best.name}: {took} a call against "
            f"{milliseconds(baseline.timing.median_ms)}, {best.ratio}."
        )
    sentences = [_point(text, best, "call")]
    alone = comparison.solo.get(1)
    if alone is not None:
        most, one = comparison.cores / alone.median_ms * 1000, 1000 / best.timing.median_ms
        way = "requests side by side, each on one thread and one branch after the other" if most > one else best.name
        text = (
            f"For many requests use {way}: a call then takes {milliseconds(alone.median_ms)} of one core, so at most "
            f"{most:,.3g} a second on {comparison.cores} cores, where {best.name} one by one gives {one:,.3g}; measure "
            "it with kit.measure.throughput."
        )
        sentences.append(_point(text, best, "call"))
    row = comparison[found.approach]
    if row.timing is not None and found.factors is not None and not row.baseline:
        sentences.append(_what_would_change(found, row))
    return sentences


def _what_would_change(found: Explanation, row: Row) -> Advice:
    """The factor that costs most, what it means, and what more lanes would do."""
    value, name = min((value, name) for name, value in found.steps() if name in LOSSES)
    case = found.cases[found.approach]
    (_, longest), _ = max(case.tasks.items(), key=lambda each: each[1])
    widest = max(sum(at == region for at, _ in case.tasks) for region, _ in case.tasks)
    waits = {kind: ms for kind, ms in (found.waiting_ms or {}).items() if ms > 0}
    noun, meaning = LOSSES[name]
    meaning = meaning.format(
        baseline=found.baseline,
        longest=longest,
        waiting=f"mostly by {_largest(waits)}" if waits else "by what is not separated",
        overhead=f"{milliseconds(sum(found.overhead_ms.values()))} a call, mostly {_largest(found.overhead_ms)},",
    )
    text = f"What costs {found.approach} most is {noun}, x {value:.2f}: {meaning}."
    if widest > case.lanes:
        text += f" With a core for each of {widest} branches {found.what_if(widest).speed_up:.2f}x is predicted."
    return _point(text + " A GPU would need a comparison of its own.", row, longest)


def _largest(parts: Mapping[str, float]) -> str:
    kind = max(parts, key=parts.__getitem__)
    return f"{kind} ({milliseconds(parts[kind])})"


def _point(text: str, row: Row, name: str) -> Advice:
    """The sentence with the first event of that name on the row's timeline."""
    events = list(row.timing.trace.events()) if row.timing is not None else []
    event = next(each for each in events if each.name == name)
    return Advice(text, row.name, event.name, event.start_ns, event.duration_ns)


def _in_words(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {milliseconds(ms)}" for name, ms in parts.items() if ms)
