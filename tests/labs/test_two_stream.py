"""Notebook 01: what its quizzes reveal and its sentences say of made-up measurements; its charts and its exercises."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import kit
from kit.labs import two_stream
from kit.labs.two_stream import QUIZZES, ThreeHeads, check_bound, check_wrapped
from kit.labs.two_stream.sentences import about_side, about_toy, conclusion
from kit.measuring.breakdown import RoundBreakdown
from kit.measuring.comparison import Comparison, Timing
from kit.measuring.gate import gated
from kit.trace import Trace
from kit.workloads.medians import Median
from kit.workloads.recognition import Guess, Recognition
from kit.workloads.training import Evaluation, Share
from tests.labs.made_up import MS, made_up

BUSY = "not decided: machine busy: other programs took 50% of the machine's CPU time during the rounds"
STREAMS = ("spatial", "temporal")
Ms = dict[str, float | str]


def alone(spatial: float, temporal: float, rounds: int = 20) -> Timing:
    """The streams one by one on one thread, in milliseconds, nine tenths of a call; rounds scatter by a percent."""
    noise = np.exp(np.random.default_rng(1).normal(0, 0.01, (rounds, 2)))
    none = dict.fromkeys(("startup", "transfer", "merge", "dispatch", "join"), 0.0)
    turns = []
    for at in noise:
        tasks = {(0, name): ms * MS * by for name, ms, by in zip(STREAMS, (spatial, temporal), at, strict=True)}
        took = sum(tasks.values())
        turns.append(RoundBreakdown(took, tasks, took, 1, took, none, 0.0))
    return Timing(np.array([turn.work / 0.9 for turn in turns]), 1, Trace.build([]), tuple(turns))


def measured(ms: Ms, streams: tuple[float, float] = (4, 6), **changes: Any) -> Comparison:
    """A comparison of two streams, with their times on one thread."""
    found = made_up(ms, branches=STREAMS, **changes)
    return gated(replace(found, branches_alone={1: alone(*streams)}))


def one_thread(streams: tuple[float, float] = (4, 6)) -> Ms:
    return {"sequential": 10.0, "sequential(threads=1)": sum(streams) / 0.9}


CALM: Ms = {"sequential": 10.0, "threads": 7.0}
SLOWER: Ms = {"sequential": 10.0, "threads": 14.0}
SAME: Ms = {"sequential": 10.0, "threads": 10.0}
MISSING: Ms = {"sequential": 10.0, "threads": "no threads on this system"}


@pytest.mark.parametrize("name", QUIZZES)
def test_a_quiz_is_made_by_its_name_and_answered_by_a_function_of_that_name(name: str) -> None:
    assert two_stream.quiz(name).guess is None
    assert callable(getattr(two_stream, f"{name}_answer"))


@pytest.mark.parametrize(
    ("comparison", "says"),
    [
        (measured(CALM), "faster"),
        (measured(SLOWER), "slower"),
        (measured(SAME), "no difference found"),
        (measured(CALM, others=0.5), BUSY),
        (measured(SAME, (4, 4.5), cores=1), "no difference found"),
        (measured(MISSING), "not measured: no threads on this system"),
        (made_up({"sequential": 10.0}), "not measured: threads is not in the table"),
        (measured(CALM, wrong=("threads",)), "wrong output"),
    ],
)
def test_the_verdict_on_threads(comparison: Comparison, says: str) -> None:
    assert two_stream.side_answer(comparison) == two_stream.toy_answer(comparison) == says


@pytest.mark.parametrize(
    ("streams", "changes", "says"),
    [
        ((4, 6), {}, "the temporal stream"),
        ((6, 4), {}, "the spatial stream"),
        ((5, 5.1), {}, "about the same (within 10%)"),
        ((4, 6), {"others": 0.5}, BUSY),
    ],
)
def test_which_stream_takes_longer(streams: tuple[float, float], changes: dict[str, float], says: str) -> None:
    comparison = measured(one_thread(streams), streams, **changes)
    assert two_stream.cost_answer(comparison) == says
    assert says in QUIZZES["cost"][1] or says.startswith("not ")
    said = two_stream.about_cost(comparison)
    assert "On one thread the spatial stream takes **" in said
    assert ("It decides nothing" in said) == says.startswith("not ")


def test_one_row_alone_does_not_tell_whether_the_machine_was_busy() -> None:
    lone = replace(made_up({"sequential(threads=1)": 11.0}, branches=STREAMS), branches_alone={1: alone(4, 6)})
    assert two_stream.cost_answer(lone).startswith("not decided: nothing was measured beside sequential(threads=1)")
    assert "It decides nothing" in two_stream.about_cost(lone)
    assert "**not decided: nothing was measured beside" in two_stream.about_bound(lone)


def test_the_notebook_measures_something_beside_one_thread() -> None:
    path = Path(__file__).parents[2] / "notebooks" / "01_two_stream.ipynb"
    cells = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]
    (cell,) = [cell for cell in cells if "one_thread = kit.compare(" in cell]
    assert '["sequential", "sequential(threads=1)"]' in cell


def test_a_ratio_between_two_options_is_no_answer() -> None:
    comparison = measured(one_thread((5, 5.5)), (5, 5.5))
    assert two_stream.cost_answer(comparison).startswith("not decided: the temporal stream takes 1.1x [")


def test_without_the_streams_times_nothing_is_said_of_them() -> None:
    nothing = made_up(one_thread())
    assert two_stream.cost_answer(nothing) == "not known: the streams' times were not recorded"
    assert two_stream.about_cost(nothing).startswith("The streams' times are not known: ")
    assert two_stream.about_bound(nothing).startswith("There is no bound: ")


@pytest.mark.parametrize(("cores", "least"), [(1, "10 ms"), (2, "6.0"), (8, "6.0")])
def test_the_bound_is_of_medians_and_has_an_interval(cores: int, least: str) -> None:
    comparison = measured(one_thread(), cores=cores)
    said = two_stream.about_bound(comparison)
    number = said.partition("cannot take less than ")[2].partition(" here")[0]
    assert 0.98 < float(number.split()[0]) / float(least.split()[0]) < 1.02
    assert "[" in number
    assert ("nothing can overlap" in said) == (cores == 1)
    gain = said.partition("That would be ")[2].partition(" as fast as one thread")[0]
    assert 0.98 < float(gain.partition("x [")[0]) / (1 if cores == 1 else 10 / 6) < 1.02
    assert cores == 1 or gain.endswith("]")
    assert "not decided" not in said


def test_a_bound_that_a_busy_machine_gave_is_said_to_be_too_long() -> None:
    said = two_stream.about_bound(measured(one_thread(), others=0.5))
    assert f"**{BUSY}**" in said
    assert "may be too long" in said
    assert "cannot take less" not in said  # no limit is stated as a fact beside a doubt of it


def test_what_side_by_side_gave() -> None:
    said = about_side(measured(CALM))
    assert "Speed-up of threads: 1.4" in said
    assert ": **faster**." in said
    assert "ran at the same time for 100% [100%, 100%]" in said
    assert "`threads` took 7" in said
    assert said.count("] of that speed.") == 2


@pytest.mark.parametrize(
    ("share", "says"),
    [(0.0, "They ran one after the other."), (0.5, "one stream ran alone"), (None, "In some rounds they did not")],
)
def test_how_long_the_streams_overlapped_is_told_from_all_rounds(share: float | None, says: str) -> None:
    comparison = measured(SAME)
    row = comparison["threads"]
    assert row.timing is not None
    turns = tuple(
        turn and turn._replace(overlap=turn.work / 3 if share else turn.work / 3 * (i % 2) if share is None else 0.0)
        for i, turn in enumerate(row.timing.turns)
    )
    rows = (comparison.rows[0], replace(row, timing=replace(row.timing, turns=turns)))
    assert says in about_side(replace(comparison, rows=rows))


def test_a_busy_machine_reaches_no_share_of_a_bound() -> None:
    said = about_side(measured(CALM, others=0.5))
    assert f"**{BUSY}**. This is what was seen, and it decides nothing." in said
    assert "of that speed" not in said


def test_one_reason_for_doubt_is_given_once() -> None:
    side = measured({"sequential": 10.0, "sequential(threads=1)": 9.0, "threads": 7.0}, (3, 3), others=0.5)
    assert about_side(side).count("took 50%") == 1
    assert "- Over `sequential(threads=1)`: 1.2" in about_side(side)
    assert "**not decided**, for the same reason." in about_side(side)
    line = conclusion(side, side, side).splitlines()[2]
    assert line.count("took 50%") == 1
    assert line.endswith(", not decided for the same reason |")


@pytest.mark.parametrize("threads", [3.0, 5.7])
def test_more_than_all_of_a_bound_is_never_a_success(threads: float) -> None:
    said = about_side(measured({"sequential": 10.0, "threads": threads}))
    shares = [int(word.strip("[],.").rstrip("%")) for word in said.split() if word.strip("[],.").endswith("%")]
    assert all(share <= 100 for share in shares)
    assert "not decided" in said or "cannot be" in said


def test_a_missing_row_is_named_with_its_reason() -> None:
    for about in (about_side, about_toy):
        assert about(measured(MISSING)) == "**threads** was not measured: no threads on this system."


def test_the_toy_says_what_every_approach_was() -> None:
    rows: Ms = {
        "sequential": 0.2,
        "threads": 0.3,
        "onnxruntime": 0.1,
        "replicated": 0.2,
        "devices": "it needs two devices",
    }
    said = about_toy(measured(rows, (0.03, 0.03), rounds=30))
    assert ": **slower**." in said
    assert "- **faster** than sequential: `onnxruntime`" in said
    assert "- **slower** than sequential: `threads`" in said
    assert "- **no difference found** between it and sequential: `replicated`" in said
    assert "- **Work**: both streams together take 0.06" in said
    assert "devices" not in said
    busy = about_toy(measured(rows, (0.03, 0.03), rounds=30, others=0.5))
    assert "- **not decided** by these rounds: `threads`, `onnxruntime`, `replicated`" in busy
    assert "than sequential" not in busy


def test_too_few_rounds_are_not_blamed_on_other_programs() -> None:
    rows: Ms = {"sequential": 0.2, "threads": 0.3, "a": 0.2, "b": 0.2, "c": 0.2}
    said = about_toy(measured(rows, rounds=6))
    assert "not decided: it needs 9 rounds or more" in said
    assert "Measure more rounds." in said
    assert "Close other programs" not in said


@pytest.mark.parametrize(
    ("lanes", "others", "says", "truth"),
    [
        ("replicated", 0.0, "one after the other", "**false**"),
        ("replicated", 0.5, "one after the other", "**false**"),  # lanes do not depend on who else is running
        ("threads", 0.0, "at the same time", "**true**"),
    ],
)
def test_whether_data_parallel_overlaps(lanes: str, others: float, says: str, truth: str) -> None:
    comparison = made_up({"sequential": 10.0, lanes: 9.0}, branches=STREAMS, others=others)
    comparison = replace(comparison, rows=(comparison.rows[0], replace(comparison.rows[1], name="replicated")))
    assert two_stream.parallel_answer(comparison) == says
    assert says.removeprefix("one ") in two_stream.about_parallel(comparison)
    line = conclusion(comparison, comparison, comparison).splitlines()[-1]
    assert f"| {truth} | {says}: both ran for " in line


def test_data_parallel_that_did_not_run_decides_nothing() -> None:
    comparison = made_up({"sequential": 10.0, "replicated": "move the model to the GPU"}, branches=STREAMS)
    assert two_stream.parallel_answer(comparison) == "not measured: move the model to the GPU"
    assert "| not decided |" in conclusion(comparison, comparison, comparison).splitlines()[-1]


@pytest.mark.parametrize(
    ("side", "truth"),
    [
        (measured(CALM), "**true**"),
        (measured(SLOWER), "**false**"),
        (measured(SAME), "**false**"),
        (measured(SAME, scatter=0.3), "not decided"),
        (measured(CALM, others=0.5), "not decided"),
        (measured(MISSING), "not decided"),
        (measured(CALM, wrong=("threads",)), "not decided"),
    ],
)
def test_the_card(side: Comparison, truth: str) -> None:
    _, _, streams, toy, _ = conclusion(side, side, side).splitlines()
    assert f"| {truth} |" in streams
    assert f"| {truth} |" in toy


@pytest.mark.parametrize(
    ("one", "changes", "truth"),
    [
        (9.0, {}, "**true**"),
        (7.0, {}, "**false**"),  # what threads gain over sequential is what splitting its operators costs
        (6.0, {}, "**false**"),
        (9.0, {"others": 0.5}, "not decided"),
        ("it was left out", {}, "**true**"),
    ],
)
def test_a_gain_over_operators_that_lose_by_being_split_is_no_gain_of_threads(
    one: float | str, changes: dict[str, float], truth: str
) -> None:
    side = measured({"sequential": 10.0, "sequential(threads=1)": one, "threads": 7.0}, (3, 3), **changes)
    line = conclusion(side, side, side).splitlines()[2]
    assert f"| {truth} | over sequential: 1.4" in line
    assert ("; over sequential(threads=1): " in line) == isinstance(one, float)
    assert ("- Over `sequential(threads=1)`: " in about_side(side)) == isinstance(one, float)


def evaluation(right: int, total: int = 100) -> Evaluation:
    """A spatial stream that names so many motions; everything else is named correctly."""

    def counts(classes: int, right: int) -> Any:
        table = np.zeros((classes, classes), int)
        table[0, 0], table[0, 1] = right, total - right
        return table

    streams = {s: {"texture": counts(5, total), "motion": counts(9, total)} for s in ("spatial", "temporal", "fused")}
    streams["spatial"]["motion"] = counts(9, right)
    return Evaluation(streams, dict.fromkeys(streams, Share(total, total)))


@pytest.mark.parametrize(
    ("right", "says", "about"),
    [
        (11, "about one in nine, as guessing does", "shows no sign of knowing the motion"),
        (50, "about half", "is better than guessing, but often wrong, about the motion"),
        (95, "nearly all", "knows the motion"),
        (30, "not decided: so few clips leave more than one answer open, 30.0%", "is better than guessing"),
    ],
)
def test_what_the_spatial_stream_knows(right: int, says: str, about: str) -> None:
    result = evaluation(right)
    assert two_stream.knows_answer(result).startswith(says)
    said = two_stream.about_knowledge(result)
    assert f"- The spatial stream {about}" in said
    assert "| guessing | 20% | 11% | 2% |" in said


def test_each_stream_has_a_chart_of_texture_and_one_of_motion() -> None:
    charts = two_stream.confusion_charts(evaluation(30))
    assert [chart.layout.title.text for chart in charts] == [
        f"{half}, told by the {stream} stream" for stream in ("spatial", "temporal") for half in ("texture", "motion")
    ]
    assert round(float(charts[1].data[0].z.trace())) != round(float(charts[3].data[0].z.trace())), "its own counts"


def test_a_clip_of_ones_own_has_no_known_truth_and_no_time_is_told_before_first_calls_are_explained() -> None:
    told = Recognition("mine", (Guess("dots", 0.8),), (Guess("left", 0.6),), {"spatial": 123.0})
    said = two_stream.about_recognition(told, None)
    assert "| texture | dots 80% |" in said
    assert "not known" in said
    assert "123" not in said
    assert "**dots, left**" in two_stream.about_recognition(told, {"texture": "dots", "motion": "left"})


@pytest.mark.parametrize(
    ("first", "says"),
    [
        (45.0, "No later call was as slow as the first."),
        (14.0, "and 1 later call even slower."),
        (9.0, "Here the first call was not slower than that median."),
        (10.6, "The first call lies within that interval, so these calls do not show whether it was slower."),
    ],
)
def test_what_is_said_of_the_first_call(first: float, says: str) -> None:
    later = [10.0 + i / 10 for i in range(10)] + [20.0]
    said = two_stream.about_first_call([first, *later])
    assert says in said
    assert "The median of the 11 later calls is 10.5 ms [" in said
    assert "took 2.0 times as long as the fastest" in said


def test_the_chart_of_calls_marks_the_first_and_has_a_cursor() -> None:
    chart = two_stream.calls_chart([30.0, 10.0, 12.0, 11.0])
    later, first, usual = chart.data
    assert (list(later.x), list(later.y)) == ([2, 3, 4], [10.0, 12.0, 11.0])
    assert (list(first.x), list(first.y), list(first.text)) == ([1], [30.0], ["first call"])
    assert set(usual.y) == {11.0}
    assert chart.layout.xaxis.showspikes
    assert "first call" in chart.still()


def test_where_threads_and_sequential_trade_places() -> None:
    say = two_stream.about_crossing
    both = say({(4, 32): measured(SLOWER), (32, 224): measured(CALM)})
    assert "- **slower**: width 4 at 32 pixels" in both
    assert "- **faster**: width 32 at 224 pixels" in both
    assert "trade places between these" in both
    assert "did not trade places" in say({(4, 32): measured(SLOWER)})
    open_ones = say({(4, 32): measured(SLOWER, others=0.5), (8, 32): measured(CALM, others=0.5)})
    assert "- **not decided**: width 4 at 32 pixels, width 8 at 32 pixels" in open_ones
    assert "trade places" not in open_ones
    assert "None of these sizes is decided: close other programs and measure them again." in open_ones
    assert "None of these sizes" not in both


def test_a_toys_timeline_leaves_out_what_would_hide_the_rest() -> None:
    table = made_up({"sequential": 0.2, "threads": 0.3, "processes_cold": 2000.0}, branches=STREAMS)
    assert {lane.group for lane in two_stream.toy_timeline(table).trace.lanes} == {"sequential", "threads"}


def test_a_ratio_of_medians_keeps_the_wider_interval() -> None:
    assert Median(6, 5, 8).over(Median(3, 2, 4)) == Median(2, 1.25, 4)
    assert Median(0.5, 0.25, 1).percent == "50% [25%, 100%]"
    assert Median(1234.5, 1200.4, 1300).ms == "1,230 ms [1,200, 1,300]"


# Exercises ------------------------------------------------------------------------------------------------------------


def without_return(a: float, b: float, n: int) -> None:
    max(a, b, (a + b) / n)


@pytest.mark.parametrize(
    ("bound", "hint"),
    [
        (lambda a, b, n: max(a, b, (a + b) / n), ""),
        (lambda a, b, n: (a + b) / n, "not done before its longest stream"),
        (lambda a, b, n: max(a, b), "on one core nothing runs at the same time"),
        (lambda a, b, n: a + b, "both are done after 4 ms"),
        (lambda a, b, n: max(b, (a + b) / n), "not done before its longest stream"),
        (lambda a, b, n: max(a, b, (a + b) // n), "on one core nothing runs at the same time"),
        (lambda a, b, n: (max(a, b), (a + b) / n), "a tuple, and not a number"),
        (without_return, "is there a return"),
    ],
)
def test_the_bound_and_its_likely_mistakes(bound: Callable[..., Any], hint: str) -> None:
    found = check_bound(bound)
    assert found.state == ("hint" if hint else "passed")
    assert hint in found.message


def test_wrapping_and_its_likely_mistakes() -> None:
    original = ThreeHeads().eval()
    check, heads = check_wrapped(original), dict(original.named_children())
    torch.manual_seed(3)
    other = ThreeHeads().eval()
    answers = {
        "": kit.Branches(heads, kit.Concat(1)),
        "not a dict": heads,
        "there is no region yet": nn.Sequential(*heads.values()),
        "which merge joins channels": kit.Branches(heads, kit.Concat(0)),
        "the region has 2 branches": kit.Branches({name: heads[name] for name in ("small", "large")}, kit.Concat(1)),
        "use the original's own convolutions": kit.Branches(dict(other.named_children()), kit.Concat(1)),
        "not a type": kit.Branches,
    }
    for hint, answer in answers.items():
        assert check(answer).state == ("hint" if hint else "passed")
        assert hint in check(answer).message


def test_the_error_of_the_flow_stands_beside_that_of_no_motion() -> None:
    said = two_stream.about_flow({"dis": 0.25, "farneback": 0.5}, 3.0)
    assert "`dis` **0.25 pixels** and `farneback` **0.50 pixels**." in said
    assert said.endswith("nothing moves, it would be 3.00 pixels.")
