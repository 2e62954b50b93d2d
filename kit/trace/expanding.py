"""The bytes of a trace file: decompressed, with a size limit, and messages for files of other kinds."""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path
from typing import IO, Any, cast

from kit.errors import TraceError

MAX_EXPANDED = 2 << 30  # bytes that a file may expand to unless the caller says more: eleven million usual events
_GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"  # what such a file begins with
_PACKED = 1 << 10  # bytes of zstd to expand at once: four of them become 128 KB at most, so all of them 32 MB

_UTF16 = "it is UTF-16, as PowerShell's > writes: save it as UTF-8 (Get-Content FILE | Set-Content -Encoding utf8 NEW)"
_BEGINNINGS = {
    b"PK": "it is a zip archive: unzip it, and give the .json file in it",
    _GZIP: "it is compressed twice: expand it once, with gunzip",
    ZSTD: "it is compressed twice: expand it once, with unzstd",
    b"SQLite format 3\0": "it is a compressed SQLite database: expand it first",
    b"BZh": "it is compressed with bzip2: expand it first, with bunzip2",
    b"\xfd7zXZ": "it is compressed with xz: expand it first, with unxz",
    **dict.fromkeys((b"\xff\xfe", b"\xfe\xff", b"{\0", b"[\0", b"\0{", b"\0["), _UTF16),
    b"<": "it is an HTML page. VizTracer writes JSON if its output file is named .json: viztracer -o result.json",
    b"\x80": "it is a pickle, such as a snapshot of torch.cuda.memory: https://pytorch.org/memory_viz shows these",
}
_LISTS = re.compile(rb"\[\s*\[")
_LINE = re.compile(rb'\{[^{}]*"ph"')


def foreign(beginning: bytes) -> str:
    """What kind of file begins with these bytes; empty if it can be a trace."""
    for sign, said in _BEGINNINGS.items():
        if beginning.startswith(sign):
            return said
    if _LISTS.match(beginning) and b'"ph"' not in beginning:
        return (
            "it is a list of lists, as torch's export_memory_timeline writes: sizes over time, without events. "
            "Its .html form shows them; export_chrome_trace writes a trace"
        )
    return "" if beginning[:1] in (b"{", b"[", b"") else f"it is not JSON: it begins with {beginning[:20]!r}"


def without_events(beginning: bytes) -> str:
    """What kind of file an object without ``traceEvents`` is."""
    if b'"nodes"' in beginning and b'"schema"' in beginning:
        return (
            "it is an execution trace (Chakra): a graph of operators, without lanes and times. "
            "torch.profiler's export_chrome_trace writes a trace"
        )
    if _LINE.match(beginning):
        return "it begins with an event, as JSON lines do: write [ before the first event, and a comma after each"
    return "it has no list of traceEvents"


class Text:
    """The decompressed bytes of a file, and the reason if they end too early.

    Raises:
        TraceError: the file is compressed with zstd, and the package ``zstandard`` is missing.
    """

    def __init__(self, file: IO[bytes], max_bytes: int) -> None:
        sign = file.read(4)
        file.seek(0)
        self._kind = "gzip" if sign[:2] == _GZIP else "zstd" if sign == ZSTD else ""
        self._file: Any = file
        if self._kind:
            self._file = gzip.GzipFile(fileobj=file) if self._kind == "gzip" else _Zstd(file)
        self._left = max_bytes if self._kind else None
        self._max = max_bytes
        self.ended = False
        self.fault = ""

    def read(self, size: int) -> bytes:
        """``size`` bytes; fewer at the end of the file, or where it cannot be read: then ``fault`` is set."""
        parts, missing = [], size
        while missing > 0 and not self.ended:
            block = self._block(missing)
            parts.append(block)
            missing -= len(block)
        return b"".join(parts)

    def _block(self, size: int) -> bytes:
        block = b""
        try:
            block = self._file.read1(size) if self._kind else self._file.read(size)
        except EOFError:
            self.fault = f"the {self._kind} file is truncated"
        except (zlib.error, gzip.BadGzipFile, ZstdDamaged) as error:
            self.fault = f"the {self._kind} file is damaged ({error})"
        if self._left is not None:
            self._left -= len(block)
            if self._left < 0:
                block = block[: self._left]
                self.fault = f"it expands past {self._max:,} bytes, the limit (max_bytes)"
        self.ended = not block or bool(self.fault)
        return block


class ZstdDamaged(Exception):
    """What follows is no zstd."""


class _Zstd:
    """The decompressed bytes of a zstd file: of all its frames, one after the other, as unzstd gives them."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._codec = file, zstandard(file.name)
        self._frame: Any = None  # the decompressor of a frame that has not ended
        self._packed = b""
        self._ready = memoryview(b"")

    def read1(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the end.

        Raises:
            EOFError: the file ends inside of a frame.
            ZstdDamaged: what follows is no zstd.
        """
        while not self._ready:
            packed = self._packed or self._file.read(_PACKED)
            if not packed and self._frame is not None:
                raise EOFError
            if not packed:
                return b""
            frame = self._frame or self._codec.ZstdDecompressor().decompressobj()
            try:
                self._ready = memoryview(frame.decompress(packed))
            except self._codec.ZstdError as error:
                raise ZstdDamaged(str(error)) from error
            self._frame, self._packed = (None, frame.unused_data) if frame.eof else (frame, b"")
        block, self._ready = self._ready[:size], self._ready[size:]
        return bytes(block)


def zstandard(path: str | Path) -> Any:
    """The package ``zstandard``, for the file with this name.

    Raises:
        TraceError: the package is missing.
    """
    try:
        import zstandard as package
    except ImportError as error:
        raise TraceError(
            f"{path} is compressed with zstd: install the package zstandard, or compress it with gzip."
        ) from error
    return package


def packed(path: Path) -> IO[bytes]:
    """A new file to write bytes to, compressed as its name says: ``.gz``, ``.zst``, or neither.

    Raises:
        OSError: the file cannot be written.
        TraceError: the package ``zstandard`` is missing.
    """
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "wb", 6))
    if path.suffix == ".zst":
        return cast(IO[bytes], zstandard(path).open(path, "wb"))
    return path.open("wb")
