"""Notebook 11: its quizzes and their answers, its sentences and tables, its exercises.

Every sentence is computed from what was measured, and says so where nothing was: a model may have no branches.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from kit.approaches.workload import FOUND, Workload
from kit.explaining.explanation import Explanation, explain_all
from kit.graphs.operators import WORTH_IT, Graph
from kit.inputs import opened
from kit.labs import conclusions
from kit.labs.checks import check, first_wrong
from kit.labs.conclusions import Claim, card, claim_faster, decided, in_a_cell, told, truth
from kit.machine import hardware
from kit.measuring.comparison import Comparison, Row
from kit.measuring.factors import REWRITING
from kit.models import inception_block, toy_two_stream, two_stream
from kit.regions import Branches
from kit.scheduling import POLICIES, Node
from kit.scheduling import makespan as makespan_of
from kit.text import counted, markdown_table, milliseconds
from kit.views.quiz import Quiz
from kit.views.why import waterfall as factors_chart

NO_COST = ("lanes", "1 / baseline efficiency")  # steps of an explanation from which nothing is lost
QUIZZES = {
    "gain": (
        "Would this model be faster if its independent parts ran at the same time?",
        ["yes, there is something to gain", "hardly: little to gain", "no: nothing to gain"],
    ),
    "threads": (
        "Your model's branches on threads, against the model as given with each operator on all cores. Threads are ...",
        ["faster", "slower", "no difference found"],
    ),
    "costs": (
        "What costs the threads most?",
        ["thread efficiency", "contention efficiency", "load balance", "scheduling efficiency"],
    ),
    "requests": (
        "Many requests: which serves more of them in a second?",
        ["one request at a time on all cores", "a request on each core", "no difference found"],
    ),
    "cores": (
        "On a machine with a core for each of your branches, the call would be predicted ...",
        ["at least 1.5 times as fast as here", "a little faster", "no faster"],
    ),
    "trust": (
        "Would you act on the table of section 2?",
        ["yes: every row has a verdict", "only on some of its rows", "no: measure again, on a quieter machine"],
    ),
}


def quiz(name: str) -> Quiz:
    """A quiz of the notebook; its answer is given by ``<name>_answer``."""
    return conclusions.quiz(QUIZZES, name)


# What the quizzes reveal ----------------------------------------------------------------------------------------------


def gain_answer(graph: Graph) -> str:
    """Whether the graph has something to gain, on this machine's cores."""
    yes, hardly, no = QUIZZES["gain"][1]
    if graph.parallelism < WORTH_IT:
        return no
    return yes if graph.pays >= WORTH_IT else hardly


def threads_answer(comparison: Comparison) -> str:
    """The verdict on threads, or why there is none."""
    return decided(comparison, "threads")


def costs_answer(comparison: Comparison, why: Explanation) -> str:
    """The factor that costs most, or why none can be named."""
    name, by = costliest(why)
    if not name:
        return "not known: there are no factors"
    if said := doubt(comparison):
        return f"not decided: {said}"
    return name if round(by, 2) < 1 else "none of them: no factor is below 1"


def requests_answer(served: Comparison) -> str:
    """What serves more, of the comparison of :func:`requests`."""
    one, each, same = QUIZZES["requests"][1]
    return told(served, "threads", faster=each, slower=one, same=same)


def cores_answer(why: Explanation, cores: int) -> str:
    """What a core for each branch would change.

    Args:
        cores: of this machine.
    """
    much, little, nothing = QUIZZES["cores"][1]
    if why.branch_times is None:
        return "not known: there are no branches to predict from"
    here, there = _with_a_core_each(why, cores)
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
    costs = {name: by for name, by in why.steps() if name not in NO_COST}
    return min(costs.items(), key=lambda each: each[1], default=("", 1.0))


def _with_a_core_each(why: Explanation, cores: int) -> tuple[float, float]:
    """Predicted milliseconds of a call: with the lanes that this machine has cores for, and with one a branch."""
    return why.what_if(min(widest(why), cores)).ms, why.what_if(widest(why)).ms


def widest(why: Explanation) -> int:
    """How many branches the region with the most has; 1 where there is none."""
    return max(map(len, why.branch_times.regions_ms), default=1) if why.branch_times else 1


# Sentences and tables, in Markdown ------------------------------------------------------------------------------------


def open_questions(comparison: Comparison) -> str:
    """A sentence for each row without a verdict: what may be there all the same, or why it was not measured."""
    lines = [f"- **{row.name}**: {said}" for row in comparison.rows if (said := _open(row))]
    return "\n".join(lines) or "Every row of this table has a verdict."


