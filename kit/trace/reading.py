"""The rows of a Chrome trace file, a batch at a time, so that a file of any size is never in memory as a whole.

A file is cut into batches where ``},{`` stands in it. That may be inside an event or a name; but JSON is read from
left to right, so that a text which ends well with a ``]`` was cut between two events, and a wrong cut fails to decode:
then the batch grows. The same holds where a file breaks off: what decodes before the break is what it really held.
"""

from __future__ import annotations

import gzip
import re
import zlib
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import msgspec

from kit.errors import TraceError

MAX_EXPANDED = 2 << 30  # bytes that a gzip may expand to unless the caller says more: eleven million usual events
_BATCH = 1 << 19  # bytes of JSON; small enough for the processor's cache, which makes decoding faster
_OPENING = re.compile(rb'"traceEvents"\s*:\s*\[')
_GAP = re.compile(rb"\}(\s*),\s*\Z")
# Strings as a whole, so that brackets inside do not count; a lone quote is a string that was cut.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["{}\[\]]', re.DOTALL)


class Args(msgspec.Struct, gc=False):
    """What ties events to each other; the rest of an event's arguments is not kept."""

    external: Any = msgspec.field(default=-1, name="External id")
    correlation: Any = -1


class Row(msgspec.Struct, gc=False):
    """One row of the file, as it stands there."""

    # In Kineto's order: the decoder looks for a field where it expects the next one.
    ph: str = ""
    cat: str | None = ""
    name: str | None = ""
    pid: int | str = 0
    tid: int | str = 0
    ts: int | float | None = None  # microseconds
    dur: int | float | None = None
    args: Args | None = msgspec.field(default_factory=Args)
    id: int | float | str | None = None
    s: str | None = None  # scope of an instant


class Anchor(msgspec.Struct):
    """The kit's own field: the same instant on the trace's clock and on the wall clock."""

    trace_ns: int
    wall_ns: int


class About(msgspec.Struct):
    """The file's top level."""

    traceEvents: list[Row]
    baseTimeNanoseconds: int | None = None
    schemaVersion: Any = None  # Kineto writes it
    clockAnchor: Anchor | None = None


class Batch(NamedTuple):
    rows: list[Row]
    text: bytes  # the same rows as a JSON array, for a second look at what few of them have
    about: About | None  # in the first and in the last batch


class Damaged(Exception):
    """The file breaks off, or goes on with what is no trace; all rows before that have been given out."""


def batches(path: Path, max_bytes: int) -> Iterator[Batch]:
    """Read a file, gzipped or not, to its end.

    Raises:
        TraceError: it cannot be opened, or is empty.
        Damaged: what comes next in it cannot be read.
    """
    try:
        with path.open("rb") as file:
            yield from _rows(_Text(file, max_bytes))
    except OSError as error:
        raise TraceError(
            f"cannot read {path} as a trace: {error.strerror or error}. Give a .json or .json.gz."
        ) from error


class _Text:
    """The expanded bytes of a file, and the reason why they end where they do."""

    def __init__(self, file: IO[bytes], max_bytes: int) -> None:
        self.zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        self._file = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if self.zipped else file
        self._left = max_bytes if self.zipped else None
        self._max = max_bytes
        self.ended = False
        self.fault = ""

    def read(self, size: int) -> bytes:
        """That many bytes, or fewer where the file ends, or cannot be read on: then there is a fault."""
        parts, missing = [], size
        while missing > 0 and not self.ended:
            block = self._block(missing)
            parts.append(block)
            missing -= len(block)
        return b"".join(parts)

    def _block(self, size: int) -> bytes:
        try:
            block = self._file.read1(size) if self.zipped else self._file.read(size)  # type: ignore[attr-defined]
        except EOFError:
            block, self.fault = b"", "the gzip file is truncated"
        except (zlib.error, gzip.BadGzipFile) as error:
            block, self.fault = b"", f"the gzip file is damaged ({error})"
        if self._left is not None:
            self._left -= len(block)
            if self._left < 0:
                block = block[: self._left]
                self.fault = f"it expands past {self._max:,} bytes, the limit (max_bytes)"
        self.ended = not block or bool(self.fault)
        return block


