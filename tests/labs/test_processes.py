"""Notebook 02: what its quizzes reveal and its sentences say, of calm, busy and missing measurements; its exercises."""

import json
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from kit.labs import processes, transports
from kit.labs.processes import COLD, QUIZZES, Guarded, check_break_even, check_sent, phases_ms, phases_table
from kit.measuring.comparison import Comparison
from kit.measuring.gate import gated
from tests.labs.made_up import COLD_CALL, busy, made_up

BUSY = "machine busy: other programs took 50% of the machine's CPU time during the rounds"
TOY = {"sequential": 0.5, "processes": 0.9, COLD: 1000.0}
WARM = {"sequential": 10.0, "threads": 6.0, "processes": 7.0}
TRIPS = dict(zip(transports.TRANSPORTS, (40.0, 12.0, 4.0), strict=True))
LOOPS = {"sequential": 20.0, "threads": 20.0, "processes": 12.0}
NOT_HERE = "worker processes need a system with fork or spawn"


def trips(ms: Mapping[str, float | str] = TRIPS, make: Callable[..., Comparison] = made_up) -> dict[int, Comparison]:
    return {1000: without_tasks(make(dict.fromkeys(TRIPS, 0.3))), 10_000_000: without_tasks(make(ms))}


def without_tasks(comparison: Comparison) -> Comparison:
    """The same of functions, which have no branches."""
    plain = {row.name: replace(row.timing, turns=()) if row.timing else None for row in comparison.rows}
    lead = plain[comparison.baseline.name]
    rows = [replace(row, timing=plain[row.name], paired_baseline=lead) for row in comparison.rows]
    return gated(replace(comparison, rows=tuple(rows)))


# What the quizzes reveal ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("published", "says"),
    [
        (made_up(TOY), "more than 100 times as long"),
        (made_up({"sequential": 10.0, COLD: 200.0}), "10 to 100 times as long"),
        (made_up({"sequential": 10.0, COLD: 30.0}), "up to 10 times as long"),
        (made_up({"sequential": 10.0, COLD: 6.0}), "less time"),
        (made_up({"sequential": 10.0, COLD: 1000.0}, scatter=0.1), "not decided: from 95.3 to 103 times as long"),
        (busy(TOY), f"not decided: {BUSY}"),
        (made_up(TOY, cores=1), "more than 100 times as long"),
        (made_up({"sequential": 0.5, COLD: NOT_HERE}), f"not measured: {NOT_HERE}"),
        (made_up({"sequential": 0.5}), f"not measured: {COLD} is not in the table"),
        (made_up(TOY, wrong=(COLD,)), "wrong output"),
    ],
)
def test_how_many_times_as_long_the_recipe_takes(published: Comparison, says: str) -> None:
    said = processes.recipe_answer(published)
    if says.startswith("not decided: from"):
        assert said.startswith("not decided: from 9")
        assert said.endswith(" times as long")
    else:
        assert said == says
    assert said in QUIZZES["recipe"][1] or said.startswith(("not ", "wrong output"))


@pytest.mark.parametrize(
    ("warm", "says"),
    [
        (made_up(WARM), "faster"),
        (made_up({**WARM, "processes": 20.0}), "slower"),
        (made_up({**WARM, "processes": 10.0}), "no difference found"),
        (busy(WARM), f"not decided: {BUSY}"),
        (made_up({**WARM, "processes": NOT_HERE}), f"not measured: {NOT_HERE}"),
    ],
)
def test_the_verdict_on_warm_workers(warm: Comparison, says: str) -> None:
    assert processes.warm_answer(warm) == says


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (trips(), "shared memory that both sides keep"),
        (trips({**TRIPS, transports.SHARED: 100.0}), "a queue of torch.multiprocessing"),
        (trips(make=busy), f"not decided: {BUSY}"),
        (
            trips({**TRIPS, transports.QUEUED: 4.0}),
            "not decided: tensor_queue against shared_memory: no difference found",
        ),
        (trips({**TRIPS, transports.QUEUED: "no shared memory"}), "shared memory that both sides keep"),
    ],
)
def test_the_fastest_transport_is_faster_than_both_others(found: dict[int, Comparison], says: str) -> None:
    said = processes.transport_answer(found)
    assert said == says or {said, says} == {
        "not decided: tensor_queue against shared_memory: no difference found",
        "not decided: shared_memory against tensor_queue: no difference found",
    }


