"""Damaged files: what can be read exactly is, what cannot is counted, and reading goes on behind it."""

import gzip
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from bench.synthetic import synthesise
from kit.errors import TraceError
from kit.trace import Trace, busy_ns, load_trace, reading, summary
from kit.trace.curves import curves

SOAK = os.environ.get("KIT_SOAK") == "1"


def write(folder: Path, data: str | bytes, name: str = "t.json") -> Path:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
    return path


def row(inside: str = "", name: str = "a", ts: str = "1", dur: str = "2") -> str:
    return f'{{"ph": "X", "name": "{name}", "pid": 1, "tid": 1, "ts": {ts}, "dur": {dur}{inside}}}'


def test_times_as_strings_of_digits(tmp_path: Path) -> None:
    """torch_npu writes them so; they are exact to the nanosecond."""
    rows = [row(ts='"1695714178389614.120"', dur="10.5"), row(ts='"1695714178389630.120"', dur='"4.02"')]
    trace = load_trace(write(tmp_path, f'{{"traceEvents": [{", ".join(rows)}]}}'))
    assert trace.start_ns.tolist() == [1695714178389614120, 1695714178389630120]
    assert trace.duration_ns.tolist() == [10500, 4020]
    assert load_trace(write(tmp_path, f"[{row(ts='100', dur=chr(34) + '10.5' + chr(34))}]")).duration_ns.tolist() == [
        10500
    ]


@pytest.mark.parametrize(
    "inside",
    [
        *(f', "args": {{"x": {word}}}' for word in ("NaN", "Infinity", "-Infinity", "nan", "-nan", "inf", "-nan(ind)")),
        ', "args": [1, {"a": 2}]',
        ', "args": "text"',
        ', "args": null',
        ', "args": {"x": 1e999}',
        ', "args": {"x": "\\ud800"}',
        ', "args": {"x": "C:\\dir"}',
        ', "args": {"x": ' + "[" * 5000 + "]" * 5000 + "}",
        ', "args": {"x": [1,],}',
        ', "id": {"local": "0x1"}',
        ', "s": 5',
    ],
)
def test_what_is_not_used_does_not_matter(tmp_path: Path, inside: str) -> None:
    trace = load_trace(write(tmp_path, f"[{row()},{row(inside, ts='3')},\n {row(ts='5')}]"))
    assert trace.start_ns.tolist() == [1000, 3000, 5000]
    assert trace.notes == ()


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("torch\\cuda\\__init__.py", "torch\ufffdcuda\ufffd__init__.py"),
        ("config.py(0): \x06", "config.py(0): \ufffd"),
        ("\\ud83d x", "\ufffd x"),
        ("x \\ude00", "x \ufffd"),
        ("\\u12", "\ufffdu12"),
        ("\ud83d", "\ufffd\ufffd\ufffd"),  # as bytes
        ("\\ud83d\\ude00", "😀"),
        ("line\nbreak", "line\ufffdbreak"),
    ],
)
def test_a_name_is_repaired_and_a_note_says_so(tmp_path: Path, written: str, read: str) -> None:
    trace = load_trace(write(tmp_path, f"[{row(name=written)}, {row(name='b', ts='3')}]"))
    assert [event.name for event in trace.events()] == [read, "b"]
    assert [*trace.notes] == (
        ["1 of its names contain \ufffd in place of invalid characters."] if "\ufffd" in read else []
    )


def test_numbers_and_names_in_other_forms(tmp_path: Path) -> None:
    forms = ['"pid": 1.0', '"pid": null', '"pid": 1', f'"pid": {2**70}', '"pid": {"a": 1}', '"pid": true', '"pid": 1.5']
    rows = [f'{{"ph": "X", "ts": {i}, "dur": 1, "tid": 1, "name": {i}, {pid}}}' for i, pid in enumerate(forms)]
    trace = load_trace(write(tmp_path, f"[{','.join(rows)}]"))
    assert [event.lane.process for event in trace.events()] == [1, 0, 1, str(2**70), "{'a': 1}", "True", "1.5"]
    assert trace.names == tuple(map(str, range(len(forms))))


