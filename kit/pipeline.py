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
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, Literal, NamedTuple

import numpy as np

from kit.errors import KitError, TaskError, WorkerError
from kit.executors import Task
from kit.executors.base import uninterrupted
from kit.executors.processes import Processes
from kit.executors.thread_counts import own_intra_op_threads
from kit.executors.workers.reports import starting_is_possible
from kit.executors.workers.thread_state import ThreadState
from kit.reprs import one_line
from kit.spans import clock, span

KEPT = 10_000  # latencies and failures that are remembered: an endless camera must not fill the memory
PATIENCE_S = 1.5  # that stopping waits for the calls under way


@one_line
class Stage(NamedTuple):
    """One step of the work."""

    name: str
    call: Callable[[Any], Any]  # called for one item at a time, in order, so it may keep a state
    process: bool = False  # in a process of its own: for pure Python, which holds the GIL and would stop all others
    timeout: float | None = None  # seconds that a call may take in its process; None: see :class:`_InProcess`


@one_line
class Failure(NamedTuple):
    """An item that a stage could not do."""

    item: int  # its position in the source
    error: Exception


@one_line
@dataclass(eq=False)
class Count:
    """What one stage did so far. Only its own thread writes here."""

    name: str
    items: int = 0
    failed: int = 0
    busy_ns: int = 0

    @property
    def ms(self) -> float:
        """Milliseconds an item, on average."""
        return self.busy_ns / max(1, self.items + self.failed) / 1e6


@dataclass(eq=False)
class Figures:
    """What a run did so far; at its end ``read == done + dropped + failed``."""

    stages: list[Count]  # the source first
    done: int = 0
    dropped: int = 0  # of a live source: too old before the first stage was free
    failures: deque[Failure] = field(default_factory=lambda: deque(maxlen=KEPT))  # the latest of them
    latencies_ns: deque[int] = field(default_factory=lambda: deque(maxlen=KEPT))  # from read to delivered
    began_ns: int = field(default_factory=clock)
    ended_ns: int | None = None  # None while it runs

    @property
    def read(self) -> int:
        """Items that the source gave."""
        return self.stages[0].items

    @property
    def failed(self) -> int:
        """Items that a stage could not do."""
        return sum(stage.failed for stage in self.stages)

    @property
    def per_second(self) -> float:
        """Items delivered a second."""
        return self.done / max(1, (self.ended_ns or clock()) - self.began_ns) * 1e9

    @property
    def bottleneck(self) -> Count:
        """The stage that was busy longest: only work taken from it makes the pipeline faster, if there are cores."""
        return max(self.stages, key=lambda stage: stage.busy_ns)

    def latency_ms(self, percent: float) -> float:
        """The time below which ``percent`` of the items went from read to delivered; NaN before the first."""
        return float(np.percentile(list(self.latencies_ns), percent)) / 1e6 if self.latencies_ns else float("nan")

    def bound(self, cores: int) -> float:
        """The most items a second that these stages allow on so many cores, one core a stage.

        It means what it says where the stages were timed alone, as :meth:`Pipeline.in_turn` does at one thread.
        """
        times = [stage.ms / 1000 for stage in self.stages]
        return min(1 / max(times), cores / sum(times))

    def __repr__(self) -> str:
        return f"Figures({self.done} of {self.read} done, {self.dropped} dropped, {self.failed} failed)"


class _Item(NamedTuple):
    position: int
    value: Any
    read_ns: int


