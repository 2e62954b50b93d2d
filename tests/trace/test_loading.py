"""Every kind of row, in the forms that torch.profiler, VizTracer and Perfetto's export write; and what is wrong."""

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.errors import TraceError
from kit.trace import Event, Lane, Trace, load_trace, reading, save_trace
from kit.trace.columns import KINDS


def write(folder: Path, what: Any, name: str = "trace.json") -> Path:
    path = folder / name
    data = what if isinstance(what, bytes) else (what if isinstance(what, str) else json.dumps(what)).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def x(
    name: str = "a", ts: float = 1, dur: float = 2, pid: object = 1, tid: object = 1, **more: object
) -> dict[str, object]:
    return {"ph": "X", "name": name, "ts": ts, "dur": dur, "pid": pid, "tid": tid, **more}


def kineto() -> dict[str, Any]:
    """One operator that launches a kernel and a copy on another stream, as torch.profiler writes it."""
    meta = [
        ("process_name", 900, 0, {"name": "python3"}),
        ("process_sort_index", 900, 0, {"sort_index": 900}),
        ("process_labels", 0, 0, {"labels": "GPU 0"}),
        ("process_sort_index", 0, 0, {"sort_index": 16777216}),
        ("thread_name", 0, 7, {"name": "stream 7 "}),
        ("thread_name", 900, 900, {"name": "thread 900 (python3)"}),
        ("process_sort_index", "Spans", 0, {"sort_index": 536870912}),
    ]
    rows: list[dict[str, Any]] = [
        x("PyTorch Profiler (0)", 4307902351600, 900, "Spans", "PyTorch Profiler", cat="Trace"),
        x(
            "gemm",
            4307902351660.001,
            12.5,
            0,
            20,
            cat="kernel",
            args={"External id": 5, "correlation": 8, "stream": 20},
        ),
        x("copy", 4307902351661.0, 2.25, 0, 7, cat="gpu_memcpy", args={"External id": 5, "correlation": 9}),
        x("aten::mm", 4307902351636.916, 20, 900, 900, cat="cpu_op", args={"External id": 5, "Input Dims": [[{}], []]}),
        x("launch", 4307902351640.004, 3, 900, 900, cat="cuda_runtime", args={"External id": 5, "correlation": 8}),
        {"ph": "s", "id": 8, "pid": 900, "tid": 900, "ts": 4307902351640.004, "cat": "ac2g", "name": "ac2g"},
        {"ph": "f", "id": 8, "pid": 0, "tid": 20, "ts": 4307902351660.001, "cat": "ac2g", "name": "ac2g", "bp": "e"},
        {"ph": "i", "s": "g", "name": "Iteration Start", "pid": "Traces", "tid": "Trace", "ts": 4307902351600},
        *({"ph": "M", "name": name, "pid": pid, "tid": tid, "ts": 0, "args": args} for name, pid, tid, args in meta),
    ]
    return {"schemaVersion": 1, "baseTimeNanoseconds": 1735632360000000000, "traceEvents": rows, "traceName": "a.json"}


@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz"])
def test_torch_profiler(tmp_path: Path, name: str) -> None:
    trace = load_trace(write(tmp_path, kineto(), name))
    labels = ["thread 900 (python3)", "GPU 0 stream 7", "GPU 0 stream 20", "PyTorch Profiler"]
    assert [lane.label for lane in trace.lanes] == labels
    base = 1735632360000000000 + 4307902351000000
    assert [(event.name, event.start_ns - base, event.duration_ns) for event in trace.events()] == [
        ("PyTorch Profiler (0)", 600_000, 900_000),
        ("aten::mm", 636_916, 20_000),
        ("launch", 640_004, 3_000),
        ("gemm", 660_001, 12_500),
        ("copy", 661_000, 2_250),
    ]
    assert trace.correlation is not None
    assert trace.external is not None
    assert trace.correlation.tolist() == [-1, -1, 8, 8, 9]
    assert trace.external.tolist() == [-1, 5, 5, 5, 5]
    assert trace.marks is not None
    assert [KINDS[kind] for kind in trace.marks.kind] == ["i", "s", "f"]
    assert trace.marks.lane.tolist() == [-1, 0, 2]
    assert [trace.keys[key] for key in trace.marks.key[1:]] == [8, 8]
    assert trace.anchor == (0, 0)
    assert trace.notes == ()


