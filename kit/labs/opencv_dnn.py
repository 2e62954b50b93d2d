"""Notebook 07: its quizzes and their answers, its sentences and tables, its exercises."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from kit.labs import conclusions
from kit.labs.causes import part_ms
from kit.labs.checks import check
from kit.labs.conclusions import Claim, card, decided, fastest, row_of, told, truth
from kit.labs.medians import Median, median, speed
from kit.measuring.comparison import SMALLEST_EFFECT, Comparison
from kit.scheduling import Node, lower_bound
from kit.text import counted, markdown_table, milliseconds
from kit.views.quiz import Quiz
from kit.workloads.forum import Forked
from kit.workloads.opencv_dnn import Misuse

MUCH = 10.0  # times slower: what separates two options of the first quiz
QUIZZES = {
    "pool": (
        "Four images, and a pool of processes that is spawned for them. Against the loop, the pool is ...",
        ["faster", "up to 10 times slower", "more than 10 times slower"],
    ),
    "forked": (
        "The same with a pool that is forked for them, as in the forum. Against the loop, the pool is ...",
        ["faster", "slower", "no difference found"],
    ),
    "control": (
        "Four sleeps of 10 ms in a pool that is spawned for them, against 40 ms in a loop. The pool is ...",
        ["faster", "slower", "no difference found"],
    ),
    "fix": (
        "Which is fastest for a list of images?",
        [
            "a loop, OpenCV on all cores",
            "a loop, OpenCV on one thread",
            "threads with a Net each",
            "warm processes, one OpenCV thread each",
            "warm processes, all OpenCV threads each",
        ],
    ),
    "batch": (
        "All images in one batch of OpenCV, against a loop. The batch is ...",
        ["faster", "slower", "no difference found"],
    ),
    "net": (
        "Two threads share one Net. What comes of it?",
        ["right answers only", "wrong answers or errors", "the process crashes"],
    ),
}


def quiz(name: str) -> Quiz:
    """A quiz of the notebook; its answer is given by ``<name>_answer``."""
    return conclusions.quiz(QUIZZES, name)


# What the quizzes reveal ----------------------------------------------------------------------------------------------


def pool_answer(started: Comparison) -> str:
    """How a pool made for the call compares with the loop; the whole interval has to fit the answer."""
    faster, some, much = QUIZZES["pool"][1]
    name = cold(started)
    row = row_of(started, name)
    said = told(started, name, faster=faster, slower="slower", same="no difference found")
    if said != "slower" or row is None or row.ratio is None:
        return f"not decided: {said}" if said == "no difference found" else said
    if row.ratio.high < 1 / MUCH:
        return much
    return some if row.ratio.low >= 1 / MUCH else f"not decided: {speed(row.ratio)} leaves either open"


def forked_answer(forked: Forked | str) -> str:
    """The verdict on the forum's own pool."""
    return f"not measured: {forked}" if isinstance(forked, str) else decided(forked.images, "pool")


def control_answer(slept: Comparison) -> str:
    """The verdict on a pool made for sleeps."""
    return decided(slept, cold(slept))


def fix_answer(fixes: Comparison) -> str:
    """The approach that is faster than each of the others, or why none is known to be."""
    return dict(zip([row.name for row in fixes.rows], QUIZZES["fix"][1], strict=True)).get(said := fastest(fixes), said)


def batch_answer(batched: Comparison) -> str:
    """The verdict on the batch."""
    return decided(batched, "batch")


def net_answer(shared: Misuse) -> str:
    """What came of two threads that share a Net; that nothing did proves nothing."""
    _right, wrong, crash = QUIZZES["net"][1]
    if shared.harmless:
        return f"not decided: all of {shared.calls} answers were right this time, and the next run may be another"
    return crash if shared.died else wrong


def cold(comparison: Comparison) -> str:
    """The name of the row whose pool is made for each call."""
    return next((row.name for row in comparison.rows if row.name.startswith("pool_cold")), "pool_cold")


# Sentences and tables, in Markdown ------------------------------------------------------------------------------------


def about_pool(started: Comparison) -> str:
    """What the pool made for the call took beside the loop."""
    return f"Loop and pool, for four images: {_pair(started, started.baseline.name, cold(started))}."


