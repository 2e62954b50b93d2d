"""A trace as Chrome trace JSON, for Perfetto, chrome://tracing, TensorBoard and Holistic Trace Analysis."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, TypeGuard

import msgspec
import numpy as np

from kit.errors import TraceError
from kit.trace.categories import DEVICE, role_of
from kit.trace.columns import KINDS, Int32, Lane, Marks, Trace
from kit.trace.expanding import packed
from kit.trace.lanes import pack
from kit.trace.links import around

_BATCH = 50_000
_HEX = re.compile(r"(?:0x)?[0-9a-fA-F]{1,16}")
_DEEPEST = 255  # levels that every version of Perfetto shows: it drops what is deeper
ProcessThread = tuple[int, int]


def save_trace(trace: Trace, path: str | Path) -> None:
    """Write Chrome trace JSON; :func:`load_trace` reads the same trace again.

    A name that ends in ``.gz`` or ``.zst`` says how it is compressed. Perfetto, TensorBoard and Holistic Trace Analysis
    read ``.json`` and ``.json.gz``.

    Times are written relative to the first event, which keeps nanoseconds exact in the format's microseconds. What
    other viewers would drop is written so that they show it: events that overlap in a lane without nesting, or that are
    more than 255 levels deep, get their own thread id; processes, threads and flows whose id is no number that Perfetto
    takes get one. The trace's origin, ``trace.about``, is written to the format's ``otherData``.

    Raises:
        TraceError: the file cannot be written, or the package ``zstandard`` is missing for a ``.zst``.
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
    part = _parts(trace)
    places = _places(trace, part)
    if places:
        order = {places[i, 0][0]: (i, lane.process) for i, lane in reversed([*enumerate(trace.lanes)])}
        yield [row for pid, (i, process) in order.items() for row in _process(pid, i, process)]
        yield [row for (i, n), place in places.items() for row in _metadata(trace.lanes[i], i, n, place)]
    for first in range(0, len(trace), _BATCH):
        yield list(_events(trace, part, places, base, slice(first, first + _BATCH)))
    if trace.marks is not None and len(trace.marks.time_ns):
        yield list(_marks(trace, trace.marks, part, places, base))


def _parts(trace: Trace) -> Int32:
    """The part of its lane that each event is written to: in each of them, events nest, and not too deep."""
    packing = pack(trace)
    level = packing.depth + _at_one_moment(trace, packing.sublane)
    parts: Int32 = packing.sublane + level // _DEEPEST * (packing.sublane.max(initial=0) + 1)
    return parts


def _at_one_moment(trace: Trace, sublane: Int32) -> Int32:
    """For each event without length, how many of them come before it at its moment: to Perfetto, they nest."""
    instants = np.flatnonzero(trace.duration_ns == 0)
    columns = [column[instants] for column in (trace.start_ns, sublane, trace.lane)]
    order = np.lexsort(columns)
    first = np.append(True, np.any([np.diff(column[order]) != 0 for column in columns], axis=0))[: len(instants)]
    at = np.arange(len(instants))
    before = np.zeros(len(trace), np.int32)
    before[instants[order]] = at - np.maximum.accumulate(np.where(first, at, 0))
    return before


def _places(trace: Trace, part: Int32) -> dict[tuple[int, int], ProcessThread]:
    """The pid and tid of each lane and of its parts: the lane's own, if they are free and numbers that Perfetto takes.

    It takes unsigned numbers of 32 bits. A tid of 0 is for it the thread with the number of the process.
    """
    fresh = _unused(key for lane in trace.lanes for key in (lane.process, lane.thread))
    pids: dict[int | str, int] = {}
    for lane in trace.lanes:
        if lane.process not in pids:
            pids[lane.process] = lane.process if _fits(lane.process) else next(fresh)
    parts = {(lane, 0) for lane in range(len(trace.lanes))} | set(zip(trace.lane.tolist(), part.tolist(), strict=True))
    taken: set[ProcessThread] = set()
    places: dict[tuple[int, int], ProcessThread] = {}
    for index, number in sorted(parts, key=lambda both: (both[1], both[0])):  # the lanes themselves before their parts
        pid, tid = pids[trace.lanes[index].process], trace.lanes[index].thread
        place = (pid, tid) if _fits(tid) and (tid or not pid) else None
        if number or place is None or place in taken:
            place = (pid, next(fresh))
        taken.add(place)
        places[index, number] = place
    return places


