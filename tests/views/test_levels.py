import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from kit.trace.columns import Event, Lane, Trace
from kit.trace.lanes import depths
from kit.views.levels import thin

LANES = (Lane(1, 1, "caller"), Lane(1, 2, "worker 0"))


def trace_of(*spans):
    """A trace of (lane index, start, duration) triples."""
    return Trace.build(Event("e", "cpu_op", start, duration, LANES[lane]) for lane, start, duration in spans)


traces = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 12), st.integers(0, 8)), max_size=40).map(
    lambda spans: trace_of(*spans)
)


def test_an_empty_trace_has_no_parts():
    assert thin(trace_of(), np.zeros(0, np.int32), 10).event.tolist() == []


@given(traces, st.integers(0, 50))
@example(trace_of((0, 0, 0), (0, 0, 0), (0, 0, 0)), 2)  # no bin is narrow enough to tell these apart
def test_a_level_stays_in_its_limit_and_hides_no_busy_time(trace, limit):
    row = depths(trace)
    level = thin(trace, row, limit)
    assert len(level.event) <= limit or len(trace) == 0
    strips = trace.lane * 1000 + row
    if limit < 2 * len(np.unique(strips)):
        return  # too few parts for a bin per row: the longest events only
    assert level.weight.sum() == len(trace)
    for strip in np.unique(strips):
        inside = strips[level.event] == strip
        start, end = level.start_ns[inside], (level.start_ns + level.duration_ns)[inside]
        assert (np.diff(start) >= 0).all()
        assert (end[:-1] <= start[1:]).all()  # parts of a row do not overlap either
        for i in np.flatnonzero(strips == strip):
            assert ((start <= trace.start_ns[i]) & (trace.end_ns[i] <= end)).any()


def test_a_level_keeps_long_events_as_they_are_and_names_a_block_by_its_longest():
    short = [(0, 10 * i, 1 + (i == 5_003)) for i in range(10_000)]
    long = [(1, 20_000 * i, 15_000) for i in range(5)]
    trace = trace_of(*short, *long)
    level = thin(trace, depths(trace), 100)
    assert (level.duration_ns[level.weight == 1] == 15_000).sum() == 5
    blocks = level.weight > 1
    assert level.weight[blocks].sum() == 10_000
    assert trace.duration_ns[level.event[blocks]].max() == 2


def test_with_more_rows_than_parts_a_level_is_the_longest_events():
    trace = trace_of(*((0, 0, 100 - i) for i in range(50)))
    assert thin(trace, depths(trace), 3).duration_ns.tolist() == [100, 99, 98]
