"""Counters and the memory of profile_memory as step functions: every value once, in order."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.trace import load_trace, save_trace, stack
from kit.trace.columns import Trace
from kit.trace.curves import Curve, curves, instants


def loaded(folder: Path, rows: list[Any]) -> Trace:
    (folder / "t.json").write_text(json.dumps([{"ph": "X", "pid": 1, "tid": 1, "ts": 1, "dur": 9}, *rows]))
    return load_trace(folder / "t.json")


def memory(ts: float, total: object, device: object = 1, index: object = 0, tid: int = 1) -> dict[str, Any]:
    args = {"Total Allocated": total, "Total Reserved": 9, "Bytes": 4, "Device Type": device, "Device Id": index}
    return {"ph": "i", "s": "t", "name": "[memory]", "pid": 1, "tid": tid, "ts": ts, "args": args}


def counter(ts: float, pid: int = 1, name: str = "used", **series: object) -> dict[str, Any]:
    return {"ph": "C", "name": name, "pid": pid, "ts": ts, "args": series}


def test_memory_is_a_curve_for_each_device_whichever_thread_tells_it(tmp_path: Path) -> None:
    rows = [memory(4, 40), memory(2, 20, tid=2), memory(3, 7, 0, -1), memory(5, "50"), memory(6, 1, 99, -1)]
    trace = loaded(tmp_path, [*rows, memory(7, None), memory(8, 5, "x", None)])
    found = {curve.label: (curve.time_ns.tolist(), curve.value.tolist()) for curve in curves(trace)}
    assert found == {
        "allocated on GPU 0": ([2000, 4000, 5000], [20, 40, 50]),
        "allocated on CPU": ([3000], [7]),
        "allocated on device type 99": ([6000], [1]),
        "allocated on device type x 0": ([8000], [5]),
    }
    assert all(curve.in_bytes for curve in curves(trace))
    assert trace.marks is not None
    assert len(trace.marks.time_ns) == 7  # every instant is one still
    rest = instants(trace)
    assert rest is not None
    assert rest.time_ns.tolist() == [7000]  # which told no number
    save_trace(trace, tmp_path / "again.json")
    again = load_trace(tmp_path / "again.json")
    assert [repr(curve) for curve in curves(again)] == [repr(curve) for curve in curves(trace)]


def test_counters_are_told_apart_by_series_and_process(tmp_path: Path) -> None:
    trace = loaded(tmp_path, [counter(2, a=1, b=2), counter(4, a=3), counter(3, pid=2, a=5), counter(5, name="x", x=1)])
    assert [(curve.label, curve.value.tolist()) for curve in curves(trace)] == [
        ("used: a (1)", [1, 3]),
        ("used: b (1)", [2]),
        ("x (1)", [1]),
        ("used: a (2)", [5]),
    ]
    one = loaded(tmp_path, [counter(2, value=1), counter(3, name="heap", bytes=7)])
    assert [(curve.label, curve.in_bytes) for curve in curves(one)] == [("used", False), ("heap: bytes", True)]
    both = curves(stack({"first": one, "second": one}))
    assert [(curve.label, curve.group) for curve in both] == [
        *(("used", "first"), ("heap: bytes", "first"), ("used", "second"), ("heap: bytes", "second"))
    ]
    assert curves(Trace.build([])) == []
    assert instants(Trace.build([])) is None


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=300), st.integers(4, 40))
@settings(deadline=None)
def test_a_thinned_curve_keeps_its_ends_and_its_range(values: list[int], limit: int) -> None:
    curve = Curve("", "", np.arange(len(values), dtype=np.int64), np.array(values, float), False)
    thin = curve.thinned(limit)
    assert len(thin.time_ns) <= max(limit, 4)
    assert (thin.value.min(), thin.value.max()) == (min(values), max(values))
    assert (thin.value[0], thin.value[-1]) == (values[0], values[-1])
    np.testing.assert_array_equal(thin.value, curve.value[thin.time_ns])


@pytest.mark.parametrize("args", [[], "text", None, {"a": {}}, {"a": "NaN"}, {"a": "1e999"}, {"": None}, {"a": True}])
def test_hostile_counters_and_memory_are_counted(tmp_path: Path, args: object) -> None:
    rows = [{"ph": "C", "name": ["x"], "pid": 1, "ts": 1, "args": args}, {**memory(3, 1), "args": args}, memory(4, 1)]
    trace = loaded(tmp_path, rows)
    assert len(trace) == 1
    assert [curve.label for curve in curves(trace)] == ["allocated on GPU 0"]
    assert trace.marks is not None
    assert len(trace.marks.time_ns) == 2
