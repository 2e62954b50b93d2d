"""A trace as Chrome trace JSON, for Perfetto, chrome://tracing, TensorBoard and Holistic Trace Analysis."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from kit.errors import TraceError
from kit.trace.categories import DEVICE, role_of
from kit.trace.columns import KINDS, Int32, Lane, Trace
from kit.trace.lanes import pack

_BATCH = 50_000
ProcessThread = tuple[int | str, int | str]


def save_trace(trace: Trace, path: str | Path) -> None:
    """Write Chrome trace JSON, gzipped if the name ends in ``.gz``; :func:`load_trace` reads the same trace again.

    Times are written relative to the first event, which keeps nanoseconds exact in the format's microseconds. Events
    that overlap in a lane without nesting, which other viewers would drop, get their own thread id; asynchronous
    events are written as such. Arguments are written as they were read. The trace's origin, ``trace.about``, is written
    to the format's ``otherData``.

    Raises:
        TraceError: the file cannot be written.
    """
    path = Path(path)
    marks = trace.marks
    times = [column for column in (trace.start_ns, None if marks is None else marks.time_ns) if column is not None]
    base = min((int(column.min()) for column in times if len(column)), default=0)
    about: dict[str, Any] = {"schemaVersion": 1, "displayTimeUnit": "ns", "baseTimeNanoseconds": base}
    if trace.anchor is None:
        del about["schemaVersion"]  # which would say that the times are since the Unix epoch
    else:
        about["clockAnchor"] = {"trace_ns": trace.anchor[0], "wall_ns": trace.anchor[1]}
    about |= {"otherData": dict(trace.about)} if trace.about else {}
    head = msgspec.json.encode(about)[:-1] + b',"traceEvents":[\n'
    try:
        with gzip.open(path, "wb", 6) if path.suffix == ".gz" else path.open("wb") as file:
            before = head
            for rows in _batches(trace, base):
                # A row a line: the list's own brackets, and the commas between rows, are written here.
                file.write(before + b",\n".join(map(msgspec.json.encode, rows)))
                before = b",\n"
            file.write((b"" if before != head else head) + b"\n]}\n")
    except OSError as error:
        raise TraceError(f"cannot write {path}: {error.strerror or error}.") from error


def _batches(trace: Trace, base: int) -> Iterator[list[dict[str, Any]]]:
    ranges = np.array([lane.asynchronous for lane in trace.lanes], bool)[trace.lane]
    sublane = np.where(
        ranges, 0, pack(trace).sublane
    )  # asynchronous ones may overlap: they are told apart by their ids
    places = _places(trace, sublane)
    if places:
        order = {lane.process: i for i, lane in reversed([*enumerate(trace.lanes)])}
        yield [
            {"ph": "M", "pid": pid, "tid": 0, "ts": 0, "name": "process_sort_index", "args": {"sort_index": i}}
            for pid, i in order.items()
        ]
        yield [row for (lane, part), place in places.items() for row in _metadata(trace.lanes[lane], lane, part, place)]
    for first in range(0, len(trace), _BATCH):
        yield list(_events(trace, sublane, places, base, slice(first, first + _BATCH)))
    if trace.marks is not None and len(trace.marks.time_ns):
        yield list(_marks(trace, places, base))


def _places(trace: Trace, sublane: Int32) -> dict[tuple[int, int], ProcessThread]:
    """The pid and tid of each lane and of its sub-lanes: the lane's own, if they are free."""
    parts = {(lane, 0) for lane in range(len(trace.lanes))} | set(
        zip(trace.lane.tolist(), sublane.tolist(), strict=True)
    )
    taken: set[ProcessThread] = set()
    places: dict[tuple[int, int], ProcessThread] = {}
    highest = max([0, *(lane.thread for lane in trace.lanes if isinstance(lane.thread, int))])
    fresh = count(highest + 1)
    for lane, part in sorted(parts, key=lambda both: (both[1], both[0])):  # the lanes themselves before the sub-lanes
        own = trace.lanes[lane]
        place: ProcessThread = (own.process, own.thread)
        if part or place in taken:
            place = (own.process, f"{own.thread} {next(fresh)}" if own.asynchronous else next(fresh))
        taken.add(place)
        places[lane, part] = place
    return places


def _metadata(lane: Lane, index: int, part: int, place: ProcessThread) -> Iterator[dict[str, Any]]:
    group = f"{lane.group}: " if lane.group else ""
    name = f"{group}{lane.label}" + (f" ({part + 1})" if part else "")
    where = {"ph": "M", "pid": place[0], "tid": place[1], "ts": 0}
    yield {**where, "name": "thread_name", "args": {"name": name, "lane": list(lane)}}
    yield {**where, "name": "thread_sort_index", "args": {"sort_index": index}}


def _events(
    trace: Trace, sublane: Int32, places: dict[tuple[int, int], ProcessThread], base: int, rows: slice
) -> Iterator[dict[str, Any]]:
    at = np.arange(len(trace))
    columns = (at, trace.name, trace.category, trace.start_ns - base, trace.duration_ns, trace.lane, sublane)
    kept = trace.args_of(at[rows])
    on_device = [role_of(category) in DEVICE for category in trace.categories]
    for i, name, category, start, duration, lane, part, args in zip(
        *(column[rows].tolist() for column in columns), kept, strict=True
    ):
        pid, tid = places[lane, part]
        row = {"ph": "X", "name": trace.names[name], "cat": trace.categories[category], "pid": pid, "tid": tid}
        row["ts"] = _us(start)
        if on_device[category]:
            args = {"device": trace.lanes[lane].process, "stream": trace.lanes[lane].thread} | args
        more = {"args": args} if args else {}
        if trace.lanes[lane].asynchronous:
            yield {**row, "ph": "b", "id": i, **more}
            yield {**row, "ph": "e", "id": i, "ts": _us(start + duration)}
        else:
            yield {**row, "dur": _us(duration), **more}


def _marks(trace: Trace, places: dict[tuple[int, int], ProcessThread], base: int) -> Iterator[dict[str, Any]]:
    assert trace.marks is not None
    rows = trace.marks.rows()
    kept = [{}] * len(rows) if trace.arguments is None else trace.arguments.read(rows)
    columns = (trace.marks.time_ns - base, *trace.marks[1:7])
    for time, lane, name, category, kind, key, value, args in zip(*(c.tolist() for c in columns), kept, strict=True):
        pid, tid = places[lane, 0] if lane >= 0 else (0, 0)
        row = {"ph": KINDS[kind], "name": trace.names[name], "cat": trace.categories[category], "ts": _us(time)}
        row |= {"pid": pid, "tid": tid}
        if KINDS[kind] == "C":
            row["args"] = {str(trace.keys[key]): value}
        elif KINDS[kind] == "i":
            row["s"] = "t" if lane >= 0 else "g"
            row |= {"args": args} if args else {}
        else:
            row |= {"args": args} if args else {}
            row["id"] = trace.keys[key]
            if KINDS[kind] == "f":
                row["bp"] = "e"
        yield row


def _us(ns: int) -> msgspec.Raw:
    """Microseconds as an exact decimal number."""
    whole, rest = divmod(abs(ns), 1000)
    return msgspec.Raw(f"{'-' * (ns < 0)}{whole}.{rest:03d}".encode())