@pytest.mark.parametrize(
    ("gil", "says"),
    [
        (made_up(LOOPS), "processes"),
        (made_up({**LOOPS, "processes": 40.0, "threads": 30.0}), "sequential"),
        (busy(LOOPS), f"not decided: {BUSY}"),
        (made_up({**LOOPS, "processes": NOT_HERE, "threads": 25.0}), "sequential"),
    ],
)
def test_the_fastest_for_pure_python_is_faster_than_both_others(gil: Comparison, says: str) -> None:
    assert processes.gil_answer(gil) == says


def test_equally_fast_approaches_have_no_winner() -> None:
    both = made_up({"sequential": 20.0, "threads": 12.0, "processes": 12.0})
    assert processes.gil_answer(both).startswith("not decided: ")


@pytest.mark.parametrize("name", QUIZZES)
def test_a_quiz_is_made_by_its_name_and_answered_by_a_function_of_that_name(name: str) -> None:
    assert processes.quiz(name).guess is None
    assert callable(getattr(processes, f"{name}_answer"))


# Sentences and tables -------------------------------------------------------------------------------------------------


def test_the_recipe_has_one_number_and_it_is_that_of_the_table() -> None:
    published = made_up(TOY)
    said = processes.about_recipe(published)
    assert published[COLD].ratio_text in said
    assert "x slower [" in said
    assert said.count("slower [") == 1
    assert "1/" not in said
    assert "**slower**" in said
    assert said.endswith("The output is the same.")
    disturbed = processes.about_recipe(busy(TOY))
    assert f"**not decided: {BUSY}**. This is what was seen, and it decides nothing." in disturbed
    wrong = processes.about_recipe(made_up(TOY, wrong=(COLD,)))
    assert wrong.endswith("**wrong output**.")
    assert NOT_HERE in processes.about_recipe(made_up({"sequential": 0.5, COLD: NOT_HERE}))


def test_the_break_even_is_of_the_shorter_stream_with_an_interval() -> None:
    one = made_up({"sequential": 7.0, "sequential(threads=1)": 10.0})
    said = processes.about_break_even(made_up(TOY), one)
    assert "saves at most the shorter one: `" in said
    factor = said.splitlines()[3]
    assert "only with a stream that takes as long as that: **" in factor
    assert "** as long as `" in factor
    assert "x [" in factor  # 1,000 ms less the longest stream's 900, by 4.5 ms
    assert "decide nothing" not in said
    assert f"**These numbers decide nothing: {BUSY}.**" in processes.about_break_even(busy(TOY), one)
    disturbed = busy({"sequential": 7.0, "sequential(threads=1)": 10.0})
    assert f"**These numbers decide nothing: {BUSY}.**" in processes.about_break_even(made_up(TOY), disturbed)
    without = made_up({"sequential": 7.0})
    assert processes.about_break_even(made_up(TOY), without).startswith("The break-even is not known: not measured: ")
    missing = made_up({"sequential": 0.5, COLD: NOT_HERE})
    assert processes.about_break_even(missing, one) == f"The break-even is not known: not measured: {NOT_HERE}."


