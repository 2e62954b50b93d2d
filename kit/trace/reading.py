"""Reads a Chrome trace file in batches of rows, so that no file is in memory as a whole.

A file is cut into batches where ``},{`` stands between two objects. That may be inside of a row; but JSON is read from
left to right, so that a text which ends well with a ``]`` was cut between two rows, and a wrong cut fails to decode.
What fails is repaired, and cut where its brackets say that a row ends (:mod:`kit.trace.mending`). What then fails still
is damaged: halves that can be read are, until single rows are left that cannot. So the time grows with the size of a
file, however much of it is damaged.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
import numpy as np

from kit.errors import TraceError
from kit.trace.expanding import Text, foreign, without_events
from kit.trace.mending import GAP, Mended, mended

_BATCH = 1 << 19  # bytes of JSON; small enough for the processor's cache, which makes decoding faster
_LONGEST = 1 << 23  # bytes that one row may have, or what stands before the rows
_MARKS = 400_000  # brackets and commas that one row may have
_TAIL = 1 << 27  # bytes that may stand behind the rows: VizTracer's source files
_GAP = 256  # bytes that a gap may have
_NEAR = 1 << 14  # bytes from the end of a batch in which a gap is looked for
_BLANK = b" \t\r\n"
_LOOSE = re.compile(rb"\}\s*,\s*\{")
_OPENING = re.compile(rb'"traceEvents"\s*:\s*\[')
_ENDING = re.compile(rb'\]\s*(?:,\s*"\w+"\s*:|\}?\s*\Z)')  # of the array, not of one inside of a row


_BYTE = re.compile(r" ?\(byte \d+\)")


class Args(msgspec.Struct, gc=False):
    """The arguments that link events to each other; of the others, only the text is kept."""

    external: Any = msgspec.field(default=-1, name="External id")
    correlation: Any = -1


class Row(msgspec.Struct, gc=False):
    """One row of the file, unchanged: programs differ in how they write numbers."""

    # In Kineto's order: the decoder looks for a field where it expects the next one.
    ph: Any = ""
    cat: Any = ""
    name: Any = ""
    pid: Any = 0
    tid: Any = 0
    ts: Any = None  # microseconds
    dur: Any = None
    args: Args | list[Any] | str | int | float | bool | None = msgspec.field(default_factory=Args)
    id: Any = None
    id2: Any = None  # the id of an asynchronous event that says of whom it is: {"local": 1}
    s: Any = None  # scope of an instant


class Anchor(msgspec.Struct):
    """The kit's own field: the same instant on the trace's clock and on the wall clock."""

    trace_ns: int
    wall_ns: int


Rows = TypeVar("Rows")
NoRow = list[Any] | str | int | float | bool | None  # what files have in place of an object


class About(msgspec.Struct):
    """The file's top level."""

    traceEvents: list[Row | NoRow]
    baseTimeNanoseconds: Any = None
    schemaVersion: Any = None  # Kineto writes it
    viztracer_metadata: Any = None
    clockAnchor: Anchor | None = None
    otherData: Any = None  # the format's place for what a writer says of a trace's origin
    deviceProperties: Any = None  # Kineto's: a list of GPUs


class _End(msgspec.Struct, Generic[Rows]):
    traceEvents: Rows


class Batch(NamedTuple):
    rows: list[Row | NoRow]
    text: bytes  # the same rows as a JSON array, or an object with it: for a second look at what few of them have
    first: int = 0  # the number of the first row in the file
    about: About | None = None  # in the first and in the last batch

    def again(self, kind: Any) -> list[Any]:
        """The rows, read again as another type; None for a row that cannot be read as this type."""
        try:
            return self.read_as(list[kind | NoRow])
        except (ValueError, RecursionError):
            return [decoded(bytes(row), kind) for row in self.read_as(list[msgspec.Raw])]

    def read_as(self, kind: Any) -> list[Any]:
        """The rows as another type."""
        return rows_as(self.text, kind)


class Bad(NamedTuple):
    """Rows that cannot be read."""

    rows: int
    first: str  # which one is the first, and what is wrong with it


class _NoTrace(Exception):
    """The file is not a trace; the message says what it is."""


class Damaged(Exception):
    """The file is truncated, or continues with something else than a trace; all rows before have been returned."""


