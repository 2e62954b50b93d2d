"""Arrows: what led to what, from flows and from correlation ids."""

import json
from pathlib import Path
from typing import Any

import pytest

from kit.trace import Trace, links, load_trace


def read(tmp_path: Path, events: list[dict[str, Any]]) -> Trace:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"traceEvents": events}))
    return load_trace(path)


def event(name: str, ts: float, dur: float, tid: int = 1, cat: str = "cpu_op", **args: Any) -> dict[str, Any]:
    return {"ph": "X", "name": name, "cat": cat, "pid": 1, "tid": tid, "ts": ts, "dur": dur, "args": args}


def flow(ph: str, ts: float, tid: int, key: int | str = 1, name: str = "flow", cat: str = "flow") -> dict[str, Any]:
    return {"ph": ph, "id": key, "name": name, "cat": cat, "pid": 1, "tid": tid, "ts": ts, "bp": "e"}


def named(trace: Trace) -> list[tuple[str, str]]:
    return sorted((trace.names[trace.name[a]], trace.names[trace.name[b]]) for a, b in links(trace).tolist())


def test_a_flow_ties_the_innermost_events_around_its_ends(tmp_path: Path) -> None:
    events = [event("outer", 0, 100), event("inner", 10, 20), event("after", 40, 5), event("there", 60, 30, tid=2)]
    assert named(read(tmp_path, [*events, flow("s", 15, 1), flow("f", 65, 2)])) == [("inner", "there")]
    # 35 lies after inner's end and before the next one: outer is the innermost there
    assert named(read(tmp_path, [*events, flow("s", 35, 1), flow("f", 65, 2)])) == [("outer", "there")]


def test_a_flow_with_steps_is_a_chain(tmp_path: Path) -> None:
    events = [event(name, 10 * i, 5, tid=i) for i, name in enumerate("abc")]
    trace = read(tmp_path, [*events, flow("s", 1, 0), flow("t", 11, 1), flow("f", 21, 2)])
    assert named(trace) == [("a", "b"), ("b", "c")]


@pytest.mark.parametrize("other", [{"key": 2}, {"name": "another"}, {"cat": "another"}])
def test_flows_of_another_id_name_or_category_are_other_flows(tmp_path: Path, other: dict[str, Any]) -> None:
    events = [event("a", 0, 5, tid=0), event("b", 10, 5, tid=1)]
    assert named(read(tmp_path, [*events, flow("s", 1, 0), flow("f", 11, 1)])) == [("a", "b")]
    assert named(read(tmp_path, [*events, flow("s", 1, 0), flow("f", 11, 1, **other)])) == []


def test_an_id_used_again_starts_again(tmp_path: Path) -> None:
    events = [event(name, 10 * i, 5, tid=i) for i, name in enumerate("abcd")]
    trace = read(tmp_path, [*events, flow("s", 1, 0), flow("f", 11, 1), flow("s", 21, 2), flow("f", 31, 3)])
    assert named(trace) == [("a", "b"), ("c", "d")]


def test_an_end_that_no_event_is_around_ties_nothing(tmp_path: Path) -> None:
    events = [event("a", 0, 5, tid=0), event("b", 10, 5, tid=1)]
    assert named(read(tmp_path, [*events, flow("s", 7, 0), flow("f", 11, 1)])) == []
    assert named(read(tmp_path, [*events, flow("s", 1, 0), flow("f", 9, 1)])) == []


def test_a_launch_is_tied_to_its_kernel_once_though_a_flow_says_so_too(tmp_path: Path) -> None:
    launch = event("cudaLaunchKernel", 10, 5, cat="cuda_runtime", correlation=9)
    kernel = event("sgemm", 30, 50, tid=7, cat="kernel", correlation=9)
    both = [launch, kernel, flow("s", 10, 1, 9, "ac2g", "ac2g"), flow("f", 30, 7, 9, "ac2g", "ac2g")]
    assert named(read(tmp_path, both)) == named(read(tmp_path, both[:2])) == [("cudaLaunchKernel", "sgemm")]


def test_a_trace_without_either_has_none(tmp_path: Path) -> None:
    assert links(read(tmp_path, [event("a", 0, 5)])).shape == (0, 2)
    assert links(Trace.build([])).shape == (0, 2)
