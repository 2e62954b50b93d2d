"""The metrics against a count of every single nanosecond."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.trace import (
    Event,
    Lane,
    Trace,
    breakdown,
    busy_ns,
    by_name,
    concurrency,
    gaps,
    gpu_busy_ns,
    lane_concurrency,
    launch_delays,
    overlap_ns,
    self_ns,
    sum_ns,
    summary,
    utilisation,
    wall_ns,
)
from kit.trace.metrics import time_at_least

Spans = list[tuple[int, int, int]]  # lane, start, duration

spans = st.lists(st.tuples(st.integers(0, 2), st.integers(-5, 20), st.integers(0, 8)), max_size=12)


def trace_of(rows: Spans) -> Trace:
    return Trace.build(Event("e", "task", start, duration, Lane(1, lane, "")) for lane, start, duration in rows)


def lanes_busy(rows: Spans, moment: int) -> int:
    return len({lane for lane, start, duration in rows if start <= moment < start + duration})


@given(spans)
@settings(deadline=None)
def test_against_brute_force(rows: Spans) -> None:
    trace = trace_of(rows)
    moments = range(-5, 30)
    assert busy_ns(trace) == sum(lanes_busy(rows, moment) >= 1 for moment in moments)
    assert overlap_ns(trace) == sum(lanes_busy(rows, moment) >= 2 for moment in moments)
    assert sum_ns(trace) == sum(duration for _, _, duration in rows)
    assert overlap_ns(trace) <= busy_ns(trace) <= min(wall_ns(trace), sum_ns(trace))


def test_known_picture() -> None:
    """Two lanes: 0-10 with a child 2-4, and 6-16; then a gap; then 20-21."""
    trace = trace_of([(0, 0, 10), (0, 2, 2), (1, 6, 10), (0, 20, 1)])
    assert (wall_ns(trace), busy_ns(trace), overlap_ns(trace), sum_ns(trace)) == (21, 17, 4, 23)


def test_nothing_takes_no_time() -> None:
    trace = trace_of([])
    assert (wall_ns(trace), busy_ns(trace), overlap_ns(trace), sum_ns(trace)) == (0, 0, 0, 0)


def test_lanes_that_follow_each_other_do_not_overlap() -> None:
    assert overlap_ns(trace_of([(0, 0, 5), (1, 5, 5)])) == 0


@given(spans)
@settings(deadline=None)
def test_identities(rows: Spans) -> None:
    trace = trace_of(rows)
    wall, busy = wall_ns(trace), busy_ns(trace)
    steps = concurrency(trace)
    lengths = np.diff(steps.time_ns)
    assert (lengths > 0).all()
    assert steps.level.size == 0 or steps.level[-1] == 0
    assert int((lengths * steps.level[:-1]).sum()) == sum_ns(trace)
    assert time_at_least(steps, 1) == busy <= min(wall, sum_ns(trace))
    between = gaps(trace)
    assert busy + int((between[:, 1] - between[:, 0]).sum()) == wall
    assert sum(breakdown(trace).values()) == wall
    shares = utilisation(trace)
    assert all(0 <= share <= 1 for share in shares)
    assert round(sum(shares) * wall) == int(
        (np.diff(lane_concurrency(trace).time_ns) * lane_concurrency(trace).level[:-1]).sum()
    )
    assert sum(row.self_ns for row in by_name(trace)) == self_ns(trace).sum()
    assert sum(row.total_ns for row in by_name(trace)) == sum_ns(trace)
    assert sum(row.events for row in by_name(trace)) == len(trace)


@given(spans)
@settings(deadline=None)
def test_each_moment_by_brute_force(rows: Spans) -> None:
    trace = trace_of(rows)
    for steps, count in (
        (concurrency(trace), lambda moment: sum(start <= moment < start + length for _, start, length in rows)),
        (lane_concurrency(trace), lambda moment: lanes_busy(rows, moment)),
    ):
        for moment in range(-5, 30):
            place = int(np.searchsorted(steps.time_ns, moment, side="right")) - 1
            assert (steps.level[place] if place >= 0 else 0) == count(moment)


@given(spans, st.sampled_from([1, 2**58]))  # lanes far apart in time cannot stand on one axis of 64 bits
@settings(deadline=None)
def test_each_moment_of_a_lane_is_the_event_s_that_started_last(rows: Spans, apart: int) -> None:
    trace = trace_of([(lane, start + lane * apart * 2, duration) for lane, start, duration in rows])
    wanted = np.zeros(len(trace), np.int64)
    for lane in range(len(trace.lanes)):
        events = np.flatnonzero(trace.lane == lane)
        for moment in range(trace.start_ns[events].min(), trace.end_ns[events].max()):
            runs = [i for i in events.tolist() if trace.start_ns[i] <= moment < trace.end_ns[i]]
            if runs:
                wanted[max(runs)] += 1  # rows are by start, of equal starts the shortest last
    np.testing.assert_array_equal(self_ns(trace), wanted)
    busy = {lane: busy_ns(trace.take(np.flatnonzero(trace.lane == lane))) for lane in range(len(trace.lanes))}
    assert {lane: int(wanted[trace.lane == lane].sum()) for lane in busy} == busy


@given(spans)
@settings(deadline=None)
def test_the_order_of_rows_does_not_matter(rows: Spans) -> None:
    trace = trace_of(rows)
    turned = trace.take(np.arange(len(trace))[::-1])
    assert summary(turned) == summary(trace)
    assert utilisation(turned) == utilisation(trace)


GPU = Lane(0, 7, "GPU 0 stream 7")
STEP = [
    Event("step", "user_annotation", 0, 100, Lane(1, 1, "main")),
    Event("mm", "cpu_op", 10, 30, Lane(1, 1, "main")),
    Event("launch", "cuda_runtime", 20, 10, Lane(1, 1, "main")),
    Event("gemm", "kernel", 25, 20, GPU),
    Event("copy", "gpu_memcpy", 40, 15, GPU._replace(thread=20, label="GPU 0 stream 20")),
    Event("write", "python", 60, 10, Lane(1, 1, "main")),
]


def test_a_step_in_its_parts() -> None:
    parts = breakdown(Trace.build(STEP))
    assert parts == {"kernel": 20, "memory": 10, "runtime": 5, "operators": 10, "other": 10, "idle": 45}
    numbers = summary(Trace.build(STEP))
    assert [
        numbers[key] for key in ("gpu_events", "gpu_streams", "gpu_sum_ns", "gpu_busy_ns", "gpu_concurrent_ns")
    ] == [
        2,
        2,
        35,
        30,
        5,
    ]
    assert gpu_busy_ns(Trace.build(STEP)) == 30


def test_self_time_is_without_children_and_grandchildren_count_once() -> None:
    times = {row.name: (row.total_ns, row.self_ns) for row in by_name(Trace.build(STEP))}
    assert times["step"] == (100, 0)  # an annotation is no work
    assert times["mm"] == (30, 20)
    assert times["launch"] == (10, 10)


def test_launches_are_tied_to_what_they_launch() -> None:
    trace = replace(Trace.build(STEP), correlation=np.array([-1, -1, 5, 5, 6, -1]))
    delays = launch_delays(trace)
    assert [column.tolist() for column in delays] == [[2], [3], [5]]
    assert not len(launch_delays(Trace.build(STEP)).delay_ns)


@pytest.mark.parametrize("metric", [concurrency, lane_concurrency, launch_delays])
def test_an_empty_trace_has_no_moments(metric) -> None:
    assert all(len(column) == 0 for column in metric(trace_of([])))
    assert summary(trace_of([]))["top"] == []
    assert gaps(trace_of([])).shape == (0, 2)
