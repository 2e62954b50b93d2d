"""The clock, and the spans that executors write.

A span is the kit's own record of one thing that took time: a call, a region, a task, a merge. Spans are written all the
time, measured rounds included (about a microsecond each), and are the ground truth of every timeline; a profiler's
operators are the detail below them.

All spans are integer nanoseconds of :func:`time.perf_counter_ns`. On Linux that is ``CLOCK_MONOTONIC``, which every
process of a machine shares. A :class:`ClockAnchor` ties it to the wall clock, which profilers write.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple

from kit.reprs import one_line

clock = time.perf_counter_ns


@one_line
class Span(NamedTuple):
    """One thing that took time, on one thread."""

    name: str  # what ran: a branch's name, "merge", "call"
    category: str  # what kind: "call", "region", "task", "merge", "startup", "transfer", or a profiler's own
    start_ns: int  # perf_counter_ns
    end_ns: int
    process: int  # pid
    thread: int  # native thread id
    thread_name: str
    correlation: int = -1  # a profiler's: what ties a launch to its kernel; -1: nothing
    cpu_ns: int | None = None  # how long the thread had a core meanwhile; None: not asked


class ClockAnchor(NamedTuple):
    """The same instant on two clocks: what lets traces of several processes share one axis."""

    monotonic_ns: int  # perf_counter_ns
    wall_ns: int  # time_ns, since the Unix epoch

    @classmethod
    def now(cls) -> ClockAnchor:
        """Read both clocks; of five readings the tightest, so that a preemption in between does not matter."""
        readings = []
        for _ in range(5):
            before, wall, after = clock(), time.time_ns(), clock()
            readings.append((after - before, cls((before + after) // 2, wall)))
        return min(readings)[1]


class _Here(threading.local):
    """The calling thread as spans name it, looked up once: asking the system for each span would cost more than it."""

    def __init__(self) -> None:
        self.process, self.thread = os.getpid(), threading.get_native_id()


_here = _Here()


@dataclass(eq=False)
class SpanLog:
    """Where spans go while it is collecting. Appending is atomic under the GIL, so threads may share one log."""

    spans: list[Span] = field(default_factory=list)
    operators: bool = False  # whether a recording is on, so that worker processes shall profile their operators too

    def write(
        self, name: str, category: str, start_ns: int, end_ns: int | None = None, cpu_ns: int | None = None
    ) -> None:
        """Add a span of the calling thread; without an end it ends now."""
        end = clock() if end_ns is None else end_ns
        thread = threading.current_thread().name
        self.spans.append(Span(name, category, start_ns, end, _here.process, _here.thread, thread, cpu_ns=cpu_ns))

    def __repr__(self) -> str:
        return f"SpanLog({len(self.spans)} spans)"


_current: ContextVar[SpanLog | None] = ContextVar("kit_span_log", default=None)


@contextmanager
def collect(*, operators: bool = False) -> Iterator[SpanLog]:
    """Collect the spans of this block, from this thread and from every thread that runs in a copy of its context.

    Args:
        operators: ask executors that run tasks in other processes for what torch.profiler sees there.
    """
    log = SpanLog(operators=operators)
    token = _current.set(log)
    try:
        yield log
    finally:
        _current.reset(token)


def current() -> SpanLog | None:
    """The collecting log, or None."""
    return _current.get()


class span:
    """Write the block as one span into the collecting log; where none collects, do nothing.

    A class, since a generator's context manager costs three times as much, and regions open four spans a call.

    Args:
        cpu: note the thread's CPU time too, for two more microseconds.
    """

    __slots__ = ("_category", "_cpu", "_cpu_start", "_log", "_name", "_start")

    def __init__(self, name: str, category: str, *, cpu: bool = False) -> None:
        self._name, self._category, self._cpu = name, category, cpu

    def __enter__(self) -> None:
        self._log = _current.get()
        self._cpu_start = time.thread_time_ns() if self._cpu and self._log is not None else 0
        self._start = clock()

    def __exit__(self, *exc_info: object) -> None:
        if self._log is not None:
            end = clock()
            cpu_ns = time.thread_time_ns() - self._cpu_start if self._cpu else None
            self._log.write(self._name, self._category, self._start, end, cpu_ns)
