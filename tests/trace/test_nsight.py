"""Exports of Nsight Systems: every event of every version's tables, and nothing but a TraceError for other databases.

No recorded export is at hand: these are written by the documented schema.
"""

import random
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.cli import main
from kit.errors import TraceError
from kit.trace import launch_delays, load_trace, save_trace
from kit.trace.columns import KINDS
from tests.trace.nsight_export import NEW, OLD, thread, write

CUPTI = "CUPTI_ACTIVITY_KIND_"
STRINGS = [
    "cudaLaunchKernel_v7000",
    "void gemm<float>(float*)",
    "gemm",
    "python",
    "forward",
    "cuLaunchKernelEx",
    "poll",
]
LAUNCH, GEMM, SHORT, PYTHON, FORWARD, DRIVER, POLL = range(1, 8)
MAIN, OTHER = thread(4711, 4711), thread(4711, 4712)


def gpu(start: int, end: int, stream: int = 7, **more: Any) -> dict[str, Any]:
    return {
        "start": start,
        "end": end,
        "deviceId": 0,
        "contextId": 1,
        "streamId": stream,
        "globalPid": thread(4711),
    } | more


def session() -> dict[str, list[dict[str, Any]]]:
    """Two launches, of a kernel and of a copy, in ranges of NVTX; each table has a row at least."""
    return {
        f"{CUPTI}RUNTIME": [
            {"start": 100, "end": 110, "globalTid": MAIN, "correlationId": 5, "nameId": LAUNCH},
            {"start": 120, "end": 125, "globalTid": OTHER, "correlationId": 6, "nameId": DRIVER},
        ],
        f"{CUPTI}KERNEL": [gpu(130, 180, correlationId=5, demangledName=GEMM, shortName=SHORT)],
        f"{CUPTI}MEMCPY": [gpu(140, 150, 13, correlationId=6, bytes=4096, copyKind=1, srcKind=0, dstKind=2)],
        f"{CUPTI}MEMSET": [gpu(181, 182, memKind=2)],
        f"{CUPTI}SYNCHRONIZATION": [gpu(150, 190, syncType=3), gpu(150, 190, 2**32 - 1, syncType=4)],
        f"{CUPTI}GRAPH_TRACE": [gpu(200, 240, graphId=3, graphExecId=4)],
        "NVTX_EVENTS": [
            {"start": 90, "end": 195, "eventType": 59, "text": "step 0", "globalTid": MAIN},
            {"start": 95, "end": 115, "eventType": 59, "textId": FORWARD, "globalTid": MAIN},
            {"start": 96, "end": 300, "eventType": 60, "text": "request", "globalTid": MAIN, "endGlobalTid": OTHER},
            {"start": 97, "end": None, "eventType": 60, "text": "never ends", "globalTid": OTHER},
            {"start": 98, "end": None, "eventType": 34, "text": "here", "globalTid": OTHER},
            {"start": 0, "eventType": 75, "text": "a domain"},
            {"start": 0, "eventType": 33, "text": "a category"},
            {"start": 0, "eventType": 39, "text": "loader", "globalTid": OTHER},
        ],
        "OSRT_API": [{"start": 250, "end": 260, "globalTid": OTHER, "nameId": POLL}],
        "CUDA_GRAPH_NODE_EVENTS": [{"start": 10, "end": 10, "globalTid": MAIN, "nameId": LAUNCH}],
        "CUDA_GRAPH_EVENTS": [{"start": 11, "end": 12, "globalTid": MAIN, "nameId": LAUNCH}],
        "ThreadNames": [{"globalTid": g, "nameId": PYTHON} for g in (MAIN, OTHER)],
        "PROCESSES": [{"globalPid": thread(4711), "pid": 4711, "name": "python3"}],
        "TARGET_INFO_GPU": [{"id": 0, "name": "NVIDIA H100"}],
        "TARGET_INFO_SESSION_START_TIME": [{"utcEpochNs": 1_700_000_000_000_000_000}],
        "META_DATA_EXPORT": [{"name": "EXPORT_PRODUCT_VERSION", "value": "2024.6.2.225"}],
        "SCHED_EVENTS": [{"start": 5, "globalTid": MAIN}],
    }


