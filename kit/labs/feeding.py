"""What notebook 08 computes, and its exercises."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from kit.approaches import Workload
from kit.executors.thread_counts import intra_op_threads
from kit.labs.checks import check, first_wrong
from kit.pipeline import RunStatistics
from kit.text import markdown_table
from kit.workloads import live
from kit.workloads.feeding import Pictures, published, spawning


def published_spawn(files: Sequence[Path]) -> str:
    """Run the published snippet, in which ``fn(image, rank)`` is spawned; the last line of what comes of it."""
    try:
        with spawning(published, (Pictures(files),), 1):  # one: others would be ended with a warning
            return "It ran without an error."
    except Exception as error:
        return str(error).strip().splitlines()[-1]


def crossing(sizes: Sequence[float], one: Sequence[float], other: Sequence[float]) -> float | None:
    """The size from which on ``other`` is the lower line to the end; None where it is not. Straight in logarithms."""
    gaps = [math.log(a / b) for a, b in zip(one, other, strict=True)]  # above 0 where other is lower
    if gaps[-1] <= 0:
        return None
    for (low, before), (high, after) in reversed(list(pairwise(zip(sizes, gaps, strict=True)))):
        if before <= 0 < after:
            return math.exp(math.log(low) + math.log(high / low) * -before / (after - before))
    return sizes[0]


def figures(video: Workload, approach: str) -> RunStatistics:
    """What the stages of a pipeline workload took, in a second call, at the approach's own number of threads."""
    runner = video.prepare(approach)
    assert isinstance(runner, live.FromFile)
    with runner, intra_op_threads(runner.intra_op_threads):
        runner()
        runner()
    assert runner.statistics is not None
    return runner.statistics


def stages_table(figures: RunStatistics, cores: int) -> str:
    """What each stage took and which one limits the pipeline, in Markdown."""
    rows = []
    for stage in figures.stages:
        mark = " (the slowest)" if stage is figures.bottleneck else ""
        rows.append((stage.name + mark, f"{stage.ms:.2f}", f"{1000 / max(stage.ms, 1e-6):,.0f}/s"))
    return markdown_table(("stage", "ms a frame", "alone it could do"), "lrr", rows) + f"\n\n{why(figures, cores)}"


def why(figures: RunStatistics, cores: int) -> str:
    """The most that these stages, timed one after the other at one thread, allow as a pipeline; and what limits it."""
    slowest, total = figures.bottleneck, sum(stage.ms for stage in figures.stages)
    if total / cores > slowest.ms:
        reason = f"the {cores} cores limit it: {total:.2f} ms of work a frame, and no stage takes more than its share"
    else:
        reason = f"the stage **{slowest.name}** limits it, with {slowest.ms:.2f} ms a frame: split it or make it faster"
    return f"At most **{figures.bound(cores):,.0f} frames/s**: {reason}."


def latency_table(runs: Mapping[str, RunStatistics]) -> str:
    """From read to delivered, in Markdown: how long one frame takes. Frames a second are in another table."""
    rows = []
    for name, figures in runs.items():
        cells = (f"{figures.latency_ms(percent):.1f} ms" for percent in (50, 95, 99))
        rows.append((name, *cells, f"{figures.dropped} of {figures.read}"))
    return markdown_table(
        ("approach", "half of the frames within", "95% within", "99% within", "dropped"), "lrrrr", rows
    )


@check
def check_worker(worker: Callable[[int, list[int], int], list[int] | None]) -> str | None:
    """``worker(rank, images, workers)``: the share of one of the processes that ``spawn`` starts."""
    images = list(range(10, 20))
    shares = [worker(rank, images, 3) for rank in range(3)]
    if not all(isinstance(share, list) for share in shares):
        return f"it gives {shares[0]!r} and not a list: is there a return?"
    together = [image for share in shares for image in share or []]
    if len(together) < len(images):
        return f"three workers do {len(together)} of {len(images)} images: the last ones are left out."
    if sorted(together) != images:
        return f"three workers do {len(together)} images for {len(images)}: some are done twice, or not at all."
    if max(map(len, filter(None, shares))) > 4:
        return "ten images for three workers: no share should have more than four."
    return None


@check
def check_throughput(bound: Callable[[Sequence[float], int], float | None]) -> str | None:
    """``bound(stages_ms, cores)``: the most frames a second of a pipeline with these stages."""
    cases = [
        (([5.0, 10.0], 4), 100, "with cores enough the slowest stage sets the pace: 10 ms a frame are 100 frames/s."),
        (([10.0, 10.0, 10.0], 1), 100 / 3, "one core does 30 ms of work for each frame: 33.3 frames/s."),
        (
            ([4.0, 4.0, 4.0, 4.0], 2),
            125,
            "16 ms of work on two cores are 8 ms a frame, though no stage takes that long.",
        ),
    ]
    return first_wrong(bound, cases)
