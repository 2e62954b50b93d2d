"""Throughput: requests per second with many requests at a time. It is never in the same table as latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple

import torch

from kit import spans
from kit.approaches import FunctionRunner, ModelRunner, Runner
from kit.equality import shapes
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
    """Throughput of one runner."""

    per_second: float  # requests, median over the rounds
    ratio: Ratio  # to the first runner, of paired rounds; above 1 serves more


def _callers(runner: Runner, callers: int, pool: ThreadPoolExecutor) -> FunctionRunner:
    """A runner whose call sends ``REQUESTS`` requests from each of several concurrent callers to ``runner``.

    Args:
        pool: the callers' threads, each with as many intra-op threads as the runner.
    """

    def request(_: int) -> None:
        with torch.inference_mode():  # modes are per thread
            runner()

    def call() -> None:
        # One caller is this thread: OpenMP helpers of another one, beside this one's, would be too many for the cores.
        send = map if callers == 1 else pool.map
        list(send(request, range(REQUESTS * callers)))

    return FunctionRunner(call, intra_op_threads=runner.intra_op_threads, inputs=runner.inputs)


def throughput(
    runners: Mapping[str, Runner],
    *,
    concurrency: int,
    rounds: int = ROUNDS,
    seed: int = 0,
    clock: Callable[[], int] = spans.clock,
) -> dict[str, Throughput]:
    """Requests per second with ``concurrency`` callers at a time, in interleaved rounds.

    >>> from kit import approaches
    >>> layer, x = nn.Linear(8, 8).eval(), torch.rand(1, 8)
    >>> with approaches.parse("sequential(threads=1)").prepare(layer, x) as runner:
    ...     served = kit.throughput({"one thread each": runner}, concurrency=2, rounds=6)
    >>> served["one thread each"].per_second > 0
    True

    Args:
        runners: name -> runner. Every request uses the runner's inputs; every caller has its number of intra-op
            threads.
        concurrency: number of callers, at least 1; each sends its next request when its last one is answered.

    Raises:
        MeasureError: ``concurrency`` below 1, something that is not a runner, no runners, or fewer than 6 rounds.
        ShapeError: inputs that a model does not take.
    """
    if not isinstance(concurrency, int) or concurrency < 1:
        raise MeasureError(f"concurrency={concurrency!r} is not possible: give a whole number of callers, at least 1.")
    given = runners if isinstance(runners, Mapping) else {"runners": runners}
    for name, runner in given.items():
        if not isinstance(runner, Runner) or given is not runners:
            raise MeasureError(
                f"{name} is {shapes((runner,))}: give a dict from names to runners, as prepared by "
                "kit.approaches.parse('sequential').prepare(model, inputs)."
            )
        if isinstance(runner, ModelRunner):
            fits = called_with(runner.model, runner.inputs)
            with fits, intra_op_threads(runner.intra_op_threads), torch.inference_mode():
                runner()
    with ExitStack() as stack:
        # Runners of equal threads share their callers: which cores a thread came to lie on is no property of a runner.
        pools = {
            threads: stack.enter_context(ThreadPoolExecutor(concurrency, "request", own_intra_op_threads, (threads,)))
            for threads in {runner.intra_op_threads for runner in runners.values()}
        }
        callers = {
            name: _callers(runner, concurrency, pools[runner.intra_op_threads]) for name, runner in runners.items()
        }
        timings = measure(callers, rounds=rounds, seed=seed, clock=clock)
    first = next(iter(timings.values()))
    requests = REQUESTS * concurrency
    return {
        name: Throughput(1000 * requests / timing.median_ms, speed_up(first, timing))
        for name, timing in timings.items()
    }
