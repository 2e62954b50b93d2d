"""What notebook 07 computes, and its exercises."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from kit.labs.checks import check
from kit.scheduling import Node, lower_bound
from kit.text import markdown_table
from kit.trace import Trace, busy_ns, wall_ns
from kit.trace.columns import concatenate

# What a moment counts for: the first of these that happens then, in any lane. Names of spans, or a category.
CAUSES: dict[str, tuple[str, ...]] = {
    "compute": ("preprocess", "forward", "sleep"),
    "model load": ("load", "load network"),
    "imports": ("imports", "import OpenCV"),
    "spawn": ("start", "spawn"),
    "queue": ("send", "receive"),
    "ending": ("end", "join"),
}
MEANING = {
    "compute": "some process preprocesses or infers",
    "model load": "none of the above; some process unpickles or reads the network",
    "imports": "none of the above; some process imports PyTorch or OpenCV",
    "spawn": "none of the above; some process starts its interpreter",
    "queue": "none of the above; an image or a result travels",
    "ending": "none of the above; the caller waits for the processes to end",
    "not named": "nothing that has a name",
}


def causes_ms(trace: Trace) -> dict[str, float]:
    """Milliseconds of a recorded call by cause; with ``not named`` they add up to its wall time."""
    found, counted, so_far = {}, 0, []
    for cause, names in CAUSES.items():
        so_far.append(trace.select(names=names))
        covered = busy_ns(concatenate(so_far))
        found[cause], counted = (covered - counted) / 1e6, covered
    return {**found, "not named": (wall_ns(trace) - counted) / 1e6}


def named_share(trace: Trace) -> float:
    """The share of a call's wall time that has a named cause, 0 to 1."""
    return 1 - causes_ms(trace)["not named"] * 1e6 / max(1, wall_ns(trace))


def causes_table(trace: Trace) -> str:
    """Where the wall time of a recorded call went, in Markdown."""
    whole = wall_ns(trace) / 1e6
    found = causes_ms(trace).items()
    rows = [(cause, f"{ms:,.1f} ms", f"{ms / whole:.1%}", MEANING[cause]) for cause, ms in found]
    return markdown_table(("cause", "time", "share", "what happens at that moment"), "lrrl", rows)


def part_ms(trace: Trace) -> dict[str, float]:
    """Median milliseconds of the parts of an image's work: preprocess, forward."""
    parts = trace.select(categories=["part"])
    return {
        parts.names[name]: float(np.median(parts.duration_ns[parts.name == name])) / 1e6
        for name in np.unique(parts.name)
    }


def bound_per_second(task_ms: Sequence[float], cores: int) -> float:
    """The most items a second on so many cores, of tasks that take these milliseconds at one thread."""
    return 1000 * len(task_ms) / lower_bound([Node(cost=ms) for ms in task_ms], cores)


@check
def check_threads_per_worker(threads: Callable[[int, int], int | None]) -> str | None:
    """``threads(cores, workers)``: OpenCV's threads for each worker, so that all together fill the cores."""
    if not isinstance(threads(20, 4), int):
        return f"it gives {threads(20, 4)!r} and not a whole number: is there a return?"
    if threads(20, 4) != 5:
        return "20 cores shared by 4 workers are 5 threads each; the forum's pool used 20 each."
    if threads(2, 4) != 1:
        return "more workers than cores: every worker still needs one thread."
    if threads(7, 2) != 3:
        return "7 cores and 2 workers: 3 each; a fourth would have to share a core."
    return None


@check
def check_pool_pays(images: Callable[[float, float, int, int], float | None]) -> str | None:
    """``images(start, each, workers, cores)``: from how many images on a cold pool is no slower than a loop."""
    if not isinstance(images(1000.0, 10.0, 2, 2), int | float):
        return f"it gives {images(1000.0, 10.0, 2, 2)!r} and not a number: is there a return?"
    if images(1000.0, 10.0, 2, 2) != 200:
        return "a start of 1000 ms, 10 ms an image: two workers on two cores save 5 ms an image, so 200 images."
    if images(1000.0, 10.0, 8, 2) != 200:
        return "eight workers on two cores compute no faster than two."
    if images(1000.0, 10.0, 4, 4) != 134:
        return "four workers on four cores save 7.5 ms an image: 133.3 images, so 134."
    if images(1000.0, 10.0, 1, 4) != math.inf or images(1000.0, 10.0, 4, 1) != math.inf:
        return "one worker, or one core, saves nothing: no number of images is enough, so math.inf."
    return None