@pytest.mark.parametrize(
    ("published", "truth", "said"),
    [
        (made_up(TOY), "true", "On the toy, workers that stay are **faster** than a process for each call"),
        (made_up({**TOY, "processes": 9.0, COLD: 3.0}), "false", "are **not faster** than a process for each call"),
        (made_up({**TOY, COLD: 0.9}), "not decided", "not decided, against sequential, workers that stay 0.5"),
        (busy(TOY), "not decided", f"not decided, {BUSY}."),
        (made_up({**TOY, COLD: NOT_HERE}), "not decided", f"not decided, not measured: {NOT_HERE}."),
        (made_up(TOY, wrong=("processes",)), "not decided", "not decided, wrong output."),
    ],
)
def test_workers_that_stay_against_a_process_for_each_call(published: Comparison, truth: str, said: str) -> None:
    assert processes.warm_beats_cold(published).truth == truth
    assert said in processes.about_warm(made_up(WARM), published)


def test_the_transfer_has_its_interval_and_is_left_out_where_there_is_none() -> None:
    assert "the data transfer takes 0 ms [0, 0]" in processes.about_warm(made_up(WARM), made_up(TOY))
    without = processes.about_warm(made_up({**WARM, "processes": NOT_HERE}), made_up(TOY))
    assert "data transfer" not in without
    assert f"**processes** cannot run here: {NOT_HERE}" in without


def test_each_size_has_its_own_fastest_transport() -> None:
    _, _, small, large = processes.transport_table(trips()).splitlines()
    assert small.startswith("| 1,000 | 0.299 ms [0.298, 0.301] | ")
    assert "| not decided: " in small
    assert large.startswith("| 10,000,000 | 39.9 ms [39.8, 40.1] | ")
    assert large.endswith("| shared_memory |")
    assert processes.transport_table(trips(make=busy)).count(f"not decided: {BUSY}") == 2
    assert "| - |" in processes.transport_table(trips({**TRIPS, transports.QUEUED: "no shared memory"}))


def test_the_chart_of_the_transports_leaves_out_what_could_not_run() -> None:
    lines = {line.name: line for line in processes.transport_chart(trips()).data}
    assert set(lines) == set(TRIPS)
    assert list(lines[transports.PICKLED].x) == [1_000, 10_000_000]
    assert round(lines[transports.PICKLED].y[1]) == 40  # milliseconds, as in the table
    without = processes.transport_chart(trips({**TRIPS, transports.QUEUED: "no"})).data
    assert {line.name for line in without} == set(TRIPS) - {transports.QUEUED}


def test_the_card() -> None:
    calm = processes.conclusion(made_up(TOY), made_up(WARM), trips(), made_up(LOOPS)).splitlines()[2:]
    assert len(calm) == 5
    assert all("| **true** |" in line for line in calm)
    disturbed = processes.conclusion(busy(TOY), busy(WARM), trips(make=busy), busy(LOOPS)).splitlines()[2:]
    assert all("| not decided |" in line and BUSY in line for line in disturbed)
    seen = busy(TOY)[COLD].ratio_text
    assert (
        f"| {seen}, not decided: " in disturbed[0]
    )  # as in every other row: what was seen, and why it decides nothing
    slow = {**WARM, "processes": 20.0}
    other = processes.conclusion(
        made_up({"sequential": 10.0, "processes": 50.0, COLD: 30.0}),
        made_up(slow),
        trips({**TRIPS, transports.SHARED: 90.0}),
        made_up({**LOOPS, "processes": 60.0}),
    ).splitlines()[2:]
    assert all("| **false** |" in line for line in other)
    gone = {"sequential": 10.0, "threads": 6.0, "processes": NOT_HERE, COLD: NOT_HERE}
    missing = processes.conclusion(made_up(gone), made_up(gone), trips(), made_up(gone)).splitlines()[2:]
    assert ["| not decided |" in line for line in missing] == [True, True, True, False, True]


def test_one_number_of_a_process_is_not_two() -> None:
    said = processes.conclusion(made_up(TOY), made_up(WARM), trips(), made_up(LOOPS))
    assert made_up(TOY)[COLD].ratio_text in said
    assert "1/" not in said


def test_02_and_03_agree_on_what_a_bar_means() -> None:
    said = "A bar says that a thread or process is **inside** its task, not that it computes"
    for name in ("02_processes", "03_threads_and_cores"):
        path = Path(__file__).parents[2] / "notebooks" / f"{name}.ipynb"
        text = "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])
        assert text.count(said) == 1, name


