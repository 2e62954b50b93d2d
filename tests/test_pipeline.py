"""A pipeline gives what its stages give one after the other, holds back what is too fast, and leaves nothing behind."""

import multiprocessing
import os
import re
import signal
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kit import spans
from kit.errors import KitError, TaskError, WorkerError
from kit.pipeline import Pipeline, RunStatistics, Stage, StageStatistics
from kit.pipeline.stages import _InProcess


class Numbers:
    """A source that knows whether it was closed, and how far it was read."""

    def __init__(self, n: int | None) -> None:
        self.n, self.read, self.closed = n, 0, threading.Event()

    def __iter__(self) -> Iterator[int]:
        try:
            while self.n is None or self.read < self.n:
                self.read += 1
                yield self.read - 1
        finally:
            self.closed.set()


def double(x: int) -> int:
    return 2 * x


def odd_only(x: int) -> int:
    if x % 2 == 0:
        raise ValueError(f"{x} is even")
    return x


class Total:
    """A stage with a state."""

    def __init__(self) -> None:
        self.sum = 0

    def __call__(self, x: int) -> int:
        self.sum += x
        return self.sum


def left_over() -> list[str]:
    return [
        thread.name for thread in threading.enumerate() if re.match(r"\d (source|double|total|stage)$", thread.name)
    ]


@pytest.mark.parametrize("way", ["run", "in_turn"])
def test_results_come_in_order_through_stages_with_a_state(way: str) -> None:
    source, found = Numbers(200), []
    pipeline = Pipeline([Stage("double", double), Stage("total", Total())])
    figures = getattr(pipeline, way)(source, found.append)
    assert found == np.cumsum(2 * np.arange(200)).tolist()
    assert (figures.read, figures.done, figures.dropped, figures.failed) == (200, 200, 0, 0)
    assert [(stage.name, stage.items) for stage in figures.stages] == [("source", 200), ("double", 200), ("total", 200)]
    assert source.closed.is_set()
    assert not left_over()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 4), st.integers(1, 4))
def test_any_pipeline_gives_what_its_stages_give_in_turn(items: list[int], stages: int, capacity: int) -> None:
    steps = [Stage(f"s{i}", odd_only if i == 1 else lambda x, i=i: x + 2 * i) for i in range(stages)]
    pipeline = Pipeline(steps, capacity=capacity, on_error="skip")
    plain: list[int] = []
    first = pipeline.in_turn(items, plain.append)
    found: list[int] = []
    second = pipeline.run(items, found.append)
    assert found == plain
    for figures in (first, second):
        assert figures.read == figures.done + figures.failed == len(items)
    assert [failure.item for failure in first.failures] == [failure.item for failure in second.failures]


def test_all_stages_work_at_the_same_time() -> None:
    met = threading.Barrier(2)  # one after the other, neither stage would ever get past it

    def first(x: int) -> int:
        if x > 0:
            met.wait(20)
        return x

    def second(x: int) -> int:
        if x < 9:
            met.wait(20)
        return x

    found: list[int] = []
    Pipeline([Stage("first", first), Stage("second", second)]).run(range(10), found.append)
    assert found == list(range(10))


