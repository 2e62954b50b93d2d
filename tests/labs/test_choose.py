"""Notebook 11: what its quizzes reveal and its sentences say, of calm, busy and missing measurements; its exercises."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import kit
from kit.explaining.explanation import explain
from kit.graphs import Graph
from kit.graphs.operators import Branch, Operator, Region
from kit.labs import choose
from kit.labs.choose import QUIZZES, check_costliest, check_makespan
from kit.machine.load import Taken
from kit.measuring.comparison import Comparison, Ratio, Row
from kit.measuring.gate import gated
from kit.measuring.statistics import speed_up
from kit.views.chart import Chart
from tests.explaining.test_explanation import compared, example, side_by_side, timing, turn

MS = 1_000_000
BEYOND = "not decided: machine busy: 6.10x exceeds what 2 lanes on 2 cores can give, 2.00x"
TAKEN = "not decided: machine busy: other programs took 50% of the machine's CPU time during the rounds"


def graph(*sides: float, cores: int = 2, handing_over_ms: float = 0.1) -> Graph:
    """A stem of 1 ms, then branches of these milliseconds, where there are any."""
    stem = Operator("stem", "Conv2d", "", "1", 10, 1.0, (), ())
    branches = [Operator(f"b{i}", "Conv2d", f"b{i}", "1", 10, ms, (0,), ()) for i, ms in enumerate(sides)]
    region = Region("block", tuple(Branch(f"b{i}", (i + 1,)) for i in range(len(sides))))
    found = (region,) if sides else ()
    return Graph("Net", "1", "torch.fx", 0.1, (stem, *branches), found, (), cores, handing_over_ms)


def calm(wall: float = 6.2) -> Comparison:
    """Two branches of 6 ms each, one after the other and side by side in a call of ``wall`` milliseconds."""
    return side_by_side(6, 6, 6, wall=wall, serial=0)


def found(comparison: Comparison) -> Comparison:
    """The same with branches found by the kit: sequential, the model as given, takes a tenth longer than branched."""
    branched, threads = comparison.rows
    assert branched.timing is not None
    assert threads.timing is not None
    given = timing((branched.timing.samples_ns * 1.1).tolist(), [None] * 6)
    rows = (
        replace(branched, timing=given, paired_baseline=given),
        replace(branched, name="branched", ratio=Ratio(1.1, 1.1, 1.1), paired_baseline=given, baseline=False),
        replace(
            threads,
            ratio=speed_up(given, threads.timing),
            paired_baseline=given,
            one_by_one=branched.timing,
        ),
    )
    return replace(comparison, rows=rows)


def two_alike() -> Comparison:
    """Load balance and scheduling efficiency are about the same, and differ from round to round."""
    base = timing([12 * MS] * 6, [turn({"a": 6.0, "b": 6.0}, 12, 1)] * 6)
    busiest = [8.0, 8.0, 7.5, 7.5, 7.0, 7.0]
    own = timing([9 * MS] * 6, [turn({"a": ms, "b": 12 - ms}, ms, 2) for ms in busiest])
    return compared(base, own, {1: base})


def busy(comparison: Comparison) -> Comparison:
    return gated(replace(comparison, taken=Taken(0.5, 0.0)))


def chain() -> Comparison:
    """What ``kit.compare`` gives of a model without branches."""
    lead = timing([6 * MS] * 6, [None] * 6)
    comparison = compared(lead, lead)
    missing = [Row(name, "no branches were found in Net") for name in ("threads", "processes")]
    return replace(comparison, rows=(comparison.rows[0], *missing))


def without_threads() -> Comparison:
    return replace(chain(), rows=chain().rows[:1])


# What the quizzes reveal ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        (graph(6, 6), "yes, there is something to gain"),
        (graph(6, 6, cores=1), "hardly: little to gain"),
        (graph(1, 1, handing_over_ms=5), "hardly: little to gain"),
        (graph(9, 0.2), "no: nothing to gain"),
        (graph(), "no: nothing to gain"),
    ],
)
def test_whether_there_is_something_to_gain(seen: Graph, says: str) -> None:
    assert choose.gain_answer(seen) == says
    assert says in QUIZZES["gain"][1]


@pytest.mark.parametrize(
    ("comparison", "threads", "requests"),
    [
        (calm(), "faster", "a request on each core"),
        (example(), "slower", "one request at a time on all cores"),
        (calm(wall=12), "no difference found", "no difference found"),
        (found(calm(wall=8)), "faster", "a request on each core"),
        (busy(calm()), TAKEN, TAKEN),
        (gated(side_by_side(30.25, 5, 9, wall=10)), BEYOND, BEYOND),
        (chain(), "not measured: no branches were found in Net", "not measured: no branches were found in Net"),
        (without_threads(), "not measured: threads is not in the table", "not measured: threads is not in the table"),
    ],
)
def test_the_verdict_on_threads(comparison: Comparison, threads: str, requests: str) -> None:
    assert choose.threads_answer(comparison) == threads
    assert choose.requests_answer(comparison) == requests
    for name, said in (("threads", threads), ("requests", requests)):
        assert said in QUIZZES[name][1] or said.startswith("not ")


@pytest.mark.parametrize(
    ("comparison", "says"),
    [
        (example(), "load balance"),
        (calm(wall=6), "none of them: no factor is below 1"),
        (busy(example()), TAKEN),
        (chain(), "not known: there are no factors"),
        (two_alike(), "not decided: load balance is 0.80 [0.75, 0.85], and another factor may be as small"),
    ],
)
def test_what_costs_most(comparison: Comparison, says: str) -> None:
    assert choose.costs_answer(comparison, explain(comparison, "threads")) == says


def test_a_factor_that_was_not_to_choose_from_is_no_option_of_the_quiz() -> None:
    """Without branches timed alone, the two efficiencies of computation cannot be told apart."""
    comparison = replace(side_by_side(6, 6, 12, wall=12.5), branches_alone={})
    said = choose.costs_answer(comparison, explain(comparison, "threads"))
    assert said == "not one of these: computation efficiency, 0.50 [0.50, 0.50]"


@pytest.mark.parametrize(
    ("comparison", "cores", "says"),
    [
        (calm(), 1, "at least 1.5 times as fast"),
        (example(), 1, "faster, but by less than 1.5 times"),  # 9.5 ms on a lane, 7.5 on two
        (calm(), 2, "no faster"),
        (chain(), 2, "not known: there are no branches to predict from"),
        (busy(calm()), 2, "not decided: the rounds of threads decide nothing, so nothing is predicted from them"),
    ],
)
def test_what_more_cores_would_change(comparison: Comparison, cores: int, says: str) -> None:
    why = explain(comparison, "threads")
    assert choose.cores_answer(why, cores) == says
    assert says.startswith("not ") or says in QUIZZES["cores"][1]
    said = choose.about_cores(why, cores)
    assert ("Predicted: " in said) == (not says.startswith("not "))
    assert ("predicted call" in choose.what_if_table(why, (1, 2))) == (not says.startswith("not "))
    if says.startswith("not "):
        assert f"No prediction: {says}." in said


@pytest.mark.parametrize(
    ("comparison", "says"),
    [
        (calm(), "yes: every row has a verdict"),
        (calm(wall=12), "only on some of its rows"),
        (found(calm(wall=8)), "yes: every row has a verdict"),
        (chain(), "only on some of its rows"),
        (without_threads(), "only on some of its rows"),
        (busy(calm()), "no: measure again, on a quieter machine"),
        (replace(calm(), caveats=("branches were found by torch.fx in 0.2 s",)), "yes: every row has a verdict"),
    ],
)
def test_whether_to_trust_the_table(comparison: Comparison, says: str) -> None:
    assert choose.trust_answer(comparison) == says
    assert says in QUIZZES["trust"][1]


@pytest.mark.parametrize("name", QUIZZES)
def test_a_quiz_is_made_by_its_name_and_answered_by_a_function_of_that_name(name: str) -> None:
    assert choose.quiz(name).guess is None
    assert callable(getattr(choose, f"{name}_answer"))


# Sentences and tables -------------------------------------------------------------------------------------------------


def test_rows_without_a_verdict_say_what_is_open() -> None:
    assert choose.open_questions(calm()) == "Every row of this table has a verdict."
    no_difference = choose.open_questions(calm(wall=12))
    assert no_difference.startswith("- **threads**: ")
    assert "A smaller one may be there." in no_difference
    large = replace(calm(wall=12), rows=tuple(replace(r, minimum_detectable_effect=1.2) for r in calm(wall=12).rows))
    assert "by a factor of 2.2 or more would" in choose.open_questions(large)
    few = replace(calm(wall=12), rows=tuple(replace(r, minimum_detectable_effect=None) for r in calm(wall=12).rows))
    assert "too few rounds to say which difference they would have found." in choose.open_questions(few)
    assert "nothing is decided: machine busy: other programs took 50%" in choose.open_questions(busy(calm()))
    assert choose.open_questions(chain()).splitlines() == [
        "- **threads, processes**: not measured: no branches were found in Net",
    ]


def test_factors_say_over_which_row_they_are() -> None:
    by_hand, by_the_kit = calm(), found(calm(wall=8))
    said = choose.about_factors(by_hand, explain(by_hand, "threads"))
    assert said.startswith("The factors multiply to **1.935x** over `sequential`: the geometric mean of the rounds.")
    assert "The table has the rounds' median, 1.94x [1.94, 1.94]." in said
    assert "The smallest factor is **scheduling efficiency**, 0.97 [0.97, 0.97]." in said
    assert "- For one request at a time use threads" in said
    said = choose.about_factors(by_the_kit, explain(by_the_kit, "threads"))
    assert said.startswith("The factors multiply to **1.650x** over `sequential`: the geometric mean of the rounds.")
    assert "The last factor, rewriting, is `sequential` / `branched`: no gain of it is due to concurrency." in said
    assert "is decided" not in said
    assert "**None of this is decided: machine busy: other programs took 50% of" in choose.about_factors(
        busy(by_hand), explain(busy(by_hand), "threads")
    )


def test_where_there_are_no_branches_every_sentence_says_so() -> None:
    comparison = chain()
    why = explain(comparison, "threads")
    says = "**threads** has no branches to show: it was not measured: no branches were found in Net"
    assert says in choose.about_factors(comparison, why)
    assert choose.waterfall(why).data == says
    assert choose.snippet(why) == "Nothing is advised here that would need new code."
    assert choose.shortest_pair(why) == ()
    assert says in choose.what_if_table(why, (1, 2))
    assert says in choose.about_cores(why, 2)
    assert "| mine | none | - | nothing to compare | - | - |" in choose.decision_table({"mine": comparison})


def test_the_waterfall_and_the_snippet_of_what_was_measured() -> None:
    why = explain(calm(), "threads")
    assert isinstance(choose.waterfall(why), Chart)
    assert choose.snippet(why).startswith("```python\n# threads.")


def test_what_if_says_of_which_arrangements_and_how_far_off_it_was() -> None:
    why = explain(example(), "threads")
    assert choose.shortest_pair(why) == ("a", "b")
    table = choose.what_if_table(why, (1, 2), ("a", "b")).splitlines()
    assert table[2:5] == [
        "| 1 lane | 9.5 ms | 0.63x |",
        "| 2 lanes | 9 ms | 0.67x |",
        "| 2 lanes, a merged with b | 9.5 ms | 0.63x |",
    ]
    assert table[-1].endswith("the prediction is off by +0% (sequential), +0% (threads).")


def test_the_decision_table_names_the_best_approach_and_believes_no_more_than_is_possible() -> None:
    measured = {
        "by hand": example(),
        "found": found(calm(wall=11.9)),
        "gain": calm(wall=6),
        "busy": busy(calm()),
        "beyond": side_by_side(30.25, 5, 9, wall=10),
    }
    _, _, by_hand, by_the_kit, gain, taken, beyond = choose.decision_table(measured).splitlines()
    assert by_hand.startswith("| by hand | threads | 0.67x ")
    assert "| slower | load balance 0.67 [0.67, 0.67] | 6.5 ms [6.5 ms, 6.5 ms] |" in by_hand
    assert by_the_kit.startswith("| found | threads | ")  # branched is no way to run branches at the same time
    assert "| faster | thread efficiency 1.00 [1.00, 1.00] | 6 ms [6 ms, 6 ms] |" in gain
    assert f"| {TAKEN} | not decided |" in taken
    assert "| not decided: 3.05 times what is possible |" in beyond
    assert len({line.count("|") for line in (by_hand, by_the_kit, gain, taken, beyond)}) == 1


@pytest.mark.parametrize(
    ("comparison", "says"),
    [
        (calm(), "| **true** | 1.94x [1.94, 1.94], faster |"),
        (example(), "| **false** | 0.67x [0.67, 0.67], slower |"),
        (calm(wall=12), "| **false** | 1.00x [1.00, 1.00], no difference found |"),
        (busy(calm()), f"| not decided | 1.94x [1.94, 1.94], {TAKEN} |"),
        (chain(), "| not decided | not measured: no branches were found in Net |"),
    ],
)
def test_the_card(comparison: Comparison, says: str) -> None:
    _, _, gain, threads, requests = choose.conclusion(graph(6, 6), comparison, comparison).splitlines()
    assert says in threads
    assert says in requests
    assert "| By its graph, this model leaves something to gain" in gain  # a bound, and no measured speed-up
    assert "| **true** | Running the branches of 1 region of Net" in gain
    assert "| **false** | There is nothing to gain" in choose.conclusion(graph(), comparison, comparison)


def test_a_reason_of_several_lines_stays_in_its_cell() -> None:
    rows = (calm().rows[0], Row("threads", "it <b>said</b> |\nno"))
    assert "| not measured: it &lt;b&gt;said&lt;/b&gt; &#124; no |" in choose.conclusion(
        graph(), replace(calm(), rows=rows), calm()
    )


def test_doubts_are_the_caveats() -> None:
    assert choose.doubts(replace(calm(), caveats=("one", "two"))) == "- one\n- two"
    assert choose.doubts(calm()).startswith("No caveat")


class Decides(nn.Module):
    """It asks for the value of a tensor to decide what to do next, so no graph of it can be captured."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first: torch.Tensor = self.one(x)
        return first + self.other(x) if first.mean() > 0 else first - self.other(x)


