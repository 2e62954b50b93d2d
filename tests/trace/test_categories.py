"""One table of categories: every vendor's and version's names give the same figures, and no annotation is work."""

import importlib.util
import json
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from kit.spans import Category
from kit.trace import Event, Lane, Trace, busy_ns, load_trace, overlap_ns, self_ns, summary, utilisation, wall_ns
from kit.trace.categories import Role, role_of, roles


def test_every_category_of_the_installed_kineto_is_known() -> None:
    spec = importlib.util.find_spec("torch")
    assert spec
    assert spec.origin
    header = Path(spec.origin).parent / "include/kineto/ActivityType.h"
    names = re.findall(r'\{"(\w+)", ActivityType', header.read_text()) if header.exists() else []
    assert [name for name in names if name != "ENUM_COUNT" and role_of(name) is None] == []


@pytest.mark.parametrize(
    ("role", "names"),
    [
        (Role.KERNEL, "kernel Kernel KERNEL concurrent_kernel mtia_ccp_events privateuse1_kernel kernel_dispatch"),
        (Role.MEMORY, "gpu_memcpy gpu_memset Memcpy Memset mlu_memcpy GCU_MEMSET privateuse1_memcpy memory_copy"),
        (Role.RUNTIME, "cuda_runtime cuda_driver Runtime xpu_runtime xpu_driver mtia_runtime privateuse1_runtime"),
        (Role.RUNTIME, "privateuse1_driver hpu_op mlu_runtime gcu_driver glow_runtime musa_runtime hip_api hsa_api"),
        (Role.OPERATOR, "cpu_op Operator"),
        (Role.ANNOTATION, "user_annotation"),
        (Role.DEVICE_ANNOTATION, "gpu_user_annotation gpu_user_Annotation mlu_user_annotation"),
        (Role.BOOKKEEPING, "Trace overhead Overhead cuda_sync cuda_event cuda_profiler_range xpu_scope_profiler"),
        (None, "trace task region my_kernel kernels vmemcpy FEE"),
    ],
)
def test_what_a_category_is(role: Role | None, names: str) -> None:
    assert {name: role_of(name) for name in names.split()} == dict.fromkeys(names.split(), role)


def test_every_category_of_the_kits_own_spans_is_work_of_the_host() -> None:
    own = get_args(Category)
    trace = Trace.build([Event(category, category, 10 * i, 5, Lane(1, 1, "main")) for i, category in enumerate(own)])
    assert len(trace) >= 8
    assert roles(trace).tolist() == [Role.OTHER] * len(own), "no category is taken for a vendor's"


def row(cat: str, name: str, ts: float, dur: float, pid: object = 1, tid: object = 1, **args: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "pid": pid, "tid": tid, "ts": ts, "dur": dur, "args": args}


def read(tmp_path: Path, *rows: dict[str, Any]) -> Trace:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"traceEvents": rows}))
    return load_trace(path)


VENDORS = {  # operator, launch, kernel, copy
    "CUDA": ("cpu_op", "cuda_runtime", "kernel", "gpu_memcpy"),
    "torch 1.8": ("Operator", "Runtime", "Kernel", "Memcpy"),
    "XPU": ("cpu_op", "xpu_runtime", "kernel", "gpu_memcpy"),
    "XPU driver": ("cpu_op", "xpu_driver", "kernel", "gpu_memset"),
    "MTIA": ("cpu_op", "mtia_runtime", "mtia_ccp_events", "gpu_memcpy"),
    "custom": ("cpu_op", "privateuse1_driver", "privateuse1_kernel", "privateuse1_memset"),
    "MLU": ("cpu_op", "mlu_runtime", "kernel", "mlu_memcpy"),
    "HPU": ("cpu_op", "hpu_op", "kernel", "gpu_memcpy"),
    "MUSA": ("cpu_op", "musa_runtime", "kernel", "gpu_memset"),
}


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_vendor_gives_the_same_figures(tmp_path: Path, vendor: str) -> None:
    def figures(categories: tuple[str, str, str, str]) -> dict[str, object]:
        operator, launch, kernel, copy = categories
        trace = read(
            tmp_path,
            row(operator, "aten::mm", 100, 10),
            row(launch, "launch", 101, 1, correlation=7),
            row(kernel, "gemm", 105, 3, 0, "stream 7", correlation=7),
            row(copy, "copy", 107, 5, 0, "stream 9", correlation=8),
        )
        found = summary(trace)
        assert found.pop("notes") == []
        top = [{**each, "category": ""} for each in found.pop("top")]  # type: ignore[attr-defined]
        return {**found, "top": top, "lanes": [lane.label for lane in trace.lanes]}

    assert figures(VENDORS[vendor]) == figures(VENDORS["CUDA"])
    parts = {"kernel": 3000, "memory": 4000, "runtime": 1000, "operators": 4000, "other": 0, "idle": 0}
    assert figures(VENDORS[vendor])["breakdown_ns"] == parts
    assert figures(VENDORS[vendor])["lanes"] == ["thread 1", "GPU 0 stream 7", "GPU 0 stream 9"]


LABEL = {"ph": "M", "name": "process_labels", "pid": 5, "tid": 0, "args": {"labels": "NPU"}}


def test_a_device_category_that_nobody_knows_is_named(tmp_path: Path) -> None:
    host = row("my_language", "f", 0, 50)  # on a thread: nobody asks
    assert read(tmp_path, host).notes == ()
    (note,) = read(tmp_path, host, LABEL, row("", "AI_CORE", 10, 5, 5, 2), row("magic", "x", 10, 5, 5, 3)).notes
    assert note.startswith("2 of 3 events belong to a device or are launches")
    assert "(no category, 'magic')" in note
    launch = row("call", "launch", 1, 1, correlation=3)
    (tied,) = read(tmp_path, host, launch, row("engine", "gemm", 5, 2, 0, 7, correlation=3)).notes
    assert "('call', 'engine')" in tied


