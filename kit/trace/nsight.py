"""Reads exports of Nsight Systems, ``nsys export --type sqlite``, into the rows of a trace.

Tables: `Nsight Systems User Guide, "SQLite Schema Reference"
<https://docs.nvidia.com/nsight-systems/UserGuide/index.html#sqlite-schema-reference>`_. A version, or an export of a
profile without CUDA, has some of them only, and of their columns; those that versions
2021.5 and 2024.6 do not share have a default here. Times are nanoseconds since the start of the session.

A file may be hostile. Only plain tables are read: the query of a view could run forever. A value that has not the type
of its column counts as missing. The work on a file is limited by its size.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kit.errors import TraceError
from kit.trace.columns import Int64, Interner
from kit.trace.gathering import COMPLETE, INSTANT, Columns, Reader, short
from kit.trace.places import Kind, Place
from kit.trace.reading import Anchor
from kit.trace.units import LAST, NO_TIME

_DAMAGED = (sqlite3.Error, UnicodeDecodeError)  # the second if a message quotes a damaged name
_SIGN = b"SQLite format 3\0"
_LONGEST = 1 << 20  # bytes that a row may have: the longest names of kernels have a hundredth of it
_STEPS = 1000  # of SQLite's virtual machine between two looks at how many there were
_FEW = 200_000  # steps for what a small table takes
_METADATA = (33, 39, 75, 76)  # types of NVTX_EVENTS that name a category, a thread or a domain
_NAMES_THREAD, _MARK = 39, 34
_MASK = 0xFFFFFF  # a globalTid has 24 bits of process id above 24 bits of thread id
_COPIES = ["Unknown", "HtoD", "DtoH", "HtoA", "AtoH", "AtoA", "AtoD", "DtoA", "DtoD", "HtoH", "PtoP"]
_COPIES += ["Unified HtoD", "Unified DtoH", "Unified DtoD"]
_MEMORY = ("Pageable", "Pinned", "Device", "Array", "Managed", "Device Static", "Managed Static", "Unknown")
_WAITS = ("Unknown Sync", "Event Sync", "Stream Wait Event", "Stream Sync", "Context Sync")  # as Kineto names them
_CONTEXT = 2**32 - 1  # the stream of what waits for a whole context
_VERSION = re.compile(r"_v\d+$")  # of cudaLaunchKernel_v7000
_DRIVER = re.compile(r"cu[A-Z]")

_Strings = dict[int, str]


class _Table(NamedTuple):
    """A table of events: one row each."""

    name: str
    category: str  # Kineto's, where it has one
    called: Callable[..., str]  # the name of an event, from all strings and from these columns
    columns: tuple[str, ...]
    on_device: bool = False

    @property
    def place(self) -> tuple[str, ...]:
        """The columns that say where an event was."""
        return ("deviceId", "streamId", "globalPid", "contextId") if self.on_device else ("globalTid",)


def _string(strings: _Strings, *numbers: int | str | None) -> str:
    """The first of these that is a name, or the number of one."""
    found = (number if isinstance(number, str) else strings.get(number, "") for number in numbers if number is not None)
    return next(filter(None, found), "")


def _call(strings: _Strings, number: int) -> str:
    return _VERSION.sub("", _string(strings, number))


def _copy(_: _Strings, kind: int, source: int, target: int) -> str:
    ends = [_of(_MEMORY, end) for end in (source, target)]
    return f"Memcpy {_of(_COPIES, kind) or 'Unknown'}" + (f" ({ends[0]} -> {ends[1]})" if all(ends) else "")


def _fill(_: _Strings, kind: int) -> str:
    return f"Memset ({_of(_MEMORY, kind) or 'Unknown'})"


def _wait(_: _Strings, kind: int) -> str:
    return _of(_WAITS, kind) or _WAITS[0]


def _range(strings: _Strings, _: int, *names: int | str | None) -> str:
    return _string(strings, *names)


def _of(names: Sequence[str], number: int) -> str:
    return names[number] if 0 <= number < len(names) else ""


_CUPTI = "CUPTI_ACTIVITY_KIND_"
_TABLES = (
    _Table(f"{_CUPTI}KERNEL", "kernel", _string, ("demangledName", "shortName", "mangledName"), True),
    # Without --cuda-graph-trace=node, this is all that there is of a graph's kernels.
    _Table(f"{_CUPTI}GRAPH_TRACE", "kernel", lambda _, graph: f"CUDA graph {graph}", ("graphId",), True),
    _Table(f"{_CUPTI}MEMCPY", "gpu_memcpy", _copy, ("copyKind", "srcKind", "dstKind"), True),
    _Table(f"{_CUPTI}MEMSET", "gpu_memset", _fill, ("memKind",), True),
    _Table(f"{_CUPTI}SYNCHRONIZATION", "cuda_sync", _wait, ("syncType",), True),
    _Table(f"{_CUPTI}RUNTIME", "cuda_runtime", _call, ("nameId",)),
    _Table("NVTX_EVENTS", "user_annotation", _range, ("eventType", "text", "textId")),
    _Table("OSRT_API", "osrt_api", _call, ("nameId",)),
    _Table("CUDA_GRAPH_NODE_EVENTS", "cuda_graph", _call, ("nameId",)),
    _Table("CUDA_GRAPH_EVENTS", "cuda_graph", _call, ("nameId",)),
    _Table("CUBLAS_EVENTS", "cublas", _call, ("nameId",)),
    _Table("CUDNN_EVENTS", "cudnn", _call, ("nameId",)),
)


def is_database(path: Path) -> bool:
    """Whether a file begins as a database of SQLite does; False if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(_SIGN)) == _SIGN
    except OSError:
        return False


