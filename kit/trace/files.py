"""Chrome trace JSON, the format that torch.profiler, VizTracer and Perfetto's export write: from file to columns.

Format: `Trace Event Format <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>`_. Its
times are microseconds with a fraction, whatever ``displayTimeUnit`` says; here they become integer nanoseconds,
exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal, DecimalException
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from kit.errors import TraceError
from kit.trace.columns import KINDS, Float64, Int32, Int64, Lane, Marks, Trace, in_order, natural
from kit.trace.reading import MAX_EXPANDED, About, Batch, Damaged, Row, batches, decode

GPU = ("kernel", "gpu_memcpy", "gpu_memset")  # categories of what runs on a GPU
_EXACT = 2.0**43  # microseconds up to which a double keeps nanoseconds: a hundred days
_LAST = 2**62  # nanoseconds; the year 2116
_NO_TIME = np.iinfo(np.int64).min
_COMPLETE, _BEGIN, _END, _MARK = 0, 1, 2, 3  # the marks are in the order of KINDS
_PHASES = {"X": _COMPLETE, "B": _BEGIN, "E": _END, **{phase: _MARK + i for i, phase in enumerate(KINDS)}, "I": 6}
_INSTANT, _COUNTER = _PHASES["i"], _PHASES["C"]
_RARE = 100  # metadata, and what is not kept
_NOWHERE = ("", None)  # the pid and tid of what is of all processes


_KIND = attrgetter("ph", "pid", "tid", "name", "cat")
_CORRELATION, _EXTERNAL = attrgetter("args.correlation"), attrgetter("args.external")
T = TypeVar("T")


class Place(NamedTuple):
    """What a file's metadata says of a process, or of one of its threads."""

    name: str = ""
    labels: str = ""
    order: int = 0
    lane: Lane | None = None  # the kit's own field: the lane that a tid was written for


class _Rare(msgspec.Struct):
    """The second look at a row: metadata and counters, whose arguments matter."""

    ph: str = ""
    name: str | None = ""
    ts: int | float | None = None
    pid: int | str = 0
    tid: int | str = 0
    args: Any = None


class _Exact(msgspec.Struct):
    ts: Decimal | None = None
    dur: Decimal | None = None


class _Numbers(dict[Any, int]):
    """Numbers values in the order in which they first come."""

    def __missing__(self, value: Any) -> int:
        self[value] = number = len(self)
        return number


class _Kind(NamedTuple):
    """What many rows have in common."""

    ph: str
    pid: int | str
    tid: int | str | None  # None: of the process, or of all
    name: str | None
    cat: str | None


class _Rows(NamedTuple):
    """The rows of a file as columns, in its order."""

    kind: Int32
    phase: Int32
    start: Int64  # ns; _NO_TIME where there is none
    duration: Int64  # ns; _NO_TIME where there is none
    correlation: Int64
    external: Int64
    key: Int32
    value: Float64

    def of(self, rows: NDArray[Any]) -> _Rows:
        columns: list[Any] = [column[rows] for column in self]
        return _Rows(*columns)

    @classmethod
    def joined(cls, parts: list[_Rows]) -> _Rows:
        columns: list[Any] = [np.concatenate(column) for column in zip(_no_rows(), *parts, strict=True)]
        return cls(*columns)


