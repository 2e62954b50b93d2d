"""Gathers the rows of a trace file as columns, batch by batch, with their metadata and counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from kit.trace.arguments import Keeper
from kit.trace.columns import KINDS, Float64, Int32, Int64, Interner, Lane
from kit.trace.places import NOWHERE, Kind, Place
from kit.trace.reading import About, Batch, NoRow, Row
from kit.trace.units import decimals, ids_of, nanoseconds, number, plain, text

COMPLETE, BEGIN, END, MARK = 0, 1, 2, 3  # the marks are in the order of KINDS
_PHASES = {"X": COMPLETE, "B": BEGIN, "E": END, **{phase: MARK + i for i, phase in enumerate(KINDS)}, "I": 6}
INSTANT, COUNTER = _PHASES["i"], _PHASES["C"]
ASYNC_BEGIN, ASYNC_END = 8, 9
ASYNC_INSTANT = 10
ASYNC_PHASES = {"b": ASYNC_BEGIN, "S": ASYNC_BEGIN, "e": ASYNC_END, "F": ASYNC_END}
ASYNC_PHASES |= dict.fromkeys("nTp", ASYNC_INSTANT)  # T and p are the steps of the older form
_PHASES |= ASYNC_PHASES
MEMORY = "[memory]"  # the name of the instants that torch.profiler writes with profile_memory
DEVICES: dict[int | str, str] = {0: "CPU", 1: "GPU", 6: "GPU", 12: "XPU"}  # PyTorch's DeviceType
_RARE = 100  # metadata, and what is not kept

_KIND = attrgetter("ph", "pid", "tid", "name", "cat")
_CORRELATION, _EXTERNAL = attrgetter("args.correlation"), attrgetter("args.external")


class _Exact(msgspec.Struct):
    ts: Decimal | None = None
    dur: Decimal | None = None


class _Given(msgspec.Struct):
    """The same where one of them is no decimal."""

    ts: msgspec.Raw = msgspec.Raw()
    dur: msgspec.Raw = msgspec.Raw()


class _Rare(msgspec.Struct):
    """A row of metadata or of a counter, with its arguments."""

    ph: Any = ""
    name: Any = ""
    pid: Any = 0
    tid: Any = 0
    args: Any = None


class Columns(NamedTuple):
    """The rows of a file as columns, in file order."""

    kind: Int32
    phase: Int32
    start: Int64  # ns; NO_TIME where there is none
    duration: Int64  # ns; NO_TIME where there is none
    correlation: Int64
    external: Int64
    key: Int32
    value: Float64
    row: Int32  # of the arguments that are kept; -1: none

    def of(self, rows: NDArray[Any]) -> Columns:
        columns: list[Any] = [column[rows] for column in self]
        return Columns(*columns)

    @classmethod
    def joined(cls, parts: list[Columns]) -> Columns:
        columns: list[Any] = [np.concatenate(column) for column in zip(cls.of_nothing(0), *parts, strict=True)]
        return cls(*columns)

    @classmethod
    def of_nothing(cls, n: int) -> Columns:
        """That many rows that say nothing."""
        whole, half = np.full(n, -1, np.int64), np.full(n, -1, np.int32)
        return cls(half, half, whole, whole, whole, whole, half, np.full(n, np.nan), half)


_NO_ROW = Row(ph=None)


@dataclass
class Reader:
    """Collects everything that has been read so far."""

    keeper: Keeper
    kinds: Interner = field(default_factory=Interner)  # of Kind, or a tuple like it
    keys: Interner = field(default_factory=Interner)
    places: dict[tuple[int | str, int | str | None], Place] = field(default_factory=dict)
    parts: list[Columns] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    about: About = field(default_factory=lambda: About([]))
    bad: int = 0
    first_bad: str = ""
    phases: Int32 = field(default_factory=lambda: np.zeros(0, np.int32))  # of each kind that a batch had

    def add(self, batch: Batch) -> None:
        if batch.about is not None:
            for name in set(About.__struct_fields__) - {"traceEvents"}:
                if getattr(batch.about, name) is not None:
                    setattr(self.about, name, getattr(batch.about, name))
        rows: list[Any] = batch.rows
        n = len(rows)
        if not n:
            return
        try:
            kind = np.fromiter(map(self.kinds.__getitem__, map(_KIND, rows)), np.int32, n)
        except (AttributeError, TypeError):
            rows = self._plain(rows, batch.first)
            kind = np.fromiter(map(self.kinds.__getitem__, map(_KIND, rows)), np.int32, n)
        phases = [_PHASES.get(ph, _RARE) for ph, *_ in islice(self.kinds, len(self.phases), None)]
        self.phases = np.append(self.phases, np.array(phases, np.int32))
        start, duration = self._times(batch, rows)
        ids = (ids_of(rows, _CORRELATION), ids_of(rows, _EXTERNAL))
        phase = self.phases[kind]
        first = self.keeper.keep(batch.text, n)
        kept = np.full(n, -1, np.int32) if first < 0 else np.arange(first, first + n, dtype=np.int32)
        part = Columns(kind, phase, start, duration, *ids, np.full(n, -1, np.int32), np.full(n, np.nan), kept)
        memory = []
        for i in np.flatnonzero((phase >= MARK) & (phase != COUNTER) & (phase != _RARE)).tolist():
            row = rows[i]
            if phase[i] != INSTANT:
                part.key[i] = self.keys[plain(row.id2 if row.id is None else row.id)]
            elif row.name == MEMORY:
                memory.append(i)
            elif row.s == "g":
                part.kind[i] = self.kinds[Kind("i", *NOWHERE, text(row.name), text(row.cat))]
        common = (phase != COUNTER) & (phase != _RARE)
        again = batch.again(_Rare) if memory or not common.all() else []
        for i in memory:
            part.key[i], part.value[i] = self._memory(again[i])
        self.parts.append(part if common.all() else part.of(common))
        if not common.all():
            self._rare(again, start)

    def miss(self, count: int, first: str) -> None:
        """Count rows that cannot be read."""
        self.first_bad = self.first_bad or first
        self.bad += count

    def _plain(self, rows: list[Any], number: int) -> list[Row]:
        """Rows whose columns are numbers or text."""
        others = [i for i, row in enumerate(rows) if not isinstance(row, Row)]
        if others:
            self.miss(len(others), f"row {number + others[0]:,}, {short(text(rows[others[0]]))}: not an object")
            rows = [row if isinstance(row, Row) else _NO_ROW for row in rows]
        for row in rows:
            try:
                hash(_KIND(row))
            except TypeError:
                for name in ("ph", "cat", "name", "pid", "tid"):
                    if isinstance(getattr(row, name), list | dict):
                        setattr(row, name, text(getattr(row, name)))
        return rows

    def _times(self, batch: Batch, rows: list[Any]) -> tuple[Int64, Int64]:
        start, duration = nanoseconds(rows, "ts"), nanoseconds(rows, "dur")
        if start is not None and duration is not None:
            return start, duration
        try:  # past what a double holds
            exact = batch.read_as(list[_Exact | NoRow])
        except ValueError:
            exact = batch.read_as(list[_Given | NoRow])
        start, duration = (decimals([getattr(row, name, None) for row in exact]) for name in ("ts", "dur"))
        return start, duration

    def _memory(self, row: Any) -> tuple[int, float]:
        """Whose memory an instant of profile_memory is about, as a key, and how many bytes of it are allocated."""
        args = row.args if isinstance(row, _Rare) and isinstance(row.args, dict) else {}
        value, device = number(args.get("Total Allocated")), plain(args.get("Device Type"))
        if not abs(value) < np.inf:
            return -1, np.nan
        index = plain(args.get("Device Id", -1))
        name = DEVICES.get(device, f"device type {device}")
        return self.keys[name if index == -1 else f"{name} {index}"], value

    def _rare(self, rows: list[Any], start: Int64) -> None:
        """Read metadata and counters, and count all other rows."""
        values: list[tuple[int, int, int, float]] = []
        for i, row in enumerate(rows):
            if not isinstance(row, _Rare):
                continue
            args = row.args if isinstance(row.args, dict) else {}
            if row.ph == "M":
                self._place(row, args)
            elif row.ph == "C":
                values += self._count(row, args, int(start[i]))
            elif not isinstance(row.ph, str) or row.ph not in _PHASES:
                self.others[text(row.ph)] += 1
        if values:
            kind, at, key, value = (np.array(column) for column in zip(*values, strict=True))
            of = Columns.of_nothing(len(values))._replace(kind=kind.astype(np.int32), key=key.astype(np.int32))
            phase, duration = np.full(len(kind), COUNTER, np.int32), np.zeros(len(kind), np.int64)
            self.parts.append(of._replace(phase=phase, start=at, duration=duration, value=value))

    def _place(self, row: _Rare, args: dict[str, Any]) -> None:
        kind, _, what = text(row.name).partition("_")
        if kind not in ("process", "thread"):
            return
        key = (plain(row.pid), None if kind == "process" else plain(row.tid))
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
        elif what == "sort_index" and isinstance(order := plain(args.get("sort_index")), int):
            place = place._replace(order=order)
        self.places[key] = place

    def _count(self, row: _Rare, args: dict[str, Any], start: int) -> Iterator[tuple[int, int, int, float]]:
        """The kind, the time in ns, the series and the value of each number of a counter."""
        for series, given in args.items():
            value = number(given)
            if abs(value) < 1e308:
                yield self.kinds[Kind("C", plain(row.pid), None, text(row.name), "")], start, self.keys[series], value
            else:
                self.others["C without a number"] += 1


def short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")
