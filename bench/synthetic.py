"""A trace file of any size, like torch.profiler's: for measuring readers and viewers, the kit's own and others."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from kit.errors import TraceError

_PID, _THREADS, _STREAMS = 4242, 4, 3
_OPERATORS = ("aten::conv2d", "aten::convolution", "aten::_convolution", "aten::mkldnn_conv")
_KERNELS = ("ampere_sgemm_128x64_nn", "void cudnn::winograd_nonfused<float>", "void at::native::relu_kernel<float>")
_BASE = 1_735_632_360_000_000_000
_FIRST = 4_203_669_603_187_439
_BATCH = 20_000


def synthesise(events: int, path: str | Path) -> None:
    """Write a trace of that many complete events: nested operators on four threads, kernels on three GPU streams.

    About 176 bytes an event; the same each time. Gzipped where the name ends in ``.gz``.

    Raises:
        TraceError: fewer than one event, or the file cannot be written.
    """
    if events < 1:
        raise TraceError(f"a trace of {events} events cannot be written: ask for one or more.")
    path = Path(path)
    try:
        with gzip.open(path, "wb", 1) if path.suffix == ".gz" else path.open("wb") as file:
            file.write(
                b'{"schemaVersion": 1, "displayTimeUnit": "ms", "deviceProperties": [{"id": 0, "name": "GPU"}],\n'
            )
            file.write(b'"baseTimeNanoseconds": %d, "traceEvents": [\n' % _BASE)
            rows, before = chain(_metadata(), _rows(events)), ""
            while batch := list(islice(rows, _BATCH)):
                file.write((before + ",\n".join(batch)).encode())
                before = ",\n"
            file.write(b"\n]}\n")
    except OSError as error:
        raise TraceError(f"cannot write {path}: {error.strerror or error}.") from error


def _rows(events: int) -> Iterator[str]:
    """Calls of four operators inside each other, the innermost launching a kernel; then the recording as a whole."""
    for i in range(events - 1):
        call, level = divmod(i, 6)
        thread, stream = call % _THREADS, 7 + call % _STREAMS
        start = (call // _THREADS) * 40_000 + thread * 777
        if level < 4:
            name, begin, length = _OPERATORS[level], start + level * 1_501, 36_123 - level * 4_003
            args = f'"External id": {i + 1}'
            yield _event("cpu_op", name, _PID, _PID + thread, begin, length, args)
        elif level == 4:
            args = f'"External id": {i}, "cbid": 211, "correlation": {call + 1}'
            yield _event("cuda_runtime", "cudaLaunchKernel", _PID, _PID + thread, start + 7_000, 5_250, args)
        else:
            args = f'"External id": {i - 1}, "device": 0, "stream": {stream}, "correlation": {call + 1}'
            begin = (call // _STREAMS) * 30_000 + 20_000 + (stream - 7) * 3_001
            yield _event("kernel", _KERNELS[call % 3], 0, stream, begin, 21_417, args)
    length = events * 2_000 + 90_000  # of the recording itself, as Kineto writes it
    yield _event("Trace", "PyTorch Profiler (0)", "Spans", "PyTorch Profiler", 0, length, '"Op count": 0')


def _event(category: str, name: str, pid: int | str, tid: int | str, start: int, length: int, args: str) -> str:
    pid, tid = (f'"{value}"' if isinstance(value, str) else value for value in (pid, tid))
    place = f'"pid": {pid}, "tid": {tid}, "ts": {_us(start + _FIRST)}, "dur": {_us(length)}'
    return f'{{"ph": "X", "cat": "{category}", "name": "{name}", {place}, "args": {{{args}}}}}'


def _us(ns: int) -> str:
    return f"{ns // 1000}.{ns % 1000:03d}"


def _metadata() -> Iterator[str]:
    places = [
        (_PID, _PID, "process_name", '"name": "python3"'),
        (_PID, _PID, "process_sort_index", '"sort_index": 4242'),
    ]
    places += [(0, 0, "process_labels", '"labels": "GPU 0"'), (0, 0, "process_sort_index", '"sort_index": 5000000')]
    places += [(_PID, _PID + i, "thread_name", f'"name": "thread {_PID + i} (python3)"') for i in range(_THREADS)]
    places += [(0, 7 + i, "thread_name", f'"name": "stream {7 + i} "') for i in range(_STREAMS)]
    for pid, tid, name, args in places:
        yield f'{{"name": "{name}", "ph": "M", "ts": 0.000, "pid": {pid}, "tid": {tid}, "args": {{{args}}}}}'
