"""What is saved opens elsewhere: Perfetto drops nothing of it, and TensorBoard's profiler sees every event."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.trace import Event, Lane, Trace, load_trace, save_trace, stack
from kit.trace.columns import KINDS, Key, Marks
from kit.trace.links import links
from tests.trace.perfetto import imported
from tests.trace.test_loading import kineto, x

RECORDED = sorted((Path(__file__).parent / "recorded").glob("*.json.gz"))


def told(trace: Trace) -> Counter[tuple[str, int, int]]:
    start = min([int(trace.start_ns.min()), *([] if trace.marks is None else trace.marks.time_ns.tolist())])
    return Counter((event.name, event.start_ns - start, event.duration_ns) for event in trace.events())


def saved(trace: Trace, folder: Path) -> Any:
    save_trace(trace, folder / "saved.json")
    found = imported(folder / "saved.json")
    assert found.dropped == []
    assert Counter(found.slices) == told(trace)
    return found


def events(*spans: tuple[int, int], lane: Lane) -> list[Event]:
    return [Event(f"e{start}", "c", start, length, lane) for start, length in spans]


CROSSING = [(0, 10), (5, 10), (6, 3), (7, 20)]
HARD = {
    "overlapping": events(*CROSSING, lane=Lane(1, 7, "pool")),
    "thread 0 beside the process's own": [
        event for tid in (0, 5) for event in events(*CROSSING, lane=Lane(5, tid, f"stream {tid}"))
    ],
    "thread 0 of process 0": events(*CROSSING, lane=Lane(0, 0, "GPU 0 stream 0")),
    "negative threads": [event for tid in (-1, -2) for event in events((0, 10), lane=Lane(3, tid, f"{tid}"))],
    "threads of 64 bits": [event for i in range(3) for event in events((i, 10), lane=Lane(9, 2**40 + i, f"t{i}"))],
    "names for processes": [event for name in "abc" for event in events((0, 10), lane=Lane(name, name, name))],
    "a deep recursion": events(*((i, 2000 - 2 * i) for i in range(700)), lane=Lane(1, 1, "deep")),
    "instants at one moment": events(*[(5, 0)] * 600, lane=Lane(1, 1, "instants")),
    "an instant at an end": events((0, 5), (5, 0), (5, 5), lane=Lane(1, 1, "a")),
}


@pytest.mark.parametrize("what", HARD)
def test_perfetto_drops_no_event(tmp_path: Path, what: str) -> None:
    trace = Trace.build(HARD[what])
    saved(trace, tmp_path)
    again = load_trace(tmp_path / "saved.json")
    assert list(again.events()) == list(trace.events())
    assert again.lanes == trace.lanes


places = st.sampled_from([0, 1, 5, -1, 2**33, "a", "5"])
spans = st.tuples(st.integers(0, 30), st.integers(0, 20))


@given(st.lists(st.tuples(places, places, spans), min_size=1, max_size=40))
@settings(deadline=None, max_examples=100)
def test_perfetto_drops_no_event_of_any_trace(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, Any, tuple[int, int]]]
) -> None:
    trace = Trace.build(Event("e", "c", *span, Lane(pid, tid, f"{pid} {tid}")) for pid, tid, span in rows)
    saved(trace, tmp_path_factory.mktemp("any"))


def with_flows(keys: tuple[Key, ...]) -> Trace:
    """A flow for each key, from an event to one that overlaps another in its lane."""
    rows, marks = [], list[tuple[int, int, int, int, int, int, float]]()
    one, two = Lane(1, 1, "one"), Lane(1, 2, "two")
    for i, _ in enumerate(keys):
        at = 100 * i
        rows += [*events((at, 10), lane=one), *events((at + 5, 20), (at + 10, 30), lane=two)]
        marks += [(at + 1, 0, 0, 0, KINDS.index("s"), i, np.nan), (at + 12, 1, 0, 0, KINDS.index("f"), i, np.nan)]
    columns: list[Any] = [np.array(column) for column in zip(*marks, strict=True)]
    for i in range(1, 6):
        columns[i] = columns[i].astype(np.int32)
    trace = Trace.build(rows)
    return replace(trace, marks=Marks(*columns), keys=keys)


def named(trace: Trace) -> Counter[tuple[int, int]]:
    return Counter((int(trace.start_ns[a]), int(trace.start_ns[b])) for a, b in links(trace))


@pytest.mark.parametrize("keys", [(1, 2), (1, "1"), ("0x10", 16, 17), ("a-1", "b-2", -5), (2**64 - 1, 2**63), (7, 7)])
def test_perfetto_draws_every_flow_between_its_events(tmp_path: Path, keys: tuple[Key, ...]) -> None:
    trace = with_flows(keys)
    flows = saved(trace, tmp_path).flows
    assert flows.total() == len(keys)
    assert {(a[1], b[1]) for a, b in flows} == set(named(trace))
    assert named(load_trace(tmp_path / "saved.json")) == named(trace)


def test_flows_of_two_traces_with_equal_ids_stay_apart(tmp_path: Path) -> None:
    trace = stack({"before": with_flows((1, 2)), "after": with_flows((1, 2))})
    assert saved(trace, tmp_path).flows.total() == 4
    assert named(load_trace(tmp_path / "saved.json")) == named(trace)


def test_counters_and_instants(tmp_path: Path) -> None:
    rows = [
        x(),
        {"ph": "C", "name": "memory", "ts": 1.5, "pid": 1, "args": {"used": 3, "free": 2.5}},
        {"ph": "i", "name": "here", "ts": 2, "pid": 1, "tid": 1, "s": "t"},
        {"ph": "i", "name": "everywhere", "ts": 2, "s": "g"},
    ]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    found = saved(load_trace(tmp_path / "t.json"), tmp_path)
    assert sorted(found.counters) == [2.5, 3]
    assert found.instants == 2


def test_a_control_character_in_a_traces_origin(tmp_path: Path) -> None:
    trace = replace(Trace.build(events((0, 1), lane=Lane(1, 1, "a"))), about={"command": "a\x7f\x01b"})
    saved(trace, tmp_path)
    assert load_trace(tmp_path / "saved.json").about == trace.about


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recordings_of_other_programs_once_saved(tmp_path: Path, path: Path) -> None:
    saved(load_trace(path), tmp_path)


def test_the_model_of_perfetto_bites(tmp_path: Path) -> None:
    rows = [
        x(ts=0, dur=10),
        x(ts=5, dur=10),
        x(pid=5, tid=0, ts=0, dur=10),
        x(pid=5, tid=5, ts=5, dur=10),
        {"ph": "s", "id": "no hex", "ts": 1, "pid": 1, "tid": 1},
        {"ph": "s", "id": 1, "ts": 1, "pid": 8, "tid": 8},
        {"ph": "f", "id": 1, "ts": 2, "pid": 1, "tid": 1, "bp": "e"},
        {"ph": "b", "ts": 2, "pid": 1, "tid": 1},
        {"ph": "C", "name": "c", "ts": 2, "pid": 1, "args": {"a": None}},
    ]
    (tmp_path / "t.json").write_text(json.dumps({"traceEvents": rows}))
    assert len(imported(tmp_path / "t.json").dropped) == 7
    assert len(imported(tmp_path / "t.json").slices) == 2


@pytest.mark.filterwarnings("ignore:The copy keyword is deprecated")  # in the plugin
def test_tensorboards_profiler_sees_every_event(tmp_path: Path) -> None:
    data = pytest.importorskip("torch_tb_profiler.profiler.data")
    file = kineto()
    file["traceEvents"] += [
        x(f"k{i}", 4307902351670 + 3 * i, 5, 0, 20, cat="kernel", args={"correlation": 20 + i}) for i in range(9)
    ]
    (tmp_path / "t.json").write_text(json.dumps(file))
    trace = load_trace(tmp_path / "t.json")
    save_trace(trace, tmp_path / "saved.json.gz")
    profile = data.RunProfileData.parse("worker", "span", str(tmp_path / "saved.json.gz"), str(tmp_path))
    read = Counter(event.category for event in profile.events)
    # The plugin knows no cuda_runtime: only the name of it that torch had before 1.12.
    ours = Counter(event.category for event in trace.events() if event.category != "cuda_runtime")
    assert read == ours
    assert ours["kernel"] == 10
    kernels = profile.kernel_stat
    assert kernels is not None
    assert int(kernels["count"].sum()) == ours["kernel"]
    assert sum(row.calls for row in profile.op_list_groupby_name) == ours["cpu_op"]
    assert len(profile.tid2tree) == len({event.lane for event in trace.events() if event.category == "cpu_op"})
