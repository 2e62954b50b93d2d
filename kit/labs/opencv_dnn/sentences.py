"""Notebook 07: its sentences and tables, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from kit.labs.causes import part_ms
from kit.labs.conclusions import decided, fastest, row_of
from kit.labs.opencv_dnn.answers import cold
from kit.labs.sentences import speed
from kit.measuring.comparison import SMALLEST_EFFECT, Comparison
from kit.scheduling import Node, lower_bound
from kit.text import counted, milliseconds
from kit.workloads.forum import Forked
from kit.workloads.medians import Median
from kit.workloads.opencv_dnn import Misuse


def about_pool(started: Comparison) -> str:
    """What the pool made for the call took beside the loop."""
    return f"Loop and pool, for four images: {pair(started, started.baseline.name, cold(started))}."


def about_forked(forked: Forked | str) -> str:
    """The forum's own pool: images, sleeps, and single inferences."""
    if isinstance(forked, str):
        return forked
    return "\n".join(
        [
            f"- four images: {pair(forked.images, 'loop', 'pool')}",
            f"- four images in one batch: {pair(forked.images, 'loop', 'batch')}",
            f"- four sleeps of 10 ms: {pair(forked.sleeps, 'loop', 'pool')}",
            f"- four times a sleep of {forked.seconds:g} s and an inference: {pair(forked.long, 'loop', 'pool')}",
            f"- one inference of those, alone in the loop and beside three others: "
            f"{pair(forked.inference, 'loop', 'pool')}",
            "",
            f"The process that forked had {counted(forked.threads, 'thread')}.",
        ]
    )


def about_control(slept: Comparison) -> str:
    """What starting a pool costs where there is nothing to compute."""
    name = cold(slept)
    said = f"Loop and spawned pool, for four sleeps of 10 ms: {pair(slept, slept.baseline.name, name)}."
    if decided(slept, name) == "slower":
        said += " Nothing competes for a core here, so this loss is start-up, transfer and ending, and no contention."
    return said


def about_fixes(fixes: Comparison, cores: int) -> str:
    """The parts of an image's work; what the cores allow, and what was reached of it; then what OpenCV's threads did.

    The rows are, in this order: a loop on all cores, a loop at one thread, threads, processes, crowded processes.
    """
    _, alone, threads, shared, crowded = (row.name for row in fixes.rows)
    lines = [_about_parts(fixes), "", _about_bound(fixes, alone, (threads, shared), cores), ""]
    lines.append(
        f"The same workers with one OpenCV thread each, and with {cores} each: {pair(fixes, shared, crowded)}. The "
        "forum's four workers had 20 each, on 20 cores."
    )
    return "\n".join(lines)


def _about_parts(fixes: Comparison) -> str:
    """The parts of an image's work at one thread, in the call that the timeline shows."""
    timing = fixes.rows[1].timing
    parts = part_ms(timing.trace) if timing else {}
    if not parts:
        return "The parts of an image's work are not known."
    said = ", ".join(f"{name} {ms.ms}" for name, ms in parts.items())
    return f"An image at one thread, in the call that the timeline shows (medians of its images): {said}."


def about_refusal(network: nn.Module, images: Sequence[Tensor]) -> str:
    """What OpenCV says of a call, as a block of text: its own error, or that it accepts the images."""
    import cv2

    try:
        network(*images)
    except cv2.error as error:
        return f"```\n{error}\n```"
    return "This OpenCV accepts them."


def about_batch(batched: Comparison) -> str:
    """The batch beside the loop, and every other row beside each of the others."""
    best = fastest(batched)
    winner = f"faster than every other row is `{best}`" if best in _names(batched) else f"no row is the fastest: {best}"
    return f"The loop and the batch: {pair(batched, 'sequential', 'batch')}. In this table, {winner}."


def about_net(shared: Misuse) -> str:
    """What came of two threads that share a Net."""
    if shared.died:
        return f"The process did not survive it: {shared.died}"
    said = f"Of {shared.calls} answers {shared.wrong} were wrong, and {counted(shared.raised, 'call')} raised an error."
    return said + " That proves nothing: the next run may be another." * shared.harmless


