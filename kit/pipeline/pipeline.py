"""A pipeline: stages with bounded queues between them, for concurrency other than fork and join.

Every item goes through all stages in order, and each stage works on another item at the same time. So the slowest
stage, or the number of cores, limits the throughput, and the latency of a single item does not get shorter.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import count
from typing import Any, Literal, NamedTuple

from kit.errors import KitError, TaskError
from kit.executors.base import uninterrupted
from kit.executors.thread_counts import own_intra_op_threads
from kit.executors.workers.reports import starting_is_possible
from kit.executors.workers.thread_state import ThreadState
from kit.pipeline.stages import Stage, start_stage
from kit.pipeline.statistics import Failure, RunStatistics, StageStatistics
from kit.reprs import one_line
from kit.spans import clock, span

SHUTDOWN_TIMEOUT_S = 1.5  # that stopping waits for the calls under way


class _Item(NamedTuple):
    position: int
    value: Any
    read_ns: int


class _Closed(Exception):
    """The belt is closed: it gives no more items."""


class _Belt:
    """A bounded queue that can be ended (waiting items still arrive) or stopped (waiting items are lost)."""

    def __init__(self, capacity: int) -> None:
        self.items: deque[_Item] = deque()
        self.capacity, self.ended, self.stopped = capacity, False, False
        self.changed = threading.Condition()

    def put(self, item: _Item, *, drop_oldest: bool = False) -> int:
        """Add an item: wait for space, or drop the oldest items; returns how many were dropped."""
        with self.changed:
            if drop_oldest and len(self.items) >= self.capacity:
                self.items.popleft()
                dropped = 1
            else:
                self.changed.wait_for(lambda: self.stopped or len(self.items) < self.capacity)
                dropped = 0
            if self.stopped:
                raise _Closed
            self.items.append(item)
            self.changed.notify_all()
            return dropped

    def get(self) -> _Item:
        with self.changed:
            self.changed.wait_for(lambda: self.items or self.ended or self.stopped)
            if self.stopped or not self.items:
                raise _Closed
            item = self.items.popleft()
            self.changed.notify_all()
            return item

    def end(self, *, stop: bool = False) -> None:
        with self.changed:
            self.ended, self.stopped = True, self.stopped or stop
            self.changed.notify_all()


@one_line
class Pipeline:
    """Stages, each on its own thread or process, with a bounded queue before each stage.

    A slow stage or a slow ``deliver`` makes earlier stages wait (back-pressure), so memory does not grow. A ``live``
    source cannot wait: the oldest waiting items are dropped.

    >>> from kit.pipeline import Pipeline, Stage
    >>> results = []
    >>> run = Pipeline([Stage("double", lambda x: 2 * x), Stage("add", lambda x: x + 1)]).run([1, 2, 3], results.append)
    >>> results, run
    ([3, 5, 7], RunStatistics(3 of 3 done, 0 dropped, 0 failed))

    Args:
        stages: at least one, with different names.
        source: name of the source in statistics and on timelines.
        capacity: items that may wait before each stage, >= 1.
        live: drop the oldest waiting items instead of making the source wait.
        on_error: "raise" ends the run if a stage raises; otherwise the item is left out and counted as failed.

    Raises:
        KitError: no stages, two stages with the same name, or a capacity below 1.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        source: str = "source",
        capacity: int = 2,
        live: bool = False,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        self.names = [source, *(stage.name for stage in stages)]
        if len(set(self.names)) < len(self.names) or len(self.names) < 2 or capacity < 1:
            raise KitError(
                "a pipeline needs at least one stage, different names for all stages, and a capacity of at least 1; "
                f"this one has {', '.join(self.names)} and capacity {capacity}."
            )
        self.stages, self.capacity, self.live, self.on_error = list(stages), capacity, live, on_error
        self._begin()

    def run(self, source: Iterable[Any], deliver: Callable[[Any], Any]) -> RunStatistics:
        """Send all items of the source through, and call ``deliver`` in this thread with each result, in order.

        Every stage has one intra-op thread. At the end of the run, also after an error, an interrupt or :meth:`stop`,
        the source is closed, and all threads and processes are ended; calls that are running get at most two seconds to
        finish.

        Raises:
            TaskError: a stage raised and ``on_error`` is "raise"; its own exception is the cause.
            WorkerError: the process of a stage died or took too long, or the system cannot start a process or a thread.
            Exception: exceptions of the source and of ``deliver``, unchanged.
        """
        self._begin()
        statistics, belts, state = self.statistics, self._belts, ThreadState.here()
        threads: list[threading.Thread] = []
        with ExitStack() as stack:
            works = [partial(self._read, source)]
            for i, stage in enumerate(self.stages):
                works.append(partial(self._work, i + 1, start_stage(stage, stack)))
            stack.callback(self._join, threads)  # before the processes are closed, which answer to them
            with uninterrupted():  # else a thread could start that nobody waits for
                for place, (name, work) in enumerate(zip(self.names, works, strict=True), start=1):
                    args = (self._guarded, state, work)
                    name = f"{place} {name}"  # so that lanes come in the order of the stages
                    thread = threading.Thread(None, contextvars.copy_context().run, name, args, daemon=True)
                    with starting_is_possible(f"thread {name!r}"):
                        thread.start()
                    threads.append(thread)
            try:
                while True:
                    self._deliver(belts[-1].get(), deliver)
            except _Closed:
                pass
        if self._error is not None:
            raise self._error
        return statistics

    def in_turn(self, source: Iterable[Any], deliver: Callable[[Any], Any]) -> RunStatistics:
        """The same without a pipeline: every item through all stages before the next one, in the calling thread.

        Raises: as :meth:`run`.
        """
        self._begin()
        with ExitStack() as stack:
            calls = [start_stage(stage, stack) for stage in self.stages]
            for item in stack.enter_context(closing(self._items(source))):
                if self._belts[0].stopped:
                    break
                passed: _Item | None = item
                for place, call in enumerate(calls, start=1):
                    passed = passed and self._process(place, call, passed)
                if passed:
                    self._deliver(passed, deliver)
        self.statistics.ended_ns = clock()
        return self.statistics

    def stop(self) -> None:
        """End the current run, from another thread or from ``deliver``; items that were not delivered are lost."""
        for belt in self._belts:
            belt.end(stop=True)

    def _begin(self) -> None:
        self.statistics = RunStatistics([StageStatistics(name) for name in self.names])
        self._belts = [_Belt(self.capacity) for _ in self.names]  # after the source, and after each stage
        self._error: BaseException | None = None

    def _join(self, threads: Sequence[threading.Thread]) -> None:
        self.stop()
        deadline = time.monotonic() + SHUTDOWN_TIMEOUT_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self.statistics.ended_ns = clock()

    def _guarded(self, state: ThreadState, work: Callable[[], None]) -> None:
        """Run the work of a thread: an error ends all other threads, and is raised in the caller."""
        own_intra_op_threads(1)
        try:
            state.run(work)
        except _Closed:
            pass
        except BaseException as error:
            if not self._belts[0].stopped:  # else it may be the end of a process that was busy when all was stopped
                self._error = error
            self.stop()

    def _read(self, source: Iterable[Any]) -> None:
        belt = self._belts[0]
        try:
            with closing(self._items(source)) as items:
                for item in items:
                    self.statistics.dropped += belt.put(item, drop_oldest=self.live)
        finally:
            belt.end()

    def _work(self, place: int, perform: Callable[[Any], Any]) -> None:
        before, after = self._belts[place - 1 : place + 1]
        try:
            while True:
                passed = self._process(place, perform, before.get())
                if passed:
                    after.put(passed)
        finally:
            after.end()

    def _items(self, source: Iterable[Any]) -> Generator[_Item, None, None]:
        """The source's items, timed; the source is closed at the end."""
        stage, items = self.statistics.stages[0], iter(source)
        try:
            for position in count():
                start = clock()
                with span(stage.name, "task"):
                    value = next(items, _END)
                if value is _END:
                    return
                stage.items += 1
                stage.busy_ns += clock() - start
                yield _Item(position, value, clock())
        finally:
            close = getattr(items, "close", None)
            if close:
                close()

    def _process(self, place: int, perform: Callable[[Any], Any], item: _Item) -> _Item | None:
        """The item after a stage; None if it failed and is left out."""
        stage, start = self.statistics.stages[place], clock()
        try:
            passed = item._replace(value=perform(item.value))
        except TaskError as error:
            stage.failed += 1
            if self.on_error == "raise":
                raise
            self.statistics.failures.append(Failure(item.position, error))
            return None
        finally:
            stage.busy_ns += clock() - start
        stage.items += 1
        return passed

    def _deliver(self, item: _Item, deliver: Callable[[Any], Any]) -> None:
        self.statistics.latencies_ns.append(clock() - item.read_ns)
        deliver(item.value)
        self.statistics.done += 1


_END = object()
