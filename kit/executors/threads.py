"""A persistent pool of threads, each with its own share of the cores."""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import torch

from kit.executors.base import Executor, Task, uninterrupted
from kit.executors.modes import Modes
from kit.spans import clock

MOST_REMEMBERED = 4096  # tasks; a network's regions are far fewer, an endless stream of new tasks is not

_inside = threading.local()


@dataclass(eq=False)
class Threads(Executor):
    """Run tasks on a pool of threads that outlives the call.

    PyTorch's operators release the GIL, so threads do run in parallel. Helps when single operators are too small to
    fill the cores. Does not help when they already do: the threads then share the same cores, and each gets only
    ``cores / workers`` intra-op threads (`CPU threading notes
    <https://docs.pytorch.org/docs/stable/notes/cpu_threading_torchscript_inference.html>`_).

    The task that took longest in the last call begins first, so that the short ones fill the gaps (Graham, *Bounds on
    Multiprocessing Timing Anomalies*, 1969: at most 4/3 of the shortest possible time). A first call goes in order.
    """

    workers: int  # threads in the pool, >= 1
    intra_op_threads: int = 1  # OpenMP threads of each worker, >= 1: every Python thread owns an OpenMP pool
    _pool: ThreadPoolExecutor = field(init=False, repr=False)
    _took: dict[tuple[str, int], int] = field(init=False, repr=False, default_factory=dict)  # ns, of the last call

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.workers, "worker", initializer=self._start_worker)

    def run(self, tasks: Sequence[Task]) -> list[Any]:
        # A region inside a branch: all lanes may be taken by its parents, so waiting for one could wait forever.
        if getattr(_inside, "pool", None) is self._pool:
            return [task() for task in tasks]
        modes = Modes.here()
        futures: dict[int, Future[Any]] = {}
        if len(self._took) > MOST_REMEMBERED:
            self._took.clear()
        # What is not known yet counts as longest, and sorting is stable.
        order = sorted(range(len(tasks)), key=lambda i: -self._took.get(_key(tasks[i]), sys.maxsize))
        try:
            with uninterrupted():  # else a thread could start, or a task begin, that nobody waits for
                for i in order:
                    futures[i] = self._pool.submit(contextvars.copy_context().run, self._timed, modes, tasks[i])
            wait(futures.values())
        except BaseException:  # KeyboardInterrupt: what has not begun never will, and what runs is waited for
            for future in futures.values():
                future.cancel()
            wait(futures.values())
            raise
        return [futures[i].result() for i in range(len(tasks))]

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _timed(self, modes: Modes, task: Task) -> Any:
        start = clock()
        result = modes.run(task)
        self._took[_key(task)] = clock() - start
        return result

    def _start_worker(self) -> None:
        _inside.pool = self._pool
        torch.set_num_threads(self.intra_op_threads)


def _key(task: Task) -> tuple[str, int]:
    return task.name, id(task.call)  # branches of several regions may share a name