def test_several_processes_are_told_apart_and_numbers_sort_by_size(tmp_path: Path) -> None:
    """As VizTracer writes them: no sort index, the process's name in metadata."""
    rows: list[object] = [
        {"ph": "M", "name": "process_name", "pid": pid, "tid": pid, "args": {"name": "MainProcess"}} for pid in (10, 9)
    ]
    rows += [x(pid=10, tid=10), x(pid=9, tid=100), x(pid=9, tid=20), x(pid=9, tid=9, cat="FEE", name="f (/a/b.py:1)")]
    trace = load_trace(
        write(tmp_path, {"traceEvents": rows, "viztracer_metadata": {"version": "1.0"}, "file_info": {}})
    )
    assert [(lane.process, lane.thread) for lane in trace.lanes] == [(9, 9), (9, 20), (9, 100), (10, 10)]
    assert trace.lanes[0].label == "MainProcess 9: thread 9"
    assert trace.anchor is None


def test_begin_and_end(tmp_path: Path) -> None:
    """Perfetto's export; nesting is by thread, and rows of threads are mixed and out of order."""
    rows = [
        {"ph": "E", "ts": 9, "pid": 1, "tid": 1},
        {"ph": "B", "name": "out", "cat": "c", "ts": 1, "pid": 1, "tid": 1},
        {"ph": "B", "name": "other", "ts": 2, "pid": 1, "tid": "t"},
        {"ph": "B", "name": "in", "ts": 3, "pid": 1, "tid": 1},
        {"ph": "E", "name": "in", "ts": 5.5, "pid": 1, "tid": 1},
        {"ph": "E", "name": "other", "ts": 7, "pid": 1, "tid": "t"},
    ]
    trace = load_trace(write(tmp_path, {"traceEvents": rows, "displayTimeUnit": "ns"}))
    spans = [(event.name, event.start_ns, event.duration_ns, event.lane.thread) for event in trace.events()]
    assert spans == [("out", 1000, 8000, 1), ("other", 2000, 5000, "t"), ("in", 3000, 2500, 1)]
    assert trace.notes == ()


def test_a_begin_without_its_end_lasts_and_an_end_without_its_begin_is_kept(tmp_path: Path) -> None:
    rows = [
        x("whole", 1, 9),
        {"ph": "B", "name": "open", "ts": 4, "tid": 2},
        {"ph": "E", "name": "shut", "ts": 6, "tid": 3},
    ]
    trace = load_trace(write(tmp_path, rows))
    assert {(event.name, event.start_ns, event.duration_ns) for event in trace.events()} == {
        ("whole", 1000, 9000),
        ("open", 4000, 6000),
        ("shut", 1000, 5000),
    }
    assert len(trace.notes) == 2
    assert "no end" in trace.notes[0]


def test_counters_instants_and_flows(tmp_path: Path) -> None:
    big = 2**63 + 1
    rows = [
        x(),
        {"ph": "C", "name": "memory", "ts": 1.5, "pid": 1, "args": {"used": 3, "free": 2.5}},
        {"ph": "i", "name": "here", "ts": 2, "pid": 1, "tid": 1, "s": "t"},
        {"ph": "I", "name": "old form", "ts": 2.5, "pid": 1, "tid": 1},
        {"ph": "s", "id": "0x1f", "ts": 1, "pid": 1, "tid": 1},
        {"ph": "t", "id": "0x1f", "ts": 2, "pid": 1, "tid": 1},
        {"ph": "f", "id": big, "ts": 3, "pid": 1, "tid": 1},
    ]
    trace = load_trace(write(tmp_path, rows))
    marks = trace.marks
    assert marks is not None
    found = {
        (KINDS[kind], trace.keys[key] if key >= 0 else None) for kind, key in zip(marks.kind, marks.key, strict=True)
    }
    assert found == {("C", "used"), ("C", "free"), ("i", None), ("s", "0x1f"), ("t", "0x1f"), ("f", big)}
    assert sorted(marks.value[~np.isnan(marks.value)].tolist()) == [2.5, 3]
    assert [lane.label for lane in trace.lanes] == ["counters", "thread 1"] or len(trace.lanes) == 2
    save_trace(trace, tmp_path / "again.json")
    kept = [(*row[:4], hex(big) if row[4] == str(big) else row[4], *row[5:]) for row in resolved(trace)]
    assert sorted(resolved(load_trace(tmp_path / "again.json"))) == sorted(kept)  # a form of it that Perfetto reads


