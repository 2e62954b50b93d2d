"""Throughput: many requests at a time. Another question than latency, and never in the same table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch

from kit import spans
from kit.approaches import Runner
from kit.equality import as_args, shapes
from kit.errors import MeasureError
from kit.executors.thread_counts import intra_op_threads, own_intra_op_threads
from kit.inputs import called_with
from kit.measuring.comparison import Ratio
from kit.measuring.rounds import ROUNDS, measure
from kit.measuring.statistics import speed_up
from kit.reprs import one_line

REQUESTS = 4  # of each caller in a measured call, so that the last one's end does not decide


@one_line
class Throughput(NamedTuple):
    """What one runner served."""

    per_second: float  # requests, median over the rounds
    ratio: Ratio  # to the first runner, of paired rounds; above 1 serves more


class _Callers:
    """Callers of one runner at the same time, as a runner itself: one call of it is ``REQUESTS`` of each caller."""

    cold = False

    def __init__(self, runner: Runner, callers: int) -> None:
        self.runner, self.callers, self.intra_op_threads = runner, callers, runner.intra_op_threads
        self.pool = ThreadPoolExecutor(callers, "request", own_intra_op_threads, (runner.intra_op_threads,))

    def __call__(self, *args: Any) -> None:
        def request(_: int) -> None:
            with torch.inference_mode():  # modes are per thread
                self.runner(*args)

        # One caller is this thread: OpenMP helpers of another one, beside this one's, would be too many for the cores.
        send = map if self.callers == 1 else self.pool.map
        list(send(request, range(REQUESTS * self.callers)))


def throughput(
    runners: Mapping[str, Runner],
    inputs: Any,
    *,
    concurrency: int,
    rounds: int = ROUNDS,
    seed: int = 0,
    clock: Callable[[], int] = spans.clock,
) -> dict[str, Throughput]:
    """Requests per second with ``concurrency`` callers at a time, in interleaved rounds as :func:`kit.measuring.rounds.measure`.

    Args:
        runners: name -> runner, prepared; their intra-op threads are those of each caller.
        inputs: of every request, as given to prepare.
        concurrency: callers, each of which sends its next request when its last one is answered.

    Raises:
        MeasureError: no callers, something that is no runner; or as :func:`kit.measuring.rounds.measure`.
        ShapeError: inputs that a model does not take.
    """
    if not isinstance(concurrency, int) or concurrency < 1:
        raise MeasureError(f"{concurrency} callers send no requests: concurrency is a whole number of at least 1.")
    given = runners if isinstance(runners, Mapping) else {"runners": runners}
    for name, runner in given.items():
        if not hasattr(runner, "intra_op_threads") or given is not runners:
            raise MeasureError(
                f"{name} is {shapes((runner,))}: give a dict from names to runners, as prepared by "
                "kit.approaches.parse('sequential').prepare(model, inputs)."
            )
        if isinstance(runner, Runner):
            args = as_args(inputs)
            with called_with(runner.model, args), intra_op_threads(runner.intra_op_threads), torch.inference_mode():
                runner(*args)
    with ExitStack() as stack:
        callers = {name: _Callers(runner, concurrency) for name, runner in runners.items()}
        for each in callers.values():
            stack.enter_context(each.pool)
        timings = measure(callers, as_args(inputs), rounds=rounds, seed=seed, clock=clock)
    first = next(iter(timings.values()))
    requests = REQUESTS * concurrency
    return {
        name: Throughput(1000 * requests / timing.median_ms, speed_up(first, timing))
        for name, timing in timings.items()
    }
