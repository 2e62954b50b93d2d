"""Asynchronous events: in lanes of their own, paired by id, counted as an independent count says, and no work."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.trace import Event, Lane, Trace, busy_ns, load_trace, overlap_ns, save_trace, self_ns, stack
from kit.trace.lanes import depths
from kit.trace.links import links


def loaded(folder: Path, rows: list[Any]) -> Trace:
    (folder / "t.json").write_text(json.dumps(rows))
    return load_trace(folder / "t.json")


def row(ph: str, ts: float, number: object = 1, name: str = "get", **more: object) -> dict[str, object]:
    return {"ph": ph, "ts": ts, "id": number, "name": name, "cat": "net", "pid": 1, "tid": 1, **more}


WORK = {"ph": "X", "name": "f", "ts": 1, "dur": 8, "pid": 1, "tid": 1}


def test_they_stay_out_of_the_call_tree_and_of_the_busy_time(tmp_path: Path) -> None:
    trace = loaded(tmp_path, [WORK, row("b", 2), row("b", 3, 2), row("n", 4), row("e", 20), row("e", 30, 2)])
    assert [lane.label for lane in trace.lanes] == ["thread 1", "async: net"]
    assert [(event.name, event.start_ns, event.duration_ns, event.lane.label) for event in trace.events()] == [
        ("f", 1000, 8000, "thread 1"),
        ("get", 2000, 18000, "async: net"),
        ("get", 3000, 27000, "async: net"),
    ]
    assert busy_ns(trace) == 8000
    assert overlap_ns(trace) == 0
    assert self_ns(trace).tolist() == [8000, 0, 0]
    assert depths(trace).tolist() == [0, 0, 1]  # one below the other: they overlap
    assert trace.marks is not None
    assert [trace.lanes[lane].label for lane in trace.marks.lane] == ["async: net"]
    assert len(links(trace)) == 0


def test_the_older_form_and_other_ids(tmp_path: Path) -> None:
    rows = [row("S", 1), row("T", 2), row("p", 3), row("F", 4)]
    rows += [{**row("b", 5, name="x"), "id": None, "id2": {"local": "0x1"}, "cat": ""}]
    rows += [{**row("b", 6, name="x"), "id": None, "id2": {"local": "0x2"}, "cat": ""}]
    rows += [{**row("e", 7 + i, name="x"), "id": None, "id2": {"local": f"0x{1 + i}"}, "cat": ""} for i in range(2)]
    trace = loaded(tmp_path, rows)
    assert [(event.start_ns, event.duration_ns, event.lane.label) for event in trace.events()] == [
        (1000, 3000, "async: net"),
        (5000, 2000, "async: x"),
        (6000, 2000, "async: x"),
    ]
    assert trace.marks is not None
    assert len(trace.marks.time_ns) == 2


def test_ends_and_beginnings_without_the_other_are_kept(tmp_path: Path) -> None:
    trace = loaded(tmp_path, [WORK, row("b", 2), row("e", 3, 9)])
    assert [(event.start_ns, event.duration_ns) for event in trace.events()] == [
        (1000, 8000),
        (1000, 2000),
        (2000, 7000),
    ]
    assert "(ph b) but no end" in trace.notes[0]
    assert "(ph e) but no beginning" in trace.notes[1]


@pytest.mark.parametrize("seed", range(5))
def test_every_event_is_counted_and_saved(tmp_path: Path, seed: int) -> None:
    """Any mix of ids, categories, processes and order; the independent count goes by stacks."""
    chance = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for ts in range(400):
        ph = chance.choice("bbeenXC")
        more: dict[str, Any] = {"dur": chance.randint(0, 9)} if ph == "X" else {}
        more["args"] = {"value": ts} if ph == "C" else {"n": ts}
        of = {"cat": chance.choice(["net", "", "</script>"]), "pid": chance.choice([1, "p"])}
        rows.append(row(ph, ts, chance.choice([1, "1", 2.5, None]), **of, **more))
    stacks: dict[object, list[int]] = {}
    count = 0
    for i, each in enumerate(rows):
        open_here = stacks.setdefault((each["pid"], each["cat"], str(each["id"]), type(each["id"])), [])
        if each["ph"] == "b":
            open_here.append(i)
        elif each["ph"] == "e":
            count += 1  # with its beginning, or from the trace's start
            open_here[-1:] = []
        count += each["ph"] == "X"
    count += sum(map(len, stacks.values()))
    chance.shuffle(rows)
    trace = loaded(tmp_path, rows)
    assert len(trace) == count
    assert trace.marks is not None
    assert len(trace.marks.time_ns) == sum(each["ph"] in "nC" for each in rows)
    save_trace(trace, tmp_path / "again.json")
    again = load_trace(tmp_path / "again.json")

    def told(each: Trace) -> list[str]:
        return sorted(
            f"{event} {args}" for event, args in zip(each.events(), each.args_of(range(len(each))), strict=True)
        )

    assert told(again) == told(trace)
    assert again.notes == ()


def test_stacked_lanes_of_one_name_stay_apart_in_a_file(tmp_path: Path) -> None:
    lane = Lane(1, "async: net", "async: net")
    trace = Trace.build([Event("get", "net", 5, 9, lane), Event("get", "other", 6, 9, lane)])
    both = stack({"a": trace, "b": trace})
    save_trace(both, tmp_path / "t.json")
    again = load_trace(tmp_path / "t.json")
    assert sorted(map(str, again.events())) == sorted(map(str, both.events()))
    assert {row["ph"] for row in json.loads((tmp_path / "t.json").read_text())["traceEvents"]} == {"M", "b", "e"}
    assert np.array_equal(np.sort(again.start_ns), np.sort(both.start_ns))