def resolved(trace: Trace) -> list[tuple[str, ...]]:
    """The marks of a trace without the numbers of names and keys."""
    assert trace.marks is not None
    return [
        (
            str(time),
            KINDS[kind],
            trace.names[name],
            str(trace.lanes[lane]),
            str(trace.keys[key]) if key >= 0 else "",
            str(value),
        )
        for time, lane, name, _, kind, key, value in zip(*trace.marks[:7], strict=True)
    ]


@pytest.mark.parametrize("id_", [2**53 + 1, 2**62 + 3])
def test_ids_above_what_a_double_holds(tmp_path: Path, id_: int) -> None:
    trace = load_trace(write(tmp_path, [x(args={"correlation": id_}), x(args={"correlation": id_ - 1}), x()]))
    assert trace.correlation is not None
    assert sorted(trace.correlation.tolist()) == [-1, id_ - 1, id_]


def test_what_is_no_id_is_no_id(tmp_path: Path) -> None:
    odd = [None, "x", "12", True, 2**70, {}, []]
    trace = load_trace(write(tmp_path, [x(ts=i, args={"correlation": value}) for i, value in enumerate(odd)]))
    assert trace.correlation is not None
    assert trace.correlation.tolist()[:4] == [-1, -1, 12, -1]


@given(st.integers(-(10**17), 10**17), st.integers(0, 10**15))
@settings(deadline=None, max_examples=100)
def test_times_are_exact_to_the_nanosecond(tmp_path_factory: pytest.TempPathFactory, start: int, length: int) -> None:
    path = tmp_path_factory.mktemp("exact") / "t.json"
    path.write_text(f'[{{"ph": "X", "ts": {Decimal(start) / 1000:f}, "dur": {Decimal(length) / 1000:f}}}]')
    trace = load_trace(path)
    assert (trace.start_ns.tolist(), trace.duration_ns.tolist()) == ([start], [length])


def test_whole_microseconds_since_1970_beside_fractions(tmp_path: Path) -> None:
    text = '[{"ph":"X","ts":1695835542514261,"dur":1},{"ph":"X","ts":1695835542514261.123,"dur":0.0005,"name":"b"}]'
    assert load_trace(write(tmp_path, text)).start_ns.tolist() == [1695835542514261000, 1695835542514261123]


