"""Notebook 07: its quizzes by name, and what each reveals."""

from __future__ import annotations

from kit.labs import conclusions
from kit.labs.conclusions import decided, fastest, row_of, told
from kit.labs.sentences import speed
from kit.measuring.comparison import Comparison
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
    return some if row.ratio.low >= 1 / MUCH else f"not decided: {speed(row)} leaves either open"


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
