"""Chrome trace JSON, the format that torch.profiler writes and Perfetto reads: load and save.

Format: `Trace Event Format <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>`_.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import msgspec

from kit.errors import TraceError
from kit.trace.columns import Event, Lane, Trace


class _Json(msgspec.Struct):
    """One row of the file: only the fields that complete events and thread names need."""

    ph: str = ""
    name: str = ""
    cat: str = ""
    ts: float = 0.0  # microseconds since baseTimeNanoseconds
    dur: float = 0.0  # microseconds
    pid: int | str = 0
    tid: int | str = 0
    args: dict[str, Any] | None = None


class _File(msgspec.Struct):
    traceEvents: list[_Json]
    baseTimeNanoseconds: int = 0


def load_trace(path: str | Path) -> Trace:
    """Read a trace from ``.json`` or ``.json.gz``; times become integer nanoseconds since the Unix epoch.

    Raises:
        TraceError: the file is missing, is not Chrome trace JSON, or holds no complete event.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        file = msgspec.json.decode(data, type=_File | list[_Json])
    except (OSError, EOFError, zlib.error, msgspec.MsgspecError) as error:
        raise TraceError(f"cannot read {path} as a trace: {error}. Give a Chrome trace, .json or .json.gz.") from error
    if isinstance(file, list):
        file = _File(file)
    labels = {
        (row.pid, row.tid): str(row.args["name"])
        for row in file.traceEvents
        if row.ph == "M" and row.name == "thread_name" and row.args and "name" in row.args
    }
    events = []
    for row in file.traceEvents:
        if row.ph != "X":
            continue
        if not (math.isfinite(row.ts) and math.isfinite(row.dur) and row.dur >= 0):
            raise TraceError(f"{path}: event {row.name!r} has ts {row.ts} and dur {row.dur}: the file is damaged.")
        lane = Lane(row.pid, row.tid, labels.get((row.pid, row.tid), f"thread {row.tid}"))
        start = file.baseTimeNanoseconds + round(row.ts * 1000)
        events.append(Event(row.name, row.cat, start, round(row.dur * 1000), lane))
    if not events:
        raise TraceError(f"{path} holds no complete event (ph 'X'): record at least one operator or span.")
    try:
        return Trace.build(events)
    except OverflowError as error:  # finite, and still no time in 64 bits
        raise TraceError(f"{path} holds a time beyond the year 2262: the file is damaged.") from error


def save_trace(trace: Trace, path: str | Path) -> None:
    """Write Chrome trace JSON (gzipped where the name ends in ``.gz``) for Perfetto, chrome://tracing and TensorBoard.

    Times are written relative to the first event, which keeps nanoseconds exact in the format's microseconds.

    Raises:
        TraceError: the file cannot be written.
    """
    base = int(trace.start_ns.min()) if len(trace) else 0
    rows: list[dict[str, Any]] = [
        {"ph": "M", "name": "thread_name", "pid": lane.process, "tid": lane.thread, "args": {"name": lane.label}}
        for lane in trace.lanes
    ]
    for event in trace.events():
        rows.append(
            {
                "ph": "X",
                "name": event.name,
                "cat": event.category,
                "ts": (event.start_ns - base) / 1000,
                "dur": event.duration_ns / 1000,
                "pid": event.lane.process,
                "tid": event.lane.thread,
            }
        )
    data = msgspec.json.encode({"baseTimeNanoseconds": base, "displayTimeUnit": "ns", "traceEvents": rows})
    try:
        Path(path).write_bytes(gzip.compress(data) if str(path).endswith(".gz") else data)
    except OSError as error:
        raise TraceError(f"cannot write {path}: {error}.") from error
