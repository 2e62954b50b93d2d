"""Chrome trace JSON, the format that torch.profiler, VizTracer and Perfetto's export write: from file to columns.

Format: `Trace Event Format <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>`_. Its
times are microseconds with a fraction, whatever ``displayTimeUnit`` says; here they become integer nanoseconds,
exactly.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from kit.errors import TraceError
from kit.trace.columns import KINDS, Float64, Int32, Int64, Lane, Marks, Numbers, Trace, in_order
from kit.trace.doubts import doubts
from kit.trace.numbers import LAST, NO_TIME, decimals, ids_of, nanoseconds
from kit.trace.places import NOWHERE, Kind, Place, lanes_of
from kit.trace.reading import MAX_EXPANDED, About, Batch, Damaged, batches, decode

_COMPLETE, _BEGIN, _END, _MARK = 0, 1, 2, 3  # the marks are in the order of KINDS
_PHASES = {"X": _COMPLETE, "B": _BEGIN, "E": _END, **{phase: _MARK + i for i, phase in enumerate(KINDS)}, "I": 6}
_INSTANT, _COUNTER = _PHASES["i"], _PHASES["C"]
_RARE = 100  # metadata, and what is not kept


_KIND = attrgetter("ph", "pid", "tid", "name", "cat")
_CORRELATION, _EXTERNAL = attrgetter("args.correlation"), attrgetter("args.external")


class _Exact(msgspec.Struct):
    ts: Decimal | None = None
    dur: Decimal | None = None


class _Rare(msgspec.Struct):
    """The second look at a row: metadata and counters, whose arguments matter."""

    ph: str = ""
    name: str | None = ""
    ts: int | float | None = None
    pid: int | str = 0
    tid: int | str = 0
    args: Any = None


class _Rows(NamedTuple):
    """The rows of a file as columns, in its order."""

    kind: Int32
    phase: Int32
    start: Int64  # ns; NO_TIME where there is none
    duration: Int64  # ns; NO_TIME where there is none
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

    kinds: Numbers = field(default_factory=Numbers)  # of Kind, or a tuple like it
    keys: Numbers = field(default_factory=Numbers)
    places: dict[tuple[int | str, int | str | None], Place] = field(default_factory=dict)
    parts: list[_Rows] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    about: About = field(default_factory=lambda: About([]))
    phases: Int32 = field(default_factory=lambda: np.zeros(0, np.int32))  # of each kind that a batch had

    def add(self, batch: Batch) -> None:
        if batch.about is not None:
            for name in ("baseTimeNanoseconds", "schemaVersion", "clockAnchor"):
                if getattr(batch.about, name) is not None:
                    setattr(self.about, name, getattr(batch.about, name))
        rows, n = batch.rows, len(batch.rows)
        if not n:
            return
        kind = np.fromiter(map(self.kinds.__getitem__, map(_KIND, rows)), np.int32, n)
        phases = [_PHASES.get(ph, _RARE) for ph, *_ in islice(self.kinds, len(self.phases), None)]
        self.phases = np.append(self.phases, np.array(phases, np.int32))
        start, duration = nanoseconds(rows, "ts"), nanoseconds(rows, "dur")
        if start is None or duration is None:  # past what a double holds: once more, in decimals
            exact = self._again(batch, _Exact)
            start, duration = decimals([row.ts for row in exact]), decimals([row.dur for row in exact])
        ids = (ids_of(rows, _CORRELATION), ids_of(rows, _EXTERNAL))
        phase = self.phases[kind]
        part = _Rows(kind, phase, start, duration, *ids, np.full(n, -1, np.int32), np.full(n, np.nan))
        for i in np.flatnonzero((phase >= _MARK) & (phase < _COUNTER)).tolist():
            row = rows[i]
            if phase[i] != _INSTANT:
                part.key[i] = self.keys[0 if row.id is None else row.id]
            elif row.s == "g":
                part.kind[i] = self.kinds[Kind("i", *NOWHERE, row.name, row.cat)]
        kept = phase < _COUNTER
        self.parts.append(part if kept.all() else part.of(kept))
        if not kept.all():
            self._rare(self._again(batch, _Rare), start)

    def _again(self, batch: Batch, kind: Any) -> list[Any]:
        """A second look at the rows of a batch."""
        rows: Any = list[kind]
        end = decode(batch.text, rows if batch.about is None else msgspec.defstruct("End", [("traceEvents", rows)]))
        found: list[Any] = end if batch.about is None else end.traceEvents
        return found

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
                kind = self.kinds[Kind("C", row.pid, None, row.name, "")]
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
    try:
        return _load(Path(path), partial, max_bytes)
    except OverflowError as error:
        raise TraceError(f"{path} holds a time beyond the year 2116: the file is damaged.") from error


def _load(path: Path, partial: bool, max_bytes: int) -> Trace:
    reader, broken = _Reader(), ""
    try:
        for batch in batches(path, max_bytes):
            reader.add(batch)
    except Damaged as error:
        broken = str(error)
    rows = _Rows.joined(reader.parts)
    reader.parts.clear()
    if broken:
        count = int(np.count_nonzero((rows.phase == _COMPLETE) | (rows.phase == _END)))
        said = f"cannot read {path} as a trace to its end: {broken}. {count:,} complete events were read before that"
        if not partial or not count:
            raise TraceError(said + ("; load_trace(path, partial=True) loads them." if count else "."))
        broken = said + "."
    return _trace(path, reader, rows, partial, [broken] if broken else [])


def _trace(path: Path, reader: _Reader, rows: _Rows, partial: bool, notes: list[str]) -> Trace:
    kinds = [Kind(*kind) for kind in reader.kinds]
    fault = (rows.start == NO_TIME) | ((rows.phase == _COMPLETE) & (rows.duration < 0))
    if fault.any():
        first = int(np.flatnonzero(fault)[0])
        what = "no ts" if rows.start[first] == NO_TIME else "no dur"
        if rows.start[first] != NO_TIME and rows.duration[first] != NO_TIME:
            what = f"a negative dur, of {rows.duration[first]} ns"
        said = f"{path}: {fault.sum():,} of its events have no place in time, the first of them "
        said += _short(kinds[rows.kind[first]].name or "")
        said += f" (event {first} of those kept) with {what}"
        if not partial:
            raise TraceError(f"{said}. load_trace(path, partial=True) loads the others.")
        notes.append(f"{said}: left out.")
        rows = rows.of(~fault)
    base = reader.about.baseTimeNanoseconds or 0
    if abs(base) > LAST:
        raise OverflowError
    lengths = np.where(rows.phase == _COMPLETE, rows.duration, 0)
    if len(rows.start):
        start = rows.start + float(base)
        if max(-start.min(), (start + lengths).max()) > LAST:
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
    names, categories = Numbers(), Numbers()
    name, category = names.of(kind.name or "" for kind in kinds), categories.of(kind.cat or "" for kind in kinds)
    lanes, lane, device_lanes = lanes_of(kinds, np.union1d(complete.kind, marks.kind).tolist(), reader.places)
    about = reader.about
    anchor = (about.clockAnchor.trace_ns, about.clockAnchor.wall_ns) if about.clockAnchor else None
    if anchor is None and about.schemaVersion is not None and about.baseTimeNanoseconds is not None:
        anchor = (0, 0)  # Kineto's times are since the Unix epoch
    at = marks.kind
    points = Marks(marks.start + base, lane[at], name[at], category[at], marks.phase - _MARK, marks.key, marks.value)
    trace = Trace(
        start_ns=complete.start + base,
        duration_ns=complete.duration,
        lane=lane[complete.kind],
        name=name[complete.kind],
        category=category[complete.kind],
        lanes=lanes,
        names=tuple(names),
        categories=tuple(categories),
        correlation=complete.correlation if np.any(complete.correlation != -1) else None,
        external=complete.external if np.any(complete.external != -1) else None,
        marks=points if len(marks.start) else None,
        keys=tuple(reader.keys),
        anchor=anchor,
        notes=tuple(notes),
    )
    return replace(trace, notes=(*notes, *doubts(trace, device_lanes)))


def _paired(rows: _Rows, kinds: list[Kind], notes: list[str]) -> _Rows:
    """The complete events: those of the file, and its pairs of B and E."""
    complete = rows.of(rows.phase == _COMPLETE)
    at = np.flatnonzero((rows.phase == _BEGIN) | (rows.phase == _END))
    if not len(at):
        return complete
    at = at[np.argsort(rows.start[at], kind="stable")]
    first = int(rows.start.min())
    last = max(int(rows.start.max()), int((complete.start + complete.duration).max(initial=NO_TIME)))
    open_at: dict[tuple[Any, Any], list[int]] = {}
    pairs, lonely = [], 0  # of a pair: the row that it is told by, where it starts, where it ends
    for i, phase, kind in zip(at.tolist(), rows.phase[at].tolist(), rows.kind[at].tolist(), strict=True):
        stack = open_at.setdefault((kinds[kind].pid, kinds[kind].tid), [])
        if phase == _BEGIN:
            stack.append(i)
            continue
        lonely += not stack
        event = stack.pop() if stack else i
        pairs.append((event, first if event == i else rows.start[event], rows.start[i]))
    unended = [i for stack in open_at.values() for i in stack]
    if unended:
        notes.append(f"{len(unended):,} events begin (ph B) and never end: they last until the trace's end.")
    if lonely:
        notes.append(f"{lonely:,} events end (ph E) and never begin: they last since the trace's start.")
    row, begun, ended = np.array([*pairs, *((i, rows.start[i], last) for i in unended)], np.int64).T
    return _Rows.joined([complete, rows.of(row)._replace(start=begun, duration=ended - begun)])


def _no_rows() -> _Rows:
    whole, half = np.zeros(0, np.int64), np.zeros(0, np.int32)
    return _Rows(half, half, whole, whole, whole, whole, half, np.zeros(0))


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")
