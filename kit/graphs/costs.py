"""What operators cost on this machine: on one core beside others, on all cores, and from one lane to another."""

from __future__ import annotations

import copy
import statistics
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

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


def costs(
    found: Found, leaves: Sequence[Tensor], threads: int, beside: int = 1, advance: Callable[[int], None] | None = None
) -> list[float]:
    """Milliseconds of each operator with the Python before it: the mean of some runs; of equal operators, of all.

    Args:
        threads: the intra-op threads of an operator.
        beside: how many copies of the whole graph run at the same time, on a thread each. Cores that share caches and
            memory run operators side by side slower than alone.
        advance: is called after each run.
    """
    took: dict[str, list[int]] = defaultdict(list)
    copies = [OnLanes(found, [[range(len(found.nodes))]], Lanes(1)) for _ in range(beside)]
    # In the calling thread where it is one: a second OpenMP pool of all cores would make both pools' barriers sleep.
    executor: Executor = Lanes(beside, threads) if beside > 1 else Sequential(threads)
    with executor, intra_op_threads(threads):
        for run in range(1 + RUNS):
            tasks = [Task(str(i), _run, (each, *copy.deepcopy(leaves))) for i, each in enumerate(copies)]
            with spans.collect(operators=True) as log:
                executor.run(tasks)
            for name, ns in _since_the_one_before(log.spans) if run else ():
                took[name].append(ns)
            if advance is not None:
                advance(run + 1)
    alike: dict[Any, list[int]] = defaultdict(list)
    for node in found.nodes:
        alike[_kind(found, node)] += took[node.name]
    typical = {kind: _typical(ns) / 1e6 for kind, ns in alike.items()}
    return [typical[_kind(found, node)] for node in found.nodes]


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