def _open(row: Row) -> str:
    if row.timing is None:
        return f"was not measured: {in_a_cell(row.reason)}"
    if row.verdict == "not decided":
        return f"nothing is decided: {row.doubt}."
    if row.verdict != "no difference found":
        return ""
    if (size := row.minimum_detectable_effect) is None:
        return "too few rounds to say which difference they would have found."
    told = f"of {size:.1%}" if size < 1 else f"by a factor of {1 + size:.1f}"
    return f"a difference {told} would have been found nine times in ten; a smaller one may be there."


def waterfall(why: Explanation) -> Any:
    """The chart of the factors; where there are none, a sentence that says why."""
    if why.factors is not None:
        return factors_chart(why)
    from IPython.display import Markdown

    show: Any = Markdown  # has no types
    return show(_no_factors(why))


def about_factors(comparison: Comparison, why: Explanation) -> str:
    """What the factors multiply to, over which row, and which costs most; then the advice, and where it is seen."""
    lines = [f"- {each.text}{_seen(each)}" for each in why.advice]
    if why.factors is None or why.ratio is None:
        return "\n".join([_no_factors(why), "", *lines])
    lead, product, (name, by) = comparison.baseline.name, why.table()[-1][2], costliest(why)
    said = f"The steps multiply to **{product}** over `{lead}`: the geometric mean of the rounds. "
    said += f"The table's {why.ratio.estimate:.2f}x is their median. "
    if REWRITING in why.factors:
        said += f"The last step, {REWRITING}, is `{lead}` by `{FOUND}`: no gain of it is due to concurrency. "
    said += f"The smallest factor is **{name}**, x {by:.2f}."
    if disturbed := doubt(comparison):
        said += f" **None of this is decided: {disturbed}. Measure again.**"
    return "\n".join([said, "", *lines])


def _seen(advice: Any) -> str:
    """Where on the timeline an advice can be seen; nothing where its event has no length."""
    if not advice.duration_ns:
        return ""
    at, long = milliseconds(advice.start_ns / 1e6), milliseconds(advice.duration_ns / 1e6)
    return f" *(See `{advice.event}` on the lanes of {advice.approach}: {long} long, {at} from the start.)*"


def _no_factors(why: Explanation) -> str:
    return f"**{why.approach}** has no branches to show: {in_a_cell(' '.join(why.notes) or why.verdict)}"


def snippet(why: Explanation) -> str:
    """The advised approach in plain PyTorch."""
    if why.factors is None or why.snippet is None:
        return "Nothing is advised here that would need new code."
    return f"```python\n{why.snippet}```"


def shortest_pair(why: Explanation) -> tuple[str, ...]:
    """The names of the two shortest branches of the widest region; none where there is no region."""
    regions = why.branch_times.regions_ms if why.branch_times else []
    region = max(regions, key=len, default={})
    return tuple(sorted(region, key=region.__getitem__)[:2])


def what_if_table(why: Explanation, lanes: Sequence[int], merged: Collection[str] = ()) -> str:
    """Predicted calls on other numbers of lanes, and on two with branches merged; and how far off predictions were.

    Args:
        merged: names of branches that become one, in every region that has them.
    """
    if why.branch_times is None:
        return f"There is nothing to predict. {_no_factors(why)}"
    found = {counted(each, "lane"): why.what_if(each) for each in lanes}
    if merged:
        found[f"2 lanes, {' merged with '.join(merged)}"] = why.what_if(2, merged=[merged])
    rows = [(name, milliseconds(each.ms), f"{each.speed_up:.2f}x") for name, each in found.items()]
    off = [f"{error:+.0%} ({name})" for name, error in (why.prediction_errors or {}).items()]
    table = markdown_table(("arrangement", "predicted call", "predicted speed-up"), "lrr", rows)
    return (
        f"{table}\n\nThe speed-up is over `{why.baseline}`. Predicted for what was measured, the call was off by "
        f"{', '.join(off)}."
    )


def about_cores(why: Explanation, cores: int) -> str:
    """The prediction behind :func:`cores_answer`."""
    if why.branch_times is None:
        return f"There is nothing to predict. {_no_factors(why)}"
    here, there = map(milliseconds, _with_a_core_each(why, cores))
    return (
        f"Predicted: {here} a call with a lane for each of this machine's cores, {there} with a lane for each of the "
        f"branches. The widest region has {widest(why)}, and this machine has {counted(cores, 'core')}."
    )


def decision_table(measured: Mapping[str, Comparison]) -> str:
    """What was found for each workload, as a Markdown table: the best approach, its verdict, what costs it most."""
    head = ("workload", "best of the others", "speed-up", "verdict", "what costs it most", "at best")
    return markdown_table(head, "llrllr", [(name, *_decision(each)) for name, each in measured.items()])


