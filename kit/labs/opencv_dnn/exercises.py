"""Notebook 07: the checks of its exercises."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

from kit.labs.checks import check
from kit.text import counted


@check
def check_threads_per_worker(threads: Callable[[int, int], int | None]) -> str | None:
    """``threads(cores, workers)``: OpenCV's threads for each worker, so that all together fill the cores."""
    for cores, workers in product((20, 7, 2), (4, 2)):
        found = threads(cores, workers)
        if found is None:
            return "it gives None: is there a return?"
        if isinstance(found, float):
            return f"{cores} cores and {workers} workers: it gives {found}. Whole threads only: divide with //."
        if not isinstance(found, int):
            return f"it gives {found!r}, which is no number of threads."
    if threads(20, 4) != 5:
        return "20 cores shared by 4 workers are 5 threads each; the forum's workers had 20 each."
    if threads(2, 4) != 1:
        return "more workers than cores: every worker still needs one thread."
    if threads(7, 2) != 3:
        return "7 cores and 2 workers: 3 each; a fourth would have to share a core."
    return None


@check
def check_pool_pays(images: Callable[[float, float, int, int], float | None]) -> str | None:
    """``images(start, each, workers, cores)``: from how many images on a cold pool is no slower than a loop."""
    never = "one worker, or one core, saves nothing: no number of images is enough. Answer math.inf before you divide."
    cases = [
        ((1000.0, 10.0, 2, 2), 200, "two workers on two cores save 5 ms an image, so 1000 ms are saved by 200 images."),
        ((1000.0, 10.0, 8, 2), 200, "eight workers on two cores compute no faster than two."),
        ((1000.0, 10.0, 4, 4), 134, "four workers on four cores save 7.5 ms an image: 133.3 images, so 134."),
        ((1000.0, 10.0, 1, 4), math.inf, never),
        ((1000.0, 10.0, 4, 1), math.inf, never),
    ]
    for given, want, hint in cases:
        try:
            found = images(*given)
        except (ZeroDivisionError, OverflowError):
            return never
        if found is None:
            return "it gives None: is there a return?"
        if not isinstance(found, int | float):
            return f"it gives {found!r}, a {type(found).__name__}, and not a number of images."
        if found != want:
            start, each, workers, cores = given
            where = f"a start of {start:g} ms, {each:g} ms an image, {counted(workers, 'worker')}"
            return f"{where}, {counted(cores, 'core')}: {hint}"
    return None
