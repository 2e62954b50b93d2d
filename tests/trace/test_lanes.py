from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kit.trace.columns import Event, Lane, Trace
from kit.trace.lanes import _pack_overlapping, depths, exclusive_ns, pack

LANES = (Lane(1, 1, "caller"), Lane(1, 2, "worker 0"))


def trace_of(*spans):
    """A trace of (lane index, start, duration) triples."""
    return Trace.build(Event("e", "cpu_op", start, duration, LANES[lane]) for lane, start, duration in spans)


# Small numbers, so that equal starts, equal ends, instants and crossings all happen often.
traces = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 12), st.integers(0, 8)), max_size=40).map(
    lambda spans: trace_of(*spans)
)


@st.composite
def call_trees(draw):
    """Properly nested spans of one lane: every span is cut into pieces of its parent."""
    spans = []

    def grow(start, end, budget):
        cuts = sorted(draw(st.lists(st.integers(start, end), max_size=4)))
        for left, right in pairwise(cuts):
            spans.append((0, left, right - left))
            if budget:
                grow(left, right, budget - 1)

    grow(0, 60, 3)
    return trace_of(*spans)


def pairs_of_one(key, trace):
    for value in np.unique(key):
        events = np.flatnonzero(key == value)
        yield from ((i, j) for at, i in enumerate(events) for j in events[at + 1 :])


def overlap(trace, i, j):
    return max(trace.start_ns[i], trace.start_ns[j]) < min(trace.end_ns[i], trace.end_ns[j])


def holds(trace, outer, inner):
    inside = trace.start_ns[outer] <= trace.start_ns[inner] and trace.end_ns[inner] <= trace.end_ns[outer]
    return inside and trace.duration_ns[inner] < trace.duration_ns[outer] and overlap(trace, outer, inner)


@given(traces)
def test_no_two_events_of_a_row_overlap(trace):
    row = depths(trace)
    assert row.shape == (len(trace),)
    assert (row >= 0).all()
    for i, j in pairs_of_one(trace.lane * 1000 + row, trace):
        assert not overlap(trace, i, j)


@given(traces)
def test_an_event_lies_below_the_one_that_holds_it_and_sublanes_nest(trace):
    sublane, depth = pack(trace)
    row = depths(trace)
    for i, j in pairs_of_one(trace.lane * 1000 + sublane, trace):
        if overlap(trace, i, j) and trace.duration_ns[i] != trace.duration_ns[j]:
            assert holds(trace, i, j) or holds(trace, j, i)
        for outer, inner in ((i, j), (j, i)):
            if holds(trace, outer, inner):
                assert depth[outer] < depth[inner]
                assert row[outer] < row[inner]


@given(call_trees())
def test_a_call_tree_needs_one_sublane(trace):
    assert not pack(trace).sublane.any()


@given(traces | call_trees())
def test_the_vectorised_and_the_stepwise_packing_agree(trace):
    for lane in range(2):
        one = np.flatnonzero(trace.lane == lane)
        one = one[np.lexsort((-trace.duration_ns[one], trace.start_ns[one]))]
        for whole, slow in zip(pack(trace), _pack_overlapping(trace.start_ns[one], trace.end_ns[one]), strict=True):
            np.testing.assert_array_equal(whole[one], slow)


def test_overlap_without_nesting_opens_a_row_below_the_nested_ones():
    trace = trace_of((0, 0, 10), (0, 2, 3), (0, 8, 6), (0, 9, 2), (1, 0, 5))
    assert pack(trace).sublane.tolist() == [0, 0, 0, 1, 1]
    assert dict(zip(trace.start_ns.tolist(), depths(trace).tolist(), strict=True)) == {0: 0, 2: 1, 8: 2, 9: 3}


def test_rows_do_not_depend_on_the_order_of_the_columns():
    trace = trace_of((0, 0, 10), (0, 2, 3), (1, 8, 6), (1, 9, 2), (0, 4, 4))
    back = np.arange(len(trace))[::-1]
    columns = ("start_ns", "duration_ns", "lane", "name", "category")
    turned = replace(trace, **{column: getattr(trace, column)[back] for column in columns})
    np.testing.assert_array_equal(depths(turned)[back], depths(trace))


def test_an_empty_trace_has_no_rows():
    assert depths(trace_of()).tolist() == []


def test_a_lane_of_events_that_all_overlap_has_a_row_for_each():
    n = 20_000  # each is compared with few others: with all of them this would take minutes
    staggered = stretched(np.arange(n), np.full(n, n))
    assert pack(staggered).sublane.tolist() == list(range(n))
    assert depths(staggered).tolist() == list(range(n))
    nested = stretched(np.arange(n), 2 * (n - np.arange(n)))
    assert pack(nested).depth.tolist() == list(range(n))
    assert exclusive_ns(nested).tolist() == [2] * n


def test_lanes_that_cannot_stand_on_one_axis_of_64_bits():
    """With decades between them, a hundred lanes end to end would be longer than 2**63 nanoseconds."""
    lanes = np.repeat(np.arange(100), 3)
    start = np.tile([0, 5, 8], 100) + lanes * 10**16
    trace = stretched(start, np.tile([10, 10, 1], 100), lanes)
    near = stretched(np.tile([0, 5, 8], 100), np.tile([10, 10, 1], 100), lanes)
    np.testing.assert_array_equal(pack(trace), pack(near.take(np.lexsort((near.start_ns, near.lane)))))
    assert exclusive_ns(trace).tolist() == [5, 9, 1] * 100


def stretched(start, duration, lane=None):
    n = len(start)
    lane = np.zeros(n, np.int32) if lane is None else lane.astype(np.int32)
    lanes = tuple(Lane(1, i, f"thread {i}") for i in range(int(lane.max()) + 1))
    zeros = np.zeros(n, np.int32)
    return Trace(start.astype(np.int64), duration.astype(np.int64), lane, zeros, zeros, lanes, ("op",), ("cpu_op",))