@dataclass
class _Reader:
    """What has been read so far."""

    kinds: _Numbers = field(default_factory=_Numbers)  # of _Kind, or a tuple like it
    keys: _Numbers = field(default_factory=_Numbers)
    places: dict[tuple[int | str, int | str | None], Place] = field(default_factory=dict)
    parts: list[_Rows] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    about: About = field(default_factory=lambda: About([]))
    phases: Int32 = field(default_factory=lambda: np.zeros(0, np.int32))  # of each kind

    def add(self, batch: Batch) -> None:
        if batch.about is not None:
            for name in ("baseTimeNanoseconds", "schemaVersion", "clockAnchor"):
                if getattr(batch.about, name) is not None:
                    setattr(self.about, name, getattr(batch.about, name))
        rows, n = batch.rows, len(batch.rows)
        if not n:
            return
        known = len(self.kinds)
        kind = np.fromiter(map(self.kinds.__getitem__, map(_KIND, rows)), np.int32, n)
        phases = [_PHASES.get(ph, _RARE) for ph, *_ in islice(self.kinds, known, None)]
        self.phases = np.append(self.phases, np.array(phases, np.int32))
        start, duration = _nanoseconds(rows, "ts"), _nanoseconds(rows, "dur")
        if start is None or duration is None:  # past what a double holds: once more, in decimals
            exact = self._again(batch, _Exact)
            start, duration = _decimal([row.ts for row in exact]), _decimal([row.dur for row in exact])
        ids = (_ids(rows, _CORRELATION), _ids(rows, _EXTERNAL))
        phase = self.phases[kind]
        part = _Rows(kind, phase, start, duration, *ids, np.full(n, -1, np.int32), np.full(n, np.nan))
        for i in np.flatnonzero((phase >= _MARK) & (phase < _COUNTER)).tolist():
            row = rows[i]
            if phase[i] == _INSTANT:
                self._instant(part, i, row)
            else:
                part.key[i] = self.keys[0 if row.id is None else row.id]
        kept = phase < _COUNTER
        self.parts.append(part if kept.all() else part.of(kept))
        if not kept.all():
            self._rare(self._again(batch, _Rare), start)

    def _again(self, batch: Batch, kind: type[T]) -> list[T]:
        """A second look at the rows of a batch."""
        if batch.about is None:
            return cast(list[T], decode(batch.text, list[kind]))  # type: ignore[valid-type]
        return cast(list[T], decode(batch.text, msgspec.defstruct("End", [("traceEvents", list[kind])])).traceEvents)  # type: ignore[valid-type]

    def _number(self, kind: _Kind) -> int:
        number = self.kinds[kind]
        if number == len(self.phases):
            self.phases = np.append(self.phases, np.int32(_PHASES[kind.ph]))
        return number

    def _instant(self, part: _Rows, i: int, row: Row) -> None:
        if row.s == "g":
            part.kind[i] = self._number(_Kind("i", *_NOWHERE, row.name, row.cat))

    def _rare(self, rows: list[_Rare], start: Int64) -> None:
        """Metadata and counters, and the count of what is neither."""
        for i, row in enumerate(rows):
            args = row.args if isinstance(row.args, dict) else {}
            if row.ph == "M":
                self._place(row, args)
            elif row.ph == "C":
                self._count(row, args, int(start[i]))
            elif row.ph not in _PHASES:
                self.others[row.ph] += 1

    def _place(self, row: _Rare, args: dict[str, Any]) -> None:
        kind, _, what = (row.name or "").partition("_")
        if kind not in ("process", "thread"):
            return
        key = (row.pid, None if kind == "process" else row.tid)
        place = self.places.get(key, Place())
        if what == "name":
            lane = args.get("lane")
            try:
                known = msgspec.convert(lane, Lane) if lane is not None else None
            except msgspec.ValidationError:
                known = None
            place = place._replace(name=str(args.get("name", "")).strip(), lane=known)
        elif what == "labels":
            place = place._replace(labels=str(args.get("labels", "")))
        elif what == "sort_index" and isinstance(args.get("sort_index"), int):
            place = place._replace(order=args["sort_index"])
        self.places[key] = place

    def _count(self, row: _Rare, args: dict[str, Any], start: int) -> None:
        for series, value in args.items():
            if isinstance(value, int | float) and abs(value) < 1e308:
                kind = self._number(_Kind("C", row.pid, None, row.name, ""))
                columns = (kind, _COUNTER, start, 0, -1, -1, self.keys[series], value)
                types = (column.dtype for column in _no_rows())
                cells: list[Any] = [np.array([cell], t) for cell, t in zip(columns, types, strict=True)]
                self.parts.append(_Rows(*cells))
            else:
                self.others["C without a number"] += 1


def load_trace(path: str | Path, *, partial: bool = False, max_bytes: int = MAX_EXPANDED) -> Trace:
    """Read a trace from ``.json`` or ``.json.gz``; times become integer nanoseconds.

    They are since the Unix epoch where the file says so (``baseTimeNanoseconds``), else on the writer's own clock.
    Pairs of B and E become complete events; a B without its E lasts until the trace's end, an E without its B since its
    start, and a note of the trace says so. Lanes are in the order that the file asks for, a GPU's after its process's.

    Args:
        path: the file.
        partial: of a file that breaks off, or has events with impossible times, load the others; notes say what lacks.
        max_bytes: to refuse a gzipped file that expands to more.

    Raises:
        TraceError: the file is missing, damaged, no Chrome trace JSON, or holds no complete event.
    """
    path = Path(path)
    reader, broken = _Reader(), ""
    try:
        for batch in batches(path, max_bytes):
            reader.add(batch)
    except Damaged as error:
        broken = str(error)
    except OverflowError as error:
        raise _too_late(path) from error
    rows = _Rows.joined(reader.parts)
    reader.parts.clear()
    if broken:
        count = int(np.count_nonzero((rows.phase == _COMPLETE) | (rows.phase == _END)))
        said = f"cannot read {path} as a trace to its end: {broken}. {count:,} complete events were read before that"
        if not partial or not count:
            raise TraceError(said + ("; load_trace(path, partial=True) loads them." if count else "."))
        broken = said + "."
    try:
        return _trace(path, reader, rows, partial, [broken] if broken else [])
    except OverflowError as error:
        raise _too_late(path) from error


