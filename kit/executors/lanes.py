"""Threads whose tasks may wait for each other, as the lanes of a schedule do."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kit.executors.base import Task, uninterrupted
from kit.executors.threads import Threads
from kit.executors.workers.fork import MERGE, Fork


@dataclass(eq=False)
class Lanes(Threads):
    """A pool of threads that begins either all tasks of a call or none, each on a thread of its own.

    So a task may wait for what another one gives: :class:`Threads` could leave it waiting, where an interrupt keeps the
    other from beginning, or where a second caller's tasks have the threads. Calls come one after the other.
    """

    name: str = field(default="lane", repr=False)
    _turn: Any = field(init=False, repr=False, default_factory=threading.Lock)

    def fork_join(self, tasks: Sequence[Task], merge: Callable[[list[Any]], Any]) -> Any:
        """As :meth:`Executor.fork_join`, for at most as many tasks as there are workers.

        After an interrupt it waits until all tasks have ended.
        """
        assert len(tasks) <= self.workers
        with self._turn:
            if not self._threads:
                self._start()
            fork = Fork(tasks, merge)
            with uninterrupted():  # else one task could be left without the others, or go on after its call
                for i in range(len(tasks)) or [MERGE]:
                    self._waiting.put(partial(contextvars.copy_context().run, fork.run, i))
                fork.over.acquire()
        return fork.outcome()