def _fits(key: Any, bits: int = 32) -> TypeGuard[int]:
    return type(key) is int and 0 <= key < 2**bits


def _unused(keys: Iterable[Any]) -> Iterator[int]:
    """Numbers that are none of these."""
    used = set(keys)
    return (number for number in count(1) if number not in used)


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
    columns = (trace.name, trace.category, trace.start_ns - base, trace.duration_ns, trace.lane, parts)
    ids = (trace.ids("correlation"), trace.ids("external"))
    on_device = [role_of(category) in DEVICE for category in trace.categories]
    for name, category, start, duration, lane, part, correlation, external in zip(
        *(column[rows].tolist() for column in (*columns, *ids)), strict=True
    ):
        pid, tid = places[lane, part]
        row = {"ph": "X", "name": trace.names[name], "cat": trace.categories[category], "pid": pid, "tid": tid}
        row |= {"ts": _us(start), "dur": _us(duration)}
        args: dict[str, Any] = {}
        if external != -1:
            args["External id"] = external
        if on_device[category]:
            args |= {"device": trace.lanes[lane].process, "stream": trace.lanes[lane].thread}
        if correlation != -1:
            args["correlation"] = correlation
        yield {**row, "args": args} if args else row


def _marks(
    trace: Trace, marks: Marks, part: Int32, places: dict[tuple[int, int], ProcessThread], base: int
) -> Iterator[dict[str, Any]]:
    parts, ids = _ends(trace, marks, part), _flow_ids(trace, marks)
    columns = marks._replace(time_ns=marks.time_ns - base)
    for time, lane, name, category, kind, key, value, number in zip(
        *(column.tolist() for column in (*columns, parts)), strict=True
    ):
        pid, tid = places[lane, number] if lane >= 0 else (0, 0)
        row = {"ph": KINDS[kind], "name": trace.names[name], "cat": trace.categories[category], "ts": _us(time)}
        row |= {"pid": pid, "tid": tid}
        if KINDS[kind] == "C":
            row["args"] = {str(trace.keys[key]): value}
        elif KINDS[kind] == "i":
            row["s"] = "t" if lane >= 0 else "g"
        else:
            row["id"] = ids[key]
            if KINDS[kind] == "f":
                row["bp"] = "e"
        yield row


def _ends(trace: Trace, marks: Marks, part: Int32) -> Int32:
    """The part of its lane that each mark is written to: an end of a flow must be where its event is."""
    parts = np.zeros(len(marks.time_ns), np.int32)
    if part.any():
        event = around(trace, marks)
        flows = np.flatnonzero((event >= 0) & (marks.kind < KINDS.index("i")))
        parts[flows] = part[event[flows]]
    return parts


def _flow_ids(trace: Trace, marks: Marks) -> dict[int, int | str]:
    """The id of each flow, by its key: its own if it is a number to Perfetto, which reads text as hexadecimal.

    A flow whose number another one has, as in a comparison of two traces, gets a new one.
    """
    keys = np.unique(marks.key[marks.kind < KINDS.index("i")]).tolist()
    numbers = [_as_number(trace.keys[key]) for key in keys]
    fresh, ids, taken = _unused(numbers), dict[int, int | str](), set[int]()
    for key, number in zip(keys, numbers, strict=True):
        own = trace.keys[key]
        if number is None or number in taken:
            ids[key] = next(fresh)
        else:
            ids[key] = own if isinstance(own, str) else number if _fits(number, 63) else hex(number)
            taken.add(number)
    return ids


def _as_number(key: Any) -> int | None:
    if isinstance(key, str) and _HEX.fullmatch(key):
        return int(key, 16)
    return key if _fits(key, 64) else None


def _us(ns: int) -> msgspec.Raw:
    """Microseconds as an exact decimal number."""
    whole, rest = divmod(abs(ns), 1000)
    return msgspec.Raw(f"{'-' * (ns < 0)}{whole}.{rest:03d}".encode())