def test_an_export_is_a_trace_as_torch_profiler_would_have_written_it(tmp_path: Path) -> None:
    trace = load_trace(write(tmp_path / "report.sqlite", session(), strings=STRINGS))
    rows = [
        (event.name, event.category, event.start_ns, event.duration_ns, event.lane.label) for event in trace.events()
    ]
    main, other, stream = "thread 4711 (python)", "thread 4712 (loader)", "GPU 0 stream 7"
    assert rows == [
        ("cudaLaunchKernel", "cuda_graph", 10, 0, main),
        ("cudaLaunchKernel", "cuda_graph", 11, 1, main),
        ("step 0", "user_annotation", 90, 105, main),
        ("forward", "user_annotation", 95, 20, main),
        ("request", "user_annotation", 96, 204, main),
        ("never ends", "user_annotation", 97, 203, other),
        ("cudaLaunchKernel", "cuda_runtime", 100, 10, main),
        ("cuLaunchKernelEx", "cuda_driver", 120, 5, other),
        ("void gemm<float>(float*)", "kernel", 130, 50, stream),
        ("Memcpy HtoD (Pageable -> Device)", "gpu_memcpy", 140, 10, "GPU 0 stream 13"),
        ("Stream Sync", "cuda_sync", 150, 40, stream),
        ("Context Sync", "cuda_sync", 150, 40, "GPU 0 context"),
        ("Memset (Device)", "gpu_memset", 181, 1, stream),
        ("CUDA graph 3", "kernel", 200, 40, stream),
        ("poll", "osrt_api", 250, 10, other),
    ]
    assert [lane.label for lane in trace.lanes] == [main, other, "GPU 0 context", stream, "GPU 0 stream 13"]
    assert trace.marks is not None
    assert (trace.marks.time_ns.tolist(), trace.names[trace.marks.name[0]]) == ([98], "here")
    assert KINDS[trace.marks.kind[0]] == "i"
    assert trace.anchor == (0, 1_700_000_000_000_000_000)
    assert trace.about["profiler"] == "Nsight Systems 2024.6.2.225"
    assert trace.about["deviceProperties"] == [{"id": 0, "name": "NVIDIA H100"}]
    assert any("SCHED_EVENTS" in note for note in trace.notes)
    assert any("1 ranges of NVTX have no end" in note for note in trace.notes)


def test_launches_are_tied_to_their_kernels_and_copies(tmp_path: Path) -> None:
    trace = load_trace(write(tmp_path / "report.sqlite", session(), strings=STRINGS))
    delays = launch_delays(trace)
    pairs = {
        (trace.names[trace.name[a]], trace.names[trace.name[b]])
        for a, b in zip(delays.launch, delays.start, strict=True)
    }
    assert pairs == {
        ("cudaLaunchKernel", "void gemm<float>(float*)"),
        ("cuLaunchKernelEx", "Memcpy HtoD (Pageable -> Device)"),
    }


def test_ids_and_streams_of_two_processes_stay_apart(tmp_path: Path) -> None:
    rows: dict[str, list[dict[str, Any]]] = {f"{CUPTI}RUNTIME": [], f"{CUPTI}KERNEL": []}
    for pid, at in ((4711, 100), (4712, 105)):
        call = {"start": at, "end": at + 2, "globalTid": thread(pid, pid), "correlationId": 5, "nameId": LAUNCH}
        rows[f"{CUPTI}RUNTIME"].append(call)
        rows[f"{CUPTI}KERNEL"].append(gpu(at + 10, at + 40, correlationId=5, demangledName=GEMM, globalPid=thread(pid)))
    trace = load_trace(write(tmp_path / "report.sqlite", rows, strings=STRINGS))
    assert launch_delays(trace).delay_ns.tolist() == [10, 10]
    gpus = [lane.label for lane in trace.lanes if "GPU" in lane.label]
    assert gpus == [f"GPU 0 stream 7 of process {pid}, context 1" for pid in (4711, 4712)]
    assert not any("start before" in note for note in trace.notes)


