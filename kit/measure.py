"""Interleaved rounds of runners, paired ratios and their intervals.

A shared machine changes speed from second to second. So approaches are never measured one after the other: each round
runs every one of them once, in random order, and only ratios within a round are compared. The middle of those ratios
gets an interval from order statistics alone, which assumes nothing about how timings are distributed. Intervals widen
with the rows of a table, so that a table of equals shows a difference in one case of forty at most, and not each row.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from kit import spans
from kit.comparison import SMALLEST_EFFECT, Ratio, Row, Timing
from kit.equality import as_args
from kit.errors import MeasureError
from kit.load import queued_ns
from kit.profiler import span_events, synchronize
from kit.trace import Trace
from kit.turns import Turn, reduce_turn

ROUNDS = 12  # enough for a verdict on each of the dozen approaches that a machine without a GPU has
MIN_ROUNDS = 6  # below, even the full range of the ratios is no 95% interval: 1 - 2 / 2**5 = 0.94
UNSTEADY = 2.0  # a quartile ratio beyond this is no property of the model: something else had the cores
ERROR, TABLE_ERROR = 0.05, 1 / 64  # how often equals may be called different: one row; any row of a table of several
POWER = 0.9  # how often the smallest difference that is reported would have been found
STEADY, IN_A_ROW = 0.05, 3  # warm: so many calls in a row no faster, by this share, than the fastest before them
WARM_CALLS, WARM_NS = 30, 1_000_000_000  # or so many calls, or so long
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
    beside: Mapping[str, Runs] = {},
    rounds: int = ROUNDS,
    enough: Callable[[int], bool] = lambda done: False,
    width: float | None = None,
    seed: int = 0,
    clock: Callable[[], int] = spans.clock,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Timing]:
    """Time runners in interleaved rounds.

    A round gives every runner one turn, in an order drawn anew from ``seed``. A turn sets the runner's intra-op thread
    count, makes one untimed call (switching empties oneDNN's caches, and the previous runner's data fills the CPU's),
    and then times as many calls as make up two milliseconds, at least one. A cold runner's turn is one timed call.
    Before, every other runner is called until three calls in a row are no more than 5% faster than the fastest before
    them, at most 30 times or for a second. All in inference mode.

    Args:
        runners: name -> runner, prepared. The first is the baseline.
        inputs: a tensor, or a tuple of arguments.
        beside: yardsticks under other names, with a turn in every round too; no ``width`` is asked of them.
        rounds: at least 6, the least that can give a 95% interval; where ``enough`` or ``width`` is given, the most.
        enough: asked with the number of rounds done, once there are 6, whether that will do: :meth:`Budget.enough`.
        width: enough rounds when the 95% interval of every ratio is this narrow, as a share: 0.05 is from 0.98 to 1.03.
            It is all that decides when to stop, so that stopping favours no verdict.
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
    everyone = {**runners, **beside}
    turns: dict[str, list[_Turn]] = {name: [] for name in everyone}
    threads_before = torch.get_num_threads()
    try:
        with torch.inference_mode():
            calls = {name: _calls_per_turn(runner, args, clock) for name, runner in everyone.items()}
            for done in range(1, rounds + 1):
                turn_order = list(everyone)
                order.shuffle(turn_order)
                for name in turn_order:
                    lanes = turns[name][-1].lanes if turns[name] else frozenset()
                    turns[name].append(_turn(everyone[name], args, calls[name], lanes, clock))
                progress(done)
                if done >= MIN_ROUNDS and (
                    enough(done) or (width is not None and _widest([turns[name] for name in runners]) <= width)
                ):
                    break
    finally:
        torch.set_num_threads(threads_before)
    return {name: _timing(own, calls[name]) for name, own in turns.items()}


def speed_up(baseline: Timing, other: Timing) -> Ratio:
    """Median of the paired ratios ``baseline / other``, round by round, with its order-statistic interval."""
    ratios = np.sort(baseline.samples_ns / other.samples_ns)
    low, high = median_interval(len(ratios))
    return Ratio(float(np.median(ratios)), float(ratios[low]), float(ratios[high]))


def judged(rows: Sequence[Row]) -> list[Row]:
    """Rows with their ratios to the baseline in the same rounds, and with intervals that hold for the table as a whole.

    Holm's step-down procedure on exact sign tests: of m rows the clearest gets an interval at 1 - 1.6%/m (one row alone
    at 95%); where that finds a difference the next gets one at 1 - 1.6%/(m - 1), and so on; from the first without a
    difference on, the level stays. So the interval that is shown and the verdict always agree.

    Source: Holm, *A Simple Sequentially Rejective Multiple Test Procedure*, Scandinavian Journal of Statistics, 1979.
    """
    done = list(rows)
    ratios = {
        i: np.sort(row.against.samples_ns / row.timing.samples_ns)
        for i, row in enumerate(rows)
        if row.timing is not None and row.against is not None and not row.baseline
    }
    error, stopped = _error(len(ratios)) * len(ratios), False
    left = len(ratios)
    for i in sorted(ratios, key=lambda i: _sign_test(ratios[i])):
        done[i] = _judge(rows[i], ratios[i], error / left)
        stopped |= done[i].ratio is None or done[i].verdict == "no difference found"
        left -= not stopped
    return done


def least_rounds(rows: int) -> int:
    """The fewest rounds that can find a difference in a table of so many rows beside its baseline."""
    return max(MIN_ROUNDS, math.ceil(-math.log2(_error(rows) / 2)))


def _error(rows: int) -> float:
    """That of the clearest of so many rows."""
    return TABLE_ERROR / rows if rows > 1 else ERROR


def _judge(row: Row, ratios: NDArray[np.float64], error: float) -> Row:
    try:
        low, high = median_interval(len(ratios), 1 - error)
    except MeasureError:  # all that these rounds can say, which is too little for a verdict
        ratio = Ratio(float(np.median(ratios)), float(ratios[0]), float(ratios[-1]))
        return replace(row, ratio=ratio, decidable=False)
    ratio = Ratio(float(np.median(ratios)), float(ratios[low]), float(ratios[high]))
    return replace(row, ratio=ratio, smallest=smallest_difference(ratios, low))


def _sign_test(ratios: NDArray[np.float64]) -> float:
    """Exact probability of so many ratios on one side of the 1% around nothing, were their median within it."""
    n = len(ratios)
    most = max(int((ratios > 1 + SMALLEST_EFFECT).sum()), int((ratios < 1 - SMALLEST_EFFECT).sum()))
    return float(sum(math.comb(n, k) for k in range(most, n + 1)) / 2**n)


def smallest_difference(ratios: NDArray[np.float64], low: int) -> float:
    """The least change, as a share, that such rounds would have found in 9 of 10 repetitions; none smaller is excluded.

    Rounds drawn anew from these around another median have their interval's end at one of these ratios, with a
    probability that is binomial: no simulation is needed. And it is at least what the interval still allows.

    Args:
        ratios: sorted, ``(rounds,)``.
        low: index of the interval's lower end among them.
    """
    n, centre = len(ratios), float(np.median(ratios))
    end = bisect_left(range(n), POWER, key=lambda i: _at_least((i + 1) / n, n - low, n))
    scatter = float(
        max(ratios[end] / centre / (1 - SMALLEST_EFFECT), (1 + SMALLEST_EFFECT) * centre / ratios[-1 - end])
    )
    return max(scatter, float(ratios[-1 - low]), 1 / float(ratios[low])) - 1


def _at_least(p: float, k: int, n: int) -> float:
    """Probability of k or more successes in n, each with probability p."""
    if p >= 1:
        return 1.0
    choose = [math.lgamma(n + 1) - math.lgamma(j + 1) - math.lgamma(n - j + 1) for j in range(k, n + 1)]
    return sum(math.exp(c + j * math.log(p) + (n - j) * math.log1p(-p)) for j, c in enumerate(choose, start=k))


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


class _Turn(NamedTuple):
    """What is kept of a turn."""

    sample: float  # mean nanoseconds of a call
    latencies: list[int]  # of each call
    reduced: Turn | None
    last_call: list[spans.Span]
    lanes: frozenset[tuple[int, int]]  # process and thread of those that ran tasks


def _turn(
    runner: Runs, args: Sequence[Any], calls: int, lanes: frozenset[tuple[int, int]], clock: Callable[[], int]
) -> _Turn:
    _take_turn(runner, args)
    stamps = [0] * (calls + 1)
    queued_before = queued_ns(lanes)
    with spans.collect() as log:
        start = clock()
        stamps[0] = spans.clock()
        for i in range(calls):  # a stamp costs a tenth of a microsecond, where a span would cost three
            _call(runner, args)
            stamps[i + 1] = spans.clock()
        sample = (clock() - start) / calls
    queued_after = queued_ns(lanes)
    for begin, end in pairwise(stamps):
        log.write("call", "call", begin, end)
    found = frozenset((span.process, span.thread) for span in log.spans if span.category == "task")
    known = queued_before is not None and queued_after is not None and found <= lanes
    return _Turn(
        sample,
        [end - begin for begin, end in pairwise(stamps)],
        reduce_turn(log.spans, (queued_after or 0) - (queued_before or 0) if known else None),
        [span for span in log.spans if span.start_ns >= stamps[-2]],  # the last call of a turn is the warmest
        found or lanes,
    )


def _timing(turns: Sequence[_Turn], calls: int) -> Timing:
    samples = np.array([turn.sample for turn in turns])
    usual = turns[int(np.argmin(np.abs(samples - np.median(samples))))]
    return Timing(
        samples,
        calls,
        Trace.build(span_events(usual.last_call)),
        tuple(turn.reduced for turn in turns),
        np.array([latency for turn in turns for latency in turn.latencies], float),
    )


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
    begin = clock()
    _take_turn(runner, args)
    taken: list[int] = []
    while len(taken) < WARM_CALLS and (not taken or clock() - begin < WARM_NS) and not _steady(taken):
        start = clock()
        _call(runner, args)
        taken.append(clock() - start)
    return max(1, min(1000, TURN_NS // max(1, taken[-1])))


def _steady(taken: Sequence[int]) -> bool:
    before, last = taken[:-IN_A_ROW], taken[-IN_A_ROW:]
    return bool(before) and min(last) >= (1 - STEADY) * min(before)


def _widest(turns: Iterable[Sequence[_Turn]]) -> float:
    """The relative width of the widest interval of a ratio to the first runner's turns."""
    first, *others = (np.array([turn.sample for turn in own]) for own in turns)
    ratios = [np.sort(first / other) for other in others]
    try:
        low, high = median_interval(len(first), 1 - _error(len(others)))
    except MeasureError:  # not enough rounds yet for so many rows
        return math.inf
    return max((float(each[high] / each[low]) - 1 for each in ratios), default=0.0)
