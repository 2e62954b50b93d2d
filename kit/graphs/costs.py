"""What operators cost on this machine: on one core beside others, on all cores, and from one lane to another."""

from __future__ import annotations

import copy
import statistics
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Self

import torch
from torch import Tensor, fx

from kit import spans
from kit.executors import Executor, Sequential, Task
from kit.executors.lanes import Lanes
from kit.executors.thread_counts import intra_op_threads, let_helpers_go
from kit.graphs.found import Found
from kit.graphs.lanes import OnLanes
from kit.machine.hardware import detect

RUNS = 4  # that are timed, of each operator, after one that is not
HANDED, TIMES = 2**15, 400  # numbers that one lane hands to another, and how often that is done to time it
PHASES = 50  # phases that are timed
INTERRUPTED = 3.0  # times the median: an operator that takes longer has lost its core to another program


class OperatorTimes:
    """How long each operator takes, from runs of a whole graph; as a context manager, it ends its threads.

    Args:
        threads: the intra-op threads of an operator.
        beside: how many copies of the graph run at the same time, on a thread each. Cores that share caches and memory
            run operators side by side slower than alone.
    """

    def __init__(self, found: Found, threads: int, beside: int = 1) -> None:
        self.found, self.threads = found, threads
        self._took: dict[str, list[int]] = defaultdict(list)
        self._copies = [OnLanes(found, [[range(len(found.nodes))]], Lanes(1)) for _ in range(beside)]
        # One in the calling thread: a second OpenMP pool of all cores would make the barriers of both pools sleep.
        self._executor: Executor = Lanes(beside, threads) if beside > 1 else Sequential(threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._executor.close()

    def run(self, leaves: Sequence[Tensor], *, counts: bool = True) -> None:
        """Run the graph once on copies of these inputs.

        Args:
            counts: False for a first run, which is slower.
        """
        tasks = [Task(str(i), _run, (each, *copy.deepcopy(leaves))) for i, each in enumerate(self._copies)]
        with intra_op_threads(self.threads), spans.collect(operators=True) as log:
            self._executor.run(tasks)
        for name, ns in _since_the_one_before(log.spans) if counts else ():
            self._took[name].append(ns)

    def ms(self) -> list[float]:
        """Milliseconds of each operator with the Python before it: the mean of its runs; of equal operators, of all."""
        alike: dict[str, list[int]] = defaultdict(list)
        for node in self.found.nodes:
            alike[_kind(self.found, node)] += self._took[node.name]
        typical = {kind: _typical(ns) / 1e6 for kind, ns in alike.items()}
        return [typical[_kind(self.found, node)] for node in self.found.nodes]


def costs(
    found: Found, leaves: Sequence[Tensor], threads: int, beside: int = 1, advance: Callable[[int], None] | None = None
) -> list[float]:
    """Milliseconds of each operator from a few runs; the arguments are those of :class:`OperatorTimes`.

    Args:
        advance: is called after each run.
    """
    with OperatorTimes(found, threads, beside) as times:
        for run in range(1 + RUNS):
            times.run(leaves, counts=run > 0)
            if advance is not None:
                advance(run + 1)
        return times.ms()


def _since_the_one_before(log: Sequence[spans.Span]) -> Iterator[tuple[str, int]]:
    """Operators, with the time since the one before it on the same thread ended."""
    ended: dict[int, int] = {}
    for each in sorted((each for each in log if each.category == "part"), key=lambda each: each.start_ns):
        yield each.name, each.end_ns - ended.get(each.thread, each.start_ns)
        ended[each.thread] = each.end_ns


def _typical(ns: Sequence[int]) -> float:
    """The mean, which adds up over operators as medians do not, of those that were not interrupted."""
    most = INTERRUPTED * statistics.median(ns)
    return statistics.fmean(each for each in ns if each <= most)


def _run(graph: OnLanes, *leaves: Tensor) -> None:
    with torch.inference_mode():  # a mode belongs to a thread
        graph(*leaves)


def _kind(found: Found, node: fx.Node) -> str:
    """What operators that take equally long have in common."""
    target = found.captured.module.get_submodule(str(node.target)) if node.op == "call_module" else node.target
    shapes = [found.effects[each].shape for each in (*node.all_input_nodes, node)]
    others = fx.node.map_arg((node.args, node.kwargs), lambda each: None)
    return f"{node.op} {target} {shapes} {others}"


@cache
def between_phases_ms() -> float:
    """What it costs on this machine to run a phase on lanes between two operators on all cores, in milliseconds.

    The helpers of OpenMP end, the lanes begin and end, and the next operator on all cores starts new helpers.
    """
    cores = detect().cores
    x = torch.zeros(HANDED * 8)
    tasks = [Task(str(i), _nothing) for i in range(max(2, cores))]

    def took(phase: Callable[[], object]) -> float:
        found = []
        for _ in range(PHASES):
            torch.add(x, 1, out=x)
            start = spans.clock()
            phase()
            torch.add(x, 1, out=x)
            found.append(spans.clock() - start)
        return statistics.median(found) / 1e6

    with Lanes(len(tasks)) as lanes, intra_op_threads(cores):

        def phase() -> None:
            let_helpers_go()
            lanes.run(tasks)

        return max(0.0, took(phase) - took(_nothing))


def _nothing() -> None:
    return None


@cache
def between_lanes_ms() -> float:
    """What it costs on this machine when an operator takes a result of another lane, in milliseconds.

    That is to read 128 KiB that another core has written, which is in that core's cache. How long a lane waits until
    the result is there is no part of it.
    """
    mine, theirs = torch.zeros(HANDED), torch.zeros(HANDED)
    back, there = threading.Lock(), threading.Lock()
    back.acquire()
    there.acquire()

    def add(x: Tensor, out: Tensor) -> int:
        start = spans.clock()
        torch.add(x, 1, out=out)
        return spans.clock() - start

    def ping() -> float:
        took = []
        for _ in range(TIMES):
            took.append(add(theirs, mine))
            there.release()
            back.acquire()
        return statistics.median(took)

    def pong() -> None:
        for _ in range(TIMES):
            there.acquire()
            add(mine, theirs)
            back.release()

    def alone() -> float:
        return statistics.median([add(theirs, mine) for _ in range(TIMES)])

    with Lanes(2) as lanes:
        took, _ = lanes.run([Task("ping", ping), Task("pong", pong)])
        (less,) = lanes.run([Task("alone", alone)])
    return float(max(0.0, took - less)) / 1e6
