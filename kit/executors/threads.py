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
from kit.executors.modes import Modes, own_intra_op_threads
from kit.executors.reports import starting_is_possible
from kit.spans import clock

MOST_REMEMBERED = 4096  # tasks; a network's regions are far fewer, an endless stream of new tasks is not
MERGE = -1  # where the merge comes among the calls of a fork

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

        In the calling thread a large merge would wake all of that thread's OpenMP helpers. Those go on spinning for
        milliseconds after it (`GOMP_SPINCOUNT
        <https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html>`_), on cores that the next region's tasks want.
        """
        # A region inside a branch: all lanes may be taken by its parents, so waiting for one could wait forever.
        if getattr(_inside, "executor", None) is self:
            return merge([task() for task in tasks])
        if not self._threads:
            self._start()
        fork = _Fork(tasks, merge)
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
        """What is not known yet counts as longest, and sorting is stable."""
        return sorted(range(len(tasks)), key=lambda i: -self._took.get(tasks[i].key, sys.maxsize))


class _Fork:
    """The tasks of one call, which workers begin and end, and the lock that opens for the caller when all is over.

    A future for each, and a wait for them, would do the same. They cost ten times as much, and most of that while a
    worker that has just woken up waits for the GIL.
    """

    def __init__(self, tasks: Sequence[Task], merge: Callable[[list[Any]], Any]) -> None:
        self._tasks, self._merge, self._modes = tasks, merge, Modes.here()
        self._results: list[Any] = [None] * (len(tasks) + 1)
        self._errors: dict[int, BaseException] = {}
        self._left, self._running, self._cancelled = max(1, len(tasks)), 0, False
        self._lock = threading.Lock()
        self.took = [0] * len(self._results)  # ns
        self.over = threading.Lock()
        self.over.acquire()

    def run(self, index: int) -> None:
        """In a worker: one call, and after the last task the merge."""
        with self._lock:
            if self._cancelled:
                return
            self._running += 1
        self._call(index)
        with self._lock:
            self._left -= 1
            merge = index != MERGE and not self._left and not self._errors and not self._cancelled
        if merge:
            self._call(MERGE)
        with self._lock:
            self._running -= 1
            if not self._running and (self._cancelled or not self._left):
                self.over.release()

    def cancel(self) -> None:
        """Let no task begin any more, and wait for what runs."""
        with self._lock:
            self._cancelled = True
            running = self._running
        if running:
            self.over.acquire()

    def outcome(self) -> Any:
        """What the merge gave, or the first task's error."""
        if self._errors:
            raise self._errors.pop(min(self._errors))
        return self._results[MERGE]

    def _call(self, index: int) -> None:
        start = clock()
        try:
            call = partial(self._merge, self._results[:MERGE]) if index == MERGE else self._tasks[index]
            self._results[index] = self._modes.run(call)
        except BaseException as error:  # the caller's to see, whatever it is
            self._errors[index] = error
        self.took[index] = clock() - start
