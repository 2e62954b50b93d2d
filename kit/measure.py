"""Interleaved rounds of runners, paired ratios and their intervals: the Comparison as data.

A shared machine changes speed from second to second. So approaches are never measured one after the other: each round
runs every one of them once, in random order, and only ratios within a round are compared. The middle of those ratios
gets an interval from order statistics alone, which assumes nothing about how timings are distributed.
"""

from __future__ import annotations

import html
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from kit import spans
from kit.capture import span_events
from kit.equality import Equality, as_args
from kit.errors import MeasureError
from kit.trace import Trace

MIN_ROUNDS = 6  # below, even the full range of the ratios is no 95% interval: 1 - 2 / 2**5 = 0.94
SMALLEST_EFFECT = 0.01  # two copies of one network can differ by this much for reasons of memory layout
TURN_NS = 2_000_000  # a turn repeats its call until it lasts this long, so that the clock's own cost vanishes

Verdict = Literal["baseline", "faster", "slower", "no difference found", "wrong output", "not available"]


class Runs(Protocol):
    """What can be measured: a runner."""

    @property
    def intra_op_threads(self) -> int:
        """OpenMP threads of the calling thread while this runner has its turn."""

    def __call__(self, *args: Any) -> Any:
        """One call of the model."""


class Ratio(NamedTuple):
    """Speed-up over the baseline: its time divided by this approach's, so that above 1 is faster."""

    estimate: float  # median of the rounds' ratios
    low: float  # at least 95% interval of that median
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.2f}x [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True, eq=False)
class Timing:
    """What the rounds of one runner gave."""

    samples_ns: NDArray[np.float64]  # (rounds,) mean time of a call within each round's turn
    calls: int  # calls per turn
    trace: Trace  # spans of the round whose time is nearest the median

    @property
    def median_ms(self) -> float:
        """Median over the rounds, in milliseconds."""
        return float(np.median(self.samples_ns)) / 1e6


@dataclass(frozen=True, eq=False)
class Row:
    """One approach of a comparison."""

    name: str
    reason: str | None = None  # why it is not available here
    timing: Timing | None = None
    ratio: Ratio | None = None  # 1 for the baseline itself
    equality: Equality | None = None
    baseline: bool = False

    @property
    def verdict(self) -> Verdict:
        """What may be said of it. A difference whose interval reaches to within 1% of nothing is not one."""
        if self.timing is None or self.ratio is None or self.equality is None:
            return "not available"
        if self.baseline:
            return "baseline"
        if not self.equality.equal:
            return "wrong output"
        if self.ratio.low > 1 + SMALLEST_EFFECT:
            return "faster"
        if self.ratio.high < 1 - SMALLEST_EFFECT:
            return "slower"
        return "no difference found"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "available": self.timing is not None,
            "reason": self.reason,
            "median_ms": self.timing and self.timing.median_ms,
            "ratio": self.ratio and self.ratio._asdict(),
            "equal": self.equality and self.equality.equal,
            "max_abs_error": self.equality and self.equality.max_abs_error,
            "verdict": self.verdict,
        }


@dataclass(frozen=True, eq=False)
class Comparison:
    """Approaches measured on the same inputs in interleaved rounds, the baseline first."""

    rows: tuple[Row, ...]
    rounds: int
    inputs: str  # their shapes, dtypes and devices
    caveats: tuple[str, ...] = ()  # what a reader must know before believing the table

    def __getitem__(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"{name!r} was not compared; compared were {', '.join(row.name for row in self.rows)}")

    @property
    def traces(self) -> dict[str, Trace]:
        """Approach -> the spans of its most typical measured round."""
        return {row.name: row.timing.trace for row in self.rows if row.timing is not None}

    def table(self) -> list[tuple[str, ...]]:
        """The header, then a row per approach, as text."""
        head = ("approach", "median", f"speed-up over {self.rows[0].name} [95%]", "same output", "verdict")
        lines: list[tuple[str, ...]] = [head]
        for row in self.rows:
            if row.timing is None or row.equality is None:
                lines.append((row.name, "-", "-", "-", f"{row.verdict}: {row.reason}"))
                continue
            same = f"{'yes' if row.equality.equal else 'NO'}, {row.equality.max_abs_error:.1g} off"
            ratio, same = ("1", "-") if row.baseline else (str(row.ratio), same)
            lines.append((row.name, f"{row.timing.median_ms:.3g} ms", ratio, same, row.verdict))
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "rounds": self.rounds,
            "inputs": self.inputs,
            "caveats": list(self.caveats),
            "approaches": [row.to_dict() for row in self.rows],
        }

    def __str__(self) -> str:
        table = self.table()
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table]
        return "\n".join([line.rstrip() for line in lines] + [f"! {caveat}" for caveat in self.caveats])

    def __repr__(self) -> str:  # no times: a notebook's stored output must not change from run to run
        return f"Comparison({', '.join(row.name for row in self.rows)}; {self.rounds} rounds)"

    def _repr_html_(self) -> str:
        head, *body = self.table()
        cells = "".join(f"<th style='text-align:left'>{html.escape(cell)}</th>" for cell in head)
        rows = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in line) + "</tr>"
            for line in body
        )
        notes = "".join(f"<p>&#9888; {html.escape(caveat)}</p>" for caveat in self.caveats)
        caption = f"{self.rounds} interleaved rounds on {html.escape(self.inputs)}. Speed-up above 1 is faster."
        return f"<table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table><p>{caption}</p>{notes}"


