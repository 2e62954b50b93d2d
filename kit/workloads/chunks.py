"""Chunks of host memory that go to a GPU, are computed with, and come back: in turn, or each kind on its own stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from kit import spans
from kit.executors.cuda_streams import record_stream, wait_for

Work = Callable[[Any], Any]


def one_stream(chunks: Sequence[Any], upload: Work, compute: Work, download: Work) -> list[Any]:
    """Everything in the order of launches, on the caller's stream."""
    results = []
    for i, chunk in enumerate(chunks):
        with spans.span(f"chunk {i}"):
            results.append(download(compute(upload(chunk))))
    return results


def overlap(chunks: Sequence[Any], upload: Work, compute: Work, download: Work) -> list[Any]:
    """Uploads, computing and downloads on a stream each: a chunk is computed with while the next one is copied."""
    caller = torch.cuda.current_stream()
    up, work, down = streams = [torch.cuda.Stream() for _ in range(3)]  # type: ignore[no-untyped-call]
    for stream in streams:
        stream.wait_stream(caller)
    results = []
    for i, chunk in enumerate(chunks):
        with spans.span(f"chunk {i}"):
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
