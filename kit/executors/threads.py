"""A persistent pool of threads, each with its own share of the cores."""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Any

from kit.executors.base import Executor, Task, uninterrupted
from kit.executors.thread_counts import own_intra_op_threads
from kit.executors.workers.fork import MERGE, Fork
from kit.executors.workers.reports import starting_is_possible

MOST_REMEMBERED = 4096  # tasks; a network's regions are far fewer, an endless stream of new tasks is not

_inside = threading.local()


@dataclass(eq=False)
class Threads(Executor):
    """Run tasks on a pool of threads that stays alive between calls.

    PyTorch's operators release the GIL, so threads do run in parallel. Helps when single operators are too small to
    fill the cores. Does not help when they already do: the threads then share the same cores, and each gets only
    ``cores / workers`` intra-op threads (`CPU threading notes
    <https://docs.pytorch.org/docs/stable/notes/cpu_threading_torchscript_inference.html>`_).

    The task that took longest in the last call begins first, so that short tasks fill the gaps (Graham, *Bounds on
    Multiprocessing Timing Anomalies*, 1969: at most 4/3 of the shortest possible time). In the first call, tasks begin
    in order.
    """

    workers: int  # threads in the pool, >= 1
    intra_op_threads: int = 1  # OpenMP threads of each worker, >= 1: every Python thread owns an OpenMP pool
    name: str = field(default="worker", repr=False)  # of its threads, with their number, on timelines
    _threads: list[threading.Thread] = field(init=False, repr=False, default_factory=list)
    _waiting: SimpleQueue[Callable[[], None] | None] = field(init=False, repr=False, default_factory=SimpleQueue)
    _took: dict[tuple[str, int], int] = field(init=False, repr=False, default_factory=dict)  # ns, of the last call

    @property
    def lane_threads(self) -> int:
        return self.intra_op_threads

    def run(self, tasks: Sequence[Task]) -> list[Any]:
        return list(self.fork_join(tasks, list))

    def fork_join(self, tasks: Sequence[Task], merge: Callable[[list[Any]], Any]) -> Any:
        """As :meth:`Executor.fork_join`; the worker that ends last merges, with its share of the cores.

        In the calling thread a large merge would wake all of that thread's OpenMP helpers. These threads continue to
        spin for milliseconds after it (`GOMP_SPINCOUNT
        <https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html>`_), on cores that the next region's tasks need.
        """
        # A region inside a branch: all lanes may be taken by its parents, so waiting for one could wait forever.
        if getattr(_inside, "executor", None) is self:
            return merge([task() for task in tasks])
        if not self._threads:
            self._start()
        fork = Fork(tasks, merge)
        try:
            for i in self._longest_first(tasks) or [MERGE]:
                self._waiting.put(partial(contextvars.copy_context().run, fork.run, i))
            fork.over.acquire()
        except BaseException:  # KeyboardInterrupt: what has not begun never will, and what runs is waited for
            fork.cancel()
            raise
        if len(self._took) > MOST_REMEMBERED:
            self._took.clear()
        self._took.update(zip([task.key for task in tasks], fork.took, strict=False))
        return fork.outcome()

    def close(self) -> None:
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _start(self) -> None:
        with uninterrupted(), starting_is_possible("a thread"):  # else one could start that nobody ends
            try:
                for number in range(self.workers):
                    thread = threading.Thread(target=self._work, name=f"{self.name}_{number}", daemon=True)
                    thread.start()
                    self._threads.append(thread)
            except BaseException:
                self.close()
                raise

    def _work(self) -> None:
        _inside.executor = self
        own_intra_op_threads(self.intra_op_threads)
        while (task := self._waiting.get()) is not None:
            task()
            del task  # else what it was given would live until the next one comes

    def _longest_first(self, tasks: Sequence[Task]) -> list[int]:
        """Task indices, the longest task first. A task of unknown time counts as longest; ties keep their order."""
        return sorted(range(len(tasks)), key=lambda i: -self._took.get(tasks[i].key, sys.maxsize))
