"""Notebook 03: its exercises, and what its cells compute."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from kit.equality import Equality
from kit.labs.threads import (
    about_the_lock,
    about_the_trap,
    check_pool,
    check_share,
    counts,
    heat_map,
    started,
    versus,
)
from kit.measuring.comparison import Comparison, Ratio, Row, Timing
from kit.trace import Trace


def row(name: str, samples: list[float], speed: float = 1.0, *, baseline: bool = False) -> Row:
    timing = Timing(np.array(samples), 1, Trace.build([]))
    return Row(name, None, timing, Ratio(speed, speed, speed), Equality(True, 0.0), baseline)


@pytest.mark.parametrize(
    ("cores", "tried"), [(1, [1, 2]), (2, [1, 2, 4]), (6, [1, 2, 4, 6, 12]), (8, [1, 2, 4, 8, 16])]
)
def test_counts_reach_twice_the_cores(cores: int, tried: list[int]) -> None:
    assert counts(cores) == tried


def test_threads_of_workers_and_of_operators_multiply() -> None:
    before = torch.get_num_threads()
    assert started(1, 1) == 1
    assert started(3, 2) == 6
    assert torch.get_num_threads() == before


def test_versus_pairs_the_rounds_of_two_approaches() -> None:
    base, slow, fast = (
        row("sequential", [1.0] * 12, baseline=True),
        row("slow", [2, 3, 4, 3, 2, 3] * 2),
        row("fast", [1, 1.5, 2, 1.5, 1, 1.5] * 2),
    )
    comparison = Comparison((base, slow, fast, Row("streams", "there is no GPU")), 12, "")
    against = versus(comparison, "fast", "slow")
    assert (against.ratio, against.verdict) == (Ratio(2, 2, 2), "faster")
    assert versus(comparison, "slow", "fast").verdict == "slower"
    assert versus(comparison, "sequential", "slow").verdict == "faster"
    assert versus(comparison, "streams", "slow").verdict == "not available"


def test_a_cell_of_the_heat_map_has_its_speed_and_its_threads() -> None:
    speeds = {(1, 1): 1.0, (1, 2): 2.0, (3, 1): 0.25, (3, 2): 0.5}
    rows = [row(f"threads(workers={w}, threads={t})", [1.0], speed) for (w, t), speed in speeds.items()]
    [cells] = heat_map(Comparison((row("sequential", [1.0], baseline=True), *rows), 6, ""), [1, 3], [1, 2]).data
    assert np.array(cells.z).tolist() == [[0, 1], [-2, -1]]
    assert (cells.zmin, cells.zmax) == (-2, 2)
    assert cells.text[1][0] == "0.25x<br>3 x 1 = 3"


def test_the_cure_is_praised_only_where_it_was_faster() -> None:
    assert "did the same work sooner" in about_the_trap("faster")
    assert "Here the trap won" in about_the_trap("slower")
    for verdict in ("no difference found", "wrong output", "not available"):
        assert "found no price" in about_the_trap(verdict)


@pytest.mark.parametrize(
    ("gained", "locked", "says"),
    [
        ({"tensors"}, True, "in tensor work they ran in parallel"),
        ({"tensors", "pure Python"}, True, "comes from elsewhere"),
        ({"pure Python"}, True, "comes from elsewhere"),
        (set(), True, "Neither gained"),
        ({"tensors", "pure Python"}, False, "without a GIL"),
    ],
)
def test_the_lock_is_blamed_only_where_it_can_be(gained: set[str], locked: bool, says: str) -> None:
    assert says in about_the_lock(gained, locked)


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
