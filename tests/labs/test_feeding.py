"""Notebook 08: what its quizzes reveal and its sentences and its card say, of made-up measurements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from kit.labs import feeding as lab
from kit.labs.feeding import IN_PROCESSES, LOOP, ON_RANKS, ON_THREADS, Runs
from kit.labs.threads import IMPOSSIBLE
from kit.machine.load import Taken
from kit.measuring.comparison import Comparison
from kit.pipeline import RunStatistics, StageStatistics
from kit.trace import Trace
from kit.workloads import guide
from kit.workloads.feeding import WORKS
from tests.labs.made_up import made_up, span

MS = 1_000_000
TOOK = "other programs took 50% of the machine's CPU time during the rounds"
OTHERS = f"machine busy: {TOOK}"
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


def test_sizes_that_were_left_out_in_between_leave_the_answer_open() -> None:
    """As in the short version: 10 MB being faster does not say that 1 MB is not."""
    found = {n: each for n, each in trips(10_000_000).items() if n in (1_000, 100_000, 10_000_000)}
    said = lab.cross_answer(found)
    assert said.startswith("not decided: from a size between 100,000 and 10,000,000 bytes on")
    assert lab.cross_answer({**found, 1_000_000: trips()[1_000_000]}) == "10 MB"


def test_sizes_that_are_no_option_are_named() -> None:
    other = {200_000: made_up({"pickled_copy": 10.0, "tensor_queue": 5.0})}
    assert lab.cross_answer(other) == "not one of these: from 200,000 bytes on"


def test_the_short_version_sends_sizes_that_are_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIT_FAST", "1")
    assert lab.sizes() == (1_000, 100_000, 10_000_000)
    monkeypatch.delenv("KIT_FAST")
    assert lab.sizes() == lab.SIZES
    assert len(lab.SIZES) + 1 == len(lab.QUIZZES["cross"][1])


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
    assert large.startswith("- large files: no approach is known to be faster than every other: not decided: ")


def test_the_table_of_the_lock_keeps_doubts_and_caveats() -> None:
    table = lab.lock_table({"io": made_up({LOOP: 20.0, ON_THREADS: 11.0}, others=0.5)})
    assert f"not decided: {OTHERS} |" in table
    assert "| io | `sequential(threads=1)` |" in table
    others = replace(
        made_up({LOOP: 20.0, ON_THREADS: 11.0}, others=0.5), caveats=("conv2d ran elsewhere", f"{TOOK} (load")
    )
    told = lab.lock_table({"io": others})
    assert "- io: conv2d ran elsewhere" in told
    assert "(load" not in told, "its verdict says so already"
    calm = replace(made_up({LOOP: 20.0, ON_THREADS: 11.0}, others=0.2), caveats=("other programs took 20% of",))
    assert "- io: other programs took 20%" in lab.lock_table({"io": calm})
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


def test_the_mended_call_gives_each_process_its_share() -> None:
    images = torch.rand(5, 3)
    mended = guide.spawn_as_mended(images, workers=2)
    assert mended.shares == [3, 2]
    assert torch.equal(mended.results, torch.cat([images[:3] * 0, images[3:] * 1]))
    told = lab.about_mended(mended, images)
    assert "| process 1 | 2 of 5 images |" in told
    assert "equal those computed in this process" in told
    wrong = guide.Mended(torch.zeros(5, 3), [3, 2])
    assert "**The results differ from those computed in this process.**" in lab.about_mended(wrong, images)
    assert "def process_share(rank, images, results, workers):" in told
    assert "mp.spawn(process_share, args=(images, results, 4), nprocs=4)" in told


def test_a_first_epoch_is_one_call_and_says_so() -> None:
    fed = made_up(FED)
    told = lab.about_first_epoch(fed.traces["loader"], fed, "loader")
    assert "41 ms with new workers (one call, so without an interval); 40.9 ms [" in told


def test_times_of_a_busy_machine_are_given_with_their_doubt() -> None:
    told = lab.about_lock({"io": pair(20, 11, others=0.5)})
    assert told.endswith(f"of the time. **not decided: {OTHERS}**.")
    assert "not decided" not in lab.about_lock({"io": pair(20, 11)})


@pytest.mark.parametrize(
    ("divided", "says"),
    [
        ({LOOP: 40.0, IN_PROCESSES: 20.0, ON_RANKS: 30.0}, "**slower**."),
        ({LOOP: 40.0, IN_PROCESSES: 30.0, ON_RANKS: 20.0}, "**faster**."),
        ({LOOP: 40.0, IN_PROCESSES: 30.0, ON_RANKS: 30.0}, "**no difference found**."),
        ({LOOP: 40.0, IN_PROCESSES: 30.0, ON_RANKS: "no gloo"}, "not measured: no gloo."),
        ({LOOP: 40.0, IN_PROCESSES: "no spawn", ON_RANKS: 30.0}, "not measured: no spawn."),
    ],
)
def test_ranks_against_processes(divided: dict[str, float | str], says: str) -> None:
    assert lab.about_ranks(made_up(divided)).endswith(says)


def test_a_bound_and_what_was_reached_are_of_the_same_rounds() -> None:
    table = lab.stages_table(runs(), 4)
    assert "| stage 1 | 5 ms [5, 5] |" in table
    assert "at most **200 [200, 200] frames/s** on 4 cores: the slowest stage, **stage 1**, sets this limit" in table
    assert "All stages of a frame together take 10 ms [10, 10] of a core's time" in lab.stages_table(runs(), 1)
    assert "which stage sets this limit is not decided" in lab.stages_table(runs(), 2)  # 5 ms, and 10 ms on two cores
    assert "reaches **75% [75%, 76%]** of what" in lab.about_line(runs(), 4)


def test_a_share_above_the_bound_is_no_success() -> None:
    assert "**which cannot be**" in lab.about_line(runs(rate=300.0), 4)
    unsure = runs(rate=200.0)  # on some rounds above the bound, on others below
    line = [run([1, 5, 4], rate, 20) for rate in (190, 195, 199, 201, 203, 205, 207, 209)]
    told = lab.about_line(Runs({**unsure.statistics, "pipeline": line}, unsure.taken), 4)
    assert "**not decided**: 101%" in told
    assert "reaches **" not in told


def test_the_tables_of_the_pipeline_keep_the_doubt() -> None:
    busy = runs(others=0.5)
    assert lab.about_line(busy, 4).startswith(f"**Not decided: {OTHERS}.**")
    for told in (lab.stages_table(busy, 4), lab.latency_table(busy)):
        assert f"**Not decided: {OTHERS}.** These numbers decide nothing." in told
    assert "Not decided" not in lab.latency_table(runs())
    assert "Split it" not in lab.stages_table(busy, 4)
    assert "at most" not in lab.stages_table(busy, 4)
    swinging = [run([1, 5, 4], rate, 20) for rate in (40, 40, 40, 40, 160, 160, 160, 160)]
    doubt = Runs({**runs().statistics, "pipeline": swinging}, Taken(0.0, 0.0)).doubt
    assert "frames/s of pipeline vary a lot: the upper quartile is 4.0 times the lower" in doubt


# Exercises ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("worker", "says"),
    [
        (lambda rank, images, workers: images[rank + 1 :: workers], "images[0] is left out. The first rank is 0."),
        (
            lambda rank, images, workers: images[rank - 1 :: workers],
            "images[2], images[5], images[8] are left out, and images[9] is done twice or more.",
        ),
        (lambda rank, images, workers: images[rank * 3 : rank * 3 + 3], "images[9] is left out."),
        (lambda rank, images, workers: images, "images[9] are done twice or more."),
        (lambda rank, images, workers: tuple(images[rank::workers]), "of type tuple: give a list"),
        (lambda rank, images, workers: (image for image in images[rank::workers]), "of type generator: give a list"),
        (lambda rank, images, workers: images[rank], "it gives 10, of type int: give a list"),
        (lambda rank, images, workers: list(range(rank, len(images), workers)), "not positions"),
        (lambda rank, images, workers: print(end=""), "is there a return?"),
        (lambda images, rank, workers: images[rank::workers], "spawn passes the rank first"),
        (lambda rank, images: images[rank::3], "raised TypeError"),
        (lambda rank, images, workers: images if rank == 0 else [], "no share should have more than four"),
    ],
)
def test_wrong_workers_get_the_hint_that_helps(worker: Callable[..., Any], says: str) -> None:
    found = lab.check_worker(worker)
    assert found.state == "hint"
    assert says in found.message


def test_any_fair_division_is_right() -> None:
    assert lab.check_worker(lambda rank, images, workers: images[rank::workers]).state == "passed"
    by_four = lab.check_worker(lambda rank, images, workers: images[rank * 4 : rank * 4 + 4])
    assert by_four.state == "passed"


@pytest.mark.parametrize(
    ("bound", "says"),
    [
        (lambda stages, cores: 1000 / max(stages), "one core does 30 ms"),
        (lambda stages, cores: 1000 * cores / sum(stages), "the slowest stage sets the pace"),
        (lambda stages, cores: 1000 / sum(stages), "the slowest stage sets the pace"),
        (lambda stages, cores: max(max(stages), sum(stages) / cores), "100 frames/s"),  # ms, not frames a second
        (lambda stages, cores: 1 / max(max(stages), sum(stages) / cores), "A second has 1000 ms"),
        (lambda stages, cores: print(end=""), "is there a return?"),
    ],
)
def test_wrong_bounds_get_the_hint_that_helps(bound: Callable[..., Any], says: str) -> None:
    found = lab.check_throughput(bound)
    assert found.state == "hint"
    assert says in found.message


# The card -------------------------------------------------------------------------------------------------------------


CLAIMS = (  # in the order of the card
    "spawn",
    "new pool, small",
    "new pool, large",
    "kept pool, small",
    "kept pool, large",
    "queue",
    "opencv",
    "python",
    "io",
    "ranks",
    "pipeline",
)


def card(
    *,
    fed: dict[str, float | str] = FED,
    works: tuple[str, ...] = ("io", "opencv", "torch"),
    new_ms: float = 2000.0,
    ranks: float | str = 30.0,
    queue: tuple[int, ...] = (64_000_000,),
    played: dict[str, float | str] = PLAYED,
    others: float = 0.0,
    locked: bool = True,
) -> str:
    return lab.conclusion(
        {size: made_up(fed, others=others) for size in ("small", "large")},
        lock(*works, others=others),
        SWAPPED,
        {size: made_up({LOOP: 40.0, "published_pool": new_ms}, others=others) for size in ("small", "large")},
        made_up({LOOP: 40.0, IN_PROCESSES: 30.0, ON_RANKS: ranks}, others=others),
        trips(*queue, others=others),
        made_up(played, others=others),
        locked,
    )


def test_the_card_of_a_calm_machine() -> None:
    want = dict.fromkeys(CLAIMS, "true") | dict.fromkeys(("spawn", "new pool, small", "new pool, large"), "false")
    assert truths(card()) == want


def test_the_card_where_everything_is_slower() -> None:
    slow = dict.fromkeys(FED, 60.0) | {LOOP: 40.0}
    told = truths(card(fed=slow, works=(), ranks=60.0, queue=(), played={"sequential": 66.0, "pipeline": 100.0}))
    assert told == dict.fromkeys(CLAIMS, "false") | {"python": "true"}


def test_the_card_of_a_busy_machine_decides_only_what_hangs_on_no_clock() -> None:
    assert truths(card(others=0.5)) == dict.fromkeys(CLAIMS, "not decided") | {"spawn": "false"}


def test_the_card_of_rows_that_are_missing() -> None:
    told = card(fed={**FED, "mp_pool": "no spawn"}, ranks="no gloo")
    assert [name for name, truth in truths(told).items() if truth == "not decided"] == [
        "kept pool, small",
        "kept pool, large",
        "ranks",
    ]
    assert "not measured: no gloo" in told


def test_with_a_gil_no_gain_of_pure_python_is_believed() -> None:
    assert IMPOSSIBLE in card(works=WORKS)
    assert truths(card(works=WORKS))["python"] == "not decided"
    assert truths(card(works=WORKS, locked=False))["python"] == "false"


def test_the_claim_about_the_largest_tensor_needs_no_verdict_on_smaller_ones() -> None:
    """Where the lines cross the rounds often cannot tell; that leaves the largest size decided."""
    unsure = trips(10_000_000, 64_000_000) | {
        1_000_000: made_up({"pickled_copy": 10.0, "tensor_queue": 10.0}, scatter=0.3)
    }
    assert lab.cross_answer(unsure).startswith("not decided: ")
    fed = {"small": made_up(FED), "large": made_up(FED)}
    pools = {"small": made_up({LOOP: 40.0, "published_pool": 2000.0})}
    divided = made_up({LOOP: 40.0, ON_RANKS: 30.0})
    told = lab.conclusion(fed, lock(), SWAPPED, pools, divided, unsure, made_up(PLAYED), True)
    assert "| At 64,000,000 bytes, a queue of torch.multiprocessing is faster than a pickled copy | **true** |" in told


def truths(card: str) -> dict[str, str]:
    found = [line.split(" | ")[1].strip("*") for line in card.splitlines()[2:]]
    return dict(zip(CLAIMS, found, strict=True))


def test_the_steps_of_a_file_have_a_column_for_each_size() -> None:
    def recorded(*steps: tuple[str, int, int]) -> Trace:
        return Trace.build([span(name, "part", start, end, "caller") for name, start, end in steps])

    small = recorded(("read", 0, 1), ("decode", 1, 3))
    large = recorded(("read", 0, 2), ("decode", 2, 9))
    lines = lab.parts_table({"320x240": small, "1280x960": large}).splitlines()
    assert lines[0] == "| step | 320x240 | 1280x960 |"
    steps = [[cell.partition(" (")[0] for cell in line.strip("| ").split(" | ")] for line in lines[2:4]]
    assert steps == [["read", "1 ms", "2 ms"], ["decode", "2 ms", "7 ms"]]