def _rows(text: _Text) -> Iterator[Batch]:
    about, closing, buffer = _begin(text)
    if about is not None:
        yield Batch([], b"[]", about)
    want = _BATCH
    while not text.ended:
        buffer += text.read(max(0, want - len(buffer)))
        cut = _last_gap(buffer)
        batch = b"".join((b"[", memoryview(buffer)[:cut], b"]"))
        try:
            rows = decode(batch, list[Row]) if cut else None
        except (ValueError, RecursionError):
            rows = None
        if rows is None:
            want = 2 * max(want, len(buffer))
            continue
        yield Batch(rows, batch, None)
        buffer, want = buffer[cut + 1 :], _BATCH
    try:
        end = decode(closing + buffer, About if closing == b'{"traceEvents":[' else list[Row])
    except (ValueError, RecursionError) as error:
        yield _readable(buffer)
        raise Damaged(text.fault or _in_words(error, buffer, len(closing))) from error
    rows = end.traceEvents if isinstance(end, About) else end
    yield Batch(rows, closing + buffer, end if isinstance(end, About) else None)
    if text.fault:
        raise Damaged(text.fault)


def _begin(text: _Text) -> tuple[About | None, bytes, bytes]:
    """What stands before the rows, what to put before their last batch, and what has been read of them."""
    size = 1 << 16
    buffer = text.read(size).removeprefix(b"\xef\xbb\xbf").lstrip()
    while True:
        if buffer[:1] == b"[":
            return None, b"[", buffer[1:]
        if buffer[:1] == b"{":
            for opening in _OPENING.finditer(buffer):
                try:
                    return decode(buffer[: opening.end()] + b"]}", About), b'{"traceEvents":[', buffer[opening.end() :]
                except (ValueError, RecursionError):
                    continue
        elif buffer:
            raise Damaged(text.fault or f"it is not JSON: it begins with {buffer[:20]!r}")
        if text.ended:
            break
        buffer, size = buffer + text.read(size), 2 * size
    if not buffer:
        raise Damaged(text.fault or "it is empty")
    try:
        decode(buffer, About)
    except (ValueError, RecursionError) as error:
        raise Damaged(text.fault or _in_words(error, buffer, 0)) from error
    raise Damaged("its traceEvents are not where they are expected")


def decode(text: bytes, kind: Any) -> Any:
    """JSON as that type; a name that is no UTF-8 keeps what can be read of it."""
    try:
        return msgspec.json.decode(text, type=kind)
    except UnicodeDecodeError:
        return msgspec.json.decode(text.decode("utf-8", "replace").encode(), type=kind)


def _last_gap(buffer: bytes) -> int:
    """Where the last comma stands that may be one between two rows; 0 where there is none near the end."""
    end = len(buffer)
    for _ in range(64):
        end = buffer.rfind(b"{", 0, end)
        if end < 0:
            return 0
        gap = _GAP.search(buffer, max(0, end - 64), end)
        if gap:
            return gap.end(1)
    return 0


def _readable(buffer: bytes) -> Batch:
    """The rows at the beginning of a text that breaks."""
    ends, depth = [0], 0
    for token in _TOKEN.finditer(buffer):
        kind = token[0]
        if kind == b'"' or (kind in b"]}" and depth == 0):
            break
        depth += (kind in b"[{") - (kind in b"]}")
        if depth == 0 and kind in b"]}":
            ends.append(token.end())

    def breaks(end: int) -> bool:
        try:
            decode(b"[" + buffer[:end] + b"]", list[Row])
        except (ValueError, RecursionError):
            return True
        return False

    last = bisect_left(ends, True, key=breaks) - 1  # where so many rows can be read, fewer can
    text = b"[" + buffer[: ends[last]] + b"]"
    return Batch(decode(text, list[Row]), text, None)


def _in_words(error: Exception, buffer: bytes, before: int) -> str:
    if "truncated" in str(error):
        return "it is truncated"
    found = re.search(r"\(byte (\d+)\)", str(error))
    near = ""
    if found:
        at = max(0, int(found[1]) - before)
        near = f" near {buffer[max(0, at - 30) : at + 20].decode(errors='replace')!r}"
    return f"{re.sub(r' ?[(]byte [0-9]+[)]', '', str(error))}{near}"
