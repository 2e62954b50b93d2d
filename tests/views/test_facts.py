"""How much of a trace is drawn, and what is said of the rest."""

import os
import socket
import threading
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.profiler import trace_of_spans
from kit.spans import Span
from kit.trace import Event, Lane, Trace, lane_concurrency, links, summary
from kit.trace.columns import Marks
from kit.trace.lanes import depths
from kit.views.facts import busy_lanes, drawn_rows, lane_meaning, left_out, part_of
from kit.views.levels import every_event
from kit.views.static import figure_svg
from kit.views.timeline import COPY_BYTES, _size, columns, timeline


def lanes_of(count: int, per_lane: int, apart: int = 100) -> Trace:
    """Lanes of equal events; thread 7 has longer ones."""
    n = count * per_lane
    lane = np.arange(n) % count
    zeros = np.zeros(n, np.int32)
    return Trace(
        start_ns=(np.arange(n) // count) * apart,
        duration_ns=np.where(lane == 7, 60, 50),
        lane=lane.astype(np.int32),
        name=zeros,
        category=zeros,
        lanes=tuple(Lane(1, i, f"thread {i}") for i in range(count)),
        names=("op",),
        categories=("cpu_op",),
    )


MANY = {"50,000 lanes": lanes_of(50_000, 4), "200,000 events that all overlap": lanes_of(1, 200_000, apart=0)}


@pytest.mark.parametrize("what", MANY)
def test_a_picture_of_very_many_rows_has_a_bound_and_says_what_it_leaves_out(what: str) -> None:
    trace = MANY[what]
    widget = timeline(trace)
    copy = widget.copy
    assert _size(copy) <= COPY_BYTES
    assert copy["total"] == len(trace) == summary(trace)["complete_events"]
    assert 0 < sum(lane["rows"] for lane in copy["lanes"]) <= 2000
    assert copy["size"] == trace.size
    assert copy["left_out"].startswith("not drawn: ")
    svg = widget.figure().svg
    root = ElementTree.fromstring(svg)
    assert len(svg) < 200_000
    assert int(root.attrib["height"]) < 10_000
    said = " ".join(root.itertext())
    assert trace.size in said
    hidden = [text for text in root.itertext() if text.startswith("not drawn: ")]
    lanes = {"50,000 lanes": "49,600 lanes and 198,400 events"}.get(what, "199,900 events")
    assert hidden == [f"not drawn: {lanes}"]
    full = columns(trace, depths(trace), every_event(trace), links(trace))  # with a kernel, or as a page: all of it
    assert full["count"] == len(trace)
    assert full["left_out"] == ""
    assert len(full["lanes"]) == len(trace.lanes)


def test_the_lanes_with_the_longest_events_are_drawn_and_keep_their_numbers() -> None:
    trace = lanes_of(9, 2)
    rows = drawn_rows(trace, depths(trace), 3)
    assert rows.tolist() == [1, 1, 0, 0, 0, 0, 0, 1, 0]
    assert left_out(trace, depths(trace), rows) == "not drawn: 6 lanes and 12 events"
    packed = columns(trace, depths(trace), part_of(trace, depths(trace), rows, 100), links(trace), rows)
    assert [(lane["index"], lane["label"]) for lane in packed["lanes"]] == [
        (0, "thread 0"),
        (1, "thread 1"),
        (7, "thread 7"),
    ]
    assert packed["count"] == 6
    assert left_out(trace, depths(trace), drawn_rows(trace, depths(trace))) == ""


def test_one_tall_lane_leaves_room_for_the_others() -> None:
    tall = [Event("a", "cpu_op", 0, 1000 - i, Lane(1, 1, "tall")) for i in range(100)]
    trace = Trace.build([*tall, *(Event("b", "cpu_op", 0, 5, Lane(1, i, f"thread {i}")) for i in range(2, 12))])
    assert drawn_rows(trace, depths(trace), 40).tolist() == [10] + [1] * 10


def test_the_number_of_lanes_is_one_number_everywhere() -> None:
    used, empty, marked = Lane(1, 1, "a"), Lane(1, 2, "nothing"), Lane(1, "counters", "counters")
    trace = Trace.build([Event("x", "cpu_op", 0, 5, used)])
    one = np.array([2], np.int32)
    marks = Marks(np.array([3]), one, one * 0, one * 0, one * 2, one * 0, np.array([1.0]))
    trace = replace(trace, lanes=(used, empty, marked), marks=marks, keys=("bytes",))
    assert summary(trace)["lanes"] == 2
    assert trace.size == "1 event in 2 lanes"
    assert repr(trace) == "Trace(1 event in 2 lanes)"
    widget = timeline(trace)
    assert repr(widget) == "Timeline(1 event in 2 lanes)"
    assert widget.copy["size"] == "1 event in 2 lanes"
    assert "1 event in 2 lanes" in widget.copy["summary"]
    assert "1 event in 2 lanes" in " ".join(ElementTree.fromstring(figure_svg(trace)).itertext())


def test_events_without_a_length_are_shown() -> None:
    """As a reader gives a file of nothing but instants and counters."""
    lane = Lane(1, "counters", "counters")
    trace = Trace.build(Event(name, "", time, 0, lane) for name, time in (("memory", 10), ("mark", 20), ("memory", 40)))
    copy = timeline(trace).copy
    assert (copy["count"], copy["wall"], copy["size"]) == (3, 30, "3 events in 1 lane")
    assert sorted(kind[0] for kind in copy["kinds"]) == ["mark", "memory"]
    assert set(copy["busy"]) == {0}
    assert "No events" not in figure_svg(trace)


spans = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40), st.integers(0, 30)), min_size=1, max_size=10)