def test_a_process_with_the_number_of_a_gpu_is_no_gpu(tmp_path: Path) -> None:
    rows = {"OSRT_API": [{"start": 1, "end": 2, "globalTid": thread(0, 9)}], f"{CUPTI}KERNEL": [gpu(1, 2)]}
    labels = [lane.label for lane in load_trace(write(tmp_path / "report.sqlite", rows)).lanes]
    assert labels == ["thread 9", "GPU 0 stream 7"]


@pytest.mark.parametrize("schema", [OLD, NEW])
@pytest.mark.parametrize(
    "kept", ["StringIds", "ThreadNames", "NVTX_EVENTS", f"{CUPTI}KERNEL", f"{CUPTI}RUNTIME", "OSRT_API"]
)
def test_each_table_may_be_missing(tmp_path: Path, schema: dict[str, str], kept: str) -> None:
    for some in ({kept: schema[kept]}, {table: schema[table] for table in schema if table != kept}):
        rows = {table: session()[table] for table in some if table in session()}
        path = write(tmp_path / "report.sqlite", rows, some, STRINGS)
        if kept in ("StringIds", "ThreadNames") and len(some) == 1:
            with pytest.raises(TraceError, match=f"no export of Nsight Systems: it has no table {CUPTI}KERNEL"):
                load_trace(path)
        else:
            assert len(load_trace(path)) == independent(path)[0]


def test_columns_may_be_missing_but_not_the_times(tmp_path: Path) -> None:
    some = {f"{CUPTI}KERNEL": "start INT, end INT", "NVTX_EVENTS": "start INT, end INT, text TEXT"}
    rows = {f"{CUPTI}KERNEL": [{"start": 1, "end": 2}], "NVTX_EVENTS": [{"start": 1, "end": 3, "text": "step"}]}
    trace = load_trace(write(tmp_path / "report.sqlite", rows, some))
    assert [(event.name, event.duration_ns) for event in trace.events()] == [("step", 2), ("", 1)]
    assert any("StringIds is missing" in note for note in trace.notes)
    path = write(tmp_path / "report.sqlite", {}, {"OSRT_API": "start INT, globalTid INT"})
    with pytest.raises(TraceError, match="its table OSRT_API has no column end"):
        load_trace(path)


def test_an_export_without_events_and_a_name_that_says_nothing(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="its tables of events are empty: nsys profile --trace"):
        load_trace(write(tmp_path / "report.sqlite", {}))
    path = write(tmp_path / "odd ?#%41 name.json", session(), strings=STRINGS)
    assert len(load_trace(path)) == 15
    assert [each.name for each in tmp_path.iterdir() if "odd" in each.name] == [path.name]  # no journal beside it


def test_what_is_loaded_is_saved_and_read_again(tmp_path: Path) -> None:
    trace = load_trace(write(tmp_path / "report.sqlite", session(), strings=STRINGS))
    save_trace(trace, tmp_path / "t.json.zst")
    again = load_trace(tmp_path / "t.json.zst")
    assert list(again.events()) == list(trace.events())
    assert again.lanes == trace.lanes
    assert again.anchor == trace.anchor
    assert again.about == trace.about


