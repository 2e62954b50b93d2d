"""Interleaved rounds: every runner has one turn in each, in random order.

A shared machine changes its speed from second to second. So approaches take turns in every round, and only times of the
same round are compared.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple, ParamSpec, TypeVar

import numpy as np
import torch

from kit import spans
from kit.approaches.runner import Runner
from kit.errors import MeasureError
from kit.machine.load import queued_ns
from kit.measuring.breakdown import RoundBreakdown, reduce_turn
from kit.measuring.comparison import Timing
from kit.measuring.statistics import MIN_ROUNDS, widest_interval
from kit.profiler import synchronize, trace_of_spans
from kit.progress import checkpoint

ROUNDS = 12  # enough for a verdict on each of the dozen approaches that a machine without a GPU has
STEADY, IN_A_ROW = 0.05, 3  # warm: so many calls in a row no faster, by this share, than the fastest before them
WARM_CALLS, WARM_NS = 30, 1_000_000_000  # or so many calls, or so long
TURN_NS = 2_000_000  # a turn repeats its call until it lasts this long, so that the clock's own cost vanishes


K = TypeVar("K", bound=Hashable)  # names of runners
R = TypeVar("R", bound=Hashable)  # names of references
P = ParamSpec("P")
T = TypeVar("T")


class Reference(NamedTuple):
    """A reference that is measured in the same rounds as the candidates, to explain their speed-ups."""

    kind: Literal["branches alone", "independent load"]
    threads: int  # of each operator, or of the load


class RunnerFailed(MeasureError):
    """A runner raised while it was measured; its exception is the cause."""

    def __init__(self, key: Hashable, error: Exception) -> None:
        super().__init__(f"{key} failed while it was measured: {type(error).__name__}: {error}")
        self.key, self.error = key, error


def measure(
    runners: Mapping[K, Runner],
    *,
    references: Mapping[R, Runner] = {},
    rounds: int = ROUNDS,
    enough: Callable[[int], bool] = lambda done: False,
    width: float | None = None,
    seed: int = 0,
    clock: Callable[[], int] = spans.clock,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[K | R, Timing]:
    """Time runners in interleaved rounds.

    In a round every runner has one turn, in a random order (from ``seed``). A turn sets the runner's intra-op thread
    count, makes one untimed call (switching empties oneDNN's caches, and the previous runner's data fills the CPU's),
    and then times as many calls as make up two milliseconds, at least one. A cold runner's turn is one timed call.
    Before the rounds, every runner that is not cold is warmed up: until three calls in a row are at most 5% faster than
    the fastest call before them, but at most 30 calls or one second. All calls run in inference mode.

    Args:
        runners: name -> runner, prepared. The first is the baseline.
        references: further runners with a turn in every round; ``width`` does not concern them.
        rounds: number of rounds, at least 6 (fewer cannot give a 95% interval). With ``enough`` or ``width``: the most
            rounds.
        enough: called with the number of rounds done, from 6 on; True stops. See :meth:`Budget.enough`.
        width: stop when the 95% interval of every ratio is this narrow, as a share: 0.05 is from 0.98 to 1.03. Only the
            width decides when to stop, so that stopping favours no verdict.
        clock: returns the time in nanoseconds.
        progress: called after each round with the number of rounds done.

    Raises:
        MeasureError: fewer than 6 rounds, or no runners.
        RunnerFailed: a runner raised; the error holds the runner's name, and the exception as its cause.
    """
    if rounds < MIN_ROUNDS:
        raise MeasureError(
            f"{rounds} rounds cannot give a 95% interval: ask for at least {MIN_ROUNDS}, better 10 or more."
        )
    if not runners:
        raise MeasureError("nothing to measure: none of the approaches can run here.")
    order = random.Random(seed)
    everyone = dict[K | R, Runner]([*runners.items(), *references.items()])
    turns: dict[K | R, list[_Turn]] = {key: [] for key in everyone}
    threads_before = torch.get_num_threads()
    try:
        with torch.inference_mode():
            calls = {key: _named(key, _calls_per_turn, runner, clock) for key, runner in everyone.items()}
            for done in range(1, rounds + 1):
                turn_order = list(everyone)
                order.shuffle(turn_order)
                for key in turn_order:
                    lanes = turns[key][-1].lanes if turns[key] else frozenset()
                    turns[key].append(_named(key, _turn, everyone[key], calls[key], lanes, clock))
                progress(done)
                if done >= MIN_ROUNDS and (enough(done) or (width is not None and _interval(runners, turns) <= width)):
                    break
    finally:
        torch.set_num_threads(threads_before)
    return {key: _timing(own, calls[key]) for key, own in turns.items()}


class _Turn(NamedTuple):
    """The measurements of one turn."""

    sample: float  # mean nanoseconds of a call
    latencies: list[int]  # of each call
    reduced: RoundBreakdown | None
    last_call: list[spans.Span]
    lanes: frozenset[tuple[int | str, int]]  # process and thread of those that ran tasks


def _named(key: Hashable, function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Call a function; if it raises, raise :class:`RunnerFailed` with the runner's name. Who watches may stop here."""
    checkpoint()
    try:
        return function(*args, **options)
    except Exception as error:
        raise RunnerFailed(key, error) from error


def _interval(runners: Mapping[K, Runner], turns: Mapping[K | R, Sequence[_Turn]]) -> float:
    return widest_interval([np.array([turn.sample for turn in turns[name]]) for name in runners])


def _turn(runner: Runner, calls: int, lanes: frozenset[tuple[int | str, int]], clock: Callable[[], int]) -> _Turn:
    _take_turn(runner)
    stamps = [0] * (calls + 1)
    queued_before = queued_ns(lanes)
    with spans.collect() as log:
        start = clock()
        stamps[0] = spans.clock()
        for i in range(calls):  # a stamp costs a tenth of a microsecond, where a span would cost three
            _call(runner)
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
        reduce_turn(
            log.spans,
            (queued_after or 0) - (queued_before or 0) if known else None,
            (log.sent_bytes, log.received_bytes),
        ),
        [span for span in log.spans if span.start_ns >= stamps[-2]],  # the last call of a turn is the warmest
        found or lanes,
    )


