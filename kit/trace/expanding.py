"""The bytes of a trace file: decompressed, with a size limit, and messages for files of other kinds."""

from __future__ import annotations

import gzip
import re
import zlib
from typing import IO, cast

MAX_EXPANDED = 2 << 30  # bytes that a gzip may expand to unless the caller says more: eleven million usual events

_UTF16 = "it is UTF-16, as PowerShell's > writes: save it as UTF-8 (Get-Content FILE | Set-Content -Encoding utf8 NEW)"
_BEGINNINGS = {
    b"PK": "it is a zip archive: unzip it, and give the .json file in it",
    b"\x1f\x8b": "it is gzipped twice: gunzip it once",
    b"\x28\xb5\x2f\xfd": "it is compressed with zstd: expand it first, with unzstd",
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
    """The decompressed bytes of a file, and the reason if they end too early."""

    def __init__(self, file: IO[bytes], max_bytes: int) -> None:
        self.zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        self._file = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if self.zipped else file
        self._left = max_bytes if self.zipped else None
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