def _too_late(path: Path) -> TraceError:
    return TraceError(f"{path} holds a time beyond the year 2116: the file is damaged.")


def _trace(path: Path, reader: _Reader, rows: _Rows, partial: bool, notes: list[str]) -> Trace:
    kinds = [_Kind(*kind) for kind in reader.kinds]
    fault = (rows.start == _NO_TIME) | ((rows.phase == _COMPLETE) & (rows.duration < 0))
    if fault.any():
        first = int(np.flatnonzero(fault)[0])
        what = "no ts" if rows.start[first] == _NO_TIME else "no dur"
        if rows.start[first] != _NO_TIME and rows.duration[first] != _NO_TIME:
            what = f"a negative dur, of {rows.duration[first]} ns"
        said = f"{path}: {fault.sum():,} of its events have no place in time, the first of them "
        said += _short(kinds[rows.kind[first]].name or "")
        said += f" (event {first} of those kept) with {what}"
        if not partial:
            raise TraceError(f"{said}. load_trace(path, partial=True) loads the others.")
        notes.append(f"{said}: left out.")
        rows = rows.of(~fault)
    base = reader.about.baseTimeNanoseconds or 0
    if abs(base) > _LAST:
        raise OverflowError
    lengths = np.where(rows.phase == _COMPLETE, rows.duration, 0)
    if (
        len(rows.start)
        and max(-float(rows.start.min()), (rows.start.astype(float) + lengths).max()) + abs(base) > _LAST
    ):
        raise OverflowError
    complete = _paired(rows, kinds, notes)
    if not len(complete.start):
        raise TraceError(
            f"{path} holds no complete event (ph 'X', or 'B' and 'E'): record at least one operator or span."
        )
    if reader.others:
        what = ", ".join(f"{count:,} of ph {_short(kind)}" for kind, count in sorted(reader.others.items())[:20])
        notes.append(f"{path} also holds rows that are not kept: {what}.")
    complete = complete.of(in_order(complete.start, complete.duration))
    marks = rows.of(rows.phase >= _MARK)
    marks = marks.of(np.argsort(marks.start, kind="stable"))
    names, name = _distinct([kind.name or "" for kind in kinds])
    categories, category = _distinct([kind.cat or "" for kind in kinds])
    lanes, lane = _lanes(kinds, np.union1d(complete.kind, marks.kind).tolist(), reader.places)
    about = reader.about
    anchor = (about.clockAnchor.trace_ns, about.clockAnchor.wall_ns) if about.clockAnchor else None
    if anchor is None and about.schemaVersion is not None and about.baseTimeNanoseconds is not None:
        anchor = (0, 0)  # Kineto's times are since the Unix epoch
    at = marks.kind
    points = Marks(marks.start + base, lane[at], name[at], category[at], marks.phase - _MARK, marks.key, marks.value)
    return Trace(
        start_ns=complete.start + base,
        duration_ns=complete.duration,
        lane=lane[complete.kind],
        name=name[complete.kind],
        category=category[complete.kind],
        lanes=lanes,
        names=names,
        categories=categories,
        correlation=complete.correlation if np.any(complete.correlation != -1) else None,
        external=complete.external if np.any(complete.external != -1) else None,
        marks=points if len(marks.start) else None,
        keys=tuple(reader.keys),
        anchor=anchor,
        notes=tuple(notes),
    )


def _distinct(values: list[str]) -> tuple[tuple[str, ...], Int32]:
    """The different values in order of first appearance, and the place of each one there."""
    numbers = _Numbers()
    places = np.array([numbers[value] for value in values], np.int32)
    return tuple(numbers), places


def _paired(rows: _Rows, kinds: list[_Kind], notes: list[str]) -> _Rows:
    """The complete events: those of the file, and its pairs of B and E."""
    complete = rows.of(rows.phase == _COMPLETE)
    if len(complete.start) == len(rows.start):
        return complete
    at = np.flatnonzero((rows.phase == _BEGIN) | (rows.phase == _END))
    if not len(at):
        return complete
    at = at[np.argsort(rows.start[at], kind="stable")]
    first = int(rows.start.min())
    last = max(int(rows.start.max()), int((complete.start + complete.duration).max(initial=_NO_TIME)))
    open_at: dict[tuple[Any, Any], list[int]] = {}
    events, starts, ends, lonely = [], [], [], 0
    for i, phase, kind in zip(at.tolist(), rows.phase[at].tolist(), rows.kind[at].tolist(), strict=True):
        stack = open_at.setdefault((kinds[kind].pid, kinds[kind].tid), [])
        if phase == _BEGIN:
            stack.append(i)
            continue
        lonely += not stack
        event = stack.pop() if stack else i
        events.append(event)
        starts.append(int(rows.start[event]) if event != i else first)
        ends.append(int(rows.start[i]))
    unended = [i for stack in open_at.values() for i in stack]
    if unended:
        notes.append(f"{len(unended):,} events begin (ph B) and never end: they last until the trace's end.")
    if lonely:
        notes.append(f"{lonely:,} events end (ph E) and never begin: they last since the trace's start.")
    begun = np.array([*starts, *rows.start[unended].tolist()], np.int64)
    ended = np.array([*ends, *[last] * len(unended)], np.int64)
    pairs = rows.of(np.array([*events, *unended], np.int64))._replace(start=begun, duration=ended - begun)
    return _Rows.joined([complete, pairs])