MAIN = Lane(1, 1, "main")
SPANS, OVERHEAD, STREAM = Lane("Spans", "PyTorch Profiler", ""), Lane(-1, 0, ""), Lane(0, 7, "GPU 0 stream 7")
AROUND = [  # what a profiler writes around the work: none of it is work
    Event("PyTorch Profiler (0)", "Trace", 0, 1000, SPANS),
    Event("ProfilerStep#1", "user_annotation", 10, 900, MAIN),
    Event("ProfilerStep#1", "gpu_user_annotation", 20, 900, STREAM),
    Event("mine", "user_annotation", 15, 500, MAIN),
    Event("Buffer Request", "overhead", 30, 700, OVERHEAD),
    Event("Context Sync", "cuda_sync", 30, 600, STREAM._replace(thread=-1)),
]
WORK = [
    Event("aten::mm", "cpu_op", 100, 50, MAIN),
    Event("launch", "cuda_runtime", 120, 10, MAIN),
    Event("gemm", "kernel", 140, 30, STREAM),
]


def test_annotations_and_bookkeeping_are_shown_and_never_work() -> None:
    with_them, alone = summary(Trace.build(AROUND + WORK)), summary(Trace.build(WORK))
    same = ("busy_ns", "sum_ns", "overlap_ns", "gpu_events", "gpu_streams", "gpu_sum_ns", "gpu_busy_ns", "gpu_wall_ns")
    assert {key: with_them[key] for key in same} == {key: alone[key] for key in same}
    assert (with_them["busy_ns"], with_them["overlap_ns"], with_them["wall_ns"]) == (70, 10, 1000)
    assert (with_them["complete_events"], with_them["lanes"]) == (9, 5)
    top: Any = with_them["top"]
    assert [(each["name"], each["self_ns"]) for each in top[:3]] == [("aten::mm", 40), ("gemm", 30), ("launch", 10)]
    assert {each["self_ns"] for each in top[3:]} == {0}
    assert {each["name"]: each["total_ns"] for each in top}["mine"] == 500
    trace = Trace.build(AROUND + WORK)
    assert [round(share * 1000) for share in utilisation(trace)] == [
        {MAIN: 50, STREAM: 30}.get(lane, 0) for lane in trace.lanes
    ]


def test_a_step_of_an_old_profiler_is_no_operator() -> None:
    trace = Trace.build([Event("ProfilerStep#3", "Operator", 0, 100, MAIN), Event("aten::mm", "Operator", 10, 5, MAIN)])
    assert (busy_ns(trace), int(self_ns(trace).sum()), wall_ns(trace)) == (5, 5, 100)


def test_a_frame_that_crosses_a_range_does_not_count_twice() -> None:
    rows = [  # as with_stack=True beside record_function writes them
        Event("forward", "python_function", 0, 60, MAIN),
        Event("range", "user_annotation", 50, 100, MAIN),
        Event("inner", "python_function", 40, 40, MAIN),
        Event("aten::mm", "cpu_op", 70, 30, MAIN),
    ]
    trace = Trace.build(rows)
    own = dict(zip((trace.names[i] for i in trace.name), self_ns(trace).tolist(), strict=True))
    assert own == {"forward": 40, "inner": 30, "range": 0, "aten::mm": 30}
    assert sum(own.values()) == busy_ns(trace) == 100


@pytest.mark.parametrize("with_stack", [False, True])
@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events")
def test_one_thread_of_torch_profiler_overlaps_with_nothing(tmp_path: Path, with_stack: bool) -> None:
    layers, x = torch.nn.Sequential(*[torch.nn.Linear(16, 16) for _ in range(3)]), torch.rand(4, 16)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.no_grad(), torch.profiler.profile(activities=activities, with_stack=with_stack) as profile:
        for _ in range(3):
            with torch.profiler.record_function("range"):
                layers(x)
    profile.export_chrome_trace(str(tmp_path / "plain.json"))
    trace = load_trace(tmp_path / "plain.json")
    spans = [lane.process for lane in trace.lanes].index("Spans")
    # With stacks, what the test runner's own threads do is in the file too.
    here = [i for i, lane in enumerate(trace.lanes) if lane.thread == threading.get_native_id()]
    assert len(here) == 1
    trace = trace.select(lanes=[*here, spans])
    assert overlap_ns(trace) == 0
    assert 0 < busy_ns(trace) < wall_ns(trace)
    assert utilisation(trace)[spans] == 0
    own = self_ns(trace)
    assert own[trace.lane == spans].sum() == 0
    assert own.sum() == busy_ns(trace)
    found = summary(trace)
    assert found["top"][0]["category"] in ("cpu_op", "python_function")  # type: ignore[index]
    assert "range" in trace.names


def test_ids_tie_what_every_vendor_launches(tmp_path: Path) -> None:
    from kit.trace import launch_delays

    for launch, kernel in (("xpu_runtime", "kernel"), ("Runtime", "Kernel"), ("mtia_runtime", "mtia_ccp_events")):
        trace = read(tmp_path, row(launch, "l", 101, 1, correlation=7), row(kernel, "k", 105, 3, 0, 3, correlation=7))
        assert launch_delays(trace).delay_ns.tolist() == [4000]
    untied = replace(trace, correlation=np.full(2, -1))
    assert not len(launch_delays(untied).delay_ns)
