"""The clock, the spans that executors write, and the categories of spans.

A span is the kit's own record of one step that took time: a call, a region, a task, a merge. Spans are always written,
in measured rounds too (about a microsecond each). Every timeline is drawn from them; a profiler's operators are shown
below them.

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
from typing import Any, Literal, NamedTuple

from kit.reprs import one_line

clock = time.perf_counter_ns

# What kind of step a span is. mypy finds a misspelt one; kit.trace counts all of them as work of the host.
Category = Literal[
    "call",  # one call of a model or workload, from the caller's side; everything below lies within it
    "region",  # one fork-join within the call: its branches and their merge
    "task",  # one branch of a region, or one stage of a pipeline, on the lane that ran it
    "part",  # a step within a task, such as decoding; the category of your own spans
    "merge",  # the join of a region's results: concatenation, mean, fusion
    "startup",  # starting, importing, loading a model, ending: what warm workers do once
    "transfer",  # copying inputs or results to another process or device
    "wait",  # the thread waits for another one, and does nothing itself
]


@one_line
class Span(NamedTuple):
    """One step that took time, on one thread."""

    name: str  # what ran: a branch's name, "merge", "call"
    category: str  # a Category, or a profiler's own category
    start_ns: int  # perf_counter_ns
    end_ns: int
    process: int | str  # pid; of another host, a name that is unique among the hosts
    thread: int  # native thread id
    thread_name: str
    correlation: int = -1  # a profiler's: what ties a launch to its kernel; -1: nothing
    cpu_ns: int | None = None  # how long the thread had a core meanwhile; None: not asked
    host: str = ""  # where it ran, if not on the host that collects; its times are on the collector's clock


class ClockAnchor(NamedTuple):
    """The same instant on two clocks: what lets traces of several processes share one axis."""

    monotonic_ns: int  # perf_counter_ns
    wall_ns: int  # time_ns, since the Unix epoch

    @classmethod
    def now(cls) -> ClockAnchor:
        """Read both clocks; the closest of five readings, so that a preemption in between does not matter."""
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
    """A list of spans that grows while it collects. Appending is atomic under the GIL, so threads may share a log."""

    spans: list[Span] = field(default_factory=list)
    operators: bool = False  # whether a recording is on, so that worker processes shall profile their operators too
    clocks: dict[str, int] = field(default_factory=dict)  # other host -> how far off its spans may be: ns, either way
    about: dict[str, Any] = field(default_factory=dict)  # what an executor says of its spans, for ``trace.about``
    sent_bytes: int = 0  # of the tensors in what other processes were given to run, each process apart
    received_bytes: int = 0  # of the tensors in their results

    def write(
        self, name: str, category: Category, start_ns: int, end_ns: int | None = None, cpu_ns: int | None = None
    ) -> None:
        """Add a span of the calling thread.

        Args:
            start_ns, end_ns: perf_counter_ns; without an end, the span ends now.
            cpu_ns: CPU time of the thread in between, if it was read.
        """
        end = clock() if end_ns is None else end_ns
        thread = threading.current_thread().name
        self.spans.append(Span(name, category, start_ns, end, _here.process, _here.thread, thread, cpu_ns=cpu_ns))

    def __repr__(self) -> str:
        return f"SpanLog({len(self.spans)} spans)"


_current: ContextVar[SpanLog | None] = ContextVar("kit_span_log", default=None)


@contextmanager
def collect(*, operators: bool = False) -> Iterator[SpanLog]:
    """Collect the spans of this block, as in ``with kit.collect() as log: ...`` and then ``log.spans``.

    Spans come from this thread, from every thread that runs in a copy of its context, and from the worker processes of
    executors that are called in the block.

    >>> with kit.collect() as log, kit.span("decode"):
    ...     total = sum(range(1000))
    >>> [(span.name, span.category) for span in log.spans]
    [('decode', 'part')]

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
    """Mark a block as one span on the timeline: ``with kit.span("decode"): ...``.

    The span goes into the log that collects at the moment: that of :func:`kit.record`, of a comparison's rounds, or of
    :func:`kit.collect`. If none collects, nothing is written. A span costs about a microsecond.

    >>> with kit.recording(operators=False) as recording, kit.span("decode"):
    ...     total = sum(range(1000))
    >>> recording.trace.names
    ('recording', 'decode')

    Args:
        name: what the block does; the timeline shows it.
        category: the kind of step, one of :data:`kit.spans.Category`. Your own steps are a "part" of a task.
        cpu: record the thread's CPU time too, for two more microseconds.
    """

    # A class, since a generator's context manager costs three times as much, and regions open four spans a call.

    __slots__ = ("_category", "_cpu", "_cpu_start", "_log", "_name", "_start")

    def __init__(self, name: str, category: Category = "part", *, cpu: bool = False) -> None:
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
