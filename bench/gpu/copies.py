"""Chunks of host memory that go to the GPU, are computed with, and come back: in turn, or each kind on its own stream.

The memory is pinned or pageable; everything else is the same, ``non_blocking=True`` included, so that a difference
between two of these traces has one cause.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from typing import Any

import torch
from torch import Tensor

import kit
from kit.approaches import FunctionRunner
from kit.executors.cuda_streams import record_stream, wait_for

KINDS = ("pageable-one_stream", "pageable-overlap", "pinned-one_stream", "pinned-overlap")
CHUNKS = 6
SIDE, TINY = 2048, 64  # of a chunk, a square float32 matrix; 2048: 16 MB, a third of a millisecond over PCIe 5
PRODUCTS = 2  # of matrices for each chunk, which take about as long as its copies

Work = Callable[[Any], Any]


def one_stream(chunks: Sequence[Any], upload: Work, compute: Work, download: Work) -> list[Any]:
    """Everything in the order of launches, on the caller's stream."""
    results = []
    for i, chunk in enumerate(chunks):
        with kit.span(f"chunk {i}"):
            results.append(download(compute(upload(chunk))))
    return results


def overlap(chunks: Sequence[Any], upload: Work, compute: Work, download: Work) -> list[Any]:
    """Uploads, computing and downloads on a stream each: a chunk is computed with while the next one is copied."""
    caller = torch.cuda.current_stream()
    up, work, down = streams = [torch.cuda.Stream() for _ in range(3)]
    for stream in streams:
        stream.wait_stream(caller)
    results = []
    for i, chunk in enumerate(chunks):
        with kit.span(f"chunk {i}"):
            with torch.cuda.stream(up):
                x = upload(chunk)
            work.wait_stream(up)
            record_stream(x, work)
            with torch.cuda.stream(work):
                y = compute(x)
            down.wait_stream(work)
            record_stream(y, down)
            with torch.cuda.stream(down):
                results.append(download(y))
    wait_for(caller, streams)
    return results


def runner(kind: str, device: str) -> FunctionRunner:
    """One of ``KINDS``, to be recorded. On the CPU, where nothing overlaps, the first one stands for all of them."""
    memory, way = kind.split("-")
    on_gpu = device == "cuda"
    side, pinned = SIDE if on_gpu else TINY, memory == "pinned" and on_gpu
    weight = torch.eye(side, device=device)
    chunks = [torch.randn(side, side).pin_memory() if pinned else torch.randn(side, side) for _ in range(CHUNKS)]
    places = cycle([torch.empty(side, side, pin_memory=pinned) for _ in range(CHUNKS)])

    def upload(chunk: Tensor) -> Tensor:
        return chunk.to(device, non_blocking=True)

    def compute(x: Tensor) -> Tensor:
        for _ in range(PRODUCTS):
            x = x @ weight
        return x

    def download(y: Tensor) -> Tensor:
        return next(places).copy_(y, non_blocking=True)

    order = overlap if way == "overlap" and on_gpu else one_stream
    # The weight as its input: a recording waits for the GPU of its inputs.
    return FunctionRunner(partial(order, chunks, upload, compute, download), inputs=(weight,))
