"""Chunks of host memory that go to the GPU, are computed with, and come back: in turn, or each kind on its own stream.

The memory is pinned or pageable; everything else is the same, ``non_blocking=True`` included, so that a difference
between two of these traces has one cause.
"""

from __future__ import annotations

from functools import partial
from itertools import cycle

import torch
from torch import Tensor

from kit.approaches import FunctionRunner
from kit.workloads.chunks import one_stream, overlap

KINDS = ("pageable-one_stream", "pageable-overlap", "pinned-one_stream", "pinned-overlap")
CHUNKS = 6
SIDE, TINY = 2048, 64  # of a chunk, a square float32 matrix; 2048: 16 MB, a third of a millisecond over PCIe 5
PRODUCTS = 2  # of matrices for each chunk, which take about as long as its copies


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
