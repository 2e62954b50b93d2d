"""What notebook 04 shows of a GPU: the block on the one that is here, else recordings of another machine's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch

from kit.approaches import available
from kit.data_files import data_file
from kit.labs.conclusions import Claim, decided, row_of
from kit.labs.sentences import overlap_share
from kit.labs.speed import rounds
from kit.measuring.comparison import Comparison
from kit.models import inception_block
from kit.reprs import one_line
from kit.trace import Trace, load_trace
from kit.verbs import compare, record

SHOWN = ("sequential", "cuda_streams", "graphed_streams")


@one_line
class OnGpu(NamedTuple):
    """Timelines of an Inception block on a GPU."""

    traces: Mapping[str, Trace]  # approach -> one warm call, with its kernels
    reason: str | None  # why they are recordings of another machine; None: they are of this one
    streams: Comparison | None  # of this machine: ``graphed_streams`` beside ``graphed`` and others


def on_gpu() -> OnGpu:
    """The block on this machine's GPU, or where there is none the recordings that come with the kit."""
    if reason := available()["cuda_streams"]:
        return OnGpu(
            {name: load_trace(data_file(f"traces/h200-inception-block-{name}.json.gz")) for name in SHOWN}, reason, None
        )
    block, x = inception_block().cuda(), torch.rand(1, 192, 35, 35).cuda()
    traces = {name: record(block, x, name) for name in SHOWN}
    return OnGpu(traces, None, compare(block, x, [*SHOWN, "graphed"], rounds=rounds(30, rows=3)))


def gpu_told(gpu: OnGpu) -> str:
    """Whose GPU the timelines are of, and for how long kernels overlapped, in Markdown."""
    shares = ", ".join(f"`{name}` {overlap_share(each, 'kernel'):.0%}" for name, each in gpu.traces.items())
    overlap = f"Two kernels ran at the same time for this share of the kernels' time: {shares}."
    if gpu.reason is not None:
        return (
            f"**No GPU here:** {gpu.reason.rstrip('.')}. The timeline below is a **recording of another machine**, "
            f"as its badge says: one call of an Inception block for each approach. {overlap} That says nothing about "
            "this machine."
        )
    if gpu.streams is None:
        return f"On this machine's GPU. {overlap}"
    said, row = decided(gpu.streams, "graphed_streams", "graphed"), row_of(gpu.streams, "graphed_streams", "graphed")
    ratio = f" ({row.ratio_text})" if row else ""
    return f"On this machine's GPU. {overlap} A captured graph with streams, against one without: **{said}**{ratio}."


def gpu_claim(gpu: OnGpu) -> Claim:
    """Whether kernels of plain PyTorch overlapped on this machine's GPU."""
    text = "On a GPU, plain PyTorch runs independent branches at the same time"
    if gpu.reason:
        return Claim(text, "not decided", f"no GPU here: {gpu.reason.rstrip('.')}")
    share = overlap_share(gpu.traces["sequential"], "kernel")
    return Claim(
        text, "true" if share else "false", f"two kernels of one call ran at once for {share:.0%} of their time"
    )