@given(spans, st.integers(1, 7))
@settings(deadline=None)
def test_the_curve_of_busy_lanes_is_their_average(rows: list[tuple[int, int, int]], bins: int) -> None:
    around = Event("PyTorch Profiler (0)", "Trace", 0, 70, Lane("Spans", "", ""))  # shown, and not busy
    events = [Event("e", "cpu_op", start, duration, Lane(1, lane, "")) for lane, start, duration in rows]
    trace = Trace.build([around, *events])
    steps = lane_concurrency(trace)
    busy = sum(int(level) * int(length) for level, length in zip(steps.level, np.diff(steps.time_ns), strict=False))
    curve = busy_lanes(trace, bins)
    assert curve.sum() * 70 / bins == pytest.approx(busy)
    moments = np.linspace(0, 70, 700, endpoint=False) + 0.05
    lanes = sum(
        np.any([(s <= moments) & (moments < s + d) for lane, s, d in rows if lane == each] or [moments < 0], axis=0)
        for each in range(3)
    )
    if 700 % bins == 0:
        assert curve == pytest.approx(lanes.reshape(bins, -1).mean(axis=1), abs=0.02)


def test_the_page_has_the_curve() -> None:
    copy = timeline(lanes_of(4, 3)).copy
    assert len(copy["busy"]) == 400
    assert max(copy["busy"]) == 4


def test_lanes_of_a_host_are_together_and_say_how_exactly_its_clock_is_known() -> None:
    main = threading.main_thread().name
    spans = [
        Span("call", "call", 0, 9, os.getpid(), 1, main),
        Span("a", "task", 1, 2, "host-b: process 7", 7, "rank 1", host="host-b"),
        Span("b", "task", 2, 3, 8, 8, "rank 2"),
        Span("c", "task", 3, 4, "host-b: process 9", 9, "rank 3", host="host-b"),
    ]
    trace = replace(trace_of_spans(spans), about={"clocks_ns": {"host-b": 230_000}})
    here = socket.gethostname()
    assert [lane.label for lane in trace.lanes] == [
        f"{here}: caller",
        f"{here}: rank 2",
        "host-b: rank 1",
        "host-b: rank 3",
    ]
    caller, _, _, rank = (lane_meaning(trace, lane) for lane in trace.lanes)
    assert caller == "the thread that called the model"
    assert rank == "a rank of torch.distributed that runs branches; its times are exact to ±0.23 ms"
    alone = trace_of_spans(spans[:1])
    assert [lane.label for lane in alone.lanes] == ["caller"], "one host needs no name"