# The phases of a call -------------------------------------------------------------------------------------------------


def test_phases_add_up_by_lane() -> None:
    assert phases_ms(COLD_CALL) == {
        "caller": {"start": 3.0},
        "process 0": {"spawn": 4.0, "compute": 6.0},
        "process 1": {"compute": 4.0},
    }
    table = phases_table(COLD_CALL)
    assert "| start | 3.0 ms |  |  |" in table
    assert "imports" not in table
    assert table.endswith("the one call that the timeline shows.")


# Transports -----------------------------------------------------------------------------------------------------------


def test_transports_are_compared_for_each_size_and_leave_nothing() -> None:
    before = threading.active_count()
    found = transports.transports([4, 40_000], rounds=6)
    assert list(found) == [4, 40_000]
    for comparison in found.values():
        assert [row.name for row in comparison.rows] == list(transports.TRANSPORTS)
        assert all(row.equality and row.equality.equal for row in comparison.rows)
        assert all(row.decidable for row in comparison.rows), "too few rounds for three rows"
    assert not [thread for thread in threading.enumerate() if "QueueFeeder" in thread.name]
    assert threading.active_count() <= before + 1


# Exercises ------------------------------------------------------------------------------------------------------------


def stub(start_up: float, sequential: float, parallel: float) -> Any: ...


@pytest.mark.parametrize(
    ("calls", "hint"),
    [
        (lambda s, a, b: math.ceil(s / (a - b)) if a > b else math.inf, None),
        (lambda s, a, b: s / (a - b) if a > b else math.inf, "round up"),
        (lambda s, a, b: s // (a - b) if a > b else math.inf, "round up"),
        (lambda s, a, b: s // (a - b) + 1 if a > b else math.inf, "break-even is after 200 calls"),
        (lambda s, a, b: math.ceil(s / (a - b)), "divides by zero: where the workers are not faster"),
        (lambda s, a, b: math.ceil(s / (a - b)) if a != b else math.inf, "math.inf"),
        (lambda s, a, b: math.ceil(s / (a - b)) if a > b else None, "math.inf"),
        (lambda s, a, b: math.ceil(s / a), "200 calls"),
        (lambda s, a, b: [None][0], "is there a return"),
        (stub, "not attempted"),
    ],
)
def test_the_break_even(calls: Callable[..., Any], hint: str | None) -> None:
    assert (hint or "passed") in repr(check_break_even(calls))


class WithoutLock(Guarded):
    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "lock"}


class WithNewLock(WithoutLock):
    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.lock = threading.Lock()


class WithLockNone(Guarded):
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "lock": None}


class WithoutState(WithoutLock):
    def __setstate__(self, state: dict[str, Any]) -> None:
        self.lock = threading.Lock()


class TakesItsOwnLock(WithNewLock):
    def __getstate__(self) -> dict[str, Any]:
        del self.__dict__["lock"]
        return self.__dict__


class WithNewWeights(WithoutLock):
    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]


class Raising(WithoutLock):
    def __setstate__(self, state: dict[str, Any]) -> None:
        raise KeyError("lock")


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda: WithNewLock().eval(), None),
        (lambda: Guarded().eval(), "lock is a lock"),
        (lambda: WithoutLock().eval(), "without a lock"),
        (lambda: WithoutState().eval(), "super().__setstate__(state)"),
        (lambda: TakesItsOwnLock().eval(), "took the lock from your own model"),
        (lambda: WithNewWeights().eval(), "pass the rest of the state on"),
        (lambda: WithLockNone().eval(), "without a lock"),
        (lambda: Raising().eval(), "cannot be unpickled"),
        (lambda: WithNewLock, "not the class"),
        (nn.Identity, "subclass of Guarded"),
    ],
)
def test_what_cannot_be_sent(answer: Callable[[], Any], hint: str | None) -> None:
    assert (hint or "passed") in repr(check_sent(answer()))
