"""Seconds that are told out, and what takes longer than its share and is ended."""

import math
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.executors.base import uninterrupted
from kit.measuring.budget import Budget, Overdue, can_interrupt, limited

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no alarms")
SHORT = 0.05


def taken(call: Callable[[], object], seconds: float = SHORT) -> float:
    """How long it takes until the call is ended."""
    start = time.monotonic()
    with pytest.raises(Overdue), limited(seconds):
        call()
    return time.monotonic() - start


def spin(until: float = 20) -> None:
    """Python code that catches whatever it can."""
    end = time.monotonic() + until
    while time.monotonic() < end:
        try:
            sum(range(1000))
        except Exception:
            continue


def test_what_is_left_is_counted_from_the_start() -> None:
    now = 5_000_000_000
    budget = Budget(3, lambda: now)
    assert budget.left == 3
    now += 4_000_000_000
    assert budget.left == -1
    endless = Budget(None)
    assert endless.left == math.inf
    assert not endless.enough(6)(1000)


def test_what_is_reserved_for_later_ends_rounds_earlier() -> None:
    now = 0
    budget = Budget(10, lambda: now)
    whole, part = budget.enough(1), budget.enough(1, reserved=4)
    now += 5_000_000_000
    assert (whole(5), part(5)) == (False, False)
    now += 500_000_000
    assert (whole(5), part(5)) == (False, True)


@pytest.mark.parametrize("call", [lambda: time.sleep(20), spin, threading.Event().wait])
def test_whatever_takes_longer_is_ended_and_nothing_stays(call: Callable[[], object]) -> None:
    before, hook = signal.getsignal(signal.SIGALRM), sys.unraisablehook
    assert taken(call) < 5
    assert (signal.getsignal(signal.SIGALRM), sys.unraisablehook) == (before, hook)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_what_ends_in_time_is_left_alone() -> None:
    with limited(0.2):
        time.sleep(0.01)
    time.sleep(0.4)  # no alarm is left to ring


def test_errors_come_through_as_they_are() -> None:
    with pytest.raises(ZeroDivisionError), limited(10):
        _ = 1 / 0
    assert can_interrupt()


def test_cleaning_up_is_left_in_peace() -> None:
    done = []

    def cleans_up() -> None:
        try:
            time.sleep(20)
        finally:
            try:
                _ = {}["missing"]
            except KeyError:
                time.sleep(0.6)  # two alarms ring meanwhile
            done.append(True)

    taken(cleans_up)
    assert done == [True]


def test_where_python_drops_what_is_raised_it_is_raised_again() -> None:
    """As in the callback of a weak reference, of which a compiler has thousands."""

    class Thing:
        pass

    def callback(_: object) -> None:
        time.sleep(0.3)

    def drops() -> None:
        thing = Thing()
        kept = weakref.ref(thing, callback)
        del thing
        spin()
        assert kept

    assert taken(drops) < 5


def test_a_module_is_imported_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(0.3)\nREADY = True\n")
    monkeypatch.syspath_prepend(tmp_path)

    def imports() -> None:
        import slow_to_import  # type: ignore[import-not-found]

        assert slow_to_import.READY
        time.sleep(20)

    assert 0.3 <= taken(imports) < 5
    assert sys.modules.pop("slow_to_import").READY


def test_an_alarm_waits_for_what_must_be_noted_down() -> None:
    noted = []

    def starts() -> None:
        with uninterrupted():
            time.sleep(0.3)
            noted.append(True)
        time.sleep(20)

    assert taken(starts) < 5
    assert noted == [True]


def test_somebody_elses_alarm_and_other_threads_are_left_alone() -> None:
    found = []

    def elsewhere() -> None:
        with limited(SHORT):
            time.sleep(0.2)
        found.append(can_interrupt())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [False]
    signal.setitimer(signal.ITIMER_REAL, 100)
    try:
        with limited(SHORT):
            time.sleep(0.2)
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 90
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
