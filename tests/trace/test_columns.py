"""Columns hold exactly the rows they were built from, and stacked traces keep to themselves."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.errors import UnavailableError
from kit.trace import Event, Lane, Trace, stack

LANES = (Lane(1, 1, "caller"), Lane(1, 2, "worker 0"), Lane(0, 7, "stream 7"))
events = st.lists(
    st.builds(
        Event,
        st.sampled_from(["conv", "relu"]),
        st.sampled_from(["task", "cpu_op"]),
        st.integers(-(2**62), 2**62),
        st.integers(0, 2**40),
        st.sampled_from(LANES),
        st.integers(-1, 2**62),
    ),
    max_size=30,
)


@given(events)
@settings(deadline=None)
def test_no_row_is_lost_or_changed(rows: list[Event]) -> None:
    trace = Trace.build(rows)
    assert sorted(trace.events()) == sorted(rows)
    assert len(trace) == len(rows)


def test_rows_are_sorted_by_start_and_parents_come_before_children() -> None:
    trace = Trace.build(
        [Event("child", "", 5, 1, LANES[0]), Event("late", "", 9, 1, LANES[0]), Event("parent", "", 5, 9, LANES[0])]
    )
    assert [event.name for event in trace.events()] == ["parent", "child", "late"]
    assert trace.end_ns.tolist() == [14, 6, 10]


def test_select_keeps_the_lane_list_and_takes_both_conditions() -> None:
    trace = Trace.build(
        [Event("a", "task", 0, 1, LANES[0]), Event("b", "cpu_op", 1, 1, LANES[1]), Event("c", "task", 2, 1, LANES[1])]
    )
    assert [event.name for event in trace.select(categories=["task"]).events()] == ["a", "c"]
    assert [event.name for event in trace.select(lanes=[1], categories=["task"]).events()] == ["c"]
    assert trace.select(lanes=[]).lanes == trace.lanes
    assert len(trace.select(categories=["no such"])) == 0


def test_stacked_traces_all_start_at_zero_and_their_lanes_stay_together_in_the_order_given() -> None:
    one = Trace.build([Event("a", "task", 1_000, 5, LANES[0]), Event("b", "task", 1_010, 5, LANES[1])])
    two = Trace.build([Event("a", "task", 7, 50, LANES[0]), Event("b", "task", 8, 50, LANES[1])])
    both = stack({"sequential": two, "threads": one, "nothing": Trace.build([])})
    assert [lane.group for lane in both.lanes] == ["sequential", "sequential", "threads", "threads"]
    assert {(event.lane.group, event.name, event.start_ns, event.duration_ns) for event in both.events()} == {
        ("sequential", "a", 0, 50),
        ("sequential", "b", 1, 50),
        ("threads", "a", 0, 5),
        ("threads", "b", 10, 5),
    }


def test_stacked_traces_are_aligned_where_they_fork() -> None:
    late = Trace.build([Event("stem", "cpu_op", 100, 30, LANES[0]), Event("region", "region", 140, 50, LANES[0])])
    soon = Trace.build([Event("region", "region", 5, 20, LANES[0]), Event("region", "region", 90, 20, LANES[0])])
    none = Trace.build([Event("b", "cpu_op", 77, 20, LANES[0])])
    both = stack({"late": late, "soon": soon, "none": none})
    starts = [(event.lane.group, event.name, event.start_ns) for event in both.events()]
    assert sorted(starts) == [
        ("late", "region", 40),
        ("late", "stem", 0),
        ("none", "b", 40),
        ("soon", "region", 40),
        ("soon", "region", 125),
    ]


@pytest.mark.parametrize(
    ("rows", "said"), [([], "0 events in 0 lanes"), ([Event("a", "", 3, 0, LANES[0])], "1 event in 1 lane")]
)
def test_repr_counts(rows: list[Event], said: str) -> None:
    assert repr(Trace.build(rows)) == f"Trace({said})"


def test_a_data_frame_has_every_event(monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas")
    rows = [Event("a", "cpu_op", 5, 9, LANES[0], 7), Event("b", "kernel", 6, 1, Lane("gpu", 7, "caller", "threads"))]
    trace = Trace.build(rows)
    frame = trace.to_pandas()
    assert frame.columns.tolist() == [
        *("start_ns", "duration_ns", "name", "category", "process", "thread", "lane", "group"),
        *("correlation", "external"),
    ]
    assert frame.to_numpy().tolist() == [
        [5, 9, "a", "cpu_op", 1, 1, "caller", "", 7, -1],
        [6, 1, "b", "kernel", "gpu", 7, "caller", "threads", -1, -1],
    ]
    assert isinstance(frame["name"].dtype, pandas.CategoricalDtype)
    assert frame.groupby("lane", observed=True)["duration_ns"].sum().to_dict() == {"caller": 10}
    assert len(Trace.build([]).to_pandas()) == 0
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UnavailableError, match=r"branch-lab\[lab\]"):
        trace.to_pandas()