def test_a_slow_consumer_holds_up_the_source() -> None:
    source, ahead = Numbers(100), []
    pipeline = Pipeline([Stage("double", double)], capacity=3)

    def slow(result: int) -> None:
        time.sleep(0.002)
        ahead.append(source.read - result // 2)

    pipeline.run(source, slow)
    assert max(ahead) <= 2 * 3 + 3  # two queues, and one in each hand


def test_a_live_source_is_never_held_up_and_the_newest_arrive() -> None:
    free, found = threading.Event(), []

    def source() -> Iterator[int]:
        yield from range(1000)
        free.set()

    def first_waits(x: int) -> int:
        assert free.wait(20), "the source was held up"
        return x

    figures = Pipeline([Stage("stage", first_waits)], live=True, capacity=2).run(source(), found.append)
    assert figures.read == 1000 == figures.done + figures.dropped
    assert found[-2:] == [998, 999]
    assert figures.dropped >= 990


@pytest.mark.parametrize("way", ["run", "in_turn"])
def test_a_stage_that_raises_ends_the_run_with_its_error(way: str) -> None:
    source = Numbers(None)
    pipeline = Pipeline([Stage("double", double), Stage("stage", lambda x: 1 / (x - 10))])
    with pytest.raises(TaskError, match="'stage' raised ZeroDivisionError") as caught:
        getattr(pipeline, way)(source, lambda result: None)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert source.closed.wait(2)
    assert not left_over()


def test_what_a_stage_cannot_do_is_left_out_and_counted() -> None:
    found: list[int] = []
    figures = Pipeline([Stage("stage", odd_only)], on_error="skip").run(range(7), found.append)
    assert found == [1, 3, 5]
    assert (figures.read, figures.done, figures.failed) == (7, 3, 4)
    assert [failure.item for failure in figures.failures] == [0, 2, 4, 6]
    assert "'stage' raised ValueError: 4 is even" in str(figures.failures[2].error)


def test_an_error_of_the_source_is_raised_even_where_stages_may_skip() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("the camera is gone")

    with pytest.raises(OSError, match="the camera is gone"):
        Pipeline([Stage("double", double)], on_error="skip").run(source(), lambda result: None)
    assert not left_over()


def test_an_error_of_the_consumer_closes_everything() -> None:
    source = Numbers(None)
    with pytest.raises(KeyError):
        Pipeline([Stage("double", double)]).run(source, lambda result: {}[result])
    assert source.closed.wait(2)
    assert not left_over()


def test_it_can_be_stopped_and_run_again() -> None:
    pipeline, source, found = Pipeline([Stage("double", double)]), Numbers(None), []

    def deliver(result: int) -> None:
        found.append(result)
        if len(found) == 5:
            pipeline.stop()

    assert pipeline.run(source, deliver).done == 5
    assert source.closed.wait(2)
    assert not left_over()
    assert pipeline.run(range(3), found.append).done == 3
    assert found[5:] == [0, 2, 4]


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals of one thread are POSIX")
@pytest.mark.parametrize("process", [False, True])
def test_an_interrupt_ends_all_within_two_seconds(process: bool) -> None:
    source = Numbers(None)
    arrived: list[float] = []

    def deliver(result: int) -> None:
        if not arrived:
            arrived.append(time.monotonic())
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        Pipeline([Stage("double", double, process)]).run(source, deliver)
    assert time.monotonic() - arrived[0] < 10  # on an idle machine, milliseconds
    assert source.closed.wait(2)
    assert not left_over()


def test_a_stage_in_a_process_of_its_own() -> None:
    with spans.collect() as log:
        found: list[tuple[int, int]] = []
        Pipeline([Stage("double", lambda x: (os.getpid(), 2 * x), process=True)]).run(range(5), found.append)
    assert [result for _, result in found] == [0, 2, 4, 6, 8]
    [worker] = {process for process, _ in found}
    assert worker != os.getpid()
    assert sum(each.name == "double" and each.process == worker for each in log.spans) == 5


def test_every_stage_has_a_lane_and_one_intra_op_thread() -> None:
    before, counts = torch.get_num_threads(), []
    with spans.collect() as log, torch.inference_mode():
        stage = Stage("stage", lambda x: counts.append((torch.get_num_threads(), torch.is_inference_mode_enabled())))
        Pipeline([stage], source="decode").run(range(3), lambda result: None)
    assert counts == [(1, True)] * 3
    assert torch.get_num_threads() == before
    assert {(each.name, each.thread_name) for each in log.spans} == {("decode", "1 decode"), ("stage", "2 stage")}


def test_figures_tell_latency_bottleneck_and_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]  # nanoseconds, which pass in the stages only
    monkeypatch.setattr("kit.pipeline.pipeline.clock", lambda: now[0])

    def takes(ms: int) -> Callable[[int], int]:
        def call(x: int) -> int:
            now[0] += ms * 1_000_000 * (2 if x == 19 else 1)  # the last item takes twice as long
            return x

        return call

    line = Pipeline([Stage("short", takes(1)), Stage("stage", takes(4))])
    figures = line.in_turn(range(20), lambda result: None)
    assert figures.bottleneck.name == "stage"
    assert figures.bottleneck.ms == pytest.approx(4 * 21 / 20)
    assert (figures.latency_ms(50), figures.latency_ms(100)) == (5, 10)
    assert figures.bound(1) == pytest.approx(20 / (5 * 21) * 1000)  # the core
    assert figures.bound(2) == figures.bound(9) == pytest.approx(20 / (4 * 21) * 1000)  # the longest stage
    assert repr(figures) == "RunStatistics(20 of 20 done, 0 dropped, 0 failed)"


def test_memory_is_constant_over_ten_thousand_items() -> None:
    def frame(_: int) -> np.ndarray:
        return np.zeros(100_000, np.uint8)

    peaks: list[int] = []

    def deliver(_: np.ndarray) -> None:
        if pipeline.statistics.done in (1_000, 9_999):
            peaks.append(tracemalloc.get_traced_memory()[0])

    pipeline = Pipeline([Stage("stage", frame), Stage("double", np.negative)])
    tracemalloc.start()
    try:
        pipeline.run(range(10_000), deliver)
    finally:
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 1_500_000  # 10,000 frames are 1,000,000,000 bytes