def test_a_file_of_many_batches_with_hostile_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that look like the end of a row, and rows longer than a batch: no cut falls inside of them."""
    monkeypatch.setattr(reading, "_BATCH", 300)
    names = ['"},{"', "}]}, {", "<script>alert(1)</script>", "x" * 10_000, "🎬" * 50, '\\", {', "é\u2028\x00", ""] * 20
    rows = [
        x(name, ts=i, args={"deep": [{"a": 1}, {"b": [{}, {}]}, {"traceEvents": []}]}) for i, name in enumerate(names)
    ]
    about = {
        "first": {"traceEvents": [1, {}]},
        "text": '"traceEvents": [',
        "traceEvents": rows,
        "later": [{}, {}, {}] * 99,
    }
    for name, what in (("a.json", about), ("b.json", rows), ("c.json.gz", about)):
        trace = load_trace(write(tmp_path, what, name))
        assert [event.name for event in trace.events()] == names
    save_trace(trace, tmp_path / "again.json")
    assert [event.name for event in load_trace(tmp_path / "again.json").events()] == names


def test_a_name_that_is_no_utf8_is_kept_as_far_as_it_can_be_read(tmp_path: Path) -> None:
    trace = load_trace(write(tmp_path, b'[{"ph":"X","ts":1,"dur":1,"name":"a\xff"}]'))
    assert trace.names == ("a\ufffd",)


def test_rows_of_other_kinds_are_counted(tmp_path: Path) -> None:
    trace = load_trace(write(tmp_path, [x(), {"ph": "O", "id": 1, "ts": 1}, {"ph": "O", "id": 1, "ts": 1}]))
    assert "2 of ph 'O'" in trace.notes[0]


@pytest.mark.parametrize("cut", [40, 1000, 30_000, -2, -3])
@pytest.mark.parametrize("bare", [True, False])
def test_truncated(tmp_path: Path, cut: int, bare: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BATCH", 5_000)
    rows = [x(f"}},{{ {i}", ts=i) for i in range(1000)]
    text = json.dumps(rows if bare else {"traceEvents": rows, "end": 1})[:cut]
    begun = text.count('"ph"')
    path = write(tmp_path, text)
    if cut == 40:
        with pytest.raises(TraceError, match="0 complete events were read"):
            load_trace(path, partial=True)
        return
    with pytest.raises(TraceError, match=r"truncated.*complete events were read before.*partial=True") as caught:
        load_trace(path)
    trace = load_trace(path, partial=True)
    assert begun - 1 <= len(trace) <= begun
    assert f"{len(trace):,} complete events" in str(caught.value)
    assert f"{len(trace):,} complete events" in trace.notes[0]
    assert trace.start_ns.tolist() == [1000 * i for i in range(len(trace))]


PACKERS = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor(write_checksum=True).compress}


@pytest.mark.parametrize("kind", PACKERS)
def test_a_compressed_file_that_is_truncated(tmp_path: Path, kind: str) -> None:
    data = PACKERS[kind](json.dumps([x(str(hash(i)), ts=i) for i in range(20_000)]).encode())
    path = tmp_path / "t.json.packed"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(TraceError, match=f"{kind} file is truncated"):
        load_trace(path)
    trace = load_trace(path, partial=True)
    assert 1_000 < len(trace) < 19_000
    path.write_bytes(data[:-4])  # the sum that ends it: all the events are there, and still the file is damaged
    with pytest.raises(TraceError, match="20,000 complete events were read"):
        load_trace(path)
    assert len(load_trace(path, partial=True)) == 20_000


@pytest.mark.parametrize("kind", PACKERS)
def test_a_compressed_file_that_expands_past_the_limit(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "t.json.packed"
    path.write_bytes(PACKERS[kind](json.dumps([x()] * 10_000).encode()))
    with pytest.raises(TraceError, match=r"expands past 100,000 bytes, the limit"):
        load_trace(path, max_bytes=100_000)
    assert len(load_trace(path, max_bytes=10_000_000)) == 10_000


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"ph": "X", "dur": 1}, "no ts"),
        ({"ph": "X", "ts": 1}, "no dur"),
        (x(dur=-0.5), "negative dur, of -500 ns"),
        ({"ph": "B"}, "no ts"),
    ],
)
def test_an_event_without_a_place_in_time(tmp_path: Path, row: dict[str, object], says: str) -> None:
    path = write(tmp_path, [x(), row, x("b", ts=0)])
    with pytest.raises(TraceError, match=says):
        load_trace(path)
    trace = load_trace(path, partial=True)
    assert [event.name for event in trace.events()] == ["b", "a"]
    assert says in trace.notes[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it is empty"),
        ('[{"ph":"X","ts":1,"dur":NaN}]', "NaN"),
        ('[{"ph":"X","ts":1,"dur":-Infinity}]', "Infinity"),
        ('[{"ph":"X","ts":1,"dur":1e999}]', "out of range"),
        ("[" * 100_000, "cannot read"),
        ('{"traceEvents": {}}', "cannot read"),
        ('{"traceEvents": [], "baseTimeNanoseconds": 99999999999999999999}', "2116"),
        ('[{"ph":"X","ts":1,"dur":1}] trailing', "trailing"),
        ('"text"', "not JSON"),
    ],
)
def test_what_is_no_trace(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(TraceError, match=says):
        load_trace(write(tmp_path, text))


def test_missing_process_and_thread_are_the_numbers_0(tmp_path: Path) -> None:
    assert load_trace(write(tmp_path, '[{"ph":"X","ts":1,"dur":1}]')).lanes == (Lane(0, 0, "thread 0"),)


value = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2)
)
cells = st.dictionaries(
    st.sampled_from(["ph", "name", "cat", "ts", "dur", "pid", "tid", "id", "s", "args"]),
    value
    | st.sampled_from(["X", "B", "E", "C", "M", "s", "f", "i"])
    | st.dictionaries(st.text(max_size=9), value, max_size=2),
)
plausible = st.fixed_dictionaries(
    {
        "ph": st.sampled_from("XBEiCMstfb"),
        "ts": st.integers(-(2**70), 2**70) | st.floats(allow_nan=False),
        "dur": st.integers(-1, 2**64),
    },
    optional={
        "name": st.sampled_from(["thread_name", "process_name", "thread_sort_index", "a", ""]),
        "pid": st.integers(0, 2) | st.text(max_size=1),
        "tid": st.integers(0, 2) | st.text(max_size=1),
        "id": value,
        "args": st.dictionaries(st.sampled_from(["name", "sort_index", "lane", "correlation", "External id"]), value),
    },
)


@pytest.mark.parametrize("times", [(0, -2305843009213695.0), (2604857228446416.0, -2006828789980972.0)])
def test_times_far_apart_are_saved_and_read_again(tmp_path: Path, times: tuple[float, ...]) -> None:
    """Their distance is larger than a time may be, or as large and the file's base as far below."""
    rows = [{"ph": "X", "ts": ts, "dur": 0} for ts in times]
    trace = load_trace(write(tmp_path, json.dumps(rows)))
    save_trace(trace, tmp_path / "again.json")
    np.testing.assert_array_equal(load_trace(tmp_path / "again.json").start_ns, trace.start_ns)


