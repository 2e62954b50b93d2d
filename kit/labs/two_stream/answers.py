"""What notebook 01 asks, and what its quizzes reveal."""

from __future__ import annotations

from kit.labs import conclusions
from kit.labs.conclusions import SAME, decided, streams_ran
from kit.labs.measured import branch_rounds
from kit.measuring.comparison import Comparison
from kit.views.quiz import Quiz
from kit.workloads.medians import Median
from kit.workloads.training import Evaluation

ONE_THREAD = "sequential(threads=1)"
DATA_PARALLEL = "replicated"
QUIZZES = {
    "knows": (
        "The spatial stream was trained to name a texture and a motion from one frame. Of nine motions it names "
        "correctly ...",
        ["about one in nine, as guessing does", "about half", "nearly all"],
    ),
    "cost": (
        "Both streams have the same layers; the temporal stream takes 20 input channels, the spatial stream 3. Which "
        "one takes longer?",
        ["the spatial stream", "the temporal stream", "about the same (within 10%)"],
    ),
    "side": (
        "Two streams on two threads, against one after the other with each operator on all cores. The threads are ...",
        ["faster", "slower", "no difference found"],
    ),
    "parallel": (
        "In nn.DataParallel, on this machine, the two streams run ...",
        ["at the same time", "one after the other"],
    ),
    "toy": (
        "The toy's streams on two threads, against one after the other. The threads are ...",
        ["faster", "slower", "no difference found"],
    ),
}


def quiz(name: str) -> Quiz:
    """A quiz of the notebook; its answer is given by ``<name>_answer``."""
    return conclusions.quiz(QUIZZES, name)


# What the quizzes reveal ----------------------------------------------------------------------------------------------


def knows_answer(result: Evaluation) -> str:
    """How many motions the spatial stream names, if the interval of that share lies within one option."""
    guesses, half, nearly_all = QUIZZES["knows"][1]
    share = result.share("spatial", "motion")
    low, high = share.interval
    for option, (least, most) in {guesses: (0.0, 0.3), half: (0.3, 0.7), nearly_all: (0.7, 1.0)}.items():
        if least <= low and high <= most:
            return option
    return f"not decided: so few clips leave more than one answer open, {share}"


def cost_answer(comparison: Comparison) -> str:
    """Which stream takes longer at one intra-op thread, of a comparison with ``sequential(threads=1)``."""
    spatial, temporal, same = QUIZZES["cost"][1]
    if said := doubt(comparison, ONE_THREAD):
        return said
    ratio = temporal_by_spatial(comparison)
    if ratio is None:
        return "not known: the streams' times were not recorded"
    if ratio.low > SAME:
        return temporal
    if ratio.high < 1 / SAME:
        return spatial
    within = ratio.low >= 1 / SAME and ratio.high <= SAME
    return same if within else f"not decided: the temporal stream takes {ratio.times} as long, which leaves two answers"


def side_answer(comparison: Comparison) -> str:
    """The verdict on threads, or why there is none."""
    return decided(comparison, "threads")


def parallel_answer(comparison: Comparison) -> str:
    """Whether the streams overlapped in nn.DataParallel, which is no matter of how busy the machine is."""
    return streams_ran(comparison, DATA_PARALLEL, QUIZZES["parallel"][1])


def toy_answer(comparison: Comparison) -> str:
    """The verdict on threads, or why there is none."""
    return decided(comparison, "threads")


def doubt(comparison: Comparison, name: str) -> str:
    """Why the rounds of an approach decide nothing; empty where they do.

    A table of one row has no doubts: nothing beside it tells whether the machine was busy.
    """
    said = decided(comparison, name)
    if said == "baseline":
        return f"not decided: nothing was measured beside {name}, so whether the machine was busy is not known"
    return said if said.startswith("not ") else ""


def temporal_by_spatial(comparison: Comparison) -> Median | None:
    """How many times as long as the spatial stream the temporal one takes at one thread; None: not known."""
    alone = comparison.branches_alone.get(1)
    rounds = branch_rounds(alone) if alone else {}
    if not {"spatial", "temporal"} <= rounds.keys():
        return None
    return Median.of(t / s for t, s in zip(rounds["temporal"], rounds["spatial"], strict=True))
