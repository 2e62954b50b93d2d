"""The arguments of events: the rows of a file as compressed JSON, of which few are ever read again.

Kineto's arguments take half of a file, as Python objects several times of it. Compressed, they take a tenth, and
compressing runs beside the reading: in a thread of its own, since it releases the GIL.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from kit.errors import TraceError
from kit.reprs import one_line
from kit.trace.expanding import ZSTD
from kit.trace.mending import mended
from kit.trace.reading import NoRow, decoded, rows_as

_PENDING = 4  # batches that may wait for being compressed
_BRACKETS = 200  # in what has more, nesting may be too deep for a parser
_BATCH = 4_000  # rows of a batch that is made from Python objects


class _Row(msgspec.Struct):
    args: msgspec.Raw = msgspec.Raw()


@one_line
class Arguments(NamedTuple):
    """Rows with arguments, in compressed batches; a row is known by its number."""

    packed: tuple[bytes, ...]  # each one JSON text: an array of rows, or an object with it as ``traceEvents``
    first: tuple[int, ...]  # the number of the first row of each batch, ascending
    rows: int  # one more than the highest number

    def read(self, rows: NDArray[np.integer[Any]]) -> list[dict[str, Any]]:
        """The arguments of each of these rows (-1: no row) as plain Python objects; batch by batch.

        Arguments that are no object are under the name ``args``, as text if they are no JSON. What JSON cannot hold is
        repaired as names are: NaN is "", invalid characters are U+FFFD.

        Raises:
            TraceError: the store is damaged, or its compression is not installed.
        """
        found: list[dict[str, Any]] = [{} for _ in range(len(rows))]
        batch = np.searchsorted(np.array(self.first, np.int64), rows, side="right") - 1
        order = np.argsort(batch, kind="stable")
        order = order[batch[order] >= 0]
        for here in np.split(order, np.flatnonzero(np.diff(batch[order])) + 1) if len(order) else ():
            at = int(batch[here[0]])
            texts = _unpacked(self.packed[at])
            for place, row in zip(here.tolist(), (rows[here] - self.first[at]).tolist(), strict=True):
                if row < len(texts) and isinstance(texts[row], _Row):
                    found[place] = _plain(bytes(texts[row].args))
        return found


def one_store(parts: Sequence[Arguments | None]) -> tuple[Arguments | None, list[int]]:
    """All the batches of several stores as one, and by how much the numbers of each one's rows grow."""
    found = [part for part in parts if part is not None]
    counts = [0 if part is None else part.rows for part in parts]
    before = [sum(counts[:i]) for i in range(len(parts))]
    if not found:
        return None, before
    first = [at + more for part, more in zip(parts, before, strict=True) if part for at in part.first]
    return Arguments(tuple(text for part in found for text in part.packed), tuple(first), sum(counts)), before


def made_of(args: Sequence[Mapping[str, Any] | None]) -> tuple[Arguments | None, NDArray[np.int32]]:
    """A store of Python objects, and the row of each; -1 for nothing. What is no JSON is kept as its text."""
    rows = np.array([i if each else -1 for i, each in enumerate(args)], np.int32)
    if not np.any(rows >= 0):
        return None, rows
    with Keeper() as keeper:
        for begin in range(0, len(args), _BATCH):
            part = [{"args": each} if each else {} for each in args[begin : begin + _BATCH]]
            keeper.keep(msgspec.json.encode(part, enc_hook=str), len(part))
        return keeper.kept(), rows


class Keeper:
    """Compresses batches as they come, in a thread of its own."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[Future[bytes]] = deque()
        self._packed: list[bytes] = []
        self._first: list[int] = []
        self._rows = 0
        self._pack: Callable[[bytes], bytes] = _packing()

    def keep(self, text: bytes, rows: int) -> int:
        """The number of the first row of a text; -1 if none of its rows has arguments, and nothing is kept."""
        if b'"args"' not in text:
            return -1
        first, self._rows = self._rows, self._rows + rows
        self._first.append(first)
        self._waiting.append(self._pool.submit(self._pack, text))
        while len(self._waiting) > _PENDING:
            self._packed.append(self._waiting.popleft().result())
        return first

    def kept(self) -> Arguments | None:
        """What was kept until now."""
        self._packed += [each.result() for each in self._waiting]
        self._waiting.clear()
        return Arguments(tuple(self._packed), tuple(self._first), self._rows) if self._packed else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)


def _packing() -> Callable[[bytes], bytes]:
    """Zstandard, or zlib where it is not installed, at their fastest levels."""
    try:
        import zstandard
    except ImportError:
        return lambda text: zlib.compress(text, 1)
    return zstandard.ZstdCompressor(level=1).compress


def _unpacked(packed: bytes) -> list[Any]:
    """The rows of a batch."""
    try:
        if not packed.startswith(ZSTD):
            return rows_as(zlib.decompress(packed), list[_Row | NoRow])
        import zstandard

        return rows_as(zstandard.ZstdDecompressor().decompress(packed), list[_Row | NoRow])
    except ImportError as error:
        raise TraceError(
            "the arguments of these events were compressed by zstandard: install it with pip install zstandard."
        ) from error
    except Exception as error:  # zstandard's own error has no name where it is not installed
        raise TraceError(f"the arguments of these events cannot be read: {error}.") from error


def _plain(raw: bytes) -> dict[str, Any]:
    """One row's arguments, whatever they are."""
    value = decoded(raw, Any) if raw.count(b"[") + raw.count(b"{") <= _BRACKETS else None
    if value is None:
        repaired = mended(raw).text
        value = decoded(repaired, Any)
        if value is None and repaired.strip() not in (b"", b"null"):
            value = raw.decode("utf-8", "replace")
    return value if isinstance(value, dict) else {} if value is None else {"args": value}
