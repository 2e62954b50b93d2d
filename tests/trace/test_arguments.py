"""What programs say of their events: kept as it is, read on demand, never an exception."""

import gzip
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.synthetic import synthesise
from kit.errors import TraceError
from kit.trace import Event, Lane, Trace, arguments, load_trace, merge, reading, save_trace, stack

LANE = Lane(1, 1, "caller")
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)
ARGS = st.lists(st.dictionaries(WORDS, PLAIN, max_size=4), max_size=12)
SAID = {"Input Dims": [[8, 3], []], "Call stack": "a;b", "bytes": 7}


def write(folder: Path, what: Any, name: str = "trace.json") -> Path:
    path = folder / name
    data = what if isinstance(what, bytes) else (what if isinstance(what, str) else json.dumps(what)).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def x(ts: float = 1, **more: object) -> dict[str, object]:
    return {"ph": "X", "name": "a", "ts": ts, "dur": 2, "pid": 1, "tid": 1, **more}


@given(ARGS)
@settings(deadline=None, max_examples=60)
def test_any_arguments_are_kept_and_saved(
    tmp_path_factory: pytest.TempPathFactory, given: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("args")
    path = write(folder, [x(i + 1, args=args) for i, args in enumerate(given)] + [x(1000)])
    trace = load_trace(path)
    read = trace.args_of(range(len(given)))
    ids = {"correlation", "External id"}  # whose forms may change: "7" is 7
    assert [{k: v for k, v in args.items() if k not in ids} for args in read] == [
        {k: v for k, v in args.items() if k not in ids} for args in given
    ]
    save_trace(trace, folder / "again.json")
    again = load_trace(folder / "again.json")
    assert again.args_of(range(len(again))) == trace.args_of(range(len(trace)))
    built = Trace.build(trace.events(), trace.args_of(range(len(trace))))
    assert built.args_of(range(len(built))) == trace.args_of(range(len(trace)))


def test_arguments_follow_their_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through batches, order, selection, and traces put together."""
    monkeypatch.setattr(reading, "_BATCH", 2_000)
    chance = random.Random(0)
    times = chance.sample(range(50_000), 5_000)
    rows = [x(ts, name=f"op {ts}", args={"ts": ts, "x": [{"a": 1}, {"b": 2}]} if ts % 3 else {}) for ts in times]
    trace = load_trace(write(tmp_path, {"schemaVersion": 1, "baseTimeNanoseconds": 0, "traceEvents": rows}))

    def checked(each: Trace) -> int:
        names = [event.name.removeprefix("op ") for event in each.events()]
        known = [args.get("ts") for args in each.args_of(range(len(each)))]
        assert known == [int(name) if int(name) % 3 else None for name in names]
        return len(known)

    assert trace.arguments is not None
    assert len(trace.arguments.packed) > 5
    assert checked(trace) == 5_000
    assert checked(trace.take(np.arange(0, 5_000, 7))) == 715
    assert checked(trace.select(window=(1_000_000, 20_000_000))) > 1_000
    built = Trace.build([Event("op 1", "", 5, 1, LANE)], [{"ts": 1}])
    assert (
        checked(stack({"a": trace, "b": built, "c": Trace.build([Event("op 3", "", 5, 1, LANE)]), "d": built})) == 5_003
    )
    assert checked(merge([trace, trace])) == 10_000
    assert trace.args(0) == trace.args_of([0])[0]


def test_a_trace_is_built_with_arguments() -> None:
    events = [Event("late", "", 9, 1, LANE), Event("early", "", 5, 1, LANE, 7), Event("none", "", 6, 1, LANE)]
    trace = Trace.build(events, [{"shape": (2, 3), "type": np.float32}, {"a": 1}, None])
    assert [trace.args(i) for i in range(3)] == [
        {"a": 1, "correlation": 7},
        {},
        {"shape": [2, 3], "type": "<class 'numpy.float32'>"},
    ]
    assert Trace.build(events).arguments is None
    assert Trace.build(events).args(0) == {"correlation": 7}
    assert Trace.build(events, [None, {}, None]).arguments is None


def test_a_pair_has_the_arguments_of_its_beginning(tmp_path: Path) -> None:
    rows = [
        {"ph": "B", "name": "out", "ts": 1, "pid": 1, "tid": 1, "args": {"of": "B"}},
        {"ph": "E", "ts": 9, "pid": 1, "tid": 1, "args": {"of": "E"}},
        {"ph": "b", "cat": "net", "id": 1, "name": "get", "ts": 2, "pid": 1, "tid": 1, "args": {"of": "b"}},
        {"ph": "e", "cat": "net", "id": 1, "name": "get", "ts": 3, "pid": 1, "tid": 1, "args": {"of": "e"}},
    ]
    assert load_trace(write(tmp_path, rows)).args_of([0, 1]) == [{"of": "B"}, {"of": "b"}]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("[1, 2]", {"args": [1, 2]}),
        ('"text"', {"args": "text"}),
        ("7", {"args": 7}),
        ("null", {}),
        ("{}", {}),
        ('{"a": 1, "a": 2}', {"a": 2}),
        ('{"a": NaN, "b": -Infinity}', {"a": "", "b": ""}),
        ('{"a": 1e999}', {"args": '{"a": 1e999}'}),
        ('{"a": ' + "9" * 5_000 + "}", {"args": '{"a": ' + "9" * 5_000 + "}"}),
        ('{"a": "C:\\dir \\ud800 <b>"}', {"a": "C:\ufffddir \ufffd <b>"}),
        ('{"a": [1,],}', {"a": [1]}),
        ('{"correlation": "7", "External id": 3.0}', {"correlation": 7, "External id": 3}),
        ('{"__proto__": {"a": 1}, "": "</script>"}', {"__proto__": {"a": 1}, "": "</script>"}),
    ],
)
def test_hostile_arguments(tmp_path: Path, written: str, read: dict[str, Any]) -> None:
    text = f'[{json.dumps(x(args={"is": "first"}))}, {json.dumps(x(2))[:-1]}, "args": {written}}}]'
    trace = load_trace(write(tmp_path, text))
    assert trace.args_of([0, 1]) == [{"is": "first"}, read]
    save_trace(trace, tmp_path / "again.json")
    assert load_trace(tmp_path / "again.json").args_of([0, 1]) == [{"is": "first"}, read]


@pytest.mark.parametrize("depth", [150, 900, 5_000, 100_000])
@pytest.mark.parametrize("pair", ["[]", "{}"])
def test_deep_arguments_can_be_read_and_saved(tmp_path: Path, depth: int, pair: str) -> None:
    begin, end = ('{"a":', "}") if pair == "{}" else ("[", "]")
    deep = f'{{"before": 1, "x": {begin * depth}1{end * depth}}}'
    trace = load_trace(write(tmp_path, f'[{json.dumps(x())[:-1]}, "args": {deep}}}]'))
    assert trace.args(0)["before"] == 1
    save_trace(trace, tmp_path / "again.json")
    assert load_trace(tmp_path / "again.json").args(0) == trace.args(0)


def test_a_damaged_row_costs_no_other_row_its_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BATCH", 900)
    rows = [json.dumps(x(i, args={"n": i, "l": [{"a": 1}, {"b": 2}]})) for i in range(60)]
    for bad in (0, 20, 21, 59):
        rows[bad] = rows[bad].replace('"name"', 'name"')
    trace = load_trace(write(tmp_path, f"[{', '.join(rows)}]"), partial=True)
    assert [args["n"] for args in trace.args_of(range(len(trace)))] == (trace.start_ns // 1000).tolist()
    assert len(trace) == 56


def test_without_zstandard_the_store_is_zlibs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, [x(args=SAID)])
    packed = load_trace(path)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert load_trace(path).args(0) == SAID
    with pytest.raises(TraceError, match="pip install zstandard"):
        packed.args(0)


def test_a_damaged_store_says_so() -> None:
    for packed in (b"", b"(\xb5/\xfdnothing", b"x\x9cnothing"):
        trace = Trace.build([Event("a", "", 5, 1, LANE)], [SAID])
        store = arguments.Arguments((packed,), (0,), 1)
        broken = type(trace)(**{**vars(trace), "arguments": store})
        with pytest.raises(TraceError, match="cannot be read"):
            broken.args(0)


def test_instants_keep_their_arguments_in_a_saved_file(tmp_path: Path) -> None:
    mark = {"ph": "i", "s": "t", "name": "here", "pid": 1, "tid": 1, "ts": 3, "args": {"why": ["x"]}}
    save_trace(load_trace(write(tmp_path, [x(), mark])), tmp_path / "again.json")
    rows = json.loads((tmp_path / "again.json").read_text())["traceEvents"]
    assert [row["args"] for row in rows if row["ph"] == "i"] == [{"why": ["x"]}]


def test_the_store_is_small(tmp_path: Path) -> None:
    synthesise(20_000, tmp_path / "t.json")
    trace = load_trace(tmp_path / "t.json")
    assert trace.arguments is not None
    assert sum(map(len, trace.arguments.packed)) < (tmp_path / "t.json").stat().st_size / 10
    assert trace.args(1000).keys() >= {"External id"}
