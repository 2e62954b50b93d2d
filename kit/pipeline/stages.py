"""The stages of a pipeline, and the thread or process in which each runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

from kit.errors import WorkerError
from kit.executors import Task
from kit.executors.processes import Processes
from kit.reprs import one_line


@one_line
class Stage(NamedTuple):
    """One step of a pipeline.

    >>> from kit.pipeline import Pipeline, Stage
    >>> results = []
    >>> run = Pipeline([Stage("upper", str.upper)]).run(["a", "b"], results.append)
    >>> results
    ['A', 'B']
    """

    name: str
    call: Callable[[Any], Any]  # called for one item at a time, in order, so it may keep a state
    process: bool = False  # in a process of its own: for pure Python, which holds the GIL and would stop all others
    timeout: float | None = None  # seconds that a call may take in its process; None: see :class:`_InProcess`


def start_stage(stage: Stage, stack: ExitStack) -> Callable[[Any], Any]:
    """A function that calls a stage in its thread or process, with a span around each call."""
    if stage.process:
        return _InProcess(stage, stack.enter_context(Processes(1)))
    return lambda value: Task(stage.name, stage.call, (value,))()


class _InProcess:
    """Calls a stage in its process. A call that takes much longer than all earlier calls is cancelled.

    If the stage has no ``timeout``, the first call may take 60 s, including the start of the process. Every later call
    may take five times as long as the slowest call so far, but at least 10 s.
    """

    FIRST_S, LEAST_S, TIMES = 60.0, 10.0, 5

    def __init__(self, stage: Stage, pool: Processes) -> None:
        self._stage, self._pool = stage, pool
        self._slowest_s: float | None = None  # None: the process is not there yet

    def __call__(self, value: Any) -> Any:
        usual = self.FIRST_S if self._slowest_s is None else max(self.LEAST_S, self.TIMES * self._slowest_s)
        self._pool.timeout = self._stage.timeout or usual
        start = time.monotonic()
        try:
            result = self._pool.run([Task(self._stage.name, self._stage.call, (value,))])[0]
        except WorkerError:
            self._slowest_s = None
            raise
        self._slowest_s = max(self._slowest_s or 0.0, time.monotonic() - start)
        return result
