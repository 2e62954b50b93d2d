"""Interleaved rounds of runners, paired ratios and their intervals.

A shared machine changes speed from second to second. So approaches are never measured one after the other: each round
runs every one of them once, in random order, and only ratios within a round are compared. The middle of those ratios
gets an interval from order statistics alone, which assumes nothing about how timings are distributed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from kit import spans
from kit.capture import span_events, synchronize
from kit.comparison import Ratio, Timing
from kit.equality import as_args
from kit.errors import MeasureError
from kit.trace import Trace

MIN_ROUNDS = 6  # below, even the full range of the ratios is no 95% interval: 1 - 2 / 2**5 = 0.94
UNSTEADY = 2.0  # a quartile ratio beyond this is no property of the model: something else had the cores
TURN_NS = 2_000_000  # a turn repeats its call until it lasts this long, so that the clock's own cost vanishes


class Runs(Protocol):
    """What can be measured: a runner."""

    @property
    def intra_op_threads(self) -> int:
        """OpenMP threads of the calling thread while this runner has its turn."""

    @property
    def cold(self) -> bool:
        """Whether every call starts from nothing, so that warming up is no use."""

    def __call__(self, *args: Any) -> Any:
        """One call of the model."""


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
    and then times as many calls as make up two milliseconds, at least one. A cold runner's turn is one timed call.
    All in inference mode.

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
    if not runner.cold:
        _call(runner, args)


def _call(runner: Runs, args: Sequence[Any]) -> None:
    """One call and its end: on a GPU, what has returned has only been launched."""
    synchronize(args, runner(*args))


def _calls_per_turn(runner: Runs, args: Sequence[Any], clock: Callable[[], int]) -> int:
    """Warm the runner up at its own thread count, and count the calls that fit a turn; one where none can warm."""
    if runner.cold:
        return 1
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
