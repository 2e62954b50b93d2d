"""One call of a pool of threads: its tasks, its merge, and the caller who waits for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from kit.executors.base import Task
from kit.executors.workers.thread_state import ThreadState
from kit.spans import clock

MERGE = -1  # the index of the merge; tasks have theirs from 0


class Fork:
    """The tasks of one call, which worker threads run, and a lock that opens for the caller when all have ended.

    A future for each task would do the same. Futures cost ten times as much, and most of that while a worker that has
    just woken up waits for the GIL.
    """

    def __init__(self, tasks: Sequence[Task], merge: Callable[[list[Any]], Any]) -> None:
        self._tasks, self._merge, self._state = tasks, merge, ThreadState.here()
        self._results: list[Any] = [None] * (len(tasks) + 1)
        self._errors: dict[int, BaseException] = {}
        self._left, self._running, self._cancelled = max(1, len(tasks)), 0, False
        self._lock = threading.Lock()
        self.took = [0] * len(self._results)  # ns
        self.over = threading.Lock()
        self.over.acquire()

    def run(self, index: int) -> None:
        """Run the task with this index in a worker thread; after the last task, run the merge too."""
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
        """Let no further task begin, and wait for the tasks that run."""
        with self._lock:
            self._cancelled = True
            running = self._running
        if running:
            self.over.acquire()

    def outcome(self) -> Any:
        """The result of the merge; the error of the first task that raised is raised here."""
        if self._errors:
            raise self._errors.pop(min(self._errors))
        return self._results[MERGE]

    def _call(self, index: int) -> None:
        start = clock()
        try:
            call = partial(self._merge, self._results[:MERGE]) if index == MERGE else self._tasks[index]
            self._results[index] = self._state.run(call)
        except BaseException as error:  # outcome raises it in the calling thread
            self._errors[index] = error
        self.took[index] = clock() - start
