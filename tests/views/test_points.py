"""Counters, instants and arguments for the timeline's page: exact, of limited size, and text only."""

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from kit.trace import Event, Lane, Trace, load_trace
from kit.trace.columns import Marks
from kit.views.details import described
from kit.views.points import packed_points, points_text, value_text
from kit.views.static import figure_svg
from kit.views.timeline import COPY_BYTES, _size, timeline

EVIL = "<script>alert('x')</script>&\"'🔥"


def marked(folder: Path, values: int = 50, name: str = "used") -> Trace:
    """A call, a counter of two series, three instants on its thread and one of the whole trace."""
    rows = [{"ph": "X", "name": "call", "pid": 1, "tid": 1, "ts": 10, "dur": 100, "args": {"Input Dims": [[2]]}}]
    rows += [
        {"ph": "C", "name": name, "pid": 1, "ts": 10 + i, "args": {"a": i, "b": 2 * (i % 7)}} for i in range(values)
    ]
    rows += [{"ph": "i", "s": "t", "name": f"at {ts}", "pid": 1, "tid": 1, "ts": ts} for ts in (30, 20, 40)]
    rows += [{"ph": "i", "s": "g", "name": EVIL, "pid": 1, "tid": 1, "ts": 35}]
    (folder / "t.json").write_text(json.dumps(rows))
    return load_trace(folder / "t.json")


def read(packed):
    """The columns of points as timeline.js reads them."""
    return [
        np.frombuffer(buffer, kind)
        for buffer, kind in zip(packed["buffers"][7:], ("<f8",) * 3 + ("<u4",) * 2, strict=True)
    ]


def test_every_point_is_on_the_page(tmp_path):
    widget = timeline(marked(tmp_path))
    copy = widget.copy
    time, value, mark_time, mark_lane, mark_name = read(copy)
    first, second = copy["curves"]
    assert [(curve["label"], curve["low"], curve["high"]) for curve in (first, second)] == [
        ("used: a", 0, 49),
        ("used: b", 0, 12),
    ]
    assert value[first["first"] : first["end"]].tolist() == list(range(50))
    assert time[second["first"] : second["end"]].tolist() == [1000 * i for i in range(50)]
    assert mark_time.tolist() == [10_000, 20_000, 30_000, 25_000]
    assert mark_lane.tolist() == [0, 0, 0, len(copy["lanes"])]
    assert [copy["marks"][name] for name in mark_name] == ["at 20", "at 30", "at 40", EVIL]
    assert [lane["label"] for lane in copy["lanes"]] == ["thread 1"]  # none for the counters, which are curves
    assert (copy["left_out"], copy["thin"]) == ("", False)
    assert "4 instants, 2 counters" in copy["summary"]


def test_the_copy_has_the_range_of_many_points_and_the_kernel_the_rest(tmp_path):
    trace = marked(tmp_path, 20_000)
    widget, sent = timeline(trace), []
    assert _size(widget.copy) <= COPY_BYTES
    assert widget.copy["thin"]
    assert not widget.copy["more"]  # no event is missing
    assert len(read(widget.copy)[0]) < 10_000
    assert [curve["high"] for curve in widget.copy["curves"]] == [19_999, 12]
    widget.send = lambda content, buffers=None: sent.append((content, buffers))
    widget._handle_custom_msg({"ask": "columns"}, [])
    ((content, buffers),) = sent
    assert len(buffers[7]) == 8 * 40_000
    assert not content["columns"]["thin"]


def test_many_instants_and_counters_with_long_names_fit_into_the_copy():
    trace = Trace.build([Event("call", "call", 0, 10**6, Lane(1, 1, "caller"))])
    n = 30_000
    at = np.arange(n)
    marks = Marks(
        time_ns=at.astype(np.int64),
        lane=np.zeros(n, np.int32),
        name=(at % 500).astype(np.int32),
        category=np.zeros(n, np.int32),
        kind=np.where(at % 2, 3, 4).astype(np.int32),
        key=np.where(at % 2, -1, at % 300).astype(np.int32),
        value=np.where(at % 2, np.nan, at.astype(float)),
    )
    names = tuple(f"{i} {EVIL}" * 1000 for i in range(500))
    trace = replace(trace, names=names, marks=marks, keys=tuple(range(300)))
    assert _size(timeline(trace).copy) <= COPY_BYTES
    meta, buffers = packed_points(trace, [0], 0)
    assert buffers[2] == b""
    assert meta["fewer"]
    ElementTree.fromstring(figure_svg(trace))


def test_the_kernel_answers_with_the_arguments_of_an_event(tmp_path):
    widget, sent = timeline(marked(tmp_path)), []
    widget.send = lambda content, buffers=None: sent.append(content)
    before = widget.get_state()
    for event in (0, 1, -1, True, "0", None, 1e99, [0]):
        widget._handle_custom_msg({"ask": "args", "event": event}, [])
    assert sent == [{"args": [["Input Dims", "[[2]]", []]], "event": 0}]
    assert widget.get_state() == before  # nothing of it is saved with the notebook


def test_arguments_are_short_and_in_order():
    said = described(
        {
            EVIL * 100: EVIL * 1000,
            "Call stack": ";".join(f"a.py({i}): f" for i in range(300)),
            "Backtrace": ["x", "y"],
            "stack": "one",
            "bytes": 3 << 19,
            "Total Allocated": 5,
            "Input type": ["float"],
            "Input Dims": [[8, 3], []],
            "correlation": 7,
            "flag": True,
            **{str(i): None for i in range(100)},
        }
    )
    assert said[0] == ["Input Dims", "[[8, 3], []]", []]
    assert said[1][0] == "Input type"
    assert said[2][1].startswith(EVIL)
    assert (len(said[2][0]) < 110, len(said[2][1]) < 1_030) == (True, True)  # cut, and how long it was
    rows = {name: (text, lines) for name, text, lines in said}
    assert rows["Call stack"][0] == "300 lines"
    assert rows["Call stack"][1][0] == "a.py(0): f"
    assert rows["Call stack"][1][-1] == "… 100 more"
    assert rows["Backtrace"] == ("2 lines", ["x", "y"])
    assert rows["stack"] == ("one", [])
    assert rows["bytes"] == ("1,572,864 (1.5 MiB)", [])
    assert rows["Total Allocated"] == ("5", [])
    assert rows["flag"] == ("true", [])
    assert said[-1] == ["…", "50 more", []]
    json.dumps(said)
    assert described({}) == []


@pytest.mark.parametrize(
    ("value", "text", "size"),
    [
        (0, "0", "0 B"),
        (1234.5, "1,234", "1.2 KiB"),
        (3 << 29, "1,610,612,736", "1.5 GiB"),
        (-2048, "-2,048", "-2.0 KiB"),
    ],
)
def test_values_in_words(value, text, size):
    assert (value_text(value, False), value_text(value, True)) == (text, size)


def test_the_still_picture_has_curves_and_marks(tmp_path):
    picture = figure_svg(marked(tmp_path, name=EVIL))
    root = ElementTree.fromstring(picture)
    words = " ".join(root.itertext())
    assert f"{EVIL[:20]}" in words
    assert "49" in words
    assert picture.count("stroke='#1976d2'") == 2
    assert "8l-4 7z" in picture
    assert points_text(Trace.build([])) == ""
