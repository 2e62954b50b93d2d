"""What notebook 11 says of the measurements of a model: sentences, tables and the card, in Markdown."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kit.approaches.workload import FOUND
from kit.explaining.explanation import Explanation, explain_all
from kit.graphs.operators import Graph
from kit.labs.choose.answers import QUIZZES, costliest, doubt, gain_answer, nothing_to_predict, widest, with_a_core_each
from kit.labs.choose.models import NoGraph
from kit.labs.conclusions import Claim, card, claim_faster, decided, in_a_cell, truth
from kit.measuring.comparison import Comparison, Row
from kit.measuring.factors import REWRITING
from kit.text import between, counted, markdown_table, milliseconds
from kit.views.why import waterfall as factors_chart


def open_questions(comparison: Comparison) -> str:
    """A sentence for each row without a verdict: what may be there all the same, or why it was not measured."""
    found: dict[str, list[str]] = {}  # what is said -> of which rows
    for row in comparison.rows:
        if said := _open(row):
            found.setdefault(said, []).append(row.name)
    return (
        "\n".join(f"- **{', '.join(names)}**: {said}" for said, names in found.items())
        or "Every row of this table has a verdict."
    )


def _open(row: Row) -> str:
    if row.timing is None:
        return f"not measured: {in_a_cell(row.reason)}"
    if row.verdict == "not decided":
        return f"nothing is decided: {row.doubt}."
    if row.verdict != "no difference found":
        return ""
    if (size := row.minimum_detectable_effect) is None:
        return "too few rounds to say which difference they would have found."
    told = f"of {size:.1%}" if size < 1 else f"by a factor of {1 + size:.1f}"
    return f"a difference {told} or more would have been found nine times in ten. A smaller one may be there."


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
    said = f"The factors multiply to **{product}** over `{lead}`: the geometric mean of the rounds. "
    said += f"The table has the rounds' median, {why.ratio}. "
    if REWRITING in why.factors:
        said += f"The last factor, {REWRITING}, is `{lead}` / `{FOUND}`: no gain of it is due to concurrency. "
    said += f"The smallest factor is **{name}**, {_factor(why, name, by)}."
    if disturbed := doubt(comparison):
        said += f" **None of this is decided: {disturbed}. Measure again.**"
    return "\n".join([said, "", *lines])


def _factor(why: Explanation, name: str, by: float) -> str:
    """A factor with its interval over the rounds."""
    low, high = why.intervals[name]
    return f"{by:.2f} [{low:.2f}, {high:.2f}]"


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
    if said := _nothing_to_predict(why):
        return said
    found = {counted(each, "lane"): why.what_if(each) for each in lanes}
    if merged:
        found[f"2 lanes, {' merged with '.join(merged)}"] = why.what_if(2, merged=[merged])
    rows = [(name, milliseconds(each.ms), f"{each.speed_up:.2f}x") for name, each in found.items()]
    off = [f"{error:+.0%} ({name})" for name, error in (why.prediction_errors or {}).items()]
    table = markdown_table(("arrangement", "predicted call", "predicted speed-up"), "lrr", rows)
    return (
        f"{table}\n\nThe speed-up is over `{why.baseline}`. For what was measured, the prediction is off by "
        f"{', '.join(off)}."
    )


def _nothing_to_predict(why: Explanation) -> str:
    said = nothing_to_predict(why)
    return f"No prediction: {said}. {_no_factors(why) if why.branch_times is None else ''}".strip() if said else ""


def about_cores(why: Explanation, cores: int) -> str:
    """The prediction behind :func:`cores_answer`."""
    if said := _nothing_to_predict(why):
        return said
    here, there = map(milliseconds, with_a_core_each(why, cores))
    return (
        f"Predicted: {here} a call with a lane for each of this machine's cores, {there} with a lane for each of the "
        f"branches. The widest region has {widest(why)}, and this machine has {counted(cores, 'core')}."
    )


def decision_table(measured: Mapping[str, Comparison]) -> str:
    """For each workload the approach with the highest speed-up, its verdict, and what costs it most."""
    head = ("workload", "highest speed-up of", "speed-up", "verdict", "smallest factor", "a call takes at least")
    return markdown_table(head, "llrllr", [(name, *_decision(each)) for name, each in measured.items()])


def _decision(comparison: Comparison) -> tuple[str, ...]:
    rows = [row for row in comparison.rows if row.ratio and not row.baseline and row.name != FOUND]
    if not rows:
        return "none", "-", "nothing to compare", "-", "-"
    row = max(rows, key=lambda row: row.ratio.estimate if row.verdict != "wrong output" and row.ratio else 0.0)
    why = next(each for each in explain_all(comparison) if each.approach == row.name)
    factor, by = costliest(why)
    least = f"{factor} {_factor(why, factor, by)}" if factor else "no factors: its tasks are no branches"
    if why.excess is not None:
        least = f"not decided: {why.excess.factor:.2f} times what is possible"
    elif row.verdict == "not decided":
        least = "not decided"
    best = "no bound"
    if why.bounds:
        best = f"{milliseconds(why.bounds.least_ms)} {between(why.bounds.least_low_ms, why.bounds.least_high_ms)}"
    return row.name, row.ratio_text, in_a_cell(decided(comparison, row.name)), least, best


def conclusion(graph: Graph | NoGraph, comparison: Comparison, served: Comparison) -> str:
    """The notebook's claims, and for each what this machine said: true, false, or not decided."""
    yes, one, each = QUIZZES["gain"][1][0], *QUIZZES["requests"][1][:2]
    return card(
        [
            Claim(
                "By its graph, this model leaves something to gain: independent parts at the same time, a thread each",
                truth(gain_answer(graph), yes),
                gain_answer(graph) if isinstance(graph, NoGraph) else graph.answer,
            ),
            claim_faster("On threads its branches are faster", comparison, "threads"),
            claim_faster(f"For many requests, {each} serves more than {one}", served, "threads"),
        ]
    )


def doubts(comparison: Comparison) -> str:
    """The caveats of a comparison as a list."""
    return "\n".join(f"- {caveat}" for caveat in comparison.caveats) or "No caveat: nothing else used the cores much."
