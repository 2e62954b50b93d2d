"""Reads Chrome trace JSON, the format of torch.profiler, VizTracer and Perfetto's export, into columns.

Format: `Trace Event Format <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>`_. Its
times are microseconds with a fraction, whatever ``displayTimeUnit`` says; here they become integer nanoseconds,
exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import TraceError
from kit.trace.arguments import Arguments, Keeper
from kit.trace.columns import ASYNC, Int64, Interner, Marks, Trace, in_order
from kit.trace.doubts import doubts
from kit.trace.expanding import MAX_EXPANDED
from kit.trace.gathering import (
    ASYNC_BEGIN,
    ASYNC_END,
    ASYNC_INSTANT,
    ASYNC_PHASES,
    BEGIN,
    COMPLETE,
    COUNTER,
    END,
    INSTANT,
    MARK,
    Columns,
    Reader,
    short,
)
from kit.trace.nsight import is_database, read_export
from kit.trace.places import NOWHERE, Kind, Place, lanes_of
from kit.trace.reading import About, Bad, Damaged, batches
from kit.trace.units import LAST, NO_TIME, plain, text

_VIZTRACER = 1_000_000  # events: what its buffer holds unless told otherwise


def load_trace(path: str | Path, *, partial: bool = False, max_bytes: int = MAX_EXPANDED) -> Trace:
    """Read a trace: Chrome trace JSON, plain or compressed with gzip or zstd; or an export of Nsight Systems (SQLite).

    The kind of a file is known by its first bytes, not by its name. Times become integer nanoseconds. They count from
    the Unix epoch if the file gives ``baseTimeNanoseconds``, else they are on the writer's own clock. Pairs of B and E
    become complete events; a B without an E lasts until the trace's end, an E without a B since its start, and a note
    of the trace says so. Asynchronous events (b and e, or S and F) are paired by their ids, in lanes of their own: one
    for each category of a process. If there are no such events, instants, counters and flows are shown instead. Lanes
    are in the order that the file gives; lanes of a GPU come after those of its process.

    The arguments of events are kept as they are, compressed: ``trace.args(i)`` returns them.

    Values that other programs write differently are read if they are exact: strings of digits as numbers, 1.0 as 1,
    arguments of any kind. Invalid characters in a name become U+FFFD. A row may have 8 MB at most.

    >>> from pathlib import Path
    >>> _ = Path("small.json").write_text('[{"ph": "X", "name": "load", "pid": 1, "tid": 1, "ts": 0, "dur": 2.5}]')
    >>> trace = kit.load_trace("small.json")
    >>> trace, trace.duration_ns.tolist()
    (Trace(1 event in 1 lane), [2500])

    Args:
        path: the file.
        partial: load as much as possible of a damaged or truncated file; notes say what is missing.
        max_bytes: largest decompressed size of a compressed file, or of all names in an export, in bytes.

    Raises:
        TraceError: the file is missing, damaged, no trace, too large, or contains nothing to show.
    """
    try:
        return _load(Path(path), partial, max_bytes)
    except OverflowError as error:
        raise TraceError(f"{path} contains a time after the year 2116: the file is damaged.") from error


def _load(path: Path, partial: bool, max_bytes: int) -> Trace:
    with Keeper() as keeper:
        reader, notes = Reader(keeper), list[str]()
        if is_database(path):
            notes, broken = read_export(path, reader, max_bytes)
        else:
            broken = _rows(path, reader, max_bytes)
        arguments = keeper.kept()
    rows = Columns.joined(reader.parts)
    reader.parts.clear()
    kinds, base = [_kind(kind, reader.places) for kind in reader.kinds], _base(reader.about.baseTimeNanoseconds)
    faults = []
    if reader.bad:
        faults.append(f"{reader.bad:,} of its rows cannot be read, the first of them {reader.first_bad}")
    bad = _out_of_time(rows, base)
    if len(bad):
        faults.append(f"{len(bad):,} of its events have no valid time, the first of them {_why(rows, kinds, bad[0])}")
        rows = rows.of(np.delete(np.arange(len(rows.start)), bad))
    if broken:
        faults.append(broken)
    if faults:
        count = int(np.count_nonzero(np.isin(rows.phase, (COMPLETE, END, ASYNC_END))))
        said = (
            f"cannot read {path} as a trace to its end: " if broken else f"cannot read all of {path}, it is damaged: "
        )
        said += f"{'; '.join(faults)}. {count:,} complete events were read" + " before that" * bool(broken)
        if not partial or not count:
            raise TraceError(said + ("; load_trace(path, partial=True) loads them." if count else "."))
        faults = [said + "."]
    return _trace(path, reader, rows, kinds, base, faults + notes, arguments)


def _rows(path: Path, reader: Reader, max_bytes: int) -> str:
    """Add the rows of a JSON file to the reader; what is wrong with its rest, empty if nothing is."""
    try:
        for batch in batches(path, max_bytes):
            if isinstance(batch, Bad):
                reader.miss(*batch)
            else:
                reader.add(batch)
    except Damaged as error:
        return str(error)
    return ""


def _kind(kind: tuple[Any, ...], places: Mapping[tuple[Any, Any], Place]) -> Kind:
    """The common fields of rows, normalised where programs write them differently."""
    ph, pid, tid, name, category = kind
    of_all = tid is None and (ph == "C" or (pid, tid) == NOWHERE)  # so named by the reader itself
    if ph in ASYNC_PHASES and places.get((plain(pid), plain(tid)), Place()).lane is None:  # else the kit has saved it
        tid = ASYNC + (text(category) or text(name))
    return Kind(text(ph), plain(pid), None if of_all else plain(tid), text(name), text(category))


def _base(given: Any) -> int:
    base = plain(given)
    base = int(base) if isinstance(base, str) and base.removeprefix("-").isdecimal() and len(base) < 99 else base
    if isinstance(base, str) or abs(base) > LAST:
        raise OverflowError
    return base


def _out_of_time(rows: Columns, base: int) -> Int64:
    """Indices of rows without a start time, or with an impossible duration."""
    start = np.where(rows.start == NO_TIME, 0, rows.start) + base
    impossible = (rows.duration < 0) | (start > LAST - np.maximum(rows.duration, 0))
    return np.flatnonzero((rows.start == NO_TIME) | (abs(start) > LAST) | ((rows.phase == COMPLETE) & impossible))


def _why(rows: Columns, kinds: list[Kind], bad: int) -> str:
    what = f"a negative dur, of {rows.duration[bad]} ns" if rows.duration[bad] < 0 else "an impossible dur"
    if NO_TIME in (rows.start[bad], rows.duration[bad]):
        what = f"no {'ts' if rows.start[bad] == NO_TIME else 'dur'} that is a valid time (NaN and Infinity are not)"
    return f"{short(kinds[rows.kind[bad]].name or '')} (event {bad} of those kept) with {what}"


def _trace(
    path: Path,
    reader: Reader,
    rows: Columns,
    kinds: list[Kind],
    base: int,
    notes: list[str],
    arguments: Arguments | None,
) -> Trace:
    pairs = (_pairs(rows, begin, kinds, notes) for begin in (BEGIN, ASYNC_BEGIN))
    complete = Columns.joined([rows.of(rows.phase == COMPLETE), *pairs])
    marks = rows.of(((rows.phase >= MARK) & (rows.phase <= COUNTER)) | (rows.phase == ASYNC_INSTANT))
    of_async = marks.phase == ASYNC_INSTANT
    marks.phase[of_async], marks.key[of_async] = INSTANT, -1
    if not len(complete.start):
        complete = marks._replace(duration=np.zeros_like(marks.duration))
        kinds = [kind._replace(pid=0, tid=0) if (kind.pid, kind.tid) == NOWHERE else kind for kind in kinds]
        notes.append(
            f"{path} contains no complete event: its instants, counters and flows are shown as events of zero length."
        )
    if not len(complete.start):
        raise TraceError(
            f"{path} contains no complete event (ph 'X', 'B' and 'E', or 'b' and 'e') and nothing else to show: "
            "record at least one operator or span."
        )
    _viztracer(reader, rows, kinds, notes)
    if reader.others:
        what = ", ".join(f"{count:,} of ph {short(kind)}" for kind, count in sorted(reader.others.items())[:20])
        notes.append(f"{path} also contains rows that are not loaded: {what}.")
    complete = complete.of(in_order(complete.start, complete.duration))
    marks = marks.of(np.argsort(marks.start, kind="stable"))
    names, categories = Interner(), Interner()
    name, category = names.of(kind.name or "" for kind in kinds), categories.of(kind.cat or "" for kind in kinds)
    lanes, lane, device_lanes = lanes_of(kinds, np.union1d(complete.kind, marks.kind).tolist(), reader.places)
    about = reader.about
    anchor = (about.clockAnchor.trace_ns, about.clockAnchor.wall_ns) if about.clockAnchor else None
    if anchor is None and about.schemaVersion is not None and about.baseTimeNanoseconds is not None:
        anchor = (0, 0)  # Kineto's times are since the Unix epoch
    at = marks.kind
    points = Marks(
        marks.start + base, lane[at], name[at], category[at], marks.phase - MARK, marks.key, marks.value, marks.row
    )
    if odd := sum("\ufffd" in name for name in names):
        notes.append(f"{odd:,} of its names contain \ufffd in place of invalid characters.")
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
        arguments=arguments,
        row=complete.row if np.any(complete.row != -1) else None,
        marks=points if len(marks.start) else None,
        keys=tuple(reader.keys),
        anchor=anchor,
        notes=tuple(notes),
        about=_about(about),
    )
    return replace(trace, notes=(*notes, *doubts(trace, device_lanes)))


def _about(said: About) -> dict[str, Any]:
    """The trace's origin as the file gives it, with the properties of GPUs from Kineto."""
    about: dict[str, Any] = said.otherData if isinstance(said.otherData, dict) else {}
    return about if said.deviceProperties is None else {**about, "deviceProperties": said.deviceProperties}


