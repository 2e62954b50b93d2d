"""Notebook 08: the checks of its exercises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from kit.labs.checks import check, first_wrong


@check
def check_worker(worker: Callable[[int, list[int], int], list[int] | None]) -> str | None:
    """``worker(rank, images, workers)``: the share of one of the processes that ``spawn`` starts."""
    images = list(range(10, 20))
    try:
        shares = [worker(rank, images, 3) for rank in range(3)]
    except TypeError:
        if _takes_images_first(worker, images):
            return "spawn passes the rank first: the images are the second argument, and the workers the third."
        raise
    for share in shares:
        if share is None:
            return "it gives None: is there a return?"
        if not isinstance(share, list):
            return f"it gives {share!r}, of type {type(share).__name__}: give a list, as list(...) makes one."
    done = Counter(image for share in shares for image in share or [])
    if unknown := [image for image in done if image not in images]:
        return f"a worker returns {unknown[0]!r}, which is none of the images: return items of images, not positions."
    left_out = [i for i, image in enumerate(images) if not done[image]]
    twice = [i for i, image in enumerate(images) if done[image] > 1]
    found = [f"{_named(left_out)} left out"] * bool(left_out) + [f"{_named(twice)} done twice or more"] * bool(twice)
    if found:
        return f"ten images, three workers: {', and '.join(found)}. The first rank is 0."
    if max(map(len, filter(None, shares))) > 4:
        return "ten images for three workers: no share should have more than four."
    return None


def _takes_images_first(worker: Callable[..., object], images: list[int]) -> bool:
    """Whether the worker runs with its first two arguments swapped, as the guide's has them."""
    with suppress(Exception):
        worker(images, 0, 3)
        return True
    return False


def _named(positions: Sequence[int]) -> str:
    """``images[0] is``, or ``images[0], images[9] are``."""
    return f"{', '.join(f'images[{i}]' for i in positions)} {'is' if len(positions) == 1 else 'are'}"


@check
def check_throughput(bound: Callable[[Sequence[float], int], float | None]) -> str | None:
    """``bound(stages_ms, cores)``: the most frames a second of a pipeline with these stages."""
    cases = [
        (
            ([5.0, 10.0], 4),
            100,
            "with enough cores the slowest stage sets the pace. A second has 1000 ms: 10 ms a frame are 100 frames/s.",
        ),
        (([10.0, 10.0, 10.0], 1), 100 / 3, "one core does 30 ms of work for each frame: 33.3 frames/s."),
        (
            ([4.0, 4.0, 4.0, 4.0], 2),
            125,
            "16 ms of work on two cores are 8 ms a frame, though no stage takes that long.",
        ),
    ]
    return first_wrong(bound, cases)
