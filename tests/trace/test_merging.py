"""Traces of several processes on one clock, never by guess; and what select leaves."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.synthetic import synthesise
from kit.errors import TraceError
from kit.trace import Event, Lane, Trace, load_trace, merge, save_trace, wall_ns

A, B = Lane(1, 1, "main"), Lane(2, 2, "main")


def one(start: int, lane: Lane = A, name: str = "e") -> Trace:
    return Trace.build([Event(name, "c", start, 5, lane)])


def test_merged_by_anchors_onto_the_clock_of_the_first() -> None:
    merged = merge([one(100), one(7_000, B, "f")], [(90, 1_000_090), (7_000, 1_000_150)])
    assert [(event.name, event.start_ns, event.lane) for event in merged.events()] == [("e", 100, A), ("f", 150, B)]
    assert merged.anchor == (90, 1_000_090)


def test_anchors_travel_with_the_files(tmp_path: Path) -> None:
    for i, trace in enumerate([replace(one(100), anchor=(0, 50)), replace(one(200, B), anchor=(0, 0))]):
        save_trace(trace, tmp_path / f"{i}.json")
    merged = merge([load_trace(tmp_path / "0.json"), load_trace(tmp_path / "1.json")])
    assert merged.start_ns.tolist() == [100, 150]


def test_refused_without_anchors() -> None:
    with pytest.raises(TraceError, match=r"trace 1 of 2 has no clock anchor.*anchors="):
        merge([replace(one(1), anchor=(0, 0)), one(2)])
    with pytest.raises(TraceError, match="as many anchors"):
        merge([one(1), one(2)], [(0, 0)])
    with pytest.raises(TraceError, match="no traces"):
        merge([])


def test_a_saved_trace_of_unknown_clock_stays_so(tmp_path: Path) -> None:
    save_trace(one(5), tmp_path / "t.json")
    assert load_trace(tmp_path / "t.json").anchor is None


def test_lanes_of_two_traces_stay_apart_and_so_do_their_flows(tmp_path: Path) -> None:
    rows = [{"ph": "X", "ts": 1, "dur": 1}, {"ph": "s", "id": 4, "ts": 1}, {"ph": "f", "id": 4, "ts": 2}]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    trace = load_trace(tmp_path / "t.json")
    merged = merge([trace, trace], [(0, 0), (0, 10)])
    assert [lane.label for lane in merged.lanes] == ["thread 0", "thread 0 of trace 2"]
    assert merged.marks is not None
    assert len(set(merged.marks.key.tolist())) == 2
    assert merged.marks.time_ns.tolist() == [1000, 1010, 2000, 2010]
    save_trace(merged, tmp_path / "again.json")
    again = load_trace(tmp_path / "again.json")
    assert again.lanes == merged.lanes
    assert list(again.events()) == list(merged.events())


def test_one_lane_that_only_one_trace_has_ids_for() -> None:
    merged = merge([replace(one(1), correlation=np.array([9])), one(2, B)], [(0, 0), (0, 0)])
    assert merged.correlation is not None
    assert merged.correlation.tolist() == [9, -1]


def test_select_by_time_name_and_lane() -> None:
    trace = Trace.build([Event(name, "c", start, 10, A) for name, start in (("a", 0), ("b", 10), ("c", 20), ("a", 30))])
    trace = merge([trace, Trace.build([Event("i", "c", 10, 0, B)])], [(0, 0), (0, 0)])
    assert [event.name for event in trace.select(window=(10, 20)).events()] == ["b", "i"]
    assert [event.name for event in trace.select(window=(9, 21)).events()] == ["a", "b", "i", "c"]
    assert [event.start_ns for event in trace.select(names=["a"]).events()] == [0, 30]
    assert [event.name for event in trace.select(window=(0, 50), names=["a", "i"], lanes=[1]).events()] == ["i"]


@pytest.mark.parametrize("name", ["t.json", "t.json.gz"])
def test_synthesised_traces_are_like_the_real_ones(tmp_path: Path, name: str) -> None:
    synthesise(5_000, tmp_path / name)
    trace = load_trace(tmp_path / name)
    assert len(trace) == 5_000
    assert sum(lane.label.startswith("GPU 0 stream") for lane in trace.lanes) == 3
    assert sum("python3" in lane.label for lane in trace.lanes) == 4
    assert wall_ns(trace) > 0
    assert trace.correlation is not None
    assert len(np.unique(trace.correlation)) > 800
    if name == "t.json":
        assert 165 < (tmp_path / name).stat().st_size / 5_000 < 185


@pytest.mark.parametrize("count", [1, 2])
def test_the_smallest_synthesised_traces(tmp_path: Path, count: int) -> None:
    synthesise(count, tmp_path / "t.json")
    assert len(load_trace(tmp_path / "t.json")) == count
    with pytest.raises(TraceError, match="ask for one or more"):
        synthesise(0, tmp_path / "t.json")


def test_the_command(tmp_path: Path) -> None:
    def kit(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", "-m", "kit", "trace", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True)

    path = tmp_path / "t.json"
    synthesise(1000, path)
    done = kit(path, "--json")
    assert (done.stderr, done.returncode) == ("", 0)
    numbers = json.loads(done.stdout)
    assert numbers["complete_events"] == 1000
    assert numbers["lanes"] == 8
    assert numbers["gpu_streams"] == 3
    assert 0 < numbers["gpu_concurrent_ns"] <= numbers["gpu_busy_ns"] <= numbers["gpu_sum_ns"]
    assert numbers["top"][0].keys() == {"name", "category", "events", "total_ns", "self_ns", "shapes"}
    assert "complete_events    1,000" in kit(path).stdout
    path.write_text(path.read_text()[:50_000])
    broken = kit(path)
    assert broken.returncode == 2
    assert broken.stderr.startswith("error: cannot read")
    assert "note: cannot read" in kit(path, "--partial").stdout