@pytest.mark.parametrize(
    ("stages", "capacity"), [([], 2), ([Stage("a", double), Stage("a", double)], 2), ([Stage("a", double)], 0)]
)
def test_what_cannot_be_a_pipeline(stages: list[Stage], capacity: int) -> None:
    with pytest.raises(KitError, match="a pipeline needs at least one stage"):
        Pipeline(stages, capacity=capacity)


def test_calls_of_a_stage_never_overlap() -> None:
    inside: list[Callable] = []

    def alone(x: int) -> int:
        assert not inside
        inside.append(alone)
        time.sleep(0.0005)
        inside.pop()
        return x

    assert Pipeline([Stage("stage", alone)]).run(range(50), lambda result: None).done == 50


def test_a_thread_that_cannot_start_ends_those_that_did(monkeypatch: pytest.MonkeyPatch) -> None:
    real_start = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if self.name.startswith("2 "):
            raise RuntimeError("can't start new thread")
        real_start(self)

    source = Numbers(None)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(WorkerError, match=r"cannot start thread '2 double'.*ulimit -u"):
            Pipeline([Stage("double", double), Stage("total", Total())]).run(source, lambda result: None)
    assert source.closed.wait(2)
    assert not left_over()


def test_what_was_stopped_does_not_report_the_end_of_its_own_process() -> None:
    pipeline = Pipeline([Stage("stage", time.sleep, process=True)], capacity=1)

    def source() -> Iterator[float]:
        yield 0
        yield 60

    found: list[None] = []

    def deliver(result: None) -> None:
        found.append(result)
        pipeline.stop()

    for _ in range(2):  # the second has a process of its own again
        assert pipeline.run(source(), deliver).done == 1
    for thread in threading.enumerate():  # that of the stage, whose process was ended under it
        if thread.name == "2 stage":
            thread.join(10)
    assert pipeline._error is None
    assert multiprocessing.active_children() == []


def test_a_process_that_is_busy_holds_up_no_end() -> None:
    def source() -> Iterator[int]:
        yield 1
        time.sleep(1)
        raise ValueError("the camera is gone")

    start = time.monotonic()
    with pytest.raises(ValueError, match="the camera is gone"):
        Pipeline([Stage("stage", time.sleep, process=True)]).run((60 * each for each in source()), lambda result: None)
    assert time.monotonic() - start < 20
    assert left_over() == []
    assert multiprocessing.active_children() == []


class Clocked:
    """In place of a pool of processes: notes how long each call may take, and takes as long as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
        self.timeout, self.allowed, self.seconds, self.now = 0.0, [], list(seconds), 0.0
        monkeypatch.setattr("kit.pipeline.stages.time.monotonic", lambda: self.now)

    def run(self, tasks: Any) -> list[Any]:
        self.allowed.append(self.timeout)
        took = self.seconds.pop(0)
        self.now += min(took, self.timeout)
        if took > self.timeout:
            raise WorkerError("no answer")
        return [tasks[0]()]


def test_a_process_has_five_times_as_long_as_its_slowest_call_and_starts_anew_after_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool: Any = Clocked(monkeypatch, 1, 4, 1, 99, 30, 1)
    call = _InProcess(Stage("double", lambda x: 2 * x, process=True), pool)
    assert [call(i) for i in range(3)] == [0, 2, 4]
    with pytest.raises(WorkerError):
        call(3)
    assert [call(4), call(5)] == [8, 10]
    assert pool.allowed == [60, 10, 20, 20, 60, 150]


def test_a_stage_may_have_a_time_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    pool: Any = Clocked(monkeypatch, 1, 1)
    call = _InProcess(Stage("same", lambda x: x, process=True, timeout=3), pool)
    assert [call(1), call(2)] == [1, 2]
    assert pool.allowed == [3, 3]


@pytest.mark.parametrize(("cores", "per_second"), [(1, 100), (2, 200), (3, 250), (8, 250)])
def test_the_bound_is_the_slowest_stage_or_all_stages_on_the_cores(cores: int, per_second: float) -> None:
    stages = [StageStatistics(name, items=10, busy_ns=ms * 10_000_000) for name, ms in (("a", 4), ("b", 4), ("c", 2))]
    assert RunStatistics(stages).bound(cores) == pytest.approx(per_second)