def about_forked(forked: Forked | str) -> str:
    """The forum's own pool: images, sleeps, and single inferences."""
    if isinstance(forked, str):
        return forked
    return "\n".join(
        [
            f"- four images: {_pair(forked.images, 'loop', 'pool')}",
            f"- four images in one batch: {_pair(forked.images, 'loop', 'batch')}",
            f"- four sleeps of 10 ms: {_pair(forked.sleeps, 'loop', 'pool')}",
            f"- four times a sleep of {forked.seconds:g} s and an inference: {_pair(forked.long, 'loop', 'pool')}",
            f"- one inference of those, alone in the loop and beside three others: "
            f"{_pair(forked.inference, 'loop', 'pool')}",
            "",
            f"The process that forked had {counted(forked.threads, 'thread')}.",
        ]
    )


def about_control(slept: Comparison) -> str:
    """What starting a pool costs where there is nothing to compute."""
    name = cold(slept)
    said = f"Loop and spawned pool, for four sleeps of 10 ms: {_pair(slept, slept.baseline.name, name)}."
    if decided(slept, name) == "slower":
        said += " Nothing competes for a core here, so this loss is start-up, transfer and ending, and no contention."
    return said


def about_fixes(fixes: Comparison, cores: int) -> str:
    """What the cores allow and what was reached of it, in the same rounds; then what OpenCV's threads did.

    The rows are, in this order: a loop on all cores, a loop at one thread, threads, processes, crowded processes.
    """
    _, alone, threads, shared, crowded = (row.name for row in fixes.rows)
    lines = [_about_bound(fixes, alone, (threads, shared), cores), ""]
    lines.append(
        f"The same workers with one OpenCV thread each, and with {cores} each: {_pair(fixes, shared, crowded)}. The "
        "forum's four workers had 20 each, on 20 cores."
    )
    return "\n".join(lines)


def about_parts(fixes: Comparison) -> str:
    """The parts of an image's work at one thread, in the call that the timeline shows."""
    timing = fixes.rows[1].timing
    parts = part_ms(timing.trace) if timing else {}
    if not parts:
        return "The parts of an image's work are not known."
    said = ", ".join(f"{name} {ms.ms()}" for name, ms in parts.items())
    return f"An image at one thread, in the call that the timeline shows (medians of its images): {said}."


def about_batch(batched: Comparison) -> str:
    """The batch beside the loop, and every other row beside each of the others."""
    best = fastest(batched)
    winner = f"faster than every other row is `{best}`" if best in _names(batched) else best
    return f"The loop and the batch: {_pair(batched, 'sequential', 'batch')}. In this table: {winner}."


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
    start, image = median(row.timing.samples_ns / 1e6), median([sum(each) / len(each) for each in _tasks(alone.timing)])
    pays = [
        math.ceil(a / (b * (1 - 1 / lanes)))
        for a, b in zip(start, (image.estimate, image.high, image.low), strict=True)
    ]
    return (
        f"A pool spawned for the call costs {start.ms()}, and an image {image.ms()} of work. With {lanes} images "
        f"computed at the same time it pays from about **{pays[0]:,} images** on (between {pays[1]:,} and "
        f"{pays[2]:,}, by the intervals)."
    )


def theirs_and_ours(forked: Forked | str, started: Comparison, slept: Comparison) -> str:
    """The forum's numbers beside those of this machine, pair by pair, and whether the order is the same."""
    long = "four times a sleep of 1 s and an inference"
    if not isinstance(forked, str) and forked.seconds != 1:
        long += f" (here {forked.seconds:g} s)"
    pairs = [
        ("four images: loop, pool", 41.9, 84.3, "images", "pool", started),
        ("four images: loop, one batch", 41.9, 90.4, "images", "batch", None),
        ("four sleeps of 10 ms: loop, pool", 40.4, 24.2, "sleeps", "pool", slept),
        (f"{long}: loop, pool", 4048.0, 1072.0, "long", "pool", None),
    ]
    rows = []
    for what, base, own, kind, name, spawned in pairs:
        theirs = f"{base:,.4g} → {own:,.4g} ms, {'slower' if own > base else 'faster'}"
        here = "not measured", "-"
        if not isinstance(forked, str):
            here = _beside(getattr(forked, kind), "loop", name, own > base)
        ours = _beside(spawned, spawned.baseline.name, cold(spawned), own > base) if spawned else ("not run", "-")
        rows.append((what, theirs, *here, *ours))
    head = ("experiment", "theirs", "here, forked", "same order?", "here, spawned", "same order?")
    note = f"\n\n{forked}" if isinstance(forked, str) else ""
    return markdown_table(head, "llllll", rows) + note


