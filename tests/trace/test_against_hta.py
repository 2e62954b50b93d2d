"""The figures that Holistic Trace Analysis has too, on files that both read: equal to the microsecond, its unit."""

import gzip
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.trace import busy_ns, critical_path, idle, load_trace, wall_ns
from kit.trace.categories import DEVICE, having
from kit.trace.metrics import on_gpu

SHARED = [folder for each in Path(__file__).parents if (folder := each / "shared" / "traces").is_dir()]
RECORDED = ("alexnet_train_a100", "cuda_event_sync_multi_stream", "rtx2080ti_resnet_pageable")  # whole microseconds


def write(path: Path, seed: int) -> Path:
    """A thread that launches work to two streams, sometimes ahead of them and sometimes too late."""
    random = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = [
        {"ph": "X", "cat": "user_annotation", "name": "ProfilerStep#1", "pid": 9, "tid": 9, "ts": 0, "dur": 10**6}
    ]
    host, free = 10, [0, 0]
    for tie in range(40_001, 40_080):  # HTA 0.5.0 fails where its numbers fit into 8 bits
        stream = int(random.integers(2))
        host += int(random.choice([5, 20, 200]))
        start = max(host + int(random.integers(3, 9)), free[stream] + int(random.choice([0, 1, 12, 80])))
        free[stream] = start + int(random.choice([1, 40, 150]))
        args = {"External id": tie, "correlation": tie}
        where = {"pid": 0, "tid": 7 + stream, "args": {**args, "device": 0, "stream": 7 + stream}}
        name, category = [("gemm", "kernel"), ("Memcpy HtoD (Pinned -> Device)", "gpu_memcpy")][tie % 5 == 0]
        op = {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 9, "tid": 9, "ts": host - 2, "dur": 4}
        launch = {
            "ph": "X",
            "cat": "cuda_runtime",
            "name": "cudaLaunchKernel",
            "pid": 9,
            "tid": 9,
            "ts": host,
            "dur": 2,
        }
        rows += [{**op, "args": {"External id": tie}}, {**launch, "args": args}]
        rows.append({"ph": "X", "cat": category, "name": name, "ts": start, "dur": free[stream] - start, **where})
    sync = {"ph": "X", "cat": "cuda_runtime", "name": "cudaDeviceSynchronize", "pid": 9, "tid": 9, "ts": host + 5}
    rows.append({**sync, "dur": max(max(free) - host - 3, 1), "args": {"External id": 40_099, "correlation": 40_099}})
    length = rows[-1]["ts"] + rows[-1]["dur"]
    rows.append(
        {"ph": "X", "cat": "cpu_op", "name": "step", "pid": 9, "tid": 9, "ts": 0, "dur": length + 1, "args": {}}
    )
    whole = {"schemaVersion": 1, "distributedInfo": {"rank": 0}, "deviceProperties": [{"id": 0}], "traceEvents": rows}
    path.write_bytes(gzip.compress(json.dumps(whole).encode()))
    return path


@pytest.fixture(params=[*RECORDED, 1, 2, 3])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if isinstance(request.param, int):
        return write(tmp_path / "trace.json.gz", request.param)
    if not SHARED:
        pytest.skip("the folder shared/traces is not there")
    return SHARED[0] / f"{request.param}.json.gz"


@pytest.fixture
def peer(path: Path) -> Iterator[Any]:
    """HTA's analysis of the file."""
    pytest.importorskip("hta", reason="HolisticTraceAnalysis is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        from hta.trace_analysis import TraceAnalysis

        yield TraceAnalysis(trace_files={0: str(path)}, trace_dir=str(path.parent), include_last_profiler_step=True)
        logging.disable(logging.NOTSET)


def test_idle_time_of_streams_by_cause(path: Path, peer: Any) -> None:
    table, _ = peer.get_idle_time_breakdown(visualize=False)
    theirs: dict[str, dict[str, int]] = {}
    for stream, cause, us in zip(table.stream, table.idle_category, table.idle_time, strict=True):
        theirs.setdefault(f"GPU 0 stream {stream}", {})[cause] = int(us) * 1000
    rows = idle(load_trace(path))
    ours = {row.where: row for row in rows[1:]}  # the first is the device
    assert {*ours} == {*theirs}
    for where, row in ours.items():
        found = {cause: theirs[where].get(cause, 0) for cause in ("host_wait", "kernel_wait", "other")}
        assert row.host_ns == found["host_wait"]
        assert row.kernel_ns == found["kernel_wait"]
        assert row.copy_ns + row.stream_ns + row.other_ns == found["other"]


def test_idle_time_of_the_device(path: Path, peer: Any) -> None:
    if "cuda_sync" in load_trace(path).categories:
        pytest.skip("HTA counts Kineto's records of waiting for a stream as work of the GPU here")
    table = peer.get_temporal_breakdown(visualize=False)
    gpu = on_gpu(load_trace(path))
    (row, *_) = idle(load_trace(path))
    assert row.idle_ns == int(table["idle_time(us)"][0]) * 1000 == wall_ns(gpu) - busy_ns(gpu)
    assert row.wall_ns == int(table["kernel_time(us)"][0]) * 1000


def test_the_critical_path_goes_through_the_same_kernels(peer: Any, path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    if int(pandas.__version__.split(".")[0]) >= 3:
        pytest.skip("the critical path of HTA 0.5.0 needs a pandas before 3")
    annotation = "[param|cuda]" if "alexnet" in path.name else "ProfilerStep"
    found = peer.critical_path_analysis(rank=0, annotation=annotation, instance_id=0)
    if found is None:
        pytest.skip("HTA needs an annotation around the part that it analyses")
    graph, succeeded = found
    assert succeeded
    events = graph.trace_df.loc[list(graph.critical_path_events_set & {*graph.trace_df.index})]
    theirs = {*events[events.stream >= 0].correlation.tolist()}
    trace = load_trace(path)
    on = np.intersect1d(np.flatnonzero(critical_path(trace).own_ns), having(trace, *DEVICE))
    ours = {*trace.ids("correlation")[on].tolist()}
    assert len(ours & theirs) >= 0.8 * max(len(ours), len(theirs))
