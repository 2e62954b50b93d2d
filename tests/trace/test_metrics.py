"""The metrics against a count of every single nanosecond."""

from hypothesis import given, settings
from hypothesis import strategies as st

from kit.trace import Event, Lane, Trace, busy_ns, overlap_ns, sum_ns, wall_ns

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