def test_a_model_that_cannot_be_captured_stops_no_cell() -> None:
    model, x = Decides().eval(), torch.rand(2, 3)
    seen = choose.look(model, x)
    assert isinstance(seen, choose.NoGraph)
    assert "Decides cannot be captured" in seen.reason
    assert choose.picture(seen) is seen
    assert "Branches could not be looked for: Decides cannot be captured" in seen._repr_markdown_()
    assert "\n" not in seen._repr_markdown_()
    assert choose.gain_answer(seen).startswith("not known: Decides cannot be captured")
    comparison = kit.compare(model, x, ["sequential", "threads"], rounds=6, progress=False)
    why = kit.explain(comparison, "threads")
    assert choose.threads_answer(comparison).startswith("not measured: no branches could be looked for")
    assert "has no branches to show" in choose.waterfall(why).data
    assert "No prediction: not known" in choose.what_if_table(why, (1, 2))
    served = kit.compare(choose.requests(model, x), approaches=["sequential", "threads"], rounds=6, progress=False)
    assert served["threads"].timing is not None
    first, second, _ = choose.conclusion(seen, comparison, served).splitlines()[2:]
    assert " | not decided | not known: Decides cannot" in first
    assert " | not decided | not measured: " in second


def test_a_model_that_can_be_captured_has_its_picture() -> None:
    model, x = nn.Sequential(nn.Linear(3, 3)).eval(), torch.rand(2, 3)
    seen = choose.look(model, x)
    assert isinstance(seen, Graph)
    assert type(choose.picture(seen)).__name__ == "GraphPicture"


