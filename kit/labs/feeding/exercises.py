"""Notebook 08: the checks of its exercises."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kit.labs.checks import check, first_wrong


@check
def check_worker(worker: Callable[[int, list[int], int], list[int] | None]) -> str | None:
    """``worker(rank, images, workers)``: the share of one of the processes that ``spawn`` starts."""
    images = list(range(10, 20))
    shares = [worker(rank, images, 3) for rank in range(3)]
    for share in shares:
        if share is None:
            return "it gives None: is there a return?"
        if not isinstance(share, list):
            return f"it gives {share!r}, a {type(share).__name__}: give a list, as list(...) makes one."
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
