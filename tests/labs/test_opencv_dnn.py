"""Notebook 07: what its quizzes reveal and its sentences and its card say, of made-up measurements."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kit.labs import opencv_dnn as lab
from kit.machine.load import Taken
from kit.measuring.comparison import Comparison
from kit.measuring.samples import of_samples
from kit.trace import Trace
from kit.workloads.forum import Forked
from kit.workloads.opencv_dnn import Misuse
from tests.labs.made_up import made_up, span

OTHERS = "machine busy: other programs took 50% of the machine's CPU time during the rounds"
COLD = "pool_cold(workers=4)"
FIXES = {
    "sequential": 40.0,
    "sequential(threads=1)": 60.0,
    "threads(threads=1)": 32.0,
    "processes(threads=1)": 36.0,
    "processes(threads=2)": 90.0,
}
BATCHED = {"sequential": 40.0, "batch": 38.0, "onnxruntime": 20.0, "torch": 60.0, "threads(threads=1)": 30.0}
WRONG = Misuse(200, wrong=7, raised=1)


def rounds_of(others: float, **ms: float) -> Comparison:
    """As of rounds in which no branch wrote a span."""
    random = np.random.default_rng(0)
    samples = {name: list(each * 1e6 * np.exp(random.normal(0, 0.01, 20))) for name, each in ms.items()}
    return of_samples(samples, "four images", taken=Taken(others, 0.0))


def forum(others: float = 0.0) -> Forked:
    """As the forum had it."""
    images = rounds_of(others, loop=41.9, pool=84.3, batch=90.4)
    sleeps, long = rounds_of(others, loop=40.4, pool=24.2), rounds_of(others, loop=4048, pool=1072)
    return Forked(images, sleeps, long, rounds_of(others, loop=10, pool=30), 1.0, 1)


def started(ms: float = 2900.0, others: float = 0.0, scatter: float = 0.01) -> Comparison:
    return made_up({"sequential": 26.0, COLD: ms}, others=others, scatter=scatter)


# Quizzes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("comparison", "says"),
    [
        (started(), "more than 10 times slower"),
        (started(100), "up to 10 times slower"),
        (started(13), "faster"),
        (started(26), "not decided: no difference found"),
        (started(260, scatter=0.2), "not decided: "),  # the interval holds both
        (started(others=0.5), f"not decided: {OTHERS}"),
        (made_up({"sequential": 26.0, COLD: "no spawn"}), "not measured: no spawn"),
        (made_up({"sequential": 26.0}), "not measured: pool_cold is not in the table"),
    ],
)
def test_a_pool_that_is_made_for_the_call(comparison: Comparison, says: str) -> None:
    said = lab.pool_answer(comparison)
    assert said.startswith(says)
    assert said in lab.QUIZZES["pool"][1] or said.startswith("not ")


def test_the_forum_s_own_pool_and_its_control() -> None:
    assert lab.forked_answer(forum()) == "slower"
    assert lab.forked_answer(forum(0.5)) == f"not decided: {OTHERS}"
    assert lab.forked_answer("Linux only.") == "not measured: Linux only."
    assert lab.control_answer(started()) == "slower"
    assert lab.control_answer(started(13)) == "faster"


@pytest.mark.parametrize(
    ("ms", "says"),
    [
        (FIXES, "threads with a Net each"),
        ({**FIXES, "processes(threads=1)": 32.0}, "not decided: "),  # as fast as threads
        ({**FIXES, "sequential": 25.0, "sequential(threads=1)": 48.0}, "a loop, OpenCV on all cores"),
    ],
)
def test_the_fastest_fix_beats_each_of_the_others(ms: dict[str, float], says: str) -> None:
    said = lab.fix_answer(made_up(ms))
    assert said.startswith(says)
    assert said in lab.QUIZZES["fix"][1] or said.startswith("not ")
    assert lab.fix_answer(made_up(ms, others=0.5)).startswith("not decided: machine busy")


def test_a_batch_and_a_shared_net() -> None:
    assert lab.batch_answer(made_up(BATCHED)) == "faster"
    assert lab.batch_answer(made_up({**BATCHED, "batch": 90.0})) == "slower"
    assert lab.batch_answer(made_up(BATCHED, wrong=("batch",))) == "wrong output"
    assert lab.net_answer(WRONG) == "wrong answers or errors"
    assert lab.net_answer(Misuse(10, died="signal 11")) == "the process crashes"
    assert lab.net_answer(Misuse(10)).startswith("not decided: all of 10 answers were right this time")


@pytest.mark.parametrize("name", lab.QUIZZES)
def test_a_quiz_is_made_by_its_name_and_answered_by_a_function_of_that_name(name: str) -> None:
    assert lab.quiz(name).answer is None
    assert callable(getattr(lab, f"{name}_answer"))


# Sentences ------------------------------------------------------------------------------------------------------------


def test_a_pair_is_told_in_one_direction_with_its_interval_and_its_verdict() -> None:
    told = lab.about_pool(started())
    assert "26 ms → 2,900 ms, 112x slower [111, 113]: **slower**." in told
    assert "1.67x as fast [1.6" in lab.about_forked(forum())
    assert "2.02x slower [2.00, 2.04]: **slower**" in lab.about_forked(forum())
    assert "had 1 thread." in lab.about_forked(forum())
    assert lab.about_forked("Linux only.") == "Linux only."
    few = made_up({"sequential": 26.0, COLD: 2900.0, "other": 3.0}, rounds=6)
    assert "111x slower: **not decided: it needs 8 rounds or more**" in lab.about_pool(few), "no interval of too few"
    assert "not measured: no spawn" in lab.about_pool(made_up({"sequential": 26.0, COLD: "no spawn"}))


def test_a_pool_with_rounds_of_its_own_is_told_beside_the_loop_of_those() -> None:
    """Else 26 and 2,900 ms stand beside 145x slower, and a reader who divides them gets 112."""
    found = started()
    beside = made_up({"sequential": 20.0, COLD: 2900.0}, rounds=6)
    rows = (found.rows[0], beside.rows[1])
    assert "20 ms → 2,890 ms, 145x slower" in lab.about_pool(replace(found, rows=rows))


def test_nothing_is_concluded_from_sleeps_on_a_busy_machine() -> None:
    assert "this loss is start-up" in lab.about_control(started())
    assert "this loss is start-up" not in lab.about_control(started(others=0.5))
    assert "this loss is start-up" not in lab.about_control(started(13))


def test_what_the_cores_allow_and_what_was_reached() -> None:
    told = lab.about_fixes(made_up(FIXES, unit="images", items=8, branches=tuple("abcdefgh")), 2)
    assert "so 2 cores can do at most **296 [29" in told
    assert "`threads(threads=1)` reaches **84% [8" in told
    assert "2.49x slower [2.4" in told, "crowded workers beside those with their share"
    disturbed = lab.about_fixes(
        made_up({**FIXES, "threads(threads=1)": 20.0}, unit="images", items=8, branches=tuple("abcdefgh")), 2
    )
    assert "reaches **1" not in disturbed, "more than is possible is no success"
    busy = lab.about_fixes(made_up(FIXES, unit="images", items=8, branches=tuple("abcdefgh"), others=0.5), 2)
    assert "%" not in busy.replace("50%", "")
    assert f"\n\nNothing is decided about what the cores allow: {OTHERS}." in busy
    assert "at most" not in busy, "a bound from disturbed rounds is none"


def test_the_parts_of_an_image_are_told_where_they_were_recorded() -> None:
    fixes = made_up(FIXES, unit="images", items=8, branches=tuple("abcdefgh"))
    assert lab.about_fixes(fixes, 2).startswith("The parts of an image's work are not known.")
    _, alone, *_ = fixes.rows
    parts = [span("forward", "part", 0, 4, "caller"), span("decode", "part", 4, 6, "caller")]
    timing = replace(alone.timing, trace=Trace.build([span("a", "task", 0, 6, "caller"), *parts]))
    rows = tuple(replace(row, timing=timing) if row is alone else row for row in fixes.rows)
    said = lab.about_fixes(replace(fixes, rows=rows), 2)
    assert said.startswith("An image at one thread, in the call that the timeline shows (medians of its images): ")
    assert "forward 4 ms" in said
    missing = tuple(replace(row, timing=None, reason="no cores") if row is alone else row for row in fixes.rows)
    told = lab.about_fixes(replace(fixes, rows=missing), 2)
    assert "The work of an image alone is not known, so there is no bound to tell." in told


def test_what_did_not_run_or_is_in_doubt_reaches_nothing_of_the_bound() -> None:
    def told(**changes: str) -> str:
        fixes = made_up(FIXES, unit="images", items=8, branches=tuple("abcdefgh"))
        rows = (replace(row, **changes) if row.name == "threads(threads=1)" else row for row in fixes.rows)
        return lab.about_fixes(replace(fixes, rows=tuple(rows)), 2)

    in_doubt = told(doubt="timings vary a lot")
    assert "`threads(threads=1)`: not decided: timings vary a lot." in in_doubt
    assert "`processes(threads=1)` reaches **" in in_doubt
    missing = lab.about_fixes(
        made_up({**FIXES, "threads(threads=1)": "no threads"}, unit="images", items=8, branches=tuple("abcdefgh")), 2
    )
    assert "`threads(threads=1)`: not measured: no threads." in missing


def test_what_opencv_refuses_is_told_in_its_own_words() -> None:
    class Refusing(nn.Module):
        def forward(self, *images: Tensor) -> None:
            raise cv2.error("reshape: total(srcShape) == 256")

    image = torch.zeros(1)
    assert lab.about_refusal(Refusing(), [image]) == "```\nreshape: total(srcShape) == 256\n```"
    assert lab.about_refusal(nn.Identity(), [image]) == "This OpenCV accepts them."


def test_break_even_needs_two_cores_and_calm_rounds() -> None:
    fixes = made_up(FIXES, branches=tuple("abcdefgh"))
    assert "it pays from about **" in lab.break_even(started(), fixes, 4, 2)
    assert "With one core a pool saves nothing" in lab.break_even(started(), fixes, 4, 1)
    assert lab.break_even(started(others=0.5), fixes, 4, 2).startswith("Nothing is decided about break-even")
    gone = made_up({"sequential": 26.0, COLD: "no spawn"})
    assert "was not measured" in lab.break_even(gone, fixes, 4, 2)


def test_the_grid_names_a_cell_only_if_it_beats_every_other() -> None:
    assert "`b` is faster than every other cell" in lab.about_grid(made_up({"a": 2.0, "b": 1.0}), 2)
    assert "no cell is known to be" in lab.about_grid(made_up({"a": 2.0, "b": 2.0}), 2)


def test_theirs_and_ours_are_compared_by_their_order_only() -> None:
    rows = lab.theirs_and_ours(forum(), started(), started()).splitlines()[2:]
    assert [row.split(" | ")[3] for row in rows] == ["yes"] * 4, "it is the forum's own"
    assert [row.split(" | ")[5].rstrip(" |") for row in rows] == ["yes", "-", "no", "-"], "a spawned pool loses sleeps"
    assert OTHERS in lab.theirs_and_ours(forum(0.5), started(), started())
    assert lab.theirs_and_ours("Linux only.", started(), started()).endswith("Linux only.")
    shorter = lab.theirs_and_ours(forum()._replace(seconds=0.1), started(), started())
    assert "four times a sleep of 1 s and an inference (here 0.1 s): loop, pool" in shorter


def test_the_card() -> None:
    arguments = started(), made_up({"sequential": 40.0, COLD: 2900.0}), made_up(FIXES), made_up(BATCHED)
    calm = lab.conclusion(arguments[0], forum(), *arguments[1:], WRONG).splitlines()[2:]
    assert [line.split(" | ")[1] for line in calm] == ["**true**"] * 10
    busy = lab.conclusion(
        started(others=0.5),
        forum(0.5),
        started(others=0.5),
        made_up(FIXES, others=0.5),
        made_up(BATCHED, others=0.5),
        Misuse(10),
    )
    assert [line.split(" | ")[1] for line in busy.splitlines()[2:]] == ["not decided"] * 10
    elsewhere = lab.conclusion(arguments[0], "Linux only.", *arguments[1:], WRONG)
    assert "| not decided | Linux only. |" in elsewhere


def test_the_batch_stands_beside_the_loop_and_a_row_is_the_fastest_only_where_it_is_known() -> None:
    calm = lab.about_batch(made_up({**BATCHED, "torch": 36.0}))
    assert calm.startswith("The loop and the batch: 39.9 ms → 38 ms, 1.05x as fast [")
    assert calm.endswith("In this table, faster than every other row is `onnxruntime`.")
    assert "no row is the fastest: not decided: " in lab.about_batch(made_up(BATCHED, others=0.5))
    assert "The loop and the batch: not measured: no onnx." in lab.about_batch(made_up({**BATCHED, "batch": "no onnx"}))


def test_a_net_that_two_threads_share_is_never_called_harmless() -> None:
    assert lab.about_net(WRONG) == "Of 200 answers 7 were wrong, and 1 call raised an error."
    assert lab.about_net(Misuse(200)).endswith("That proves nothing: the next run may be another.")
    assert lab.about_net(Misuse(200, died="signal 11")) == "The process did not survive it: signal 11"