def _viztracer(reader: Reader, rows: Columns, kinds: list[Kind], notes: list[str]) -> None:
    """Add a note if VizTracer's buffer was full: earlier events are lost then."""
    about = reader.about.viztracer_metadata
    if about is None and not any(kind.cat in ("fee", "FEE") for kind in kinds):
        return
    events: Counter[Any] = Counter()
    for kind, count in enumerate(np.bincount(rows.kind).tolist()):
        events[kinds[kind].pid] += count
    full = sorted(str(pid) for pid, count in events.items() if count == _VIZTRACER)
    if full or (isinstance(about, dict) and about.get("overflow") is True):
        notes.append(
            f"VizTracer's buffer was full{' in process ' * bool(full)}{', '.join(full)}. VizTracer keeps only the last "
            f"events ({_VIZTRACER:,} by default), so earlier events may be missing. viztracer --tracer_entries N keeps "
            "more."
        )


def _pairs(rows: Columns, begin: int, kinds: list[Kind], notes: list[str]) -> Columns:
    """Complete events from pairs of B and E: matched by the thread's stack, or by id for asynchronous events."""
    end, phases = (END, "BE") if begin == BEGIN else (ASYNC_END, "be")
    at = np.flatnonzero((rows.phase == begin) | (rows.phase == end))
    if not len(at):
        return rows.of(at)
    at = at[np.argsort(rows.start[at], kind="stable")]
    first = int(rows.start.min())
    lengths = np.where(rows.phase == COMPLETE, rows.duration, 0)
    last = int((rows.start + lengths).max())
    open_at: dict[tuple[Any, ...], list[int]] = {}
    pairs, lonely = [], 0  # of a pair: the row that it is told by, where it starts, where it ends
    for i, phase, kind, key in zip(
        *(column.tolist() for column in (at, rows.phase[at], rows.kind[at], rows.key[at])), strict=True
    ):
        of = kinds[kind]
        stack = open_at.setdefault((of.pid, of.tid) if begin == BEGIN else (of.pid, of.cat, key), [])
        if phase == begin:
            stack.append(i)
            continue
        lonely += not stack
        event = stack.pop() if stack else i
        pairs.append((event, first if event == i else rows.start[event], rows.start[i]))
    unended = [i for stack in open_at.values() for i in stack]
    if unended:
        notes.append(
            f"{len(unended):,} events have a beginning (ph {phases[0]}) but no end: they are shown until the trace's "
            "end."
        )
    if lonely:
        notes.append(
            f"{lonely:,} events have an end (ph {phases[1]}) but no beginning: they are shown from the trace's start."
        )
    row, begun, ended = np.array([*pairs, *((i, rows.start[i], last) for i in unended)], np.int64).T
    return rows.of(row)._replace(start=begun, duration=ended - begun)