def _timing(turns: Sequence[_Turn], calls: int) -> Timing:
    samples = np.array([turn.sample for turn in turns])
    # Not the turn whose mean is nearest: of its many calls, the one that is drawn may be far from that mean.
    usual = min(turns, key=lambda turn: abs(turn.latencies[-1] - float(np.median(samples))))
    return Timing(
        samples,
        calls,
        trace_of_spans(usual.last_call),
        tuple(turn.reduced for turn in turns),
        np.array([latency for turn in turns for latency in turn.latencies], float),
    )


def _take_turn(runner: Runner) -> None:
    if torch.get_num_threads() != runner.intra_op_threads:
        torch.set_num_threads(runner.intra_op_threads)
    if not runner.cold:
        _call(runner)


def _call(runner: Runner) -> None:
    """Make one call and wait for its end: on a GPU, a call returns when its kernels are launched."""
    synchronize(runner.inputs, runner())


def _calls_per_turn(runner: Runner, clock: Callable[[], int]) -> int:
    """Warm the runner up at its own thread count; returns how many calls make up a turn (1 for a cold runner)."""
    if runner.cold:
        return 1
    begin = clock()
    _take_turn(runner)
    taken: list[int] = []
    while len(taken) < WARM_CALLS and (not taken or clock() - begin < WARM_NS) and not _steady(taken):
        start = clock()
        _call(runner)
        taken.append(clock() - start)
    return max(1, min(1000, TURN_NS // max(1, taken[-1])))


def _steady(taken: Sequence[int]) -> bool:
    before, last = taken[:-IN_A_ROW], taken[-IN_A_ROW:]
    return bool(before) and min(last) >= (1 - STEADY) * min(before)
