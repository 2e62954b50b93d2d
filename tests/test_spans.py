"""The clock and the log that spans go to."""

import threading
import time

import pytest

import kit
from kit import spans
from kit.executors import Task
from kit.executors.threads import Threads


def test_where_nothing_collects_nothing_is_written() -> None:
    with spans.span("a", "task"), spans.collect() as log:
        pass
    assert log.spans == []
    assert repr(log) == "SpanLog(0 spans)"


def test_a_span_is_written_even_if_its_block_raises() -> None:
    with spans.collect() as log, pytest.raises(ValueError, match="x"), spans.span("a", "task"):
        raise ValueError("x")
    (span,) = log.spans
    assert (span.name, span.category, span.thread_name) == ("a", "task", "MainThread")
    assert span.thread == threading.get_native_id()
    assert span.start_ns <= span.end_ns <= spans.clock()


def test_a_span_of_ones_own_is_a_part_of_its_task() -> None:
    with kit.collect() as log, Threads(1) as executor:
        executor.run([Task("decode", lambda: mark("jpeg"))])
    part, task = log.spans
    assert [(span.name, span.category) for span in log.spans] == [("jpeg", "part"), ("decode", "task")]
    assert part.thread == task.thread != threading.get_native_id()
    assert task.start_ns <= part.start_ns <= part.end_ns <= task.end_ns


def mark(name: str) -> None:
    with kit.span(name):
        pass


def test_the_innermost_log_collects() -> None:
    with spans.collect() as outer:
        with spans.collect() as inner, spans.span("inner", "task"):
            pass
        with spans.span("outer", "task"):
            pass
    assert [span.name for span in inner.spans] == ["inner"]
    assert [span.name for span in outer.spans] == ["outer"]


def test_an_anchor_holds_one_instant_on_two_clocks() -> None:
    before, anchor, after = spans.clock(), spans.ClockAnchor.now(), spans.clock()
    assert before <= anchor.monotonic_ns <= after
    assert abs((time.time_ns() - spans.clock()) - (anchor.wall_ns - anchor.monotonic_ns)) < 50_000_000
