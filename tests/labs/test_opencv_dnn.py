"""Notebook 07: where a pool's time went; what its quizzes, sentences, tables and card say; its exercises."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.equality import Equality
from kit.labs import opencv_dnn as labs
from kit.labs.causes import CAUSES, about_causes, causes_ms, causes_table, named_share, part_ms
from kit.labs.checks import Check
from kit.labs.medians import median, speed
from kit.labs.opencv_dnn import QUIZZES, bound_per_second, check_pool_pays, check_threads_per_worker
from kit.machine.load import Taken
from kit.measuring.comparison import Comparison, Ratio
from kit.measuring.samples import of_samples
from kit.trace import Event, Lane, Trace
from kit.workloads.forum import Forked
from kit.workloads.opencv_dnn import Misuse
from tests.labs.made_up import busy, made_up

CALLER, WORKER = Lane(1, 1, "caller"), Lane(2, 2, "process 0")
POOL = "pool_cold(workers=4)"
TAKEN = "not decided: machine busy: other programs took 50% of the machine's CPU time during the rounds"
ROWS = ("sequential", "sequential(threads=1)", "threads(threads=1)", "processes(threads=1)", "processes(threads=2)")


def fixes(*ms: float, **options: Any) -> Comparison:
    """The table of section 3 with these medians, in the order of ROWS."""
    return made_up(dict(zip(ROWS, ms, strict=True)), items=2, unit="images", **options)


CALM = fixes(44, 40, 22, 26, 30)


def samples(ms: Mapping[str, float], taken: float = 0.0, rounds: int = 20, scatter: float = 0.01) -> Comparison:
    random = np.random.default_rng(1)
    times = {name: list(each * 1e6 * np.exp(random.normal(0, scatter, rounds))) for name, each in ms.items()}
    return of_samples(times, "x", taken=Taken(taken, 0.0))


def forum(taken: float = 0.0, pool: float = 88, sleeps: float = 30, batch: float = 20) -> Forked:
    return Forked(
        samples({"loop": 26, "pool": pool, "batch": batch}, taken),
        samples({"loop": 40.4, "pool": sleeps}, taken),
        samples({"loop": 4030, "pool": 1060}, taken),
        samples({"loop": 7, "pool": 14}, taken),
        1.0,
        1,
    )


ELSEWHERE = "Not measured on this system (darwin): there a fork of a process may fail, so it is run on Linux only."
STARTED, SLEPT = made_up({"sequential": 22, POOL: 2900}), made_up({"sequential": 41, POOL: 2800})
BATCHED = made_up({"sequential": 44, "batch": 36, "onnxruntime": 20, "torch": 40, "threads(threads=1)": 22})


# Causes ---------------------------------------------------------------------------------------------------------------


def trace(*events: tuple[str, int, int, Lane]) -> Trace:
    return Trace.build([Event(name, "x", start, end - start, lane) for name, start, end, lane in events])


def test_each_moment_has_one_cause_and_all_add_up() -> None:
    recorded = trace(
        ("call", 0, 100_000_000, CALLER),
        ("send", 0, 40_000_000, CALLER),  # it waits for the worker, which has better reasons
        ("spawn", 5_000_000, 20_000_000, WORKER),
        ("imports", 20_000_000, 50_000_000, WORKER),
        ("load", 50_000_000, 55_000_000, WORKER),
        ("forward", 55_000_000, 75_000_000, WORKER),
        ("end", 76_000_000, 98_000_000, CALLER),
    )
    found = causes_ms(recorded)
    assert found == pytest.approx(
        {"compute": 20, "model load": 5, "imports": 30, "spawn": 15, "queue": 5, "ending": 22, "not named": 3}
    )
    assert sum(found.values()) == pytest.approx(100)
    assert named_share(recorded) == pytest.approx(0.97)
    assert "| imports | 30.0 ms | 30.0% |" in causes_table(recorded)
    assert "97.0% of its time has a cause, and **20.0%** of it is work on the images." in about_causes(recorded)


names = st.sampled_from([name for group in CAUSES.values() for name in group])


@given(st.lists(st.tuples(names, st.integers(0, 50), st.integers(0, 50), st.sampled_from([CALLER, WORKER]))))
def test_causes_never_count_a_moment_twice(events: list[tuple[str, int, int, Lane]]) -> None:
    spans = [(name, start, start + length, lane) for name, start, length, lane in events]
    found = causes_ms(trace(("call", 0, 200, CALLER), *spans))
    assert all(value >= 0 for value in found.values())
    assert sum(found.values()) == pytest.approx(200 / 1e6)


def test_parts_are_medians_with_their_interval() -> None:
    parts = [
        Event("forward", "part", 10 * i, length * 1_000_000, CALLER) for i, length in enumerate((1, 2, 3, 4, 5, 9))
    ]
    assert part_ms(Trace.build(parts))["forward"].ms() == "3.5 ms [1, 9]"
    few = part_ms(Trace.build(parts[:3]))["forward"]
    assert few.ms() == "2 ms (too few values for an interval)"


# Medians and samples --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "says"),
    [
        (Ratio(1.63, 1.5, 1.7), "1.63x as fast [1.50, 1.70]"),
        (Ratio(0.5, 0.4, 0.8), "2.00x slower [1.25, 2.50]"),
        (Ratio(1 / 36, 1 / 40, 1 / 30), "36x slower [30, 40]"),
        (Ratio(0.97, 0.9, 1.1), "0.97x as fast [0.90, 1.10]"),
    ],
)
def test_a_speed_has_one_direction(ratio: Ratio, says: str) -> None:
    assert speed(ratio) == says


def test_an_interval_needs_six_values() -> None:
    assert math.isnan(median([1, 2, 3, 4, 5]).low)
    assert median([1, 2, 3, 4, 5, 6]) == (3.5, 1, 6)
    assert median([0.9] * 6).percent() == "90% [90%, 90%]"


def test_samples_of_another_program_are_judged_as_all_others() -> None:
    calm, taken = samples({"loop": 10, "pool": 20}), samples({"loop": 10, "pool": 20}, taken=0.5)
    assert calm["pool"].verdict == "slower"
    assert taken["pool"].verdict == "not decided"
    assert taken.caveats == ("other programs took 50% of the machine's CPU time during the rounds.",)
    wrong = of_samples({"loop": [1.0] * 8, "pool": [2.0] * 8}, "x", equal={"pool": Equality(False, 1.0)})
    assert wrong["pool"].verdict == "wrong output"


# What the quizzes reveal ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUIZZES)
def test_a_quiz_is_made_by_its_name_and_answered_by_a_function_of_that_name(name: str) -> None:
    assert labs.quiz(name).guess is None
    assert callable(getattr(labs, f"{name}_answer"))


@pytest.mark.parametrize(
    ("started", "says"),
    [
        (STARTED, "more than 10 times slower"),
        (made_up({"sequential": 22, POOL: 84}), "up to 10 times slower"),
        (made_up({"sequential": 22, POOL: 11}), "faster"),
        (busy({"sequential": 22, POOL: 2900}), TAKEN),
        (made_up({"sequential": 22, POOL: "no processes here"}), "not measured: no processes here"),
    ],
)
def test_how_much_slower_the_pool_is(started: Comparison, says: str) -> None:
    assert labs.pool_answer(started) == says


def test_an_interval_across_two_options_is_no_answer() -> None:
    said = labs.pool_answer(made_up({"sequential": 22, POOL: 222}, scatter=0.2))
    assert said.startswith("not decided: ")
    assert said.endswith("leaves either open")
    alike = labs.pool_answer(made_up({"sequential": 22, POOL: 22}))
    assert alike.startswith("not decided")


@pytest.mark.parametrize(
    ("forked", "says"),
    [
        (forum(), "slower"),
        (forum(pool=13), "faster"),
        (forum(0.5), TAKEN),
        (ELSEWHERE, f"not measured: {ELSEWHERE}"),
    ],
)
def test_the_verdict_on_the_forked_pool(forked: Forked | str, says: str) -> None:
    assert labs.forked_answer(forked) == says


@pytest.mark.parametrize(
    ("comparison", "says"),
    [
        (CALM, "threads with a Net each"),
        (fixes(20, 40, 22, 26, 30), "a loop, OpenCV on all cores"),
        (fixes(44, 40, 30, 26, 30), "warm processes, one OpenCV thread each"),
    ],
)
def test_the_fastest_of_the_fixes_is_faster_than_each(comparison: Comparison, says: str) -> None:
    assert labs.fix_answer(comparison) == says


@pytest.mark.parametrize(
    "comparison",
    [fixes(44, 40, 22, 22, 30), fixes(44, 40, 22, 26, 30, others=0.5), fixes(44, 40, 22, 26, 30, rounds=6)],
)
def test_without_a_winner_the_rounds_cannot_tell(comparison: Comparison) -> None:
    assert labs.fix_answer(comparison).startswith("not decided: ")


@pytest.mark.parametrize(
    ("batched", "says"),
    [
        (BATCHED, "faster"),
        (made_up({"sequential": 44, "batch": 60}), "slower"),
        (made_up({"sequential": 44, "batch": 44}), "no difference found"),
        (busy({"sequential": 44, "batch": 36}), TAKEN),
        (made_up({"sequential": 44, "batch": 36}, wrong=("batch",)), "wrong output"),
    ],
)
def test_the_verdict_on_the_batch(batched: Comparison, says: str) -> None:
    assert labs.batch_answer(batched) == says
    assert labs.control_answer(made_up({"sequential": 40, POOL: 2800})) == "slower"


@pytest.mark.parametrize(
    ("shared", "answer", "says"),
    [
        (
            Misuse(200, wrong=3, raised=1),
            QUIZZES["net"][1][1],
            "Of 200 answers 3 were wrong, and 1 call raised an error.",
        ),
        (Misuse(200, died="killed by SIGSEGV"), QUIZZES["net"][1][2], "did not survive it: killed by SIGSEGV"),
        (Misuse(200), "not decided: ", "That proves nothing"),
    ],
)
def test_what_comes_of_sharing_a_net(shared: Misuse, answer: str, says: str) -> None:
    assert labs.net_answer(shared).startswith(answer)
    assert says in labs.about_net(shared)


# Sentences and tables -------------------------------------------------------------------------------------------------


def test_what_is_not_decided_is_never_in_bold() -> None:
    assert labs.about_pool(STARTED).endswith(": **slower**.")
    assert "x slower [" in labs.about_pool(STARTED)
    for said in (
        labs.about_pool(busy({"sequential": 22, POOL: 2900})),
        labs.about_forked(forum(0.5)),
        labs.about_control(busy({"sequential": 41, POOL: 2800})),
    ):
        assert "**" not in said
        assert TAKEN in said


def test_the_control_draws_its_conclusion_only_where_the_pool_is_slower() -> None:
    assert "this loss is start-up" in labs.about_control(SLEPT)
    assert "this loss" not in labs.about_control(busy({"sequential": 41, POOL: 2800}))
    assert "this loss" not in labs.about_control(made_up({"sequential": 41, POOL: 20}))


def test_the_forums_pool_is_told_line_by_line_or_why_it_did_not_run() -> None:
    said = labs.about_forked(forum()).splitlines()
    assert said[0].startswith("- four images: ")
    assert said[0].endswith("**slower**")
    assert said[2].endswith("**faster**")
    assert said[-1] == "The process that forked had 1 thread."
    assert labs.about_forked(ELSEWHERE) == ELSEWHERE


def test_bound_and_rate_are_of_the_same_rounds() -> None:
    said = labs.about_fixes(CALM, 2)
    assert "An image is **18 ms [17." in said  # the rest of a made-up call's 40 ms is no task
    assert "2 cores can do at most **111 [11" in said
    assert "`threads(threads=1)` reaches **82% [8" in said
    assert "`processes(threads=1)` reaches **" in said
    assert "With" not in said


def test_a_rate_beyond_the_bound_is_no_success() -> None:
    said = labs.about_fixes(fixes(44, 40, 12, 26, 30), 2)
    assert "`threads(threads=1)`: not decided: machine busy: " in said  # the gate found it
    lone = labs._reached(median([1.5] * 8))
    assert "which cannot be" in lone


def test_a_busy_machine_tells_no_bound_as_reached() -> None:
    said = labs.about_fixes(fixes(44, 40, 22, 26, 30, others=0.5), 2)
    assert "reaches" not in said
    assert said.count(TAKEN) == 3
    assert labs.break_even(busy({"sequential": 22, POOL: 2900}), CALM, 4, 2).startswith("Nothing is decided")


def test_break_even_has_a_range() -> None:
    said = labs.break_even(STARTED, CALM, 4, 2)  # 2900 ms by half of 18 ms
    found = [int(word.replace(",", "")) for word in said.replace("*", "").split() if word.replace(",", "").isdigit()]
    assert found[-2] <= 323 <= found[-1]
    assert "With one core" in labs.break_even(STARTED, CALM, 4, 1)
    missing = made_up({"sequential": 22, POOL: "no processes here"})
    assert "was not measured" in labs.break_even(missing, CALM, 4, 2)


def test_the_batch_names_a_winner_only_over_every_row() -> None:
    assert labs.about_batch(BATCHED).endswith("faster than every other row is `onnxruntime`.")
    equal = made_up({"sequential": 44, "batch": 36, "onnxruntime": 20, "torch": 20})
    assert "In this table: not decided: " in labs.about_batch(equal)
    no_runtime = made_up({"sequential": 44, "batch": 36, "onnxruntime": "not installed", "torch": 40})
    assert labs.about_batch(no_runtime).endswith("is `batch`.")


def test_the_grid_names_a_cell_only_over_every_other() -> None:
    cells = {"threads(workers=1, threads=1)": 40.0, "threads(workers=2, threads=1)": 22.0}
    assert "`threads(workers=2, threads=1)` is faster than every other cell" in labs.about_grid(made_up(cells), 2)
    assert "no cell is known" in labs.about_grid(busy(cells), 2)


def test_theirs_and_ours_compares_orders_and_never_a_sleep_that_was_reversed() -> None:
    _, _, images, batch, sleeps, long = labs.theirs_and_ours(forum(), STARTED, SLEPT).splitlines()
    assert "| 41.9 → 84.3 ms, slower |" in images
    assert images.count("yes: slower") == 2
    assert "| no: faster | not run | - |" in batch
    assert "| yes: faster |" in sleeps
    assert "| no: slower |" in sleeps  # spawned: the other way round
    assert "| 4,048 → 1,072 ms, faster |" in long
    assert "| yes: faster | not run | - |" in long
    assert len({line.count("|") for line in (images, batch, sleeps, long)}) == 1


def test_theirs_and_ours_decides_nothing_on_a_busy_machine_or_elsewhere() -> None:
    taken = labs.theirs_and_ours(forum(0.5), busy({"sequential": 22, POOL: 2900}), SLEPT)
    assert taken.count(TAKEN) == 5
    assert "yes" not in taken
    elsewhere = labs.theirs_and_ours(ELSEWHERE, STARTED, SLEPT)
    assert elsewhere.count("| not measured | - |") == 4
    assert elsewhere.endswith(ELSEWHERE)
    assert "(here 0.1 s)" in labs.theirs_and_ours(forum()._replace(seconds=0.1), STARTED, SLEPT)


def truths(card: str) -> list[str]:
    return [line.split(" | ")[1].strip("*") for line in card.splitlines()[2:]]


def test_the_card() -> None:
    calm = truths(labs.conclusion(STARTED, forum(), SLEPT, CALM, BATCHED, Misuse(200, wrong=5)))
    assert calm == ["true", "true", "false", "true", "true", "true", "true", "true", "true", "true"]
    other = labs.conclusion(
        STARTED,
        forum(pool=13, batch=40),
        SLEPT,
        fixes(20, 40, 30, 30, 20),
        made_up({"sequential": 9, "batch": 9}),
        Misuse(9),
    )
    want = ["false", "true", "true", "true", "true", "false", "false", "false", "not decided", "not decided"]
    assert truths(other)[:8] == want[:8]
    assert truths(other)[9] == "not decided"


def test_the_card_of_a_busy_run_contradicts_no_calm_one() -> None:
    started, slept = busy({"sequential": 22, POOL: 900}), busy({"sequential": 41, POOL: 20})
    card = labs.conclusion(
        started,
        forum(0.5),
        slept,
        fixes(20, 40, 60, 26, 30, others=0.5),
        busy({"sequential": 4, "batch": 6}),
        Misuse(9),
    )
    assert set(truths(card)) == {"not decided"}
    elsewhere = labs.conclusion(STARTED, ELSEWHERE, SLEPT, CALM, BATCHED, Misuse(9))
    assert truths(elsewhere)[0] == "not decided"
    assert ELSEWHERE in elsewhere


# What the cores allow; exercises --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tasks", "cores", "rate"), [([10, 10, 10, 10], 2, 200), ([10] * 3, 2, 200), ([30, 1, 1], 4, 100), ([5], 8, 200)]
)
def test_the_bound_of_many_tasks(tasks: list[float], cores: int, rate: float) -> None:
    assert bound_per_second(tasks, cores) == pytest.approx(rate)


def stub(a: Any, b: Any, c: Any = None, d: Any = None) -> Any: ...


def forgot_return(a: Any, b: Any, c: Any = None, d: Any = None) -> None:
    max(1, 2)


@pytest.mark.parametrize("check", [check_threads_per_worker, check_pool_pays])
def test_a_stub_is_not_attempted_and_nothing_raises(check: Callable[[Any], Check]) -> None:
    assert check(stub).state == check(None).state == "not attempted yet"
    assert "is there a return" in check(forgot_return).message
    assert check("a string").state == "hint"


def pays(start: float, each: float, workers: int, cores: int) -> float:
    p = min(workers, cores)
    return math.ceil(start / (each * (1 - 1 / p))) if p > 1 else math.inf


@pytest.mark.parametrize(
    ("check", "answer", "hint"),
    [
        (check_threads_per_worker, lambda cores, workers: max(1, cores // workers), None),
        (check_threads_per_worker, lambda cores, workers: cores, "5 threads each"),
        (check_threads_per_worker, lambda cores, workers: cores // workers, "still needs one"),
        (check_threads_per_worker, lambda cores, workers: cores / workers, "divide with //"),
        (check_threads_per_worker, lambda cores, workers: max(1, -(-cores // workers)), "3 each"),
        (check_threads_per_worker, lambda cores, workers: f"{cores // workers}", "no number of threads"),
        (check_pool_pays, pays, None),
        (check_pool_pays, lambda s, e, w, c: math.ceil(s / (e * (1 - 1 / min(w, c)))), "before you divide"),
        (check_pool_pays, lambda s, e, w, c: math.ceil(s / (e * (1 - 1 / w))), "eight workers"),
        (check_pool_pays, lambda s, e, w, c: s / (e * (1 - 1 / min(w, c))), "so 134"),
        (check_pool_pays, lambda s, e, w, c: math.ceil(s / e), "200 images"),
        (
            check_pool_pays,
            lambda s, e, w, c: math.ceil(s / (e * (1 - 1 / c))) if c > 1 else math.inf,
            "1 worker, 4 cores",
        ),
        (check_pool_pays, lambda s, e, w, c: [200], "a list, and not a number"),
    ],
)
def test_the_exercises(check: Callable[[Any], Check], answer: Callable[..., Any], hint: str | None) -> None:
    assert (hint or "passed") in repr(check(answer))