def batches(path: Path, max_bytes: int) -> Iterator[Batch | Bad]:
    """Read a file, compressed or not, to its end.

    Raises:
        TraceError: the file cannot be opened, or is not a trace.
        Damaged: the rest of the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            yield from _Rows(Text(file, max_bytes)).read()
    except OSError as error:
        raise TraceError(
            f"cannot read {path} as a trace: {error.strerror or error}. Give a .json, .json.gz or .json.zst file."
        ) from error
    except _NoTrace as error:
        raise TraceError(f"cannot read {path} as a trace: {error}.") from error


def decode(text: bytes, kind: Any) -> Any:
    """JSON decoded as ``kind``; invalid UTF-8 in a name is replaced."""
    read = _decoder(kind).decode
    try:
        return read(text)
    except UnicodeDecodeError:
        return read(text.decode("utf-8", "replace").encode())


def rows_as(text: bytes, kind: Any) -> list[Any]:
    """The rows of a batch's text as a type: it is an array of them, or an object that has it."""
    found = decode(text, kind if text[:1] == b"[" else _End[kind])
    rows: list[Any] = found if text[:1] == b"[" else found.traceEvents
    return rows


_decoder: Callable[[Any], msgspec.json.Decoder[Any]] = cache(msgspec.json.Decoder)  # dear to make: 10 rows' time
_ROWS = list[Row | NoRow]


def decoded(text: bytes, kind: Any) -> Any:
    """The same, or None if the text cannot be read as ``kind``."""
    try:
        return decode(text, kind)
    except (ValueError, RecursionError):
        return None


