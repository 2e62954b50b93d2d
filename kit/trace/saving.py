"""A trace as Chrome trace JSON, for Perfetto, chrome://tracing, TensorBoard and Holistic Trace Analysis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from kit.errors import TraceError
from kit.trace.categories import DEVICE, role_of
from kit.trace.columns import KINDS, Int32, Lane, Marks, Trace
from kit.trace.expanding import packed
from kit.trace.units import LAST
from kit.trace.viewers import ProcessThread, flow_ids, parts_of, parts_of_marks, places_of

_BATCH = 50_000


def save_trace(trace: Trace, path: str | Path) -> None:
    """Write Chrome trace JSON; :func:`load_trace` reads the same trace again.

    A name that ends in ``.gz`` or ``.zst`` says how it is compressed. Perfetto, TensorBoard and Holistic Trace Analysis
    read ``.json`` and ``.json.gz``.

    Times are written relative to the first event, which keeps nanoseconds exact in the format's microseconds.
    Asynchronous events are written as such, arguments as they were read. What other viewers would drop is written so
    that they show it: events that overlap in a lane without nesting, or that are more than 255 levels deep, get their
    own thread id; processes, threads and flows whose id is no number that Perfetto takes get one. The trace's origin,
    ``trace.about``, is written to the format's ``otherData``.

    >>> from kit.trace import Event, Lane
    >>> trace = kit.Trace.build([Event("load", "task", 0, 300, Lane(1, 7, "worker 0"))])
    >>> kit.save_trace(trace, "small.json.gz")
    >>> kit.load_trace("small.json.gz")
    Trace(1 event in 1 lane)

    Raises:
        TraceError: the file cannot be written, or the package ``zstandard`` is missing for a ``.zst``.
    """
    path = Path(path)
    marks = trace.marks
    times = [column for column in (trace.start_ns, None if marks is None else marks.time_ns) if column is not None]
    ends = [int(end) for column in times if len(column) for end in (column.min(), column.max())] or [0]
    base, last = min(ends), max(ends)
    if last - base > LAST:  # a time in the file may not be further from the base
        base = (base + last) // 2
    about: dict[str, Any] = {"schemaVersion": 1, "displayTimeUnit": "ns", "baseTimeNanoseconds": base}
    if trace.anchor is None:
        del about["schemaVersion"]  # which would say that the times are since the Unix epoch
    else:
        about["clockAnchor"] = {"trace_ns": trace.anchor[0], "wall_ns": trace.anchor[1]}
    about |= {"otherData": dict(trace.about)} if trace.about else {}
    # Perfetto refuses a file with this control character before its events.
    head = msgspec.json.encode(about)[:-1].replace(b"\x7f", b"\\u007f") + b',"traceEvents":[\n'
    try:
        with packed(path) as file:
            before = head
            for rows in _batches(trace, base):
                # A row a line: the list's own brackets, and the commas between rows, are written here.
                file.write(before + b",\n".join(map(msgspec.json.encode, rows)))
                before = b",\n"
            file.write((b"" if before != head else head) + b"\n]}\n")
    except OSError as error:
        raise TraceError(f"cannot write {path}: {error.strerror or error}.") from error


def _batches(trace: Trace, base: int) -> Iterator[list[dict[str, Any]]]:
    part = parts_of(trace)
    places = places_of(trace, part)
    if places:
        order = {places[i, 0][0]: (i, lane.process) for i, lane in reversed([*enumerate(trace.lanes)])}
        yield [row for pid, (i, process) in order.items() for row in _process(pid, i, process)]
        yield [row for (i, n), place in places.items() for row in _metadata(trace.lanes[i], i, n, place)]
    for first in range(0, len(trace), _BATCH):
        yield list(_events(trace, part, places, base, slice(first, first + _BATCH)))
    if trace.marks is not None and len(trace.marks.time_ns):
        yield list(_marks(trace, trace.marks, part, places, base))


def _process(pid: int, index: int, process: int | str) -> Iterator[dict[str, Any]]:
    where = {"ph": "M", "pid": pid, "ts": 0}
    yield {**where, "name": "process_sort_index", "args": {"sort_index": index}}
    if pid != process:
        yield {**where, "name": "process_name", "args": {"name": str(process)}}


def _metadata(lane: Lane, index: int, part: int, place: ProcessThread) -> Iterator[dict[str, Any]]:
    group = f"{lane.group}: " if lane.group else ""
    name = f"{group}{lane.label}" + (f" ({part + 1})" if part else "")
    where = {"ph": "M", "pid": place[0], "tid": place[1], "ts": 0}
    yield {**where, "name": "thread_name", "args": {"name": name, "lane": list(lane)}}
    yield {**where, "name": "thread_sort_index", "args": {"sort_index": index}}


def _events(
    trace: Trace, parts: Int32, places: dict[tuple[int, int], ProcessThread], base: int, rows: slice
) -> Iterator[dict[str, Any]]:
    at = np.arange(len(trace))
    columns = (at, trace.name, trace.category, trace.start_ns - base, trace.duration_ns, trace.lane, parts)
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


def _marks(
    trace: Trace, marks: Marks, part: Int32, places: dict[tuple[int, int], ProcessThread], base: int
) -> Iterator[dict[str, Any]]:
    ids, rows = flow_ids(trace, marks), marks.rows()
    kept = [{}] * len(rows) if trace.arguments is None else trace.arguments.read(rows)
    columns = (marks.time_ns - base, *marks[1:7], parts_of_marks(trace, marks, part))
    for time, lane, name, category, kind, key, value, number, args in zip(
        *(column.tolist() for column in columns), kept, strict=True
    ):
        pid, tid = places[lane, number] if lane >= 0 else (0, 0)
        row = {"ph": KINDS[kind], "name": trace.names[name], "cat": trace.categories[category], "ts": _us(time)}
        row |= {"pid": pid, "tid": tid}
        if KINDS[kind] == "C":
            row["args"] = {str(trace.keys[key]): value}
        elif KINDS[kind] == "i":
            row["s"] = "t" if lane >= 0 else "g"
            row |= {"args": args} if args else {}
        else:
            row |= {"args": args} if args else {}
            row["id"] = ids[key]
            if KINDS[kind] == "f":
                row["bp"] = "e"
        yield row


def _us(ns: int) -> msgspec.Raw:
    """Microseconds as an exact decimal number."""
    whole, rest = divmod(abs(ns), 1000)
    return msgspec.Raw(f"{'-' * (ns < 0)}{whole}.{rest:03d}".encode())