# What is measured beside ----------------------------------------------------------------------------------------------


class Sum(nn.Module):
    def forward(self, *, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": a + 2 * b}


def test_requests_are_a_branch_each_and_take_every_input() -> None:
    work = choose.requests(Sum().eval(), {"a": torch.rand(3), "b": torch.rand(3)})
    comparison = kit.compare(work, approaches=["sequential", "threads"], rounds=6, progress=False)
    assert comparison.unit == "requests"
    assert comparison.items >= 8
    threads = comparison["threads"]
    assert threads.equality is not None
    assert threads.equality.equal
    assert threads.lane_threads == 1


# Exercises ------------------------------------------------------------------------------------------------------------


def stub(a: float, b: float, c: float) -> Any: ...


@pytest.mark.parametrize(
    ("costliest", "hint"),
    [
        (lambda f: min((v, k) for k, v in f.items() if k != "lanes")[1], None),
        (lambda f: min(f, key=f.get), "lanes is the ideal and no cost"),
        (lambda f: max(f, key=f.get), "furthest below 1"),
        (
            lambda f: min(by for name, by in f.items() if name != "lanes"),
            "it gives 0.6, a float: give the factor's name",
        ),
        (lambda f: sorted(f, key=f.get), "a list: give"),
        (lambda f: [None][0], "is there a return"),
        (stub, "not attempted"),
    ],
)
def test_the_costliest(costliest: Callable[..., Any], hint: str | None) -> None:
    assert (hint or "passed") in repr(check_costliest(costliest))


def in_order(branches: list[float], lanes: int) -> float:
    ends = [0.0] * lanes
    for branch in branches:
        ends[ends.index(min(ends))] += branch
    return max(ends)


@pytest.mark.parametrize(
    ("makespan", "hint"),
    [
        (in_order, None),
        (lambda b, n: sum(b), "4 ms, the other"),
        (lambda b, n: max(b), "one after the other"),
        (lambda b, n: max(max(b), sum(b) / n), "in this order"),
        (lambda b, n: [None][0], "is there a return"),
    ],
)
def test_the_makespan(makespan: Callable[..., Any], hint: str | None) -> None:
    assert (hint or "passed") in repr(check_makespan(makespan))