def test_flows_whose_id_is_an_object_are_told_apart(tmp_path: Path) -> None:
    flows = [f'{{"ph": "{ph}", "id": {{"a": {i}}}, "ts": 1}}' for ph in "sf" for i in (1, 2)]
    trace = load_trace(write(tmp_path, f"[{row()}, {', '.join(flows)}]"))
    assert trace.marks is not None
    assert len(set(trace.marks.key.tolist())) == 2


@pytest.mark.parametrize(
    ("given", "ns"), [("1e15", 10**18), ('"1e15"', 10**18), ('" 12 "', 12_000), ("1.0", 1000), ("-3", -3000)]
)
def test_times_in_other_forms(tmp_path: Path, given: str, ns: int) -> None:
    assert load_trace(write(tmp_path, f"[{row(ts=given)}]")).start_ns.tolist() == [ns]


BAD_ROWS = {
    "a wrapped duration": row(dur="18446744073709551.615"),
    "a wrapped duration in ns": row(dur="18446744073709551615"),
    "a time in another unit": row(ts="1695714178389614120"),
    "a time past all": row(ts="1e300"),
    "past doubles": row(ts="1e999"),
    "many digits": row(ts="9" * 5000),
    "NaN as time": row(ts="NaN"),
    "a word as time": row(ts='"soon"'),
    "a bool as time": row(ts="true"),
    "an object as time": row(ts="{}"),
    "no time": '{"ph": "X", "dur": 1}',
    "null": "null",
    "a number": "7",
    "a list": '["ph", {"ph": "X"}]',
    "a lost quote": row().replace('"name"', 'name"'),
    "a lost quote at the end": '{"ph": "X", "ts": 1, "dur": 1, "name": "a}',
    "a lost colon": row().replace(":", "", 1),
    "a lost brace": row(', "args": {"a": 1}')[:-1],
    "a brace too many": row() + "}",
    "a bracket too many": row(', "args": {"a": [1]], "b": 2}'),
    "a lost list": row(', "args": {"a": [{"b": 1}, {"c": 2}}'),
    "a list that swallows": row(', "args": {"a": [{"b": 1}, {"c": 2}')[:-1],
    "nulls": row().replace(" ", "\0"),
}