def about_grid(rates: Comparison, cores: int) -> str:
    """Which cell of the grid is faster than every other, or why none is known to be."""
    best, here = fastest(rates), f"On this machine, which has {counted(cores, 'core')}"
    if best in _names(rates):
        return f"{here}, `{best}` is faster than every other cell."
    return f"{here}, no cell is known to be faster than every other: {best}."


def break_even(started: Comparison, fixes: Comparison, workers: int, cores: int) -> str:
    """From how many images on the spawned pool would have paid, with the range that the rounds leave."""
    row, alone = row_of(started, cold(started)), row_of(fixes, fixes.rows[1].name)
    if row is None or row.timing is None or alone is None or alone.timing is None:
        return "The pool was not measured, so there is no break-even to tell."
    lanes = min(workers, cores)
    if lanes < 2:
        return "With one core a pool saves nothing, so no number of images is enough."
    if row.doubt or alone.doubt:
        return f"Nothing is decided about break-even: {row.doubt or alone.doubt}."
    start, image = (
        Median.of(row.timing.samples_ns / 1e6),
        Median.of([sum(each) / len(each) for each in _tasks(alone.timing)]),
    )
    pays = [
        math.ceil(a / (b * (1 - 1 / lanes)))
        for a, b in zip(start, (image.estimate, image.high, image.low), strict=True)
    ]
    return (
        f"A pool spawned for the call costs {start.ms}, and an image {image.ms} of work. With {lanes} images "
        f"computed at the same time it pays from about **{pays[0]:,} images** on (between {pays[1]:,} and "
        f"{pays[2]:,}, by the intervals)."
    )


def _names(comparison: Comparison) -> list[str]:
    return [row.name for row in comparison.rows]


def pair(comparison: Comparison, base: str, name: str) -> str:
    """``26.1 ms → 88 ms, 3.40x slower [3.10, 3.90]: slower``; why not where one of them was not measured.

    The times are those of the rounds that the speed-up is of: a pool made for the call has rounds of its own.
    """
    one, other = row_of(comparison, base), row_of(comparison, name, base)
    verdict = decided(comparison, name, base)
    if one is None or other is None or other.ratio is None or one.timing is None or other.timing is None:
        return verdict
    beside = other.paired_baseline or one.timing
    times = f"{milliseconds(beside.median_ms)} → {milliseconds(other.timing.median_ms)}"
    return f"{times}, {speed(other)}: **{verdict}**"


def _tasks(timing: object) -> list[list[float]]:
    """Milliseconds of each item in each round."""
    return [[ns / 1e6 for ns in turn.tasks.values()] for turn in getattr(timing, "turns", ()) if turn is not None]


def bound_per_second(task_ms: Sequence[float], cores: int) -> float:
    """The most items a second on so many cores, of tasks that take these milliseconds at one thread."""
    return 1000 * len(task_ms) / lower_bound([Node(cost=ms) for ms in task_ms], cores)


def _about_bound(fixes: Comparison, alone: str, names: Sequence[str], cores: int) -> str:
    """The most that the cores allow, and what approaches reached of it: medians over the same rounds."""
    row = row_of(fixes, alone)
    rounds = _tasks(row.timing) if row else []
    if not rounds:
        return "The work of an image alone is not known, so there is no bound to tell."
    most = np.array([bound_per_second(each, cores) for each in rounds])
    image = Median.of([sum(each) / len(each) for each in rounds])
    if row is not None and row.doubt:
        return f"Nothing is decided about what the cores allow: {row.doubt}. An image at one thread took {image.ms}."
    said = f"An image is **{image.ms}** of work at one thread, so {counted(cores, 'core')} can do at most "
    said += f"**{Median.of(most).number} images/s** with this network in OpenCV."
    for name in names:
        other = row_of(fixes, name)
        if other is None or other.timing is None:
            said += f" `{name}`: {decided(fixes, name)}."
        elif other.doubt:
            said += f" `{name}`: not decided: {other.doubt}."
        else:
            share = Median.of(1e9 * fixes.items / other.timing.samples_ns / most)
            said += f" `{name}` reaches {_reached(share)}."
    return f"{said} (All of them are medians of the same rounds, with their intervals.)"


def _reached(share: Median) -> str:
    if share.low <= 1 + SMALLEST_EFFECT:
        return f"**{share.percent}** of that"
    return f"{share.percent} of that, **which cannot be**: a measurement was disturbed. Measure again"