class _Ended(Exception):
    """Nothing more comes through this belt."""


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
                raise _Ended
            self.items.append(item)
            self.changed.notify_all()
            return dropped

    def get(self) -> _Item:
        with self.changed:
            self.changed.wait_for(lambda: self.items or self.ended or self.stopped)
            if self.stopped or not self.items:
                raise _Ended
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

    >>> figures = Pipeline([Stage("flow", Flow()), Stage("network", network)]).run(frames, results.append)

    A slow stage or a slow ``deliver`` holds up those before it (back-pressure), so memory does not grow. A ``live``
    source cannot be held up: of what it gives, the oldest waiting items are dropped.

    Args:
        stages: at least one, with different names.
        source: what the source is called in figures and on timelines.
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

    def run(self, source: Iterable[Any], deliver: Callable[[Any], Any]) -> Figures:
        """Send all items of the source through, and call ``deliver`` in this thread with each result, in order.

        Every stage has one intra-op thread. Whatever ends the run (an error, an interrupt, :meth:`stop`), the source
        is closed, and no thread or process stays: calls under way are waited for, for two seconds at most.

        Raises:
            TaskError: a stage raised and ``on_error`` is "raise"; its own exception is the cause.
            WorkerError: the process of a stage died or took too long, or the system refuses a process or a thread.
            Exception: whatever the source or ``deliver`` raised.
        """
        self._begin()
        figures, belts, state = self.figures, self._belts, ThreadState.here()
        threads: list[threading.Thread] = []
        with ExitStack() as stack:
            works = [partial(self._read, source)]
            for i, stage in enumerate(self.stages):
                works.append(partial(self._work, i + 1, _performer(stage, stack)))
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
            except _Ended:
                pass
        if self._error is not None:
            raise self._error
        return figures

    def in_turn(self, source: Iterable[Any], deliver: Callable[[Any], Any]) -> Figures:
        """The same without a pipeline: every item through all stages before the next one, in the calling thread.

        Raises: as :meth:`run`.
        """
        self._begin()
        with ExitStack() as stack:
            performers = [_performer(stage, stack) for stage in self.stages]
            for item in stack.enter_context(closing(self._items(source))):
                if self._belts[0].stopped:
                    break
                passed: _Item | None = item
                for place, perform in enumerate(performers, start=1):
                    passed = passed and self._passed(place, perform, passed)
                if passed:
                    self._deliver(passed, deliver)
        self.figures.ended_ns = clock()
        return self.figures

    def stop(self) -> None:
        """End the run under way, from another thread or from ``deliver``; what has not been delivered is lost."""
        for belt in self._belts:
            belt.end(stop=True)

    def _begin(self) -> None:
        self.figures = Figures([Count(name) for name in self.names])
        self._belts = [_Belt(self.capacity) for _ in self.names]  # after the source, and after each stage
        self._error: BaseException | None = None

    def _join(self, threads: Sequence[threading.Thread]) -> None:
        self.stop()
        deadline = time.monotonic() + PATIENCE_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self.figures.ended_ns = clock()

    def _guarded(self, state: ThreadState, work: Callable[[], None]) -> None:
        """The life of a thread: an error ends all others, and is the caller's."""
        own_intra_op_threads(1)
        try:
            state.run(work)
        except _Ended:
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
                    self.figures.dropped += belt.put(item, drop_oldest=self.live)
        finally:
            belt.end()

    def _work(self, place: int, perform: Callable[[Any], Any]) -> None:
        before, after = self._belts[place - 1 : place + 1]
        try:
            while True:
                passed = self._passed(place, perform, before.get())
                if passed:
                    after.put(passed)
        finally:
            after.end()

    def _items(self, source: Iterable[Any]) -> Generator[_Item, None, None]:
        """The source's items, timed; the source is closed at the end."""
        stage, items = self.figures.stages[0], iter(source)
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

    def _passed(self, place: int, perform: Callable[[Any], Any], item: _Item) -> _Item | None:
        """The item after a stage, or None where it failed and is left out."""
        stage, start = self.figures.stages[place], clock()
        try:
            passed = item._replace(value=perform(item.value))
        except TaskError as error:
            stage.failed += 1
            if self.on_error == "raise":
                raise
            self.figures.failures.append(Failure(item.position, error))
            return None
        finally:
            stage.busy_ns += clock() - start
        stage.items += 1
        return passed

    def _deliver(self, item: _Item, deliver: Callable[[Any], Any]) -> None:
        self.figures.latencies_ns.append(clock() - item.read_ns)
        deliver(item.value)
        self.figures.done += 1


_END = object()


def _performer(stage: Stage, stack: ExitStack) -> Callable[[Any], Any]:
    """What calls a stage where it shall run, with a span around each call."""
    if stage.process:
        return _InProcess(stage, stack.enter_context(Processes(1)))
    return lambda value: Task(stage.name, stage.call, (value,))()


class _InProcess:
    """Calls a stage in its process. A call that takes much longer than all before it is given up.

    Without a ``timeout`` of the stage, the first call has a minute, in which the process starts too. Every later call
    has five times as long as the slowest one so far, and at least ten seconds.
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