def measure(
    runners: Mapping[str, Runs],
    inputs: Any,
    *,
    rounds: int = 10,
    seed: int = 0,
    clock: Callable[[], int] = spans.clock,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Timing]:
    """Time runners in interleaved rounds.

    A round gives every runner one turn, in an order drawn anew from ``seed``. A turn sets the runner's intra-op thread
    count, makes one untimed call (switching empties oneDNN's caches, and the previous runner's data fills the CPU's),
    and then times as many calls as make up two milliseconds, at least one. All in inference mode.

    Args:
        runners: name -> runner, prepared.
        inputs: a tensor, or a tuple of arguments.
        rounds: at least 6, the least that can give a 95% interval.
        clock: nanoseconds; tests inject one.
        progress: called after each round with the number of rounds done.

    Raises:
        MeasureError: fewer than 6 rounds, or no runners.
    """
    if rounds < MIN_ROUNDS:
        raise MeasureError(
            f"{rounds} rounds cannot give a 95% interval: ask for at least {MIN_ROUNDS}, better 10 or more."
        )
    if not runners:
        raise MeasureError("there is nothing to measure: none of the approaches can run here.")
    args = as_args(inputs)
    order = random.Random(seed)
    samples: dict[str, list[float]] = {name: [] for name in runners}
    logs: dict[str, list[spans.SpanLog]] = {name: [] for name in runners}
    threads_before = torch.get_num_threads()
    try:
        with torch.inference_mode():
            calls = {name: _calls_per_turn(runner, args, clock) for name, runner in runners.items()}
            for done in range(rounds):
                turns = list(runners)
                order.shuffle(turns)
                for name in turns:
                    runner = runners[name]
                    _take_turn(runner, args)
                    with spans.collect() as log:
                        start = clock()
                        for _ in range(calls[name]):
                            with spans.span("call", "call"):
                                _call(runner, args)
                        samples[name].append((clock() - start) / calls[name])
                    logs[name].append(log)
                progress(done + 1)
    finally:
        torch.set_num_threads(threads_before)
    return {
        name: Timing(np.array(samples[name]), calls[name], _last_call(logs[name][_nearest_median(samples[name])]))
        for name in runners
    }


def speed_up(baseline: Timing, other: Timing) -> Ratio:
    """Median of the paired ratios ``baseline / other``, round by round, with its order-statistic interval."""
    ratios = np.sort(baseline.samples_ns / other.samples_ns)
    low, high = median_interval(len(ratios))
    return Ratio(float(np.median(ratios)), float(ratios[low]), float(ratios[high]))


def median_interval(n: int, confidence: float = 0.95) -> tuple[int, int]:
    """Indices into n sorted values between which their population's median lies with at least this confidence.

    The count of values below the median is binomial (n, 1/2), whatever the distribution: the interval is exact.

    Source: David & Nagaraja, *Order Statistics*, 3rd ed., section 7.1.

    Raises:
        MeasureError: n is too small for any such interval.
    """
    tail, k = 0.0, -1  # the largest k with 2 * P(Bin <= k) <= 1 - confidence
    while k + 1 < n / 2 and 2 * (tail + math.comb(n, k + 1) / 2**n) <= 1 - confidence:
        k += 1
        tail += math.comb(n, k) / 2**n
    if k < 0:
        raise MeasureError(f"{n} rounds cannot give a {confidence:.0%} interval: measure more.")
    return k, n - 1 - k


def _take_turn(runner: Runs, args: Sequence[Any]) -> None:
    if torch.get_num_threads() != runner.intra_op_threads:
        torch.set_num_threads(runner.intra_op_threads)
    _call(runner, args)


def _call(runner: Runs, args: Sequence[Any]) -> None:
    """One call and its end: on a GPU, what has returned has only been launched."""
    runner(*args)
    for gpu in {x.device for x in args if isinstance(x, torch.Tensor) and x.is_cuda}:
        torch.cuda.synchronize(gpu)


def _calls_per_turn(runner: Runs, args: Sequence[Any], clock: Callable[[], int]) -> int:
    """Warm the runner up at its own thread count, and count the calls that fit a turn."""
    _take_turn(runner, args)
    start = clock()
    _call(runner, args)
    return max(1, min(1000, TURN_NS // max(1, clock() - start)))


def _last_call(log: spans.SpanLog) -> Trace:
    """One call is what a timeline shows, and the last of a turn is the warmest."""
    begin = max(span.start_ns for span in log.spans if span.category == "call")
    return Trace.build(span_events(span for span in log.spans if span.start_ns >= begin))


def _nearest_median(samples: Sequence[float]) -> int:
    return int(np.argmin(np.abs(np.array(samples) - np.median(samples))))
