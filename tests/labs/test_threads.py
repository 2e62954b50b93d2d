"""Notebook 03: what its quizzes reveal and its sentences say, of calm, busy and missing measurements; its exercises."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import kit
from kit.labs import threads
from kit.labs.openmp import AFTER_ALL, AFTER_ONE, DEFAULT, ONE, PASSIVE, Waiting
from kit.labs.threads import LOCK, QUIZZES, check_pool, check_share, counts, four_branches, told
from kit.measuring.comparison import Comparison
from kit.views.grid import Grid
from tests.labs.made_up import busy, made_up
from tests.labs.test_processes import without_tasks

BUSY = "machine busy: other programs took 50% of the machine's CPU time during the rounds"
ONE_CORE = "this machine has one core"
CONTAINER, PLAIN = "threads(workers=4, threads=16)", "threads(workers=4, threads=2)"
TRAP = {"sequential": 10.0, PLAIN: 12.0, CONTAINER: 30.0, "threads": 9.0}
FORKED = {"sequential": 10.0, "threads": 6.0, "scripted_fork": 8.0}
NO_FORK = "this torch cannot trace the model"


def sweep(*ms: float) -> dict[str, float]:
    """On 1, 2 and 4 threads, or so many."""
    return {f"sequential(threads={2**i})": each for i, each in enumerate(ms)}


def cells(**changes: float) -> dict[str, float | str]:
    """The grid on two cores; ``w2t1`` is two workers of one thread each."""
    found: dict[str, float | str] = {"sequential": 10.0}
    for w in (1, 2, 4):
        for t in (1, 2, 4):
            found[f"threads(workers={w}, threads={t})"] = changes.get(f"w{w}t{t}", 10.0)
    return found


def lock(one_by_one: float, beside: float | str, make: Callable[..., Comparison] = made_up) -> Comparison:
    """The calling thread is slower than a worker alone, as where it shares its core with others: that is no gain."""
    return make({"sequential(threads=1)": 1.2 * one_by_one, **dict(zip(LOCK, (one_by_one, beside), strict=True))})


def waiting(passive: float | str, one: float | str, make: Callable[..., Comparison] = made_up) -> Waiting:
    ms: dict[str, float | str] = {DEFAULT: 100.0, PASSIVE: passive, ONE: one}
    return Waiting(make(dict.fromkeys(ms, 10.0)), make(ms))


# What is measured -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cores", "tried"), [(1, [1, 2]), (2, [1, 2, 4]), (6, [1, 2, 4, 6, 12]), (8, [1, 2, 4, 8, 16])]
)
def test_counts_reach_twice_the_cores(cores: int, tried: list[int]) -> None:
    assert counts(cores) == tried


def test_four_branches_are_counted_in_calls_a_second() -> None:
    found = kit.compare(four_branches(8), approaches=["sequential", "threads"], rounds=6, progress=False)
    assert (found.unit, found.items) == ("calls", 1)
    assert found["threads"].equality is not None
    assert found["threads"].equality.equal


def test_the_grid_is_measured_in_one_comparison_that_can_tell_its_cells_apart() -> None:
    shape = {"workers": [1, 2], "threads": [1], "approaches": ["threads"]}
    words = {"label": "pixels", "kind": "intra-op thread"}
    grid = Grid(four_branches, items=[8, 6], **shape, **words, rounds=9)  # type: ignore[arg-type]
    assert set(grid.cells) == {(1, 1), (2, 1)}
    assert grid.comparison.rounds == 9
    assert all(row.decidable for row in grid.comparison.rows)
    assert "<p>8 pixels, threads</p>" in grid.still()
    assert "1 intra-op thread each" in grid.still()
    assert "calls a second" in grid.still()


# What the quizzes reveal ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "cores", "says"),
    [
        (made_up(sweep(20, 10.2, 11)), 2, "as many times as there are cores, or nearly (90%)"),
        (made_up(sweep(20, 14, 15)), 2, "less than that, but faster"),
        (made_up(sweep(20, 30, 40)), 2, "not faster"),
        (made_up(sweep(20, 20, 20)), 2, "not faster"),
        (busy(sweep(20, 14, 15)), 2, f"not decided: {BUSY}"),
        (made_up(sweep(20, 20), cores=1), 1, f"not measured: {ONE_CORE}"),
        (made_up(sweep(20)), 2, "not measured: sequential(threads=2) is not in the table"),
    ],
)
def test_what_all_cores_bring_within_an_operator(found: Comparison, cores: int, says: str) -> None:
    assert threads.inside_answer(found, cores) == says


def test_an_interval_over_two_options_is_no_answer() -> None:
    said = threads.inside_answer(made_up(sweep(20, 11.1), scatter=0.05), 2)
    assert said.startswith("not decided: 1.78x [1.71, 1.82]")  # 90% of two cores is 1.8
    assert said.endswith("leaves either open")
    assert threads.inside_answer(made_up(sweep(20, 20), scatter=0.3), 2).startswith("not decided: ")


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (made_up(cells(w2t1=7.0)), "as many threads as cores"),
        (made_up(cells(w2t1=7.0, w1t2=7.0)), "as many threads as cores"),  # one budget
        (made_up(cells(w1t1=7.0)), "fewer threads than cores"),
        (made_up(cells(w4t1=7.0)), "more threads than cores"),
        (busy(cells(w2t1=7.0)), f"not decided: {BUSY}"),
    ],
)
def test_the_best_budget_is_faster_than_every_cell_of_the_others(found: Comparison, says: str) -> None:
    assert threads.budget_answer(found, 2) == says


def test_a_cell_that_is_as_fast_as_one_of_another_budget_is_no_winner() -> None:
    said = threads.budget_answer(made_up(cells(w2t1=7.0, w4t1=7.0)), 2)
    assert said.startswith("not decided: threads(workers=")
    assert said.endswith(": no difference found")
    wrong = made_up(cells(w2t1=7.0, w4t1=3.0), wrong=("threads(workers=4, threads=1)",))
    assert threads.budget_answer(wrong, 2) == "as many threads as cores"
    assert threads.budget_answer(made_up({"sequential": 10.0}), 2) == "not measured: none of them ran"


@pytest.mark.parametrize(
    ("trap", "says"),
    [
        (made_up(TRAP), "slower"),
        (made_up({**TRAP, CONTAINER: 7.0}), "faster"),
        (made_up({**TRAP, CONTAINER: 9.0}), "no difference found"),
        (busy(TRAP), f"not decided: {BUSY}"),
        (made_up({**TRAP, CONTAINER: ONE_CORE}), f"not measured: {ONE_CORE}"),
        (made_up({"sequential": 10.0, CONTAINER: 30.0}), "not measured: threads is not in the table"),
    ],
)
def test_the_verdict_on_too_many_threads(trap: Comparison, says: str) -> None:
    assert threads.trap_answer(trap, CONTAINER) == says


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (waiting(20.0, 18.0), "one thread"),
        (waiting(20.0, 180.0), "a thread for each core"),
        (waiting(100.0, 100.0), "no difference found"),
        (waiting(20.0, 18.0, busy), f"not decided: {BUSY}"),
        (waiting(20.0, "its process died"), "not measured: its process died"),
    ],
)
def test_what_is_faster_beside_a_program(found: Waiting, says: str) -> None:
    assert threads.taken_answer(Waiting(*map(without_tasks, found))) == says


@pytest.mark.parametrize(
    ("python", "tensors", "says"),
    [
        (lock(20, 20), lock(20, 11), "only the tensors"),
        (lock(20, 26), lock(20, 11), "only the tensors"),
        (lock(20, 11), lock(20, 11), "both"),
        (lock(20, 11), lock(20, 21), "only pure Python"),
        (lock(20, 20), lock(20, 20), "neither"),
        (lock(20, 20, busy), lock(20, 11), f"not decided: {BUSY}"),
        (lock(20, 20), lock(20, 11, busy), f"not decided: {BUSY}"),
        (lock(20, 20), lock(20, ONE_CORE), f"not measured: {ONE_CORE}"),
    ],
)
def test_what_becomes_faster_on_two_threads(python: Comparison, tensors: Comparison, says: str) -> None:
    assert threads.lock_answer(python, tensors, locked=False) == says
    assert says in QUIZZES["lock"][1] or says.startswith("not ")
    with_lock = threads.lock_answer(python, tensors, locked=True)
    assert with_lock == (threads.IMPOSSIBLE if says in ("both", "only pure Python") else says)


def test_a_wide_interval_does_not_say_that_pure_python_gained_nothing() -> None:
    wide = made_up(dict(zip(LOCK, (20.0, 17.0), strict=True)), scatter=0.3)
    assert threads.lock_answer(wide, lock(20, 11), locked=True).startswith("not decided: ")


@pytest.mark.parametrize(
    ("forked", "says"),
    [
        (made_up(FORKED), "slower"),
        (made_up({**FORKED, "threads": 9.0, "scripted_fork": 7.0}), "faster"),
        (busy(FORKED), f"not decided: {BUSY}"),
        (made_up({**FORKED, "scripted_fork": NO_FORK}), f"not measured: {NO_FORK}"),
    ],
)
def test_the_verdict_on_the_fork(forked: Comparison, says: str) -> None:
    assert threads.fork_answer(forked) == says


@pytest.mark.parametrize(
    ("after", "says"),
    [
        (made_up({AFTER_ONE: 2.0, AFTER_ALL: 3.0}), "longer"),
        (made_up({AFTER_ONE: 3.0, AFTER_ALL: 2.0}), "less time"),
        (made_up({AFTER_ONE: 2.0, AFTER_ALL: 2.0}), "no difference found"),
        (busy({AFTER_ONE: 2.0, AFTER_ALL: 3.0}), f"not decided: {BUSY}"),
    ],
)
def test_what_an_operator_does_to_the_tasks_after_it(after: Comparison, says: str) -> None:
    assert threads.spin_answer(after) == says
    assert ("kept the workers' cores" in threads.about_spin(after)) == (says == "longer")
    assert ("not decided" in threads.about_spin(after)) == says.startswith("not decided")


@pytest.mark.parametrize("name", QUIZZES)
def test_a_quiz_is_made_by_its_name_and_answered_by_a_function_of_that_name(name: str) -> None:
    assert threads.quiz(name).guess is None
    assert callable(getattr(threads, f"{name}_answer"))


# Sentences and tables -------------------------------------------------------------------------------------------------


def test_threads_inside_an_operator() -> None:
    first, second = threads.about_inside(made_up(sweep(20, 14, 15)), 2).splitlines()
    assert first.startswith("- 2 threads on 2 cores, against one thread: 1.4")
    assert first.endswith("**faster**.")
    assert second.startswith("- 4 threads on 2 cores, against 2: 0.9")
    assert "**slower**" in second
    assert "too small to be split" in threads.about_inside(made_up(sweep(20, 30, 40)), 2)
    assert threads.about_inside(busy(sweep(20, 30, 40)), 2).count(f"**not decided: {BUSY}**") == 2
    assert "too small" not in threads.about_inside(busy(sweep(20, 30, 40)), 2)
    [alone] = threads.about_inside(made_up(sweep(20, 22), cores=1), 1).splitlines()
    assert alone.startswith("- 2 threads on 1 cores, against 1: ")


def test_the_budget_names_its_best_cell_with_an_interval() -> None:
    first, second = threads.about_budget(made_up(cells(w2t1=7.0, w4t4=20.0)), 2).splitlines()
    assert "`threads(workers=2, threads=1)`" in first
    assert first.endswith("**faster**.")
    assert "Four workers: 16 threads in all against 4 in all: 0." in second
    assert second.endswith("**slower**.")
    assert threads.about_budget(busy(cells(w2t1=7.0)), 2).count(f"**not decided: {BUSY}**") == 2
    assert threads.about_budget(made_up({"sequential": 10.0}), 2) == "None of the cells ran."


@pytest.mark.parametrize(
    ("trap", "says"),
    [
        (made_up(TRAP), "Fewer threads did the same work sooner"),
        (made_up({**TRAP, CONTAINER: 7.0}), "this machine shows no trap"),
        (made_up({**TRAP, CONTAINER: 9.0}), "do not show what too many threads cost"),
        (busy(TRAP), "do not show what too many threads cost"),
        (made_up({**TRAP, "threads": ONE_CORE}), "do not show what too many threads cost"),
    ],
)
def test_fewer_threads_are_praised_only_where_they_were_faster(trap: Comparison, says: str) -> None:
    said = threads.about_trap(trap, PLAIN, CONTAINER)
    assert says in said.splitlines()[-1]
    assert said.count("**not decided") == (2 if trap["threads"].doubt else 0)
    assert ("A branch takes" in said) == (trap["threads"].timing is not None)


def test_the_table_of_the_lock_has_intervals_and_says_what_is_missing() -> None:
    _, _, python, tensors = told.lock_table(lock(20, 20), lock(20, 11)).splitlines()
    assert python.startswith("| pure Python | 9 ms [8.96, 9.03] | 18.1 ms [17.9, 18.2] | ")
    assert tensors.endswith("**faster** |")
    _, _, python, _ = told.lock_table(lock(20, ONE_CORE), lock(20, 11)).splitlines()
    assert python == f"| pure Python | - | - | - | not measured: {ONE_CORE} |"


@pytest.mark.parametrize(
    ("python", "tensors", "locked", "says"),
    [
        (lock(20, 20), lock(20, 11), True, "in tensor work they ran in parallel"),
        (lock(20, 11), lock(20, 11), True, "so another cause made it faster"),
        (lock(20, 11), lock(20, 20), True, "so another cause made it faster"),
        (lock(20, 20), lock(20, 20), True, "Neither became faster"),
        (lock(20, 20), lock(20, 11, busy), True, f"**Not decided: {BUSY}.**"),
        (lock(20, 11), lock(20, 11), False, "without a GIL"),
    ],
)
def test_the_lock_is_named_only_where_it_decides(
    python: Comparison, tensors: Comparison, locked: bool, says: str
) -> None:
    said = threads.about_lock(python, tensors, locked)
    assert says in said
    assert said.startswith(told.lock_table(python, tensors) + "\n\n")


def test_the_lanes_of_the_lock_are_of_the_calls_that_ran() -> None:
    def groups(*calls: Comparison) -> list[str]:
        return list(dict.fromkeys(lane.group for lane in threads.lock_lanes(*calls).lanes))

    of_tensors = ["tensors, one worker", "tensors, two workers"]
    both = ["pure Python, one worker", "pure Python, two workers", *of_tensors]
    assert groups(lock(20, 20), lock(20, 11)) == both
    assert groups(lock(20, ONE_CORE), lock(20, 11)) == ["pure Python, one worker", *of_tensors]


def test_one_cell_of_four_workers_is_set_against_no_other() -> None:
    said = threads.about_budget(
        made_up({"threads(workers=1, threads=2)": 10.0, "threads(workers=4, threads=1)": 9.0}), 2
    )
    assert said.startswith("- Highest rate in these rounds: `threads(workers=4, threads=1)`")
    assert "Four workers" not in said


def test_the_fork_says_what_it_was_compared_with() -> None:
    said = threads.about_fork(made_up(FORKED))
    assert "against `threads`: 0.7" in said
    assert "against `sequential`: 1.2" in said
    assert threads.about_fork(busy(FORKED)).count(f"**not decided: {BUSY}**") == 2
    assert threads.about_fork(made_up({**FORKED, "scripted_fork": NO_FORK})) == (
        f"`scripted_fork`: not measured: {NO_FORK}."
    )


def card(
    trap: Comparison, found: Waiting, python: Comparison, tensors: Comparison, forked: Comparison, eager: bool
) -> list[str]:
    found = Waiting(*map(without_tasks, found))
    lines = threads.conclusion(trap, CONTAINER, found, python, tensors, forked, eager).splitlines()[2:]
    return [line.split(" | ")[1].strip("*") for line in lines]


def test_the_card() -> None:
    faster = {**FORKED, "threads": 9.0, "scripted_fork": 7.0}
    calm = card(made_up(TRAP), waiting(20, 18), lock(20, 20), lock(20, 11), made_up(faster), True)
    assert calm == ["true", "true", "true", "true", "true", "false", "true"]
    disturbed = card(busy(TRAP), waiting(20, 18, busy), lock(20, 20, busy), lock(20, 11, busy), busy(faster), True)
    assert disturbed == [*["not decided"] * 5, "false", "not decided"]
    other = {**TRAP, CONTAINER: 7.0}
    opposite = card(made_up(other), waiting(200, 180), lock(20, 11), lock(20, 25), made_up(FORKED), False)
    assert opposite == ["false", "false", "false", "not decided", "false", "true", "false"]
    gone: Mapping[str, float | str] = {"sequential": 10.0, "threads": ONE_CORE, "scripted_fork": NO_FORK}
    missing = card(made_up(gone), waiting("died", "died"), lock(20, ONE_CORE), lock(20, ONE_CORE), made_up(gone), True)
    assert missing == [*["not decided"] * 5, "false", "not decided"]


def test_without_a_gil_the_lock_holds_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told, "has_lock", lambda: False)
    found = card(made_up(TRAP), waiting(20, 18), lock(20, 20), lock(20, 11), made_up(FORKED), True)
    assert found[3] == "false"


# Exercises ------------------------------------------------------------------------------------------------------------


def share_stub(cores: int, workers: int) -> int: ...


@pytest.mark.parametrize(
    ("share", "says"),
    [
        (lambda c, w: max(1, c // w), None),
        (lambda c, w: c // w, "less than one thread"),
        (lambda c, w: max(1, round(c / w)), "one too many"),
        (lambda c, w: max(1, c / w), "one too many"),
        (lambda c, w: c, "4 threads each"),
        (lambda c, w: [w, None][1], "is there a return"),
    ],
)
def test_the_share_exercise(share: Callable[[int, int], Any], says: str | None) -> None:
    found = check_share(share)
    assert found.state == ("hint" if says else "passed")
    assert (says or "") in found.message
    assert check_share(share_stub).state == check_share(None).state == "not attempted yet"


def sharing(workers: int, cores: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(cores // workers,))


def setting_here(workers: int, cores: int) -> ThreadPoolExecutor:
    torch.set_num_threads(cores // workers)
    return ThreadPoolExecutor(workers)


def one_worker(workers: int, cores: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1)


def too_many(workers: int, cores: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(cores,))


def forgot_return(workers: int, cores: int) -> None:
    sharing(workers, cores).shutdown()


def pool_stub(workers: int, cores: int) -> ThreadPoolExecutor: ...


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (sharing, None),
        (setting_here, "the thread that made the pool now has 2 and had 6"),
        (too_many, "have [6, 6, 6] intra-op threads, 18 in all"),
        (one_worker, "give max_workers"),
        (forgot_return, "is there a return"),
        (lambda workers, cores: 1 // 0, "ZeroDivisionError"),
    ],
)
def test_the_pool_exercise(make: Callable[[int, int], Any], says: str | None) -> None:
    before = torch.get_num_threads()
    found = check_pool(make)
    assert found.state == ("hint" if says else "passed")
    assert (says or "") in found.message
    assert torch.get_num_threads() == before
    assert check_pool(pool_stub).state == check_pool(None).state == "not attempted yet"