VIEW = "CREATE VIEW NVTX_EVENTS AS WITH RECURSIVE n(start) AS (SELECT 1 UNION ALL SELECT start + 1 FROM n) "
OSRT = "CREATE TABLE OSRT_API (start, end); INSERT INTO OSRT_API VALUES "
LONG = "CREATE TABLE NVTX_EVENTS (start, end, text); INSERT INTO NVTX_EVENTS VALUES (1, 2, hex(zeroblob(5000000)))"
COMPUTED = "CREATE TABLE OSRT_API (start INT, end INT AS (length(zeroblob(1000000000))))"
HOSTILE = {
    "text for a time": (OSRT + "('soon', 5)", "no ts that is a valid"),
    "a real for a time": (OSRT + "(1.5, 5)", "no ts that is a valid"),
    "no end": (OSRT + "(1, NULL)", "no dur that is a valid"),
    "a blob": (OSRT + "(x'00', 5)", "no ts that is a valid"),
    "an end before": (OSRT + "(9, 5)", "a negative dur, of -4 ns"),
    "the last times": (OSRT + f"({-(2**63)}, {2**63 - 1})", "valid time"),
    "late": (OSRT + f"(1, {2**63 - 1})", "valid time"),
    "a view without end": (VIEW + "SELECT start, start AS end FROM n", "no export of Nsight Systems"),
    "a table of another": ("CREATE TABLE runs (id INTEGER, name TEXT)", "no export of Nsight Systems: it has no table"),
    "no table": ("CREATE TABLE t (a); DROP TABLE t", "no export of Nsight Systems"),
    "a search index": ("CREATE VIRTUAL TABLE OSRT_API USING fts4(start, end)", "no export of Nsight Systems"),
    "a computed column": (COMPUTED, "no column end"),
    "a row too long": (LONG, "its table NVTX_EVENTS is damaged .*too big"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_databases(tmp_path: Path, what: str) -> None:
    path = tmp_path / "t.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(HOSTILE[what][0])
    with pytest.raises(TraceError, match=f"cannot read .*t.sqlite.*{HOSTILE[what][1]}"):
        load_trace(path)


def test_bad_rows_are_counted_and_the_others_load(tmp_path: Path) -> None:
    rows = {"OSRT_API": [{"start": i, "end": i + 1 if i % 10 else i - 1} for i in range(100)]}
    path = write(tmp_path / "t.sqlite", rows)
    with pytest.raises(
        TraceError, match=r"10 of its events have no valid time.*90 complete events were read; load_trace"
    ):
        load_trace(path)
    assert len(load_trace(path, partial=True)) == 90


def test_names_past_the_limit(tmp_path: Path) -> None:
    rows = {"NVTX_EVENTS": [{"start": i, "end": i + 1, "eventType": 59, "text": "n" * 1000} for i in range(100)]}
    path = write(tmp_path / "t.sqlite", rows)
    with pytest.raises(
        TraceError, match=r"names have more than 50,000 bytes, the limit \(max_bytes\).* 50 complete events"
    ):
        load_trace(path, max_bytes=50_000)
    assert len(load_trace(path, partial=True, max_bytes=50_000)) == 50
    assert len(load_trace(path, max_bytes=100_000)) == 100


def test_a_page_that_is_told_twice_ends(tmp_path: Path) -> None:
    """A tree whose inner pages all name the same child has more rows than any memory: the file's size bounds them."""
    rows = {"OSRT_API": [{"start": i, "end": i + 1} for i in range(200_000)]}
    path = write(tmp_path / "t.sqlite", rows, {"OSRT_API": "start INT, end INT"})
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[16:18], "big")
    for page in range(size, len(data), size):
        if data[page] == 5:  # an inner page of a table
            cells = int.from_bytes(data[page + 3 : page + 5], "big")
            at = [int.from_bytes(data[page + 12 + 2 * i : page + 14 + 2 * i], "big") for i in range(cells)]
            for offset in at:
                data[page + offset : page + offset + 4] = data[page + at[0] : page + at[0] + 4]
    path.write_bytes(data)
    for partial in (False, True):
        try:
            load_trace(path, partial=partial)
        except TraceError:
            continue


def independent(path: Path) -> tuple[int, int]:
    """The events and marks of an export, counted by SQLite."""
    events = marks = 0
    with closing(sqlite3.connect(path)) as database:
        for (table,) in database.execute("SELECT name FROM sqlite_master").fetchall():
            if not table.startswith(("CUPTI", "OSRT", "CUDA_GRAPH")) and table != "NVTX_EVENTS":
                continue
            last = 2**62
            where = f"typeof(start) = 'integer' AND start > -{last} AND start < {last}"
            ends = f"typeof(end) = 'integer' AND end >= start AND end < {last} AND end - start < {last}"
            if table == "NVTX_EVENTS":
                count = f"SELECT count(*) FROM {table} WHERE {where} AND eventType = 34"
                marks += database.execute(count).fetchone()[0]
                where += " AND (eventType IS NULL OR eventType NOT IN (33, 34, 39, 75, 76))"
                ends = f"(typeof(end) <> 'integer' OR end = -9223372036854775808 OR ({ends}))"  # the kit's own "none"
            events += database.execute(f"SELECT count(*) FROM {table} WHERE {where} AND {ends}").fetchone()[0]
    return events, marks


numbers = st.integers(-(2**63), 2**63 - 1)
cells = (
    st.none()
    | numbers
    | st.integers(-5, 300)
    | st.text(max_size=3)
    | st.floats(allow_nan=False)
    | st.binary(max_size=3)
)
likely = st.integers(0, 2**40)


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_any_rows_are_counted_as_sqlite_counts_them(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    schema = {
        t: c.replace(" INT", "").replace(" NOT NULL", "").replace("EGER", "")
        for t, c in NEW.items()
        if t != "StringIds"
    }
    rows = {}
    for table in data.draw(st.lists(st.sampled_from(sorted(schema)), min_size=1, max_size=4, unique=True)):
        names = [column.split()[0] for column in schema[table].split(", ")]
        row = st.fixed_dictionaries({name: (likely | cells) if name in ("start", "end") else cells for name in names})
        rows[table] = data.draw(st.lists(row, max_size=6))
    path = write(tmp_path_factory.mktemp("any") / "t.sqlite", rows, {"StringIds": NEW["StringIds"], **schema}, STRINGS)
    events, marks = independent(path)
    try:
        trace = load_trace(path, partial=True)
    except TraceError:
        assert events == 0
        return
    if events:
        assert len(trace) == events
        assert (0 if trace.marks is None else len(trace.marks.time_ns)) == marks
    save_trace(trace, path.with_suffix(".json"))
    np.testing.assert_array_equal(load_trace(path.with_suffix(".json")).start_ns, trace.start_ns)


def test_damaged_bytes_are_a_trace_or_a_trace_error(tmp_path: Path) -> None:
    rows = session()
    rows["OSRT_API"] = [{"start": i, "end": i + 5, "globalTid": MAIN, "nameId": POLL} for i in range(2000)]
    healthy = write(tmp_path / "healthy.sqlite", rows, strings=STRINGS).read_bytes()
    chance, path = random.Random(1), tmp_path / "t.sqlite"
    loaded = 0
    for i in range(200):
        data = bytearray(healthy[: chance.randrange(100, len(healthy)) if i % 4 == 0 else None])
        for _ in range(chance.choice((0, 1, 30, 300))):
            data[chance.randrange(16, len(data))] = chance.randrange(256)
        path.write_bytes(data)
        for partial in (False, True):
            try:
                loaded += len(load_trace(path, partial=partial)) > 0
            except TraceError:
                continue
    assert loaded > 50


def test_the_command_line_takes_an_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "report.sqlite", session(), strings=STRINGS)
    save_trace(load_trace(path), tmp_path / "report.json.zst")
    for name in ("report.sqlite", "report.json.zst"):
        assert main(["trace", str(tmp_path / name)]) == 0
        said = capsys.readouterr().out
        assert re.search(r"complete_events +15\n", said)
        assert re.search(r"gpu_events +4\n", said)
