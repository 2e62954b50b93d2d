"""Tables of events by name, with shapes, and of what changed between two traces."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.trace import Changes, Event, Lane, Names, Trace, by_name, changes

LANE, STREAM = Lane(1, 1, "caller"), Lane(0, 7, "GPU 0 stream 7")


def before_and_after() -> tuple[Trace, Trace]:
    outer = Event("region", "region", 0, 100, LANE)
    rows = [outer, Event("conv", "cpu_op", 0, 40, LANE), Event("copy", "cpu_op", 10, 10, LANE)]
    before = Trace.build([*rows, Event("relu", "cpu_op", 50, 5, LANE)])
    after = Trace.build(
        [
            outer,
            Event("conv", "cpu_op", 0, 10, LANE),
            Event("conv", "cpu_op", 20, 10, LANE),
            Event("new", "cpu_op", 40, 7, LANE),
            Event("gemm", "kernel", 40, 9, STREAM),
        ]
    )
    return before, after


def test_changes_go_from_the_largest_loss_to_the_largest_gain() -> None:
    before, after = before_and_after()
    found = changes(before, after)
    assert [tuple(row) for row in found] == [
        ("new", 0, 0, 1, 7),
        ("relu", 1, 5, 0, 0),
        ("conv", 1, 30, 2, 20),  # of the 40, 10 were the copy's
        ("copy", 1, 10, 0, 0),
    ]
    assert [row.change_ns for row in found] == [7, -5, -10, -10]
    assert [row.change_ns for row in changes(after, before)] == [10, 10, 5, -7]
    assert changes(before, before)[0].change_ns == 0
    assert [tuple(row) for row in changes(before, after, kernels=True)] == [("gemm", 0, 0, 1, 9)]


def test_the_table_of_changes_shows_shares_and_a_sum_and_counts_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = before_and_after()
    found = changes(before, after)
    head, *lines, together = found.table()
    assert head == ("name", "events", "self time", "change", "share of change")
    assert lines[0] == ("new", "0 -> 1", "0 ns -> 7 ns", "+7 ns", "21.9%")  # 7 of 7 + 5 + 10 + 10
    assert lines[2] == ("conv", "1 -> 2", "30 ns -> 20 ns", "-10 ns", "31.2%")
    assert together[:4] == ("together", "3 -> 3", "45 ns -> 27 ns", "-18 ns")
    monkeypatch.setattr(Changes, "SHOWN", 2)
    assert [line[0] for line in found.table()] == ["name", "conv", "copy", "together"]
    assert str(found).endswith("and 2 more, which changed less or not at all")
    assert "<td" in found._repr_html_()
    assert repr(found) == "Changes(4 rows)"


def test_what_does_not_change_is_not_shown_but_in_the_sum() -> None:
    before, _ = before_and_after()
    same = changes(before, before)
    assert [line[0] for line in same.table()] == ["name", "together"]
    assert "and 3 more" in str(same)
    nothing = str(changes(Trace.build([]), Trace.build([]))).splitlines()
    assert nothing[-2].startswith("together  0 -> 0")
    assert nothing[-1] == "nothing of this kind in either trace"


rows = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20), st.integers(0, 8)), max_size=12)


@given(rows, rows)
@settings(deadline=None)
def test_changes_add_up_to_the_difference_of_the_self_times(one: Any, other: Any) -> None:
    traces = [
        Trace.build(Event(name, "cpu_op", start, length, LANE) for name, start, length in side) for side in (one, other)
    ]
    wholes = [sum(row.self_ns for row in by_name(trace)) for trace in traces]
    found = changes(*traces)
    assert sum(row.change_ns for row in found) == wholes[1] - wholes[0]
    assert [row.change_ns for row in found] == sorted((row.change_ns for row in found), reverse=True)


SHAPES = [
    {"Input Dims": [[4, 3, 8, 8], [2, 3, 1, 1], [], []], "Input type": ["float", "float", "Scalar", ""]},
    {"Input Dims": [[1, 3, 8, 8], [2, 3, 1, 1], [], []]},
    {"Input Dims": [[[2, 2], [2, 3]], []]},
    {"Input Dims": "hostile"},
    {},
]


def with_shapes(monkeypatch: pytest.MonkeyPatch) -> Trace:
    def args_of(self: Trace, events: Any) -> list[dict[str, Any]]:
        return [SHAPES[int(i)] for i in self.start_ns[events] // 10]

    monkeypatch.setattr(Trace, "args_of", args_of, raising=False)
    names = ["conv", "conv", "cat", "odd", "conv"]
    return Trace.build(Event(name, "cpu_op", 10 * i, 5 + i, LANE) for i, name in enumerate(names))


def test_operators_are_told_apart_by_their_shapes_where_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = with_shapes(monkeypatch)
    assert [(row.name, row.events, row.self_ns) for row in by_name(trace)] == [
        ("conv", 3, 20),
        ("odd", 1, 8),
        ("cat", 1, 7),
    ]
    found = by_name(trace, shapes=True)
    assert [(row.name, row.shapes, row.self_ns) for row in found] == [
        ("conv", "", 9),
        ("odd", "hostile", 8),
        ("cat", "[2x2, 2x3]", 7),
        ("conv", "1x3x8x8, 2x3x1x1", 6),
        ("conv", "4x3x8x8, 2x3x1x1", 5),
    ]
    assert found.table()[0][-1] == "input shapes"


def test_the_table_of_names_has_one_line_for_each_and_counts_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = with_shapes(monkeypatch)
    assert by_name(trace).table()[:2] == [
        ("self", "share", "total", "events", "name"),
        ("20 ns", "57.1%", "20 ns", "3", "conv"),
    ]
    monkeypatch.setattr(Names, "SHOWN", 1)
    assert str(by_name(trace)).endswith("and 2 more")
    assert repr(by_name(trace)) == "Names(3 rows)"
    hostile = by_name(Trace.build([Event("a\n<b>" + "x" * 99, "cpu_op", 0, 1, LANE)]))
    assert "\n<b>" not in str(hostile)
    assert "&lt;b&gt;" in hostile._repr_html_()
