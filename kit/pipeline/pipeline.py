"""A pipeline: stages with bounded queues between them, the one shape that is not fork and join.

Every item goes through all stages in order, and each stage works on another item at the same time. So the throughput
is that of the slowest stage, or of the cores where they are too few, and no single item is done any sooner.
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
    """The belt is closed: nothing more comes through it."""


class _Belt:
    """A bounded queue that can be ended (what is on it still arrives) or stopped (nothing does)."""

    def __init__(self, capacity: int) -> None:
        self.items: deque[_Item] = deque()
        self.capacity, self.ended, self.stopped = capacity, False, False
        self.changed = threading.Condition()

    def put(self, item: _Item, *, drop_oldest: bool = False) -> int:
        """Wait for room, or make it; returns how many items were dropped for it."""
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
    """Stages, each on a thread or process of its own, with a bounded queue before each.

    >>> statistics = Pipeline([Stage("flow", Flow()), Stage("network", network)]).run(frames, results.append)

    A slow stage or a slow ``deliver`` holds up those before it (back-pressure), so memory does not grow. A ``live``
    source cannot be held up: of what it gives, the oldest waiting items are dropped.

    Args:
        stages: at least one, with different names.
        source: what the source is called in statistics and on timelines.
        capacity: items that may wait before each stage, >= 1.
        live: drop what is too old instead of holding up the source.
        on_error: whether an item that a stage raises on ends the run, or is left out and counted.

    Raises:
        KitError: no stages, two of one name, or a capacity below 1.
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
                "a pipeline has at least one stage, each with a name of its own, and a capacity of at least 1; "
                f"this has {', '.join(self.names)} and capacity {capacity}."
            )
        self.stages, self.capacity, self.live, self.on_error = list(stages), capacity, live, on_error
        self._begin()

    def run(self, source: Iterable[Any], deliver: Callable[[Any], Any]) -> RunStatistics:
        """Send all items of the source through, and call ``deliver`` in this thread with each result, in order.

        Every stage has one intra-op thread. Whatever ends the run (an error, an interrupt, :meth:`stop`), the source
        is closed, and no thread or process stays: calls under way are waited for, for two seconds at most.

        Raises:
            TaskError: a stage raised and ``on_error`` is "raise"; its own exception is the cause.
            WorkerError: the process of a stage died or took too long, or the system refuses a process or a thread.
            Exception: whatever the source or ``deliver`` raised.
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
        """End the run under way, from another thread or from ``deliver``; what has not been delivered is lost."""
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
        """The life of a thread: an error ends all others, and is the caller's."""
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
        """The item after a stage, or None where it failed and is left out."""
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