@given(st.lists(cells | plausible, max_size=8), st.booleans(), st.data())
@settings(deadline=None, max_examples=300)
def test_nothing_but_a_trace_error(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], bare: bool, data: st.DataObject
) -> None:
    raw = json.dumps(rows if bare else {"traceEvents": rows, "baseTimeNanoseconds": data.draw(value)}).encode()
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(raw)))
        raw = raw[:at] + data.draw(st.binary(max_size=3)) + raw[data.draw(st.integers(at, len(raw))) :]
    if data.draw(st.booleans()):
        raw = PACKERS[data.draw(st.sampled_from(sorted(PACKERS)))](raw)[: data.draw(st.integers(0, 200))]
    path = tmp_path_factory.mktemp("fuzz") / "t.json"
    path.write_bytes(raw)
    for partial in (False, True):
        try:
            trace = load_trace(path, partial=partial)
        except TraceError:
            continue
        save_trace(trace, path.with_name("again.json"))
        again = load_trace(path.with_name("again.json"))
        np.testing.assert_array_equal(again.start_ns, trace.start_ns)


def test_saved_again_exactly_with_overlaps_in_lanes_of_their_own(tmp_path: Path) -> None:
    lanes = (Lane(1, 7, "pool", "threads"), Lane(1, 7, "pool", "processes"), Lane("p", "q", "r"))
    spans = [(0, 10), (5, 10), (6, 3), (7, 20)]
    trace = Trace.build(Event(f"e{s}", "c", s, d, lane) for lane in lanes for s, d in spans)
    save_trace(trace, tmp_path / "t.json")
    file = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    by_tid: dict[object, list[tuple[Decimal, Decimal]]] = {}
    for row in file:
        if row["ph"] == "X":
            begin = round(row["ts"] * 1000)
            by_tid.setdefault((row["pid"], row["tid"]), []).append((begin, begin + round(row["dur"] * 1000)))
    assert len(by_tid) > len(lanes)
    for spans_of in by_tid.values():
        for a, b in ((a, b) for a in spans_of for b in spans_of if a < b):
            assert b[0] >= a[1] or b[1] <= a[1], "a viewer would drop one of these"
    again = load_trace(tmp_path / "t.json")
    assert again.lanes == trace.lanes
    assert list(again.events()) == list(trace.events())
