"""Spans of a turn reduced to numbers: exact, on spans written by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.measuring.breakdown import OVERHEAD, RoundBreakdown, reduce_turn
from kit.spans import Span

CALLER = 1


def span(category: str, start: int, end: int, name: str = "", lane: int = CALLER, cpu: int | None = None) -> Span:
    return Span(name or category, category, start, end, 1, lane, f"thread {lane}", cpu_ns=cpu)


def reduced(*spans: Span) -> RoundBreakdown:
    turn = reduce_turn(spans)
    assert turn is not None
    return turn


TWO_LANES = (
    span("call", 0, 100),
    span("region", 10, 90),
    span("task", 20, 40, "a", 2, cpu=15),
    span("task", 25, 75, "b", 3, cpu=30),
    span("merge", 80, 88),
)


def test_a_region_on_two_lanes() -> None:
    assert reduced(*TWO_LANES) == RoundBreakdown(
        regions=80,
        tasks={(0, "a"): 20, (0, "b"): 50},
        busiest=50,
        lanes=2,
        cpu=45,
        overhead={"startup": 0, "transfer": 0, "merge": 8, "dispatch": 15, "join": 7},
        overlap=15,
    )


def test_calls_are_averaged_and_lanes_may_change_between_them() -> None:
    """The busiest lane is that of each region: a pool hands a branch to whichever thread is free."""
    later = [s._replace(start_ns=s.start_ns + 100, end_ns=s.end_ns + 100) for s in TWO_LANES]
    swapped = [s._replace(thread={2: 3, 3: 2}.get(s.thread, s.thread)) for s in later]
    assert reduced(*TWO_LANES, *swapped) == reduced(*TWO_LANES)


def test_regions_of_a_call_are_told_apart_and_their_busiest_lanes_added() -> None:
    second = [s._replace(start_ns=s.start_ns + 80, end_ns=s.end_ns + 80) for s in TWO_LANES[1:]]
    turn = reduced(span("call", 0, 200), *TWO_LANES[1:], *second)
    assert turn.tasks == {(0, "a"): 20, (0, "b"): 50, (1, "a"): 20, (1, "b"): 50}
    assert (turn.regions, turn.busiest, turn.work) == (160, 100, 140)


def test_what_runs_inside_a_task_is_the_tasks_own_time() -> None:
    inner = (span("region", 30, 70, lane=3), span("task", 31, 60, "inner", 3), span("merge", 62, 64, lane=3))
    turn = reduced(*TWO_LANES, *inner)
    assert (turn.tasks, turn.regions, turn.overhead) == (
        reduced(*TWO_LANES).tasks,
        80,
        reduced(*TWO_LANES).overhead,
    )
    sequential = (span("call", 0, 100), span("region", 0, 90), span("task", 0, 80, "a"))
    nested = (span("region", 0, 80), span("task", 0, 50, "inner"))
    assert reduced(*sequential, *nested).tasks == {(0, "a"): 80}


def test_overhead_has_the_name_that_a_span_gives_it_where_the_busiest_lane_is_idle() -> None:
    turn = reduced(
        span("call", 0, 100),
        span("region", 0, 100),
        span("startup", 5, 30, "imports", 2),
        span("transfer", 20, 40, "send"),
        span("task", 45, 85, "a", 2),
        span("transfer", 80, 95, "send", 2),
    )
    assert turn.overhead == {"startup": 25, "transfer": 20, "merge": 0, "dispatch": 10, "join": 5}


def test_a_call_without_regions_is_one() -> None:
    turn = reduced(span("call", 0, 10), span("task", 2, 5, "a"), span("call", 10, 20), span("task", 11, 16, "a"))
    assert (turn.regions, turn.tasks, turn.busiest) == (10, {(0, "a"): 4}, 4)


def test_without_tasks_there_is_nothing_to_say() -> None:
    assert reduce_turn([span("call", 0, 10)]) is None


def test_cpu_time_is_unknown_where_one_task_lacks_it() -> None:
    assert reduced(*TWO_LANES, span("task", 76, 78, "c", 2)).cpu is None


@st.composite
def turns(draw: st.DrawFn) -> list[Span]:
    """Calls of regions of tasks in lanes, with overheads anywhere."""
    spans, now = [], 0
    for _ in range(draw(st.integers(1, 3))):
        call = now
        for _ in range(draw(st.integers(1, 3))):
            now += draw(st.integers(0, 50))
            begin, ends = now, [now] * draw(st.integers(1, 4))
            for i in range(draw(st.integers(1, 5))):
                lane = draw(st.integers(0, len(ends) - 1))
                start = ends[lane] + draw(st.integers(0, 30))
                ends[lane] = start + draw(st.integers(1, 1000))
                spans.append(span("task", start, ends[lane], f"task {i}", 2 + lane, cpu=draw(st.integers(0, 9))))
            now = max(ends) + draw(st.integers(0, 30))
            spans.append(span("region", begin, now))
            for kind in draw(st.lists(st.sampled_from(OVERHEAD[:3]), max_size=4)):
                start = draw(st.integers(begin, now))
                spans.append(span(kind, start, draw(st.integers(start, now)), lane=draw(st.integers(1, 4))))
        now += draw(st.integers(0, 50))
        spans.append(span("call", call, now))
    return draw(st.permutations(spans))


@given(turns())
def test_parts_add_up(spans: list[Span]) -> None:
    turn = reduced(*spans)
    calls = [s for s in spans if s.category == "call"]
    tasks = [s.end_ns - s.start_ns for s in spans if s.category == "task"]
    assert turn.work * len(calls) == pytest.approx(sum(tasks))
    assert turn.regions - turn.busiest == pytest.approx(sum(turn.overhead.values()), abs=1e-6)
    assert all(value >= 0 for value in turn.overhead.values())
    assert turn.work / turn.lanes <= turn.busiest * (1 + 1e-12) <= turn.work * (1 + 1e-9)
    assert turn.cpu is not None
    assert math.isfinite(turn.cpu)


def test_what_other_processes_were_given_is_a_mean_per_call() -> None:
    calls = [span("call", 0, 10), span("task", 1, 9), span("call", 10, 20), span("task", 11, 19)]
    turn = reduce_turn(calls, carried=(3000, 500))
    assert turn is not None
    assert (turn.sent, turn.received) == (1500, 250)
    here = reduce_turn(calls)
    assert here is not None
    assert (here.sent, here.received) == (None, None)