def conclusion(
    started: Comparison, forked: Forked | str, slept: Comparison, fixes: Comparison, batched: Comparison, shared: Misuse
) -> str:
    """The notebook's claims, and for each what this machine said."""
    all_cores, _, threads, processes, crowded = (row.name for row in fixes.rows)
    if isinstance(forked, str):
        theirs = [Claim("The forum's forked pool of four is slower than its loop", "not decided", forked)]
    else:
        theirs = [
            _claim("A pool that is forked for four images is slower than a loop", forked.images, "pool", "loop", True),
            _claim("For four sleeps of 10 ms, a forked pool is faster than a loop", forked.sleeps, "pool", "loop"),
            _claim("Four images in one batch are slower than a loop", forked.images, "batch", "loop", True),
        ]
    lead = started.baseline.name
    nothing = "A pool that is spawned for four sleeps is slower than a loop: its start alone costs more than it saves"
    return card(
        [
            *theirs,
            _claim("A pool that is spawned for four images is slower than a loop", started, cold(started), lead, True),
            _claim(nothing, slept, cold(slept), slept.baseline.name, True),
            _claim("Processes that are kept, with one OpenCV thread each, beat a loop", fixes, processes, all_cores),
            _claim("One OpenCV thread in each worker beats all of them in each", fixes, processes, crowded),
            _claim("Threads with a Net each beat a loop: Python's lock does not stop them", fixes, threads, all_cores),
            _claim("A batch of eight images is faster than a loop", batched, "batch", batched.baseline.name),
            Claim(
                "Two threads must not share a Net",
                "not decided" if shared.harmless else "true",
                about_net(shared),
            ),
        ]
    )


def _claim(text: str, comparison: Comparison, name: str, baseline: str, slower: bool = False) -> Claim:
    """The claim that an approach is faster (or slower) than another, and what this machine said."""
    want, other = ("slower", "faster") if slower else ("faster", "slower")
    said = told(comparison, name, baseline, faster="faster", slower="slower", same=other)
    row = row_of(comparison, name, baseline)
    verdict = decided(comparison, name, baseline)
    return Claim(text, truth(said, want), f"{speed(row.ratio)}: {verdict}" if row and row.ratio else verdict)


def _beside(comparison: Comparison, base: str, name: str, theirs_slower: bool) -> tuple[str, str]:
    """Medians and speed of a pair, and whether the verdict is that of the forum."""
    said = decided(comparison, name, base)
    same = {"slower": theirs_slower, "faster": not theirs_slower}.get(said)
    return _pair(comparison, base, name), said if same is None else ["no", "yes"][same]


def _pair(comparison: Comparison, base: str, name: str) -> str:
    """``26.1 ms → 88 ms, 3.40x slower [3.10, 3.90]: slower``; why not where one of them was not measured."""
    one, other = row_of(comparison, base), row_of(comparison, name, base)
    verdict = decided(comparison, name, base)
    if one is None or other is None or other.ratio is None or one.timing is None or other.timing is None:
        return verdict
    times = f"{milliseconds(one.timing.median_ms)} → {milliseconds(other.timing.median_ms)}"
    return f"{times}, **{speed(other.ratio)}**: {verdict}"


def _names(comparison: Comparison) -> list[str]:
    return [row.name for row in comparison.rows]


# What the cores allow -------------------------------------------------------------------------------------------------


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
    image = median([sum(each) / len(each) for each in rounds])
    said = f"An image is **{image.ms()}** of work at one thread, so {counted(cores, 'core')} can do at most "
    said += f"**{median(most).number()} images/s**."
    for name in names:
        other = row_of(fixes, name)
        if other is None or other.timing is None:
            said += f" `{name}`: {decided(fixes, name)}."
        elif other.doubt:
            said += f" `{name}`: not decided: {other.doubt}."
        else:
            share = median(1e9 * fixes.items / other.timing.samples_ns / most)
            said += f" `{name}` reaches {_reached(share)}."
    return f"{said} (Bound and rate are of the same rounds: medians, with their intervals.)"


def _reached(share: Median) -> str:
    if share.low <= 1 + SMALLEST_EFFECT:
        return f"**{share.percent()}** of that"
    return f"{share.percent()} of that, **which cannot be**: a measurement was disturbed. Measure again"


# Exercises ------------------------------------------------------------------------------------------------------------


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