@pytest.mark.parametrize("what", BAD_ROWS)
@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_only_the_bad_row_is_lost(
    tmp_path: Path, what: str, bare: bool, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_BATCH", 900)
    rows = [
        row(', "args": {"l": [{"a": 1}, {"b": [2]}, {"c": 3}]}' if i % 3 else "", str(i), str(i)) for i in range(40)
    ]
    rows.insert({"first": 0, "middle": 20, "last": 40}[place], BAD_ROWS[what])
    tail = ', "deviceProperties": [{"a": 1}, {"b": 2}], "baseTimeNanoseconds": 7}'
    path = write(tmp_path, f"[{', '.join(rows)}]" if bare else f'{{"traceEvents": [{", ".join(rows)}]{tail}')
    says = (
        r"(1 of its (rows|events) .*the first|it is truncated).*40 complete.*partial=True"  # a string to the very end
    )
    with pytest.raises(TraceError, match=says):
        load_trace(path)
    trace = load_trace(path, partial=True)
    assert [int(event.name) for event in trace.events()] == [*range(40)]
    assert trace.start_ns[1] == 1000 + (0 if bare else 7)
    assert len(trace.notes) == 1


def test_bad_rows_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    rows = [row(ts=str(i)) for i in range(100)]
    for i in (30, 31, 77):
        rows[i] = rows[i].replace('"tid"', '"tid')
    path = write(tmp_path, f"[{','.join(rows)}]")
    with pytest.raises(
        TraceError, match=r"3 of its rows cannot be read, the first of them row 30, .*97 complete events"
    ):
        load_trace(path)
    assert len(load_trace(path, partial=True)) == 97


@pytest.mark.parametrize("end", ["", ",", "\n", ",\n\n", ",]", ", ]", " ]\n"])
def test_an_array_may_stay_open_or_end_with_a_comma(tmp_path: Path, end: str) -> None:
    assert load_trace(write(tmp_path, f"[\n{row()},\n{row(ts='3')}{end}")).start_ns.tolist() == [1000, 3000]
    if "]" in end:
        text = f'{{"traceEvents":[{row()},{row(ts="3")}{end}, "baseTimeNanoseconds": "5"}}'
        assert load_trace(write(tmp_path, text)).start_ns.tolist() == [1005, 3005]


def test_two_documents_are_not_one(tmp_path: Path) -> None:
    whole = f'{{"traceEvents": [{row()}]}}'
    for text in (whole + whole, whole[:-1] + f', "traceEvents": [{row(ts="3")}]}}'):
        with pytest.raises(TraceError, match="after its events"):
            load_trace(write(tmp_path, text))
        assert len(load_trace(write(tmp_path, text), partial=True)) == 1


def test_a_row_of_megabytes_is_read_and_a_longer_one_is_a_bad_row(tmp_path: Path) -> None:
    for size, count in ((3_000_000, 3), (9_000_000, 2)):
        stack = f', "args": {{"stack": {json.dumps("x},{" * (size // 4))}}}'
        text = f"[{row()},{row(stack)},{row()}]"
        assert len(load_trace(write(tmp_path, text), partial=True)) == count


def test_asynchronous_events_overlap_in_a_lane_of_their_own(tmp_path: Path) -> None:
    """As Node's and Chrome's: they overlap, and are told apart by their ids."""
    rows = [{"ph": ph, "cat": "net", "id": i, "name": f"get {i}", "pid": 1, "tid": 1, "ts": ts} for ph, i, ts in
            (("b", 1, 1), ("b", 2, 2), ("n", 2, 3), ("e", 1, 4), ("e", 2, 7))]  # fmt: skip
    trace = load_trace(write(tmp_path, json.dumps(rows)))
    assert [(event.name, event.start_ns, event.duration_ns) for event in trace.events()] == [
        ("get 1", 1000, 3000),
        ("get 2", 2000, 5000),
    ]
    assert [lane.label for lane in trace.lanes] == ["async: net"]
    assert trace.marks is not None
    assert trace.marks.time_ns.tolist() == [3000]
    assert trace.notes == ()
    assert (busy_ns(trace), summary(trace)["complete_events"], summary(trace)["instants"]) == (0, 2, 1)


@pytest.mark.parametrize(
    "mark",
    [
        {"ph": "i", "s": "t"},
        {"ph": "i", "s": "g"},
        {"ph": "C", "args": {"used": "3"}},
        {"ph": "s", "id": 1},
    ],
)
def test_marks_alone_are_shown(tmp_path: Path, mark: dict[str, Any]) -> None:
    rows = [{"name": "here", "pid": 1, "tid": 1, "ts": ts, **mark} for ts in (5, 3)]
    trace = load_trace(write(tmp_path, json.dumps(rows)))
    assert [(event.name, event.start_ns, event.duration_ns) for event in trace.events()] == [
        ("here", 3000, 0),
        ("here", 5000, 0),
    ]
    assert trace.marks is not None
    assert "no complete event" in trace.notes[0]


@pytest.mark.parametrize("told", [True, False])
def test_a_full_buffer_of_viztracer(tmp_path: Path, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from kit.trace import files

    monkeypatch.setattr(files, "_VIZTRACER", 4)
    for count, cut in ((3, False), (4, True), (5, False)):
        rows = [{"ph": "X", "cat": "FEE", "pid": 7, "ts": i, "dur": 1} for i in range(count)]
        file = {"traceEvents": rows, **({"viztracer_metadata": {"overflow": cut}} if told else {})}
        notes = load_trace(write(tmp_path, json.dumps(file))).notes
        assert [("process 7" in note, "may be missing" in note) for note in notes] == [(True, True)] * cut


class _Counted:
    """How many bytes the decoder was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read = 0
        decode, mend = reading.decode, reading.mended

        def counted(text: bytes, kind: Any) -> Any:
            self.read += len(text)
            return decode(text, kind)

        def counted_too(text: bytes) -> Any:
            self.read += len(text)
            return mend(text)

        monkeypatch.setattr(reading, "decode", counted)
        monkeypatch.setattr(reading, "mended", counted_too)


@pytest.mark.parametrize("places", [1, 40])
@pytest.mark.parametrize("byte", [b'"', b"}", b"\x00", b"[", b"\\", b"\xff"])
def test_damage_costs_no_more_than_the_file_is_long(
    tmp_path: Path, byte: bytes, places: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthesise(10_000, tmp_path / "t.json")
    data = bytearray((tmp_path / "t.json").read_bytes())
    chance = random.Random(7)
    for at in chance.sample(range(1_000, len(data) - 1_000), places):
        data[at : at + 1] = byte
    work = _Counted(monkeypatch)
    trace = load_trace(write(tmp_path, bytes(data)), partial=True)
    assert 10_000 - places <= len(trace) <= 10_000
    assert work.read < 10 * len(data)  # a file of 1.8 MB has four batches, and each may be damaged


# From here on: what a fuzzer does to files. A few each time, thousands with KIT_SOAK=1.

TOKENS = [
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\",
    b"NaN",
    b"null",
    b"1e999",
    b"\\ud800",
    b"\xff",
    b"\0",
    b"},{",
]
TOKENS += [b'"ph"', b'"X"', b'{"a":1},{"b":2}', b"-", b"true", b"\r\n", b'"traceEvents":[', b"]}"]


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One to four changes of a file, each in one place."""
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data))
        to = min(len(data), at + chance.choice((0, 0, 1, 1, 2, 8, 300)))
        put = chance.choice((b"", chance.choice(TOKENS), bytes([chance.randrange(256)]), data[to : to + 40]))
        data = data[:at] + put + data[to:]
        if chance.random() < 0.05:
            data = data[: chance.randrange(len(data) + 1)]
        data = data or b"["
    return data


