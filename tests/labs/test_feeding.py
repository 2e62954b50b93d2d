"""Notebook 08: what its quizzes reveal and its sentences and its card say, of made-up measurements."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from kit.labs import feeding as lab
from kit.labs.feeding import IN_PROCESSES, LOOP, ON_THREADS, Runs
from kit.labs.threads import IMPOSSIBLE
from kit.machine.load import Taken
from kit.measuring.comparison import Comparison
from kit.pipeline import RunStatistics, StageStatistics
from kit.workloads import guide
from kit.workloads.feeding import WORKS
from tests.labs.made_up import made_up

MS = 1_000_000
OTHERS = "machine busy: other programs took 50% of the machine's CPU time during the rounds"
FED = {LOOP: 40.0, "threads": 30.0, "processes": 36.0, "mp_pool": 36.0, "loader": 41.0, "loader(workers=2)": 60.0}
SWAPPED = guide.Spawned(None, [("the number 0", "a tensor (8, 3)", "a tensor (8, 3)")])


def pair(loop: float, threads: float, others: float = 0.0, scatter: float = 0.01) -> Comparison:
    return made_up({LOOP: loop, ON_THREADS: threads, IN_PROCESSES: loop}, others=others, scatter=scatter)


def lock(*gain: str, others: float = 0.0, scatter: float = 0.01) -> dict[str, Comparison]:
    """Threads are nearly twice as fast for these works, and as fast as the loop for the others."""
    return {work: pair(20, 11 if work in gain else 20, others, scatter) for work in WORKS}


def trips(*faster: int, others: float = 0.0) -> dict[int, Comparison]:
    """At these sizes the queue beats the pickled copy."""
    sizes = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 64_000_000)
    return {
        size: made_up({"pickled_copy": 10.0, "tensor_queue": 5.0 if size in faster else 20.0}, others=others)
        for size in sizes
    }


def run(ms: Sequence[float], per_second: float, latency_ms: float) -> RunStatistics:
    stages = [StageStatistics(f"stage {i}", 10, 0, int(each * 10 * MS)) for i, each in enumerate(ms)]
    found = RunStatistics(stages, done=10, began_ns=0, ended_ns=round(10e9 / per_second))
    found.latencies_ns.extend([int(latency_ms * MS)] * 10)
    return found


def runs(rate: float = 150.0, latency_ms: float = 20.0, others: float = 0.0) -> Runs:
    """Stages of 1, 5 and 4 ms."""
    names = {"sequential": (100.0, 10.0), "pipeline": (rate, latency_ms), "pipeline(capacity=8)": (rate, 90.0)}
    found = {name: [run([1, 5, 4], one * (1 + i / 1000), ms) for i in range(8)] for name, (one, ms) in names.items()}
    return Runs(found, Taken(others, 0.0))


PLAYED = {"sequential": 100.0, "pipeline": 66.0}


# Quizzes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ms", "says"),
    [
        (FED, "threads"),
        ({**FED, "threads": 60.0}, "a pool of processes"),  # two of one kind need not differ
        ({**FED, "threads": 60.0, "processes": 60.0, "mp_pool": 60.0}, "a loop"),  # a loader without workers is one too
        ({**FED, "threads": 36.0}, "not decided: "),
        ({LOOP: 20.0, "threads": 30.0, "processes": "no spawn"}, "a loop"),
    ],
)
def test_the_fastest_kind_beats_the_best_of_every_other(ms: dict[str, float | str], says: str) -> None:
    said = lab.feed_answer(made_up(ms))
    assert said.startswith(says)
    assert lab.feed_answer(made_up(ms, others=0.5)).startswith("not decided: machine busy")


@pytest.mark.parametrize(
    ("measured", "says"),
    [
        (lock(), "none"),
        (lock("io"), "waiting only"),
        (lock("io", "opencv", "torch"), "all but pure Python"),
        (lock(*WORKS), "all four"),
        (lock("io", "opencv"), "not one of these: faster here are io, opencv"),
        (lock("io", others=0.5), f"not decided: {OTHERS}"),
    ],
)
def test_for_which_work_threads_are_faster(measured: dict[str, Comparison], says: str) -> None:
    assert lab.lock_answer(measured, locked=False) == says
    assert lab.lock_answer(measured, locked=True) == (IMPOSSIBLE if says == "all four" else says)


def test_a_wide_interval_is_no_answer() -> None:
    assert lab.lock_answer(lock("io", scatter=0.3), locked=True).startswith("not decided: ")


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (trips(), "never"),
        (trips(10_000_000, 64_000_000), "10 MB"),
        (trips(1_000, 64_000_000), "64 MB"),  # from which size ON
        (trips(1_000, 10_000, 100_000, 1_000_000, 10_000_000, 64_000_000), "1 kB (always)"),
        (trips(64_000_000, others=0.5), f"not decided: {OTHERS} (at 64,000,000 bytes)"),
    ],
)
def test_from_which_size_on_the_queue_is_faster(found: dict[int, Comparison], says: str) -> None:
    assert lab.cross_answer(found) == says


@pytest.mark.parametrize(
    ("played", "measured", "says"),
    [
        (made_up(PLAYED), runs(), "more frames/s, each frame takes longer"),
        (made_up(PLAYED), runs(latency_ms=5), "both better"),
        (made_up(PLAYED), runs(others=0.5), f"not decided: {OTHERS}"),
        (made_up(PLAYED, others=0.5), runs(), f"not decided: {OTHERS}"),
        (made_up({**PLAYED, "pipeline": 150.0}), runs(), "fewer frames/s"),
        (made_up({**PLAYED, "pipeline": 100.0}), runs(), "no more frames/s"),
        (
            made_up({**PLAYED, "pipeline": 87.0}, scatter=0.4),
            runs(),
            "not decided: ",
        ),  # 1.15x [0.99, 1.71] is no answer
    ],
)
def test_what_a_pipeline_changes(played: Comparison, measured: Runs, says: str) -> None:
    assert lab.line_answer(played, measured).startswith(says)


@pytest.mark.parametrize("name", lab.QUIZZES)
def test_a_quiz_is_made_by_its_name_and_answered_by_a_function_of_that_name(name: str) -> None:
    assert lab.quiz(name).answer is None
    assert callable(getattr(lab, f"{name}_answer"))


# Sentences ------------------------------------------------------------------------------------------------------------


def test_a_winner_is_named_only_if_it_beats_every_other_row() -> None:
    told = lab.about_feeding({"small": made_up(FED, items=16), "large": made_up({**FED, "threads": 36.0})})
    small, large = told.splitlines()
    assert small.startswith("- small files: `threads` is faster than every other approach, with 53")
    assert large.startswith("- large files: not decided: ")


def test_the_table_of_the_lock_keeps_doubts_and_caveats() -> None:
    table = lab.lock_table({"io": made_up({LOOP: 20.0, ON_THREADS: 11.0}, others=0.5)})
    assert f"not decided: {OTHERS} |" in table
    assert "| io | `sequential(threads=1)` |" in table
    assert "**python**: not measured: one core" in lab.about_lock(
        {"python": made_up({LOOP: 1.0, ON_THREADS: "one core"})}
    )
    assert "their bars overlap for 100% [100%, 100%] of the time" in lab.about_lock({"io": pair(20, 11)})


def test_the_guides_call_raises_nothing_and_shares_nothing_out() -> None:
    spawned = guide.spawn_as_published(torch.ones(4, 3), workers=2)
    assert spawned.returned is None
    assert spawned.saw == [
        ("the number 0", "a tensor (4, 3)", "a tensor (4, 3)"),
        ("the number 1", "a tensor (4, 3)", "a tensor (4, 3)"),
    ]
    told = lab.about_spawn(spawned)
    assert "| process 1 | the number 1 | a tensor (4, 3) |" in told
    assert "`spawn` returned `None`" in told
    assert "return image * rank" in lab.snippet()
    assert "Any" not in lab.snippet()


def test_a_bound_and_what_was_reached_are_of_the_same_rounds() -> None:
    table = lab.stages_table(runs(), 4)
    assert "| stage 1 (the slowest) | 5 ms [5, 5] |" in table
    assert "at most **200 [200, 200] frames/s** on 4 cores: the stage **stage 1** limits it" in table
    assert "all of them together take 10 ms a frame" in lab.stages_table(runs(), 1)
    assert "reaches **75% [75%, 76%]** of what" in lab.about_line(runs(), 4)
    assert "**which cannot be**" in lab.about_line(runs(rate=300.0), 4)
    assert lab.about_line(runs(others=0.5), 4).startswith(f"**Not decided: {OTHERS}.**")


def test_the_card() -> None:
    recipes = made_up({LOOP: 40.0, "mp_pool": 30.0, "published_pool": 2000.0})
    large = made_up({LOOP: 40.0, "processes": 30.0})
    fed = {"small": made_up(FED), "large": large}
    gained = lock("io", "opencv", "torch")
    calm = lab.conclusion(fed, gained, SWAPPED, recipes, trips(64_000_000), made_up(PLAYED), True)
    assert truths(calm) == ["false", "false", "true", "true", "true", "true", "true", "true", "true"]
    busy = {name: made_up(FED, others=0.5) for name in fed}
    slow = made_up({LOOP: 40.0, "mp_pool": 30.0, "published_pool": 2000.0}, others=0.5)
    disturbed = lab.conclusion(
        busy, lock(*WORKS, others=0.5), SWAPPED, slow, trips(64_000_000, others=0.5), made_up(PLAYED, others=0.5), True
    )
    assert truths(disturbed) == ["false", *["not decided"] * 8], "what spawn passes hangs on no clock"
    assert IMPOSSIBLE in lab.conclusion(fed, lock(*WORKS), SWAPPED, recipes, trips(), made_up(PLAYED), True)


def truths(card: str) -> list[str]:
    return [line.split(" | ")[1].strip("*") for line in card.splitlines()[2:]]
