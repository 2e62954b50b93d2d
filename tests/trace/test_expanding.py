"""Files that are no trace: what they are, and what to do."""

import gzip
import io
import json
import sys
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import zstandard

from kit.errors import TraceError
from kit.trace import Trace, load_trace, save_trace
from kit.trace.expanding import Text

TRACE = json.dumps({"traceEvents": [{"ph": "X", "name": "aten::mm", "ts": 100, "dur": 10.0}]})


def zipped() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("t.json", TRACE)
    return data.getvalue()


CHAKRA = {"schema": "1.1.1-chakra.0.0.4", "pid": 7, "nodes": [{"id": 1, "name": "[pytorch|profiler|execution_trace]"}]}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (zipped(), "zip archive: unzip it"),
        (gzip.compress(zipped()), "zip archive: unzip it"),
        (gzip.compress(gzip.compress(TRACE.encode())), "compressed twice.*gunzip"),
        (zstandard.compress(zstandard.compress(TRACE.encode())), "compressed twice.*unzstd"),
        (zstandard.compress(zipped()), "zip archive: unzip it"),
        (gzip.compress(b"SQLite format 3\0" + bytes(84)), "compressed SQLite database"),
        (TRACE.encode("utf-16"), "UTF-16.*-Encoding utf8"),
        (TRACE.encode("utf-16-le"), "UTF-16"),
        (TRACE.encode("utf-16-be"), "UTF-16"),
        (b"\x28\xb5\x2f\xfd....", "zstd file is damaged"),
        (b"<!DOCTYPE html><html>", r"HTML.*viztracer -o result\.json"),
        (b"\x80\x04\x95", "pickle.*memory_viz"),
        (b"[[1, 2, 3], [[0, 1], [2, 3]]]", "export_memory_timeline"),
        (json.dumps(CHAKRA).encode(), r"execution trace \(Chakra\).*export_chrome_trace"),
        (b'{"ph":"X","ts":1,"dur":1}\n{"ph":"X","ts":2,"dur":1}\n', "JSON lines"),
        (b'{"ph":"X","ts":1,"dur":1},\n{"ph":"X","ts":2,"dur":1},\n', r"write \[ before"),
        (b'{"events": []}', "no list of traceEvents"),
        (b"", "it is empty"),
        (gzip.compress(b"", mtime=0), "it is empty"),
        (zstandard.compress(b""), "it is empty"),
        (b"  \n ", "it is empty"),
        (b"\x00\x01", "not JSON"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # packed bytes hold the time, and ids must not
)
def test_what_a_file_is_instead(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(data)
    for partial in (False, True):
        with pytest.raises(TraceError, match=f"cannot read .*t.json as a trace: .*{says}"):
            load_trace(path, partial=partial)


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n", b" " * 200_000])
def test_what_may_stand_before_a_trace(tmp_path: Path, before: bytes) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(before + TRACE.encode())
    assert len(load_trace(path)) == 1


def test_frames_of_zstd_follow_each_other(tmp_path: Path) -> None:
    """pzstd writes several, and frames to skip between them."""
    path, frame = tmp_path / "t.json", zstandard.ZstdCompressor().compress
    skip = b"\x50\x2a\x4d\x18\x04\0\0\0skip"
    path.write_bytes(frame(TRACE[:30].encode()) + skip + frame(b"") + frame(TRACE[30:].encode()) + skip)
    assert len(load_trace(path)) == 1
    path.write_bytes(frame(TRACE.encode()) + b"text")
    with pytest.raises(TraceError, match="zstd file is damaged"):
        load_trace(path)


def test_zeros_in_zstd_are_expanded_a_little_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    packer = zstandard.ZstdCompressor().compressobj()
    path.write_bytes(b"".join(packer.compress(b" " * (1 << 22)) for _ in range(64)) + packer.flush())  # 256 MB
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    try:
        with path.open("rb") as file:
            text = Text(file, 1 << 30)
            sizes = [len(block) for block in iter(lambda: text.read(1 << 19), b"")]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(sizes) == 1 << 28
    assert peak < 1 << 27


def test_where_zstandard_is_missing_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.json.zst"
    path.write_bytes(zstandard.compress(TRACE.encode()))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(TraceError, match=r"t\.json\.zst .*install the package zstandard"):
        load_trace(path)
    with pytest.raises(TraceError, match="install the package zstandard"):
        save_trace(Trace.build([]), tmp_path / "new.json.zst")
    assert not (tmp_path / "new.json.zst").exists()
