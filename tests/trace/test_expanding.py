"""Files that are no trace: what they are, and what to do."""

import gzip
import io
import json
import zipfile
from pathlib import Path

import pytest

from kit.errors import TraceError
from kit.trace import load_trace

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
        (gzip.compress(gzip.compress(TRACE.encode())), "gzipped twice"),
        (TRACE.encode("utf-16"), "UTF-16.*-Encoding utf8"),
        (TRACE.encode("utf-16-le"), "UTF-16"),
        (TRACE.encode("utf-16-be"), "UTF-16"),
        (b"\x28\xb5\x2f\xfd....", "zstd"),
        (b"<!DOCTYPE html><html>", r"HTML.*viztracer -o result\.json"),
        (b"\x80\x04\x95", "pickle.*memory_viz"),
        (b"[[1, 2, 3], [[0, 1], [2, 3]]]", "export_memory_timeline"),
        (json.dumps(CHAKRA).encode(), r"execution trace \(Chakra\).*export_chrome_trace"),
        (b'{"ph":"X","ts":1,"dur":1}\n{"ph":"X","ts":2,"dur":1}\n', "JSON lines"),
        (b'{"ph":"X","ts":1,"dur":1},\n{"ph":"X","ts":2,"dur":1},\n', r"write \[ before"),
        (b'{"events": []}', "no list of traceEvents"),
        (b"", "it is empty"),
        (gzip.compress(b"", mtime=0), "it is empty"),
        (b"  \n ", "it is empty"),
        (b"\x00\x01", "not JSON"),
    ],
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