def _decision(comparison: Comparison) -> tuple[str, ...]:
    rows = [row for row in comparison.rows if row.ratio and not row.baseline and row.name != FOUND]
    if not rows:
        return "none", "-", "nothing to compare", "-", "-"
    row = max(rows, key=lambda row: row.ratio.estimate if row.verdict != "wrong output" and row.ratio else 0.0)
    why = next(each for each in explain_all(comparison) if each.approach == row.name)
    factor, by = costliest(why)
    least = f"{factor} x {by:.2f}" if round(by, 2) < 1 else "nothing" if factor else "not known"
    if why.excess is not None:
        least = f"not decided: {why.excess.factor:.2f} times what is possible"
    best = milliseconds(why.bounds.least_ms) if why.bounds else "not known"
    return row.name, str(row.ratio), decided(comparison, row.name), least, best


def conclusion(graph: Graph, comparison: Comparison, served: Comparison) -> str:
    """The notebook's claims, and for each what this machine said: true, false, or not decided."""
    yes, one, each = QUIZZES["gain"][1][0], *QUIZZES["requests"][1][:2]
    return card(
        [
            Claim(
                "Running parts of this model at the same time can make it faster",
                truth(gain_answer(graph), yes),
                graph.answer,
            ),
            claim_faster("On threads its branches are faster", comparison, "threads"),
            claim_faster(f"For many requests, {each} serves more than {one}", served, "threads"),
        ]
    )


def doubts(comparison: Comparison) -> str:
    """The caveats of a comparison as a list."""
    return "\n".join(f"- {caveat}" for caveat in comparison.caveats) or "No caveat: nothing else used the cores much."


# What is measured beside the learner's own model ----------------------------------------------------------------------


def requests(model: nn.Module, inputs: Any) -> Workload:
    """Requests that a model serves, as a workload: ``sequential`` takes one at a time, ``threads`` one on each core.

    Raises: as :func:`kit.compare`, of the model and its inputs.
    """
    network, args = opened(model, inputs)
    count = max(8, hardware.detect().cores)
    takes = {f"request {i}": tuple(range(len(args))) for i in range(count)}
    served = Branches(dict.fromkeys(takes, network), list, takes)
    return Workload("requests", served, args, count, "requests", f"{count} requests")


def earlier() -> dict[str, tuple[nn.Module, Any]]:
    """Models of the earlier notebooks, with their inputs."""
    return {
        "two streams, toy": (toy_two_stream(), (torch.rand(1, 3, 25, 25), torch.rand(1, 2, 25, 25))),
        "two streams": (two_stream(), (torch.rand(1, 3, 112, 112), torch.rand(1, 20, 112, 112))),
        "Inception block": (inception_block(), torch.rand(1, 192, 35, 35)),
    }


# Exercises ------------------------------------------------------------------------------------------------------------
@check
def check_costliest(costliest: Callable[[Mapping[str, float]], str | None]) -> str | None:
    """``costliest(factors)``: the name of the factor that costs most, lanes apart."""
    factors = {"lanes": 2.0, "computation efficiency": 0.9, "load balance": 0.6, "scheduling efficiency": 0.8}
    if costliest(factors) is None:
        return "it gives None: is there a return?"
    if costliest(factors) != "load balance":
        return f"it says {costliest(factors)!r}: the factor furthest below 1 costs most, which is 'load balance' here."
    if costliest({"lanes": 0.1, "scheduling efficiency": 0.5}) != "scheduling efficiency":
        return "lanes are what the others take from: leave them out, even on a fraction of a core."
    return None


@check
def check_makespan(makespan: Callable[[Sequence[float], int], float | None]) -> str | None:
    """``makespan(branches, lanes)``: when the last of these branches ends, each taken in order by a free lane."""
    late = "in this order the 4 ms begin only after 1 ms: the call ends after 5 ms. Give each to the lane free first."
    alone = "on one lane branches run one after the other: 1 ms and 2 ms end after 3 ms."
    beside = "while one lane has the 4 ms, the other does both others: the call ends after 4 ms."
    cases = []
    for costs, lanes, hint in (([1.0, 2.0], 1, alone), ([4.0, 1.0, 1.0], 2, beside), ([1.0, 1.0, 4.0], 2, late)):
        nodes = [Node(cost=ms) for ms in costs]
        cases.append(((costs, lanes), makespan_of(nodes, POLICIES["in_order"](nodes, lanes)), hint))
    return first_wrong(makespan, cases)
