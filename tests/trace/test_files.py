"""Chrome traces in and out: exact to the nanosecond, and errors that say what is wrong with a file."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zstandard

from kit.errors import TraceError
from kit.trace import Event, Lane, Trace, by_name, load_trace, save_trace, stack
from kit.trace.lanes import depths

NOW = 1_763_629_380_123_456_789  # nanoseconds since 1970: as a float of microseconds it would lose its last digits
TRACE = Trace.build(
    [
        Event("call", "call", NOW, 3_000_000_001, Lane(1, 1, "caller")),
        Event("größe <b>", "task", NOW + 1, 999, Lane(1, 2, "worker 0")),
        Event("instant", "cpu_op", NOW + 86_400_000_000_001, 0, Lane(1, 2, "worker 0")),
        Event("sgemm", "kernel", NOW + 3, 5, Lane("gpu", "stream", "stream 7")),
    ]
)


def rows(**changes: object) -> list[dict[str, object]]:
    return [{"ph": "X", "name": "a", "cat": "c", "ts": 1.5, "dur": 2.001, "pid": 1, "tid": 2} | changes]


def write(folder: Path, text: str) -> Path:
    path = folder / "trace.json"
    path.write_text(text)
    return path


SIGNS = {"trace.json": b"{", "trace.json.gz": b"\x1f\x8b", "trace.json.zst": b"\x28\xb5\x2f\xfd"}


@pytest.mark.parametrize("name", SIGNS)
def test_saved_and_loaded_again_nothing_has_changed(tmp_path: Path, name: str) -> None:
    save_trace(TRACE, tmp_path / name)
    assert list(load_trace(tmp_path / name).events()) == list(TRACE.events())
    assert (tmp_path / name).read_bytes().startswith(SIGNS[name])


@pytest.mark.parametrize("name", SIGNS)
def test_where_a_trace_comes_from_is_kept(tmp_path: Path, name: str) -> None:
    about = {"date": "2026-11-26", "machine": {"cpu": "Z80 \N{SNOWMAN}", "cores": 1}, "command": 'a "traceEvents":[{'}
    save_trace(replace(TRACE, about=about), tmp_path / name)
    found = load_trace(tmp_path / name)
    assert found.about == about
    assert list(found.events()) == list(TRACE.events())
    assert found.take(np.array([0])).about == about
    assert load_trace(write(tmp_path, json.dumps({"traceEvents": rows()}))).about == {}


@pytest.mark.parametrize("behind", [False, True])
def test_what_other_writers_say_of_a_traces_origin(tmp_path: Path, behind: bool) -> None:
    gpus = [{"name": "H100", "totalGlobalMem": 1}]
    said = {"deviceProperties": gpus, "otherData": {"version": "My App"}}
    events = {"traceEvents": rows()}
    found = load_trace(write(tmp_path, json.dumps(events | said if behind else said | events)))
    assert found.about == {"version": "My App", "deviceProperties": gpus}
    assert load_trace(write(tmp_path, json.dumps({"otherData": ["odd"], **events}))).about == {}


def test_traces_put_together_keep_what_they_agree_on() -> None:
    one, other = (replace(TRACE, about={"machine": {"cores": 2}, "date": date}) for date in ("May", "June"))
    origins = {"a": one.about, "b": other.about}
    assert stack({"a": one, "b": other}).about == {"machine": {"cores": 2}, "traces": origins}
    assert stack({"a": one}).about == stack({"a": one, "b": one}).about == one.about
    assert stack({"a": one, "b": TRACE}).about == {"traces": {"a": one.about, "b": {}}}


def test_what_is_saved_is_what_other_viewers_read(tmp_path: Path) -> None:
    save_trace(TRACE, tmp_path / "trace.json")
    file = json.loads((tmp_path / "trace.json").read_text())
    assert file["displayTimeUnit"] == "ns"
    assert {row["ph"] for row in file["traceEvents"]} == {"M", "X"}
    call = next(row for row in file["traceEvents"] if row["name"] == "call")
    assert (call["ts"], call["dur"]) == (0, 3_000_000.001)
    names = {row["tid"]: row["args"]["name"] for row in file["traceEvents"] if row["name"] == "thread_name"}
    assert {names[1], names[2]} == {"caller", "worker 0"}
    assert "stream 7" in names.values()
    assert all(type(row[key]) is int for row in file["traceEvents"] for key in ("pid", "tid") if key in row)


def test_tensorboards_profiler_reads_what_is_saved_as_it_reads_the_original(tmp_path: Path) -> None:
    data = pytest.importorskip("torch_tb_profiler.profiler.data")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        torch.nn.functional.conv2d(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 3, 3)).relu()
    profile.export_chrome_trace(str(tmp_path / "original.json"))
    save_trace(load_trace(tmp_path / "original.json"), tmp_path / "saved.json.gz")
    files = [str(tmp_path / name) for name in ("original.json", "saved.json.gz")]
    read = [data.RunProfileData.parse("worker", "span", file, str(tmp_path)) for file in files]
    names = [sorted(event.name for event in each.events) for each in read]
    assert "aten::conv2d" in names[0]
    assert names[0] == names[1]


def test_a_recording_of_viztracer() -> None:
    """VizTracer 1.1.1 on two threads that each compute fib(7), paths shortened, sources left out."""
    trace = load_trace(Path(__file__).parent / "recorded" / "viztracer.json.gz")
    assert [lane.label for lane in trace.lanes] == ["MainThread", "fib 0", "fib 1"]
    calls = next(row for row in by_name(trace) if row.name == "fib (prog.py:2)")
    assert calls.events == 2 * 41  # the calls of fib(7)
    assert len(trace) == 193
    assert int(depths(trace).max()) >= 7  # nested as the calls were


def test_object_and_bare_array_are_the_same_trace(tmp_path: Path) -> None:
    bare = load_trace(write(tmp_path, json.dumps(rows())))
    assert list(bare.events()) == [Event("a", "c", 1500, 2001, Lane(1, 2, "thread 2"))]
    wrapped = load_trace(write(tmp_path, json.dumps({"schemaVersion": 1, "traceEvents": rows()})))
    assert list(wrapped.events()) == list(bare.events())


def test_base_time_is_added_and_only_complete_events_count(tmp_path: Path) -> None:
    others = [{"ph": "i", "name": "marker", "ts": 1, "s": "t"}, {"ph": "s", "id": 1, "ts": 2}, {"ph": "M", "name": "x"}]
    text = json.dumps({"baseTimeNanoseconds": 7, "traceEvents": [*others, *rows()]})
    assert [event.start_ns for event in load_trace(write(tmp_path, text)).events()] == [1507]


def test_an_event_that_names_nothing_but_its_time_is_kept(tmp_path: Path) -> None:
    trace = load_trace(write(tmp_path, '[{"ph": "X", "ts": 1, "dur": 0}]'))
    assert list(trace.events()) == [Event("", "", 1000, 0, Lane(0, 0, "thread 0"))]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot read"),
        ("not JSON", "cannot read"),
        ('[{"ph": "X", "ts": 1', "cannot read"),
        ('{"events": []}', "cannot read"),
        ('[{"ph": "X", "ts": NaN}]', "cannot read"),
        ('[{"ph": "X", "ts": "soon"}]', "cannot read"),
        ("[]", "no complete event"),
        ('[{"ph": "M", "name": "thread_name", "args": {"name": "a"}}]', "no complete event"),
        (json.dumps(rows(dur=-1)), "damaged"),
        ('[{"ph": "X", "ts": 1, "dur": 1e999}]', "trace.json"),
        (json.dumps(rows(ts=1e300)), "damaged"),
    ],
)
def test_damaged_files(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(TraceError, match=says) as caught:
        load_trace(write(tmp_path, text))
    assert "trace.json" in str(caught.value)


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: data[:30] + b"\xff" * 30 + data[60:]])
@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_damaged_where_it_is_compressed(tmp_path: Path, damage, compress) -> None:
    path = tmp_path / "trace.json.packed"  # a name says nothing: the first bytes do
    path.write_bytes(
        damage(compress(json.dumps([row | {"name": f"n{i}"} for i, row in enumerate(rows() * 50)]).encode()))
    )
    with pytest.raises(TraceError, match=r"cannot read .*trace.json.packed"):
        load_trace(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"absent\.json"):
        load_trace(tmp_path / "absent.json")
    with pytest.raises(TraceError, match="directory"):
        load_trace(tmp_path)


def test_a_trace_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot write"):
        save_trace(TRACE, tmp_path / "no folder" / "trace.json")
