"""The quizzes of notebook 11, and what each reveals: an answer, or a text that says why there is none."""

from __future__ import annotations

from kit.approaches.workload import FOUND
from kit.explaining import explanation
from kit.explaining.explanation import LOSSES, Explanation
from kit.graphs.operators import WORTH_IT, Graph
from kit.labs import conclusions
from kit.labs.choose.models import NoGraph
from kit.labs.conclusions import decided, told
from kit.measuring.comparison import Comparison
from kit.views.quiz import Quiz

QUIZZES = {
    "gain": (
        "Could this model become faster if its independent parts ran at the same time, each on one thread?",
        ["yes, there is something to gain", "hardly: little to gain", "no: nothing to gain"],
    ),
    "threads": (
        "Your model's branches on threads, against the model as given with each operator on all cores. Threads are ...",
        ["faster", "slower", "no difference found"],
    ),
    "costs": (
        "Which factor costs the threads most?",
        ["thread efficiency", "contention efficiency", "load balance", "scheduling efficiency"],
    ),
    "requests": (
        "Many requests: which approach serves more of them in a second?",
        ["one request at a time on all cores", "a request on each core", "no difference found"],
    ),
    "cores": (
        "A call predicted for a core for each of your branches, against one predicted for this machine's cores, is ...",
        ["at least 1.5 times as fast", "faster, but by less than 1.5 times", "no faster"],
    ),
    "trust": (
        "Would you act on the table of section 2?",
        ["yes: every row has a verdict", "only on some of its rows", "no: measure again, on a quieter machine"],
    ),
}


def quiz(name: str) -> Quiz:
    """A quiz of the notebook; its answer is given by ``<name>_answer``."""
    return conclusions.quiz(QUIZZES, name)


def gain_answer(graph: Graph | NoGraph) -> str:
    """Whether the graph has something to gain, on this machine's cores."""
    if isinstance(graph, NoGraph):
        return f"not known: {graph.reason}"
    yes, hardly, no = QUIZZES["gain"][1]
    if graph.parallelism < WORTH_IT:
        return no
    return yes if graph.pays >= WORTH_IT else hardly


def threads_answer(comparison: Comparison) -> str:
    """The verdict on threads, or why there is none."""
    return decided(comparison, "threads")


def costs_answer(comparison: Comparison, why: Explanation) -> str:
    """The factor that costs most, or why none can be named."""
    costs = _costs(why)
    if not costs:
        return "not known: there are no factors"
    if said := doubt(comparison):
        return f"not decided: {said}"
    name, near = explanation.costliest(costs, why.intervals)
    if round(by := costs[name], 2) >= 1:
        return "none of them: no factor is below 1"
    low, high = why.intervals[name]
    if near:
        return f"not decided: {name} is {by:.2f} [{low:.2f}, {high:.2f}], and another factor may be as small"
    return name if name in QUIZZES["costs"][1] else f"not one of these: {name}, {by:.2f} [{low:.2f}, {high:.2f}]"


def requests_answer(served: Comparison) -> str:
    """What serves more, of the comparison of :func:`requests`."""
    one, each, same = QUIZZES["requests"][1]
    return told(served, "threads", faster=each, slower=one, same=same)


def cores_answer(why: Explanation, cores: int) -> str:
    """What a core for each branch would change, against the call that is predicted for this machine's cores.

    Args:
        cores: of this machine.
    """
    much, little, nothing = QUIZZES["cores"][1]
    if said := nothing_to_predict(why):
        return said
    here, there = with_a_core_each(why, cores)
    return much if here / there >= 1.5 else little if here / there > 1.02 else nothing


def trust_answer(comparison: Comparison) -> str:
    """Whether to act on a comparison."""
    every, some, none = QUIZZES["trust"][1]
    if doubt(comparison):
        return none
    rows = [row for row in comparison.rows if not row.baseline and row.name != FOUND]
    return some if not rows or any(row.verdict in ("no difference found", "not available") for row in rows) else every


def doubt(comparison: Comparison) -> str:
    """Why a comparison decides nothing, as far as it shows; nothing where it may be believed."""
    return next((row.doubt for row in comparison.rows if row.doubt), "")


def costliest(why: Explanation) -> tuple[str, float]:
    """The factor that costs most, with its value; no name where there are no factors."""
    return min(_costs(why).items(), key=lambda each: each[1], default=("", 1.0))


def _costs(why: Explanation) -> dict[str, float]:
    """The factors that can cost speed, with their values; none where there are no factors."""
    return {name: by for name, by in why.steps() if name in LOSSES}


def with_a_core_each(why: Explanation, cores: int) -> tuple[float, float]:
    """Predicted milliseconds of a call: with the lanes that this machine has cores for, and with one a branch."""
    return why.what_if(min(widest(why), cores)).ms, why.what_if(widest(why)).ms


def nothing_to_predict(why: Explanation) -> str:
    """Why another arrangement cannot be predicted from these rounds; nothing where it can."""
    if why.branch_times is None:
        return "not known: there are no branches to predict from"
    if why.excess is not None or why.verdict == "not decided":
        return f"not decided: the rounds of {why.approach} decide nothing, so nothing is predicted from them"
    return ""


def widest(why: Explanation) -> int:
    """How many branches the region with the most has; 1 where there is none."""
    return max(map(len, why.branch_times.regions_ms), default=1) if why.branch_times else 1