def read_export(path: Path, reader: Reader, max_bytes: int) -> tuple[list[str], str]:
    """Add all events of an export to ``reader``.

    Args:
        path: a database of SQLite.
        reader: gets the rows, the names of processes and threads, and the trace's origin.
        max_bytes: how many bytes the names of all events may have together.

    Returns:
        Notes on what is not loaded; and what is wrong with the rest of the file, empty if nothing is.

    Raises:
        TraceError: the database is no export of Nsight Systems, or it has no event.
    """
    try:
        address = f"{path.resolve().as_uri()}?mode=ro&immutable=1"  # no lock, and no file beside it
        with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as connection:
            return _Export(connection, path, max_bytes).read(reader)
    except (*_DAMAGED, OSError) as error:
        raise TraceError(f"cannot read {path} as a trace: it is a damaged database of SQLite ({error}).") from error


class _TooMuch(Exception):
    """The names have more bytes than they may."""


class _Export:
    """An export while it is read."""

    def __init__(self, connection: sqlite3.Connection, path: Path, max_bytes: int) -> None:
        self._connection, self._path = connection, path
        self._left, self._max = max_bytes, max_bytes
        self._steps = _FEW + 16 * path.stat().st_size  # a row has 20 bytes or more, and takes 60 steps
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
        connection.text_factory = lambda text: text.decode("utf-8", "replace")
        connection.set_progress_handler(self._step, _STEPS)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        plain = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE TABLE %'"  # nor a virtual one
        self._tables = [name for (name,) in connection.execute(plain) if isinstance(name, str)]
        self._faults: list[str] = []

    def read(self, reader: Reader) -> tuple[list[str], str]:
        tables = [table for table in _TABLES if table.name in self._tables]
        if not tables:
            known = ", ".join(table.name for table in _TABLES)
            raise self._no_trace(
                f"it is a database of SQLite, but no export of Nsight Systems: it has no table {known}"
            )
        for table in tables:
            absent = [column for column in ("start", "end") if column not in self._columns(table.name)]
            if absent:
                raise self._no_trace(f"its table {table.name} has no column {' and no '.join(absent)}")
        numbers = Interner()
        rows = np.concatenate([self._rows(table, numbers) for table in tables])
        strings = dict(self._some("StringIds", id=NO_TIME, value=None))
        if not len(rows) and not self._faults:
            raise self._no_trace("its tables of events are empty: nsys profile --trace=cuda,nvtx,osrt fills them")
        self._gather(reader, rows, list(numbers), strings)
        self._places(reader, strings)
        self._about(reader)
        return [*self._notes(strings)], "; ".join(self._faults)

    def _no_trace(self, why: str) -> TraceError:
        return TraceError(f"cannot read {self._path} as a trace: {why}.")

    def _step(self) -> bool:
        """Ends a query if there have been more steps than a healthy file of this size takes."""
        self._steps -= _STEPS
        return self._steps < 0

    def _columns(self, table: str) -> set[str]:
        """The columns that are stored, not computed."""
        return {row[1] for row in self._connection.execute(f"PRAGMA table_xinfo({_quoted(table)})") if row[6] == 0}

    def _select(self, table: str, columns: dict[str, Any], where: str = "1") -> Iterator[tuple[Any, ...]]:
        """The rows of a table with these columns, each with the value it has where there is none of its type."""
        present = self._columns(table)
        wanted = []
        for column, missing in columns.items():
            kind = "integer" if isinstance(missing, int) else "text"
            other = "NULL" if missing is None else f"{missing}" if kind == "integer" else "''"
            known = f"CASE typeof({_quoted(column)}) WHEN '{kind}' THEN {_quoted(column)} ELSE {other} END"
            wanted.append(known if column in present else other)
        texts = [i for i, missing in enumerate(columns.values()) if not isinstance(missing, int)]
        try:
            for row in self._connection.execute(f"SELECT {', '.join(wanted)} FROM {_quoted(table)} WHERE {where}"):
                for i in texts:
                    self._left -= len(row[i] or "")
                if self._left < 0:
                    raise _TooMuch
                yield row
        except _DAMAGED as error:
            why = "it has more rows than the file has room for" if self._steps < 0 else str(error)
            self._faults.append(f"its table {table} is damaged ({why})")
            self._steps = max(self._steps, _FEW)
        except _TooMuch:
            self._faults.append(f"its names have more than {self._max:,} bytes, the limit (max_bytes)")

    def _some(self, table: str, where: str = "1", **columns: Any) -> Iterator[tuple[Any, ...]]:
        """The rows of a table that may be missing, where the first of these columns has a value."""
        if table in self._tables:
            rows = self._select(table, columns, where)
            yield from (row for row in rows if row[0] not in (NO_TIME, None))

    def _rows(self, table: _Table, numbers: Interner) -> Int64:
        """The events of a table, shape ``(n, 4)``: start, end, correlation id, and the number of all else they say."""
        columns = {"start": NO_TIME, "end": NO_TIME, "correlationId": -1}
        key: dict[str, Any] = dict.fromkeys((*table.place, *table.columns), -1)
        if "text" in key:
            key["text"] = None
        marked = "text" in key and "eventType" in self._columns(table.name)
        where = f"eventType IS NULL OR eventType NOT IN {_METADATA}" if marked else "1"
        at = _TABLES.index(table)
        found = [(*row[:3], numbers[at, row[3:]]) for row in self._select(table.name, columns | key, where)]
        return np.array(found, np.int64).reshape(-1, 4)

    def _gather(
        self, reader: Reader, rows: Int64, common: list[tuple[int, tuple[Any, ...]]], strings: _Strings
    ) -> None:
        """Add the rows to the reader: their kinds, times, and correlation ids."""
        on_device = [key[:4] for at, key in common if _TABLES[at].on_device]
        self._devices = {device for device, *_ in on_device}
        owners: dict[tuple[int, int], set[tuple[int, int]]] = {}
        for device, stream, process, context in on_device:
            owners.setdefault((device, stream), set()).add((process, context))
        processes = Interner()
        kinds, ranks, phases, may_stay_open = [], [], [], []
        for at, key in common:
            table, place = _TABLES[at], key[: len(_TABLES[at].place)]
            name = table.called(strings, *key[len(place) :])
            category, phase = table.category, COMPLETE
            if table.name == "NVTX_EVENTS":
                phase = INSTANT if key[1] == _MARK else COMPLETE
            elif category == "cuda_runtime" and _DRIVER.match(name):
                category = "cuda_driver"
            pid, tid = self._stream(owners, *place) if table.on_device else self._thread(*place)
            kinds.append(reader.kinds[Kind("i" if phase == INSTANT else "X", pid, tid, name, category)])
            phases.append(phase)
            may_stay_open.append(table.name == "NVTX_EVENTS")
            owner = place[2] if table.on_device else place[0]
            ranks.append(processes[owner >> 24 & _MASK])
            if category == "cuda_sync":
                label = "context" if tid == -1 else f"stream {tid}"
                reader.places.setdefault((pid, tid), Place(name=label))
        start, end, tie, number = rows.T
        apart = len(processes) > 1 and all(process != -1 for _, _, process, _ in on_device)
        rank = np.array(ranks, np.int64)[number] if apart else 0
        phase = np.array(phases, np.int32)[number]
        begun, ended = ((abs(column) < LAST) & (column != NO_TIME) for column in (start, end))
        unended = (phase == COMPLETE) & np.array(may_stay_open, bool)[number] & begun & (end == NO_TIME)
        self._unended = int(np.count_nonzero(unended))
        end = np.where(unended, max(start[begun].max(initial=0), end[ended].max(initial=0)), end)
        valid = begun & (ended | unended)
        duration = np.where(valid, end, 0) - np.where(valid, start, 0)
        duration[~valid | (duration >= LAST)] = NO_TIME
        duration[phase == INSTANT] = 0
        # The ids are of a process; a trace has one number for each.
        correlation = np.where((tie > 0) & (tie < 2**32), tie + (rank << 32), -1)
        of = Columns.of_nothing(len(rows))._replace(kind=np.array(kinds, np.int32)[number], phase=phase)
        reader.parts.append(of._replace(start=start, duration=duration, correlation=correlation))

    def _thread(self, thread: int) -> tuple[int | str, int | str]:
        """The process and thread of a globalTid; not the number of a GPU, which is a process in a trace, too."""
        if thread in (-1, NO_TIME):
            return "unknown process", "unknown thread"
        pid = thread >> 24 & _MASK
        return str(pid) if pid in self._devices else pid, thread & _MASK

    def _stream(self, owners: Any, device: int, stream: int, process: int, context: int) -> tuple[int, int | str]:
        """Streams of two contexts are two lanes, even with the same number."""
        if len(owners[device, stream]) > 1:
            return device, f"{stream} of process {process >> 24 & _MASK}, context {context}"
        return device, -1 if stream == _CONTEXT else stream

    def _places(self, reader: Reader, strings: _Strings) -> None:
        """The names of processes and threads."""
        for process, name in self._some("PROCESSES", globalPid=NO_TIME, name=""):
            reader.places[self._thread(process)[0], None] = Place(name=name)
        named = self._some("ThreadNames", globalTid=NO_TIME, nameId=-1)
        threads = {thread: strings.get(number, "") for thread, number in named}
        if "NVTX_EVENTS" in self._tables and "eventType" in self._columns("NVTX_EVENTS"):
            where = f"eventType = {_NAMES_THREAD}"
            rows = self._some("NVTX_EVENTS", where, globalTid=NO_TIME, text=None, textId=-1)
            threads |= {thread: _string(strings, *names) for thread, *names in rows}
        for thread, name in threads.items():
            pid, tid = self._thread(thread)
            if name:
                reader.places[pid, tid] = Place(name=f"thread {tid} ({name})")
        for device in self._devices:
            reader.places[device, None] = Place(labels=f"GPU {device}")

    def _about(self, reader: Reader) -> None:
        """The trace's origin: version, GPUs, and when it began."""
        found = dict(self._some("META_DATA_EXPORT", name=None, value=None))
        if version := found.get("EXPORT_PRODUCT_VERSION"):
            reader.about.otherData = {"profiler": f"Nsight Systems {version}"}
        gpus = [{"id": number, "name": name} for number, name in self._some("TARGET_INFO_GPU", id=NO_TIME, name="")]
        reader.about.deviceProperties = gpus or None
        for (wall,) in self._some("TARGET_INFO_SESSION_START_TIME", utcEpochNs=NO_TIME):
            if 0 < wall <= LAST:
                reader.about.clockAnchor = Anchor(trace_ns=0, wall_ns=wall)

    def _notes(self, strings: _Strings) -> Iterator[str]:
        if self._unended:
            yield f"{self._unended:,} ranges of NVTX have no end: they are shown until the trace's end."
        known = {table.name for table in _TABLES}
        others = [short(name) for name in self._tables if name not in known and self._has_times(name)]
        if others:
            yield f"{self._path} also contains tables that are not loaded: {', '.join(sorted(others)[:20])}."
        if not strings:
            yield f"{self._path} has no names (its table StringIds is missing or empty): most events are without one."

    def _has_times(self, table: str) -> bool:
        try:
            timed = {"start", "timestamp"} & self._columns(table)
            return bool(timed and self._connection.execute(f"SELECT 1 FROM {_quoted(table)} LIMIT 1").fetchone())
        except _DAMAGED:
            return False


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