class _Rows:
    """The state of reading: what has been read of the file, but not returned yet."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self._buffer = b""  # begins between two rows
        self._bare = False  # an array without an object around it
        self._closed = False  # the array has ended
        self._torn = False  # what comes next may belong to a bad row: until there is an event
        self._lost = False  # the buffer begins inside of a row
        self._why = ""  # the last text could not be read
        self._row = 0
        self._missed = 0  # how many rows of the buffer cannot be read
        self._first_bad = ""

    def read(self) -> Iterator[Batch | Bad]:
        yield from self._begin()
        want = _BATCH
        while not self._closed:
            self._buffer = (self._buffer + self._text.read(want - len(self._buffer))).lstrip(_BLANK)
            before, final = len(self._buffer), self._text.ended
            if self._lost and not final:
                gap = GAP.search(self._buffer)
                self._lost = not gap
                self._buffer = self._buffer[gap.start(1) + 1 if gap else -_GAP :]
            elif final and (end := self._end()):
                yield end
            elif not final and (cut := self._empty()):
                self._buffer = self._buffer[cut + 1 :]
            elif (
                not final
                and before <= _BATCH
                and (cut := _last_gap(self._buffer))
                and (batch := self._batch(self._buffer[:cut]))
            ):
                yield batch
                self._buffer = self._buffer[cut + 1 :]
            else:
                yield from self._mend(mended(self._buffer), final)
                if final and self._bare and not self._buffer.strip(_BLANK + b","):
                    break  # the format allows an array to stay open
                if final and not self._closed and len(self._buffer) == before:
                    raise Damaged(self._text.fault or "it is truncated")
            want = _BATCH if len(self._buffer) < before else min(max(_BATCH, 4 * before), _LONGEST)
        yield from self._tail()
        if self._text.fault:
            raise Damaged(self._text.fault)

    def _begin(self) -> Iterator[Batch | Bad]:
        """Read on to the first row."""
        buffer = self._text.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip(_BLANK)
        while not (opening := self._opening(buffer)):
            if self._text.ended or len(buffer) > _LONGEST:
                raise _NoTrace(self._text.fault or (without_events(buffer) if buffer else "it is empty"))
            buffer = (buffer + self._text.read(max(1 << 16, len(buffer)))).lstrip(_BLANK)
        about, self._buffer = opening
        self._bare = buffer[:1] == b"["
        if about is not None:
            yield Batch([], b"[]", about=about)
        elif not self._bare:
            yield Bad(1, "the text before the first row")

    def _opening(self, buffer: bytes) -> tuple[About | None, bytes] | None:
        """The fields before the rows, and the text after them; None if no rows begin here."""
        if said := foreign(buffer):
            raise _NoTrace(said)
        if buffer[:1] == b"[":
            return None, buffer[1:]
        found = [*islice(_OPENING.finditer(buffer), 16)]
        for opening in found:  # the words may stand in another object
            head = buffer[: opening.end()]
            if about := decoded(head + b"]}", About) or decoded(mended(head).text + b"]}", About):
                return about, buffer[opening.end() :]
        if found and (self._text.ended or len(buffer) > _LONGEST):
            return None, buffer[found[0].end() :]
        return None

    def _batch(self, text: bytes, end: bytes = b"]") -> Batch | None:
        """The rows of a text, if all of it can be read; else None, and the reason is kept."""
        text = b"".join((b"[", text, end))
        try:
            rows = decode(text, _ROWS)
        except (ValueError, RecursionError) as error:
            self._why = str(error)
            return None
        self._row, self._torn = self._row + len(rows), False
        return Batch(rows, text, self._row - len(rows))

    @property
    def _truncated(self) -> bool:
        return "truncated" in self._why

    def _empty(self) -> int:
        """Up to where there are rows, of which none is an event: there may be millions of them."""
        cut = self._buffer.rfind(b",") if b'"ph"' not in self._buffer else 0
        return cut if cut > 0 and decoded(b"[" + self._buffer[:cut] + b"]", list[msgspec.Raw]) else 0

    def _end(self) -> Batch | None:
        """The last rows and everything after them, if all of it can be read."""
        if self._bare:
            text = self._buffer.rstrip(_BLANK)
            end = self._batch(text[:-1]) if text[-1:] == b"]" else None
        else:
            text = b'{"traceEvents":[' + self._buffer
            about = decoded(text, About) if b'"traceEvents"' not in self._buffer else None
            end = about and Batch(about.traceEvents, text, self._row, about)
        if end:
            self._closed, self._buffer = True, b"" if self._bare else b"}"
        return end

    def _mend(self, mend: Mended, final: bool) -> Iterator[Batch | Bad]:
        """All rows that end in the buffer, if none is damaged; else one part of it after the other."""
        text, gaps = mend.text, mend.gaps
        end = int(mend.ends[-1]) if len(mend.ends) else int(gaps[-1]) if len(gaps) else -1
        closes = end >= 0 and text[end : end + 1] == b"]"
        for stop in [] if self._torn else ([len(text)] if final and not closes else []) + ([end] if end >= 0 else []):
            if batch := self._batch(text[:stop].rstrip(_BLANK + b",")):
                yield batch
                self._buffer, self._closed = self._buffer[stop + 1 :], closes
                return
        if final or self._long(mend) or (end >= 0 and not self._truncated):
            self._missed, first = 0, self._row
            found = self._split(mend, final)
            yield Batch([row for each in found for row in each.rows], _joined([each.text for each in found]), first)
            if self._missed:
                yield Bad(self._missed, self._first_bad)

    def _split(self, mend: Mended, final: bool) -> list[Batch]:
        """The parts between gaps, as many at a time as can be read: twice as many next time, or half as many again."""
        found: list[Batch] = []
        text, depth = mend.text, np.append(0, mend.gap_depth)
        cuts = [-1, *mend.gaps.tolist(), *([len(text)] if final else [])]
        i, parts, after = 0, len(cuts) - 1, 0
        size = 64
        if not parts:
            self._miss(text, f"it has more than {_LONGEST:,} bytes, or {_MARKS:,} brackets and commas")
            self._buffer, self._lost = self._buffer[-_GAP:], True
        while i < parts:
            begin, k = cuts[i] + 1, min(i + size, parts)
            if self._torn and b'"ph"' not in text[begin : cuts[i + 1]]:  # it is of the bad row before
                event = text.find(b'"ph"', begin)
                i = bisect_left(cuts, event) - 1 if 0 <= event < cuts[-1] else parts
                continue
            if batch := self._batch(text[begin : cuts[k]]):
                found.append(batch)
                i, size = k, 2 * size
                continue
            if k > i + 1:
                size = (k - i) // 2
                continue
            why, end = self._why, mend.closing.get(i, -1)
            ends = end >= 0 and _ENDING.match(text, end)
            if ends and (batch := self._batch(text[begin:end].rstrip(_BLANK + b","))):
                self._buffer, self._closed = self._buffer[end + 1 :], True
                return [*found, batch]
            if final and i + 1 == parts and end < 0 and not self._batch(text[begin:], b"") and self._truncated:
                break
            if "truncated" in why:  # a row with gaps inside: it ends where as few brackets are open as at its start
                shut = np.flatnonzero(depth[i + 1 :] <= depth[i])
                last = i + 1 + int(shut[0]) if len(shut) else parts
                while k < last and not batch and self._truncated:
                    k = min(2 * k - i, last)
                    batch = self._batch(text[begin : cuts[k]])
                if batch:
                    found.append(batch)
                    i = k
                    continue
                cut_off = self._truncated and not self._long(mend)
                if not len(shut) and (cut_off or i) and text.find(b'"ph"', cuts[i + 1], cuts[parts]) < 0:
                    break  # to be read on, or from here on its own
            found += self._around(text[begin : cuts[i + 1]], why)
            i, size, after = i + 1, 1, begin
        if final and self._torn and i == parts:  # the array may end behind the bad row
            for ending in islice(_ENDING.finditer(text, after), 100):
                if self._bare or decoded(b'{"traceEvents":[]' + text[ending.start() + 1 :], About):
                    self._buffer, self._closed = self._buffer[ending.start() + 1 :], True
                    return found
        self._buffer = self._buffer[cuts[i] + 1 :] if parts else self._buffer
        return found

    def _long(self, mend: Mended) -> bool:
        """Whether the buffer is longer than a row may be."""
        return len(mend.text) >= _LONGEST or mend.marks >= _MARKS

    def _around(self, text: bytes, why: str) -> list[Batch]:
        """Count a bad part, but return rows in it whose separators are damaged."""
        gap, last = _LOOSE.search(text), text.rfind(b"{", 0, max(0, text.rfind(b'"ph"')))
        cut = gap.end() - 1 if gap else last
        before = self._batch(text[: text.rfind(b"}", 0, cut) + 1]) if cut > 1 else None
        self._miss(text[cut:] if before else text, why)
        behind = self._batch(text[last:]) if last >= cut > 1 else None
        return [batch for batch in (before, behind) if batch and batch.rows]

    def _miss(self, text: bytes, why: str) -> None:
        """Count a bad row, unless it is a part of the last bad row."""
        if not self._torn or b'"ph"' in text:
            self._first_bad = self._first_bad or f"row {self._row:,}, {_short(text)}: {_BYTE.sub('', why)}"
            self._missed, self._row = self._missed + 1, self._row + 1
        self._torn = True

    def _about(self, tail: bytes) -> About | None:
        """The fields after the rows; None if the array of rows does not end before this text."""
        if self._bare:
            return None if tail.strip(_BLANK) else About([])
        text = b'{"traceEvents":[]' + tail
        return decoded(text, About) or (len(text) <= _LONGEST and decoded(mended(text).text, About)) or None

    def _tail(self) -> Iterator[Batch]:
        """Read on to the end of the file."""
        while not self._text.ended and len(self._buffer) < _TAIL:
            self._buffer = (self._buffer + self._text.read(max(_BATCH, len(self._buffer)))).rstrip(_BLANK)
        if not self._text.ended:
            raise Damaged(f"more than {_TAIL:,} bytes follow its events")
        about = self._about(self._buffer)
        if about is None or about.traceEvents:
            what = "has trailing text" if self._bare or self._buffer.strip(_BLANK) else "is truncated"
            raise Damaged(self._text.fault or f"it {what} after its events: {_short(self._buffer)}")
        yield Batch([], b"[]", about=about)


def _last_gap(buffer: bytes) -> int:
    """The position of the last comma between two objects; 0 if there is none near the end."""
    gaps = [gap.start(1) for gap in GAP.finditer(buffer, max(0, len(buffer) - _NEAR))]
    return gaps[-1] if gaps else 0


def _joined(arrays: list[bytes]) -> bytes:
    return b"[" + b",".join(array[1:-1] for array in arrays if len(array) > 2) + b"]"


def _short(text: bytes) -> str:
    return repr(text.decode(errors="replace").strip()[:100])
