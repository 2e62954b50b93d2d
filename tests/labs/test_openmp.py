"""The experiments with OpenMP's threads: what they say, and that nothing is left of them."""

import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Iterator

import psutil
import pytest
import torch

from kit.labs import openmp
from kit.labs.openmp import DEFAULT, ONE, PASSIVE, Counts, Waiting, about_numbers, busy_neighbour, counted_table
from kit.machine.load import Usage, taken
from tests.labs.made_up import busy, made_up
from tests.labs.test_processes import without_tasks

BUSY = "machine busy: other programs took 50% of the machine's CPU time during the rounds"


BESIDE = {DEFAULT: 9.0, PASSIVE: 6.0, ONE: 6.0}


def interrupted() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)


@pytest.fixture
def nothing_is_left() -> Iterator[None]:
    before = set(multiprocessing.active_children())
    threads = torch.get_num_threads()
    yield
    assert set(multiprocessing.active_children()) == before
    assert torch.get_num_threads() == threads


def waiting(passive: float | str, one: float | str, alone: float = 10.0) -> Waiting:
    ms: dict[str, float | str] = {DEFAULT: 100.0, PASSIVE: passive, ONE: one}
    return Waiting(without_tasks(made_up(dict.fromkeys(ms, alone))), without_tasks(made_up(ms)))


def test_threads_of_workers_and_of_operators_multiply(nothing_is_left: None) -> None:
    assert openmp.started(1, 1) == 1
    assert openmp.started(3, 2) == 6


def test_the_count_is_called_the_product_only_where_it_is() -> None:
    assert "**exactly the product**" in counted_table([(1, 1, 1), (4, 2, 8)], 2)
    assert "is not the product" in counted_table([(1, 1, 1), (4, 2, 5)], 2)
    assert "| 4 | 2 | 8 | 5 |" in counted_table([(4, 2, 5)], 2)


# A core that is taken -------------------------------------------------------------------------------------------------


def test_the_neighbour_keeps_a_core_busy_counts_as_own_and_ends(nothing_is_left: None) -> None:
    with busy_neighbour():
        [child] = multiprocessing.active_children()
        used, start = psutil.Process(child.pid).cpu_times().user, time.monotonic()
        usage = Usage.now()
        while psutil.Process(child.pid).cpu_times().user - used < 0.3:
            time.sleep(0.05)
            assert time.monotonic() - start < 60, "it computes nothing"
        own = usage and (now := Usage.now()) and now.own - usage.own
        assert own is None or own >= 0.25
        assert taken(usage, Usage.now()) is not None or usage is None
        process = psutil.Process(child.pid)
    assert not process.is_running()


def test_an_interrupt_ends_the_neighbour(nothing_is_left: None) -> None:
    with pytest.raises(KeyboardInterrupt), busy_neighbour():
        interrupted()


def test_an_interrupt_while_it_starts_leaves_nothing(nothing_is_left: None) -> None:
    threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt), busy_neighbour():
        time.sleep(5)


def test_settings_are_compared_alone_and_beside_the_program(
    nothing_is_left: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    found = openmp.beside_a_program(rounds=8, side=8)
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
    for comparison in found:
        assert [row.name for row in comparison.rows] == [DEFAULT, PASSIVE, ONE]
        assert all(row.equality and row.equality.equal for row in comparison.rows)
        assert all(row.decidable for row in comparison.rows)
    assert "scatter" not in str([row.doubt for row in found.beside.rows])  # which is the experiment
    assert openmp.waiting_table(found).count("\n") == 4


def test_each_process_is_told_how_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setenv("GOMP_SPINCOUNT", "0")
    with openmp._environment({}):
        assert "OMP_WAIT_POLICY" not in os.environ
        assert "GOMP_SPINCOUNT" not in os.environ
    with openmp._environment({"OMP_WAIT_POLICY": "active"}):
        assert os.environ["OMP_WAIT_POLICY"] == "active"
    assert (os.environ["OMP_WAIT_POLICY"], os.environ["GOMP_SPINCOUNT"]) == ("passive", "0")


def test_the_table_of_settings_has_intervals() -> None:
    _, _, default, passive, one = openmp.waiting_table(waiting(20.0, "its process died")).splitlines()
    assert default.startswith("| a thread for each core; they wait by spinning | 9.98 ms [")
    assert "x [" in default
    assert default.endswith("| **baseline** |")
    assert passive.endswith("**faster** |")
    assert one == "| one thread | - | - | - | not measured: its process died |"


@pytest.mark.parametrize(
    ("found", "says", "not_said"),
    [
        (waiting(20, 18), "Beside that program, one thread is faster", "Not decided"),
        (waiting(20, 180), "Beside that program, `OMP_WAIT_POLICY=passive` makes all cores faster", "one thread is"),
        (waiting(100, 100), "Beside that program, neither setting was found faster", "**"),
        (waiting(20, "its process died"), "**Not measured: its process died.**", "faster"),
        (Waiting(busy({DEFAULT: 1.0}), busy(BESIDE)), f"**Not decided: {BUSY}.**", "- "),
    ],
)
def test_settings_are_praised_only_where_they_were_faster(found: Waiting, says: str, not_said: str) -> None:
    said = openmp.about_waiting(found)
    assert says in said
    assert not_said not in said


def test_what_is_faster_beside_the_program_may_be_slower_alone() -> None:
    alone: dict[str, float | str] = {DEFAULT: 6.4, PASSIVE: 12.0, ONE: 6.4}
    beside = waiting(20, 18).beside
    one, passive = openmp.about_waiting(Waiting(without_tasks(made_up(alone)), beside)).splitlines()
    assert one.endswith("**no difference found**.")
    assert re.search(r"Alone, against the default: 0\.53x \[.*\], \*\*slower\*\*\.$", passive)
    assert f"Alone, against the default: not decided: {BUSY}." in openmp.about_waiting(Waiting(busy(alone), beside))


# Threads that spin, and whose number counts ---------------------------------------------------------------------------


def test_tasks_after_an_operator_are_judged_like_any_table(nothing_is_left: None) -> None:
    found = openmp.after_an_operator([1, 2], workers=2, rounds=6)
    assert [row.name for row in found.rows] == [openmp.AFTER_ONE, openmp.AFTER_ALL]
    assert found.taken is not None or Usage.now() is None
    assert found[openmp.AFTER_ALL].ratio is not None


def test_numbers_of_threads_are_each_threads_own(nothing_is_left: None) -> None:
    counts = openmp.whose_number()
    assert counts.set_elsewhere == counts.had + 1
    assert str(counts.now) in about_numbers(counts)


def test_a_rule_is_stated_only_where_the_numbers_show_it() -> None:
    seen = about_numbers(Counts(had=2, set_elsewhere=3, now=2, later=3, kept=2))
    assert "So each thread has its own number" in seen
    assert "then the setting is kept" in seen
    other = about_numbers(Counts(had=2, set_elsewhere=3, now=3, later=3, kept=1))
    assert "So each thread" not in other
    assert "is kept" not in other
    assert "is kept" not in about_numbers(Counts(had=1, set_elsewhere=2, now=1, later=2, kept=1))
