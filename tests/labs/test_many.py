"""Notebooks 07 and 08: where a pool's time went, what the cores allow, and the exercises."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.labs.causes import CAUSES, about_causes, causes_ms, causes_table, named_share, part_ms
from kit.labs.checks import Check
from kit.labs.feeding import check_throughput, check_worker
from kit.labs.opencv_dnn import bound_per_second, check_pool_pays, check_threads_per_worker
from kit.trace import Event, Lane, Trace

CALLER, WORKER = Lane(1, 1, "caller"), Lane(2, 2, "process 0")


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
    work = found["compute"] / sum(found.values())
    said = about_causes(recorded)
    assert said.startswith(causes_table(recorded))
    assert f"97.0% of its time has a cause, and **{work:.1%}** of it is work on the images." in said
    assert "| imports | 30.0 ms | 30.0% |" in causes_table(recorded)


names = st.sampled_from([name for group in CAUSES.values() for name in group])


@given(st.lists(st.tuples(names, st.integers(0, 50), st.integers(0, 50), st.sampled_from([CALLER, WORKER]))))
def test_causes_never_count_a_moment_twice(events: list[tuple[str, int, int, Lane]]) -> None:
    spans = [(name, start, start + length, lane) for name, start, length, lane in events]
    found = causes_ms(trace(("call", 0, 200, CALLER), *spans))
    assert all(value >= 0 for value in found.values())
    assert sum(found.values()) == pytest.approx(200 / 1e6)


def test_parts_are_medians() -> None:
    parts = [Event("forward", "part", 10 * i, length, CALLER) for i, length in enumerate((1, 2, 9))]
    assert {name: each.estimate for name, each in part_ms(Trace.build(parts)).items()} == {"forward": 2 / 1e6}


@pytest.mark.parametrize(
    ("tasks", "cores", "rate"), [([10, 10, 10, 10], 2, 200), ([10] * 3, 2, 200), ([30, 1, 1], 4, 100), ([5], 8, 200)]
)
def test_the_bound_of_many_tasks(tasks: list[float], cores: int, rate: float) -> None:
    assert bound_per_second(tasks, cores) == pytest.approx(rate)


def stub(a: Any, b: Any, c: Any = None, d: Any = None) -> Any: ...


def forgot_return(a: Any, b: Any, c: Any = None, d: Any = None) -> None:
    max(1, 2)


CHECKS = [check_threads_per_worker, check_pool_pays, check_worker, check_throughput]


@pytest.mark.parametrize("check", CHECKS)
def test_a_stub_is_not_attempted_and_nothing_raises(check: Callable[[Any], Check]) -> None:
    assert check(stub).state == check(None).state == "not attempted yet"
    assert "is there a return" in check(forgot_return).message
    assert check("a string").state == "hint"


def pays(start: float, each: float, workers: int, cores: int) -> float:
    p = min(workers, cores)
    return math.ceil(start / (each * (1 - 1 / p))) if p > 1 else math.inf


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (check_threads_per_worker, lambda cores, workers: max(1, cores // workers)),
        (check_pool_pays, pays),
        (check_worker, lambda rank, images, workers: images[rank::workers]),
        (check_throughput, lambda stages, cores: 1000 / max(*stages, sum(stages) / cores)),
    ],
)
def test_the_right_answer_passes(check: Callable[[Any], Check], answer: Callable[..., Any]) -> None:
    assert check(answer) == Check("passed")


@pytest.mark.parametrize(
    ("check", "answer", "hint"),
    [
        (check_threads_per_worker, lambda cores, workers: cores, "5 threads each"),
        (check_threads_per_worker, lambda cores, workers: cores // workers, "still needs one"),
        (check_pool_pays, lambda start, each, workers, cores: math.ceil(start / (each * (1 - 1 / workers))), "eight"),
        (check_worker, lambda rank, images, workers: images, "twice"),
        (check_worker, lambda rank, images, workers: images[rank * 3 : rank * 3 + 3], "left out"),
        (check_throughput, lambda stages, cores: 1000 / max(stages), "one core does 30 ms"),
        (check_throughput, lambda stages, cores: 1000 / sum(stages), "the slowest stage"),
    ],
)
def test_a_wrong_answer_gets_its_own_hint(check: Callable[[Any], Check], answer: Callable[..., Any], hint: str) -> None:
    assert hint in check(answer).message