def sample(folder: Path, kind: int) -> bytes:
    synthesise(200, folder / "small.json")
    data = (folder / "small.json").read_bytes()
    if kind == 1:
        data = json.dumps(json.loads(data)["traceEvents"], indent=1).encode()
    if kind == 3:
        marks = [{"ph": ph, "id": i // 2, "cat": "net", "args": {"a": i}} for i, ph in enumerate("bebeSFSFnCCCi")]
        marks += [{"ph": "i", "name": "[memory]", "args": {"Total Allocated": 7, "Device Type": i}} for i in range(5)]
        rows = [json.dumps({"pid": 1, "tid": 1, "ts": 7 + i, **mark}) for i, mark in enumerate(marks * 4)]
        data = data.replace(b'"traceEvents": [', b'"traceEvents": [' + ",\n".join(rows).encode() + b",")
    if kind == 2:
        data = data.replace(b'"args": {', b'"args": {"Input Dims": [[{"a": "},{"}, {"b": 1}], []], ')
    return data


@pytest.mark.parametrize("kind", [0, 1, 2, 3])
def test_mutations_are_a_trace_or_a_trace_error(tmp_path: Path, kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BATCH", 4_000)
    data, chance = sample(tmp_path, kind), random.Random(kind)
    for i in range(3_000 if SOAK else 60):
        broken = mutated(data, chance)
        packer = {0: gzip.compress, 5: zstandard.compress}.get(i % 10)
        path = write(tmp_path, packer(broken, 1)[: chance.choice((None, None, 900))] if packer else broken)
        for partial in (False, True):
            try:
                trace = load_trace(path, partial=partial)
            except TraceError:
                continue
            assert isinstance(trace, Trace)
            assert all(len(curve.time_ns) for curve in curves(trace))
            assert all(isinstance(args, dict) for args in trace.args_of(range(len(trace))))


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_what_damage_does_not_touch_is_read(tmp_path: Path, kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change inside of one row costs that row at most."""
    monkeypatch.setattr(reading, "_BATCH", 4_000)
    data, chance = sample(tmp_path, kind), random.Random(100 + kind)
    first = data.index(b'"ph": "X"')
    for _ in range(3_000 if SOAK else 60):
        at = chance.randrange(first, data.rindex(b'"dur"'))
        begin = data.rindex(b'"ph": "X"', 0, at + 9) + 9
        end = data.index(b'"dur"', begin)
        at = min(max(at, begin), end)
        put = chance.choice(TOKENS)
        broken = data[:at] + put + data[min(end, at + chance.randint(0, 2)) :]
        trace = load_trace(write(tmp_path, broken), partial=True)
        assert len(trace) >= 199, (put, broken[at - 60 : at + 60])


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "a lost quote": lambda data: data[: (at := data.index(b'"name"', len(data) // 2))] + data[at + 1 :],
    "a lost brace": lambda data: data[: (at := data.index(b"}}", len(data) // 2))] + data[at + 1 :],
    "a list that stays open": lambda data: (
        data[: len(data) // 2] + data[len(data) // 2 :].replace(b'"args": {', b'"args": {"l": [', 1)
    ),
    "another type": lambda data: (
        data[: len(data) // 2] + data[len(data) // 2 :].replace(b'"ts": ', b'"ts": {}, "x": ', 1)
    ),
    "NaN everywhere": lambda data: data.replace(b'"args": {', b'"args": {"x": NaN, '),
    "backslashes everywhere": lambda data: data.replace(b'"name": "', b'"name": "C:\\dir'),
    "strings for numbers": lambda data: data.replace(b'"dur": ', b'"dur": "').replace(b', "args"', b'", "args"'),
    "brackets": lambda data: b"[ " + b"[" * len(data),
    "empty objects": lambda data: b"[" + b"{}," * (len(data) // 3),
    "nested brackets in arguments": lambda data: (
        b'[{"ph":"X","args":{"x":' + b"[" * (len(data) // 2) + b"]" * (len(data) // 2)
    ),
    "a string of quotes that is cut off": lambda data: b'[{"ph":"X","name":"' + b'\\"' * (len(data) // 2),
    "one long string": lambda data: b'[{"ph":"X","ts":1,"dur":1,"name":"' + b"a" * len(data) + b'"}]',
    "spaces": lambda data: b" " * (15 * len(data)),
    "digits": lambda data: b'[{"ph":"X","ts":' + b"1" * len(data) + b"}]",
    "rows in rows": lambda data: b'[{"ph":"X","args":[' + b'{"a":1},' * (len(data) // 8),
}
_LOAD = """
import sys, time
from kit.errors import TraceError
from kit.trace import load_trace
for path in sys.argv[1:]:
    try:
        load_trace(path, partial=True)
    except TraceError:
        pass
(peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(time.process_time(), int(peak) / 1024)
"""


@pytest.mark.skipif(not SOAK, reason="make soak: files of a hundred megabytes")
@pytest.mark.parametrize("what", HOSTILE)
def test_any_file_ends_in_time_and_memory(tmp_path: Path, what: str) -> None:
    """Within three times the processor time of a healthy file of its size, imports and all; and within 800 MB."""
    synthesise(100_000 if "nested" in what or "rows in" in what else 500_000, tmp_path / "healthy.json")
    data = (tmp_path / "healthy.json").read_bytes()
    path = tmp_path / "hostile.json.gz"
    path.write_bytes(gzip.compress(HOSTILE[what](data), 1))
    (tmp_path / "healthy.json.gz").write_bytes(gzip.compress(data, 1))
    found = []
    for file in (tmp_path / "healthy.json.gz", path):
        done = subprocess.run([sys.executable, "-c", _LOAD, file], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        found.append([float(number) for number in done.stdout.split()])
    (healthy, _), (seconds, megabytes) = found
    size = (15 if what == "spaces" else 1) * healthy
    print(f"{what}: {seconds:.2f} s, {seconds / size:.1f} times a healthy file's; {megabytes:.0f} MB")
    assert seconds < 3 * size
    assert megabytes < 800