def _lanes(
    kinds: list[_Kind], used: list[int], metadata: dict[tuple[int | str, int | str | None], Place]
) -> tuple[tuple[Lane, ...], Int32]:
    """The lanes in order, and the lane of each kind of row; -1 for what is of all lanes."""
    streams = {(kind.pid, kind.tid) for kind in kinds if kind.cat in GPU and kind.ph in "XBE"}
    devices = {pid for pid, _ in streams}
    places: dict[tuple[int | str, int | str | None], None] = {(kinds[i].pid, kinds[i].tid): None for i in used}
    places.pop(_NOWHERE, None)
    named = {pid for pid, _ in places if pid not in devices and metadata.get((pid, None), Place()).name}
    found: list[tuple[Any, tuple[Any, Any], Lane]] = []
    for pid, tid in places:
        process, thread = metadata.get((pid, None), Place()), metadata.get((pid, tid), Place())
        label = thread.name or ("counters" if tid is None else tid if isinstance(tid, str) else f"thread {tid}")
        if (pid, tid) in streams:
            label = f"GPU {pid} stream {tid}"
        elif pid in devices:
            label = f"GPU {pid} {label}"
        elif len(named) > 1 and pid in named:
            label = f"{process.name} {pid}: {label}"
        order = (process.order, pid in devices, _by_size(pid), thread.order, tid is None, tid != pid, _by_size(tid))
        if thread.lane is not None:  # as it was saved: in the order that it had
            order = (thread.order, False, _by_size(0), 0, False, False, _by_size(tid))
        lane = thread.lane or Lane(pid, "counters" if tid is None else tid, label)
        found.append((order, (pid, tid), lane))
    numbers = _Numbers()
    rank: dict[Any, int] = {place: numbers[lane] for _, place, lane in sorted(found, key=lambda each: each[0])}
    return tuple(numbers), np.array([rank.get((kind.pid, kind.tid), -1) for kind in kinds], np.int32)


def _by_size(key: int | str | None) -> tuple[bool, int, list[tuple[str, int]], str]:
    """Sorts numbers by their size, and before names."""
    if isinstance(key, int):
        return False, key, [], ""
    return True, 0, natural(key or ""), key or ""


def _nanoseconds(rows: list[Row], column: str) -> Int64 | None:
    """Microseconds as nanoseconds; None where a double may have rounded one."""
    try:
        given = np.fromiter(map(attrgetter(column), rows), np.float64, len(rows))
    except OverflowError:
        return None
    absent = np.isnan(given)  # from None: JSON has no NaN
    given[absent] = 0
    if not np.all(np.abs(given) < _EXACT):
        return None
    whole = np.trunc(given)
    ns = whole.astype(np.int64) * 1000 + np.rint((given - whole) * 1000).astype(np.int64)
    ns[absent] = _NO_TIME
    return ns


def _decimal(values: list[Decimal | None]) -> Int64:
    return np.array([_NO_TIME if value is None else _whole_ns(value) for value in values], np.int64)


def _whole_ns(value: Decimal) -> int:
    try:
        if value.is_finite() and abs(value) * 1000 < _LAST:
            return round(value * 1000)
    except DecimalException:
        pass
    raise OverflowError


def _ids(rows: list[Row], column: Callable[[Row], Any]) -> Int64:
    """Whole numbers as they are; what is no id becomes -1."""
    try:
        return np.fromiter(map(column, rows), np.int64, len(rows))
    except (TypeError, ValueError, OverflowError, AttributeError):
        return np.array([-1 if row.args is None else _id(column(row)) for row in rows], np.int64)


def _id(value: Any) -> int:
    if isinstance(value, str):
        value = int(value) if value.isdecimal() and len(value) < 20 else -1
    if isinstance(value, bool) or not isinstance(value, int):
        return -1
    return (value + 2**63) % 2**64 - 2**63  # unsigned 64-bit ids stay different from each other


def _no_rows() -> _Rows:
    whole, half = np.zeros(0, np.int64), np.zeros(0, np.int32)
    return _Rows(half, half, whole, whole, whole, whole, half, np.zeros(0))


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")
