"""What other programs took, on counters written by hand and on this machine's own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.machine import load
from kit.machine.load import Taken, Usage, queued_ns, taken

linux = pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the system has no such counters")


def test_how_much_others_and_the_host_took() -> None:
    before = Usage(cores=100, busy=10, stolen=1, own=5)
    assert taken(before, Usage(cores=120, busy=20, stolen=1, own=14)) == Taken(0.05, 0)  # others: 1 s of 20
    both = taken(before, Usage(cores=120, busy=20, stolen=2, own=8))
    assert both is not None
    assert both.share == pytest.approx(0.4)
    assert str(both) == (
        "other programs took 35% of the machine's CPU time during the rounds, and the host of this virtual machine "
        "took 5%"
    )
    host = taken(before, Usage(cores=120, busy=20, stolen=1, own=14, counted=8))
    assert host is not None
    assert host.counted == 8
    assert str(Taken(0.3, 0.001)) == "other programs took 30% of the machine's CPU time during the rounds"


@linux
def test_a_process_that_works_for_this_one_is_no_other_program() -> None:
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        shares = []
        for own in (set(), {busy.pid}):
            load.also_own.update(own)
            before = Usage.now()
            time.sleep(1)
            after = Usage.now()
            assert before is not None
            assert after is not None
            shares.append(after.own - before.own)
        assert shares[0] < 0.2
        assert shares[1] > shares[0] + 0.3, "it had at least a third of a core"
        busy.kill()
        busy.wait()
        ended = Usage.now()
        assert ended is not None
        assert taken(after, ended._replace(own=after.own - 1)) is None, "what it had used is lost with it"
    finally:
        busy.kill()
        load.also_own.discard(busy.pid)


def test_without_counters_nothing_is_said() -> None:
    now = Usage(1, 1, 1, 1)
    assert taken(None, now) is taken(now, None) is taken(now, now) is None
    assert Usage.now(Path("/nowhere")) is None


def usages(*others: float) -> Callable[[], Usage]:
    """Counters of a machine with one core on which others take these shares, in each half second."""
    found = [Usage(0, 0, 0, 0)]
    for share in others:
        found.append(Usage(found[-1].cores + 0.5, found[-1].busy + 0.5 * share, 0, 0))
    return iter(found).__next__


@pytest.mark.parametrize(
    ("others", "patience", "waited"),
    [
        ([0.0] * 6, 60, 0.0),
        ([0.9] * 4 + [0.05] * 6, 60, 2.0),
        ([0.9, 0.0, 0.0, 0.9] + [0.0] * 6, 60, 2.0),
        ([0.9] * 20, 10, None),
        ([0.0] * 6, 1, None),
    ],
)
def test_patience_ends_when_the_cores_have_been_free_for_three_seconds(
    monkeypatch: pytest.MonkeyPatch, others: list[float], patience: float, waited: float | None
) -> None:
    monkeypatch.setattr(load.Usage, "now", usages(*others))
    slept: list[float] = []
    assert load.wait_for_calm(patience, slept.append) == waited
    assert sum(slept) == (patience if waited is None else waited + load.CALM_S)


def test_without_counters_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load.Usage, "now", lambda: None)
    assert load.wait_for_calm(60, lambda seconds: pytest.fail("it waits")) is None


@linux
def test_counters_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    second = os.sysconf("SC_CLK_TCK")
    (tmp_path / "stat").write_text(
        f"cpu  {second} {second} {second} {5 * second} 0 0 {second} {2 * second} 0 0\ncpu0 1\n"
    )
    now = Usage.now(tmp_path)
    assert now is not None
    assert now[:3] == (11, 4, 2)
    assert now.counted == 1


@linux
@given(
    st.text(alphabet=st.sampled_from("cpu 0123456789-.²\n()x\0"), max_size=60) | st.just("cpu" + " 9" * 8 + "9" * 4000)
)
@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_counters_of_another_form_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "stat").write_text(text)
    (tmp_path / "1").mkdir(exist_ok=True)
    (tmp_path / "1/stat").write_text(text)
    now = Usage.now(tmp_path)
    assert now is None or now.cores > -1e30
    assert load._cpu(tmp_path, 1, 100) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "PROC", tmp_path)
        assert queued_ns([(1, 1)]) is None
        (tmp_path / "1/task/1").mkdir(parents=True, exist_ok=True)
        (tmp_path / "1/task/1/schedstat").write_text(text)
        assert isinstance(queued_ns([(1, 1)]), int | None)
        (tmp_path / "1/task/1/schedstat").unlink()


@linux
def test_a_busy_neighbour_is_seen_and_ones_own_work_is_not() -> None:
    before = Usage.now()
    with subprocess.Popen(
        [sys.executable, "-c", "while True: pass"]
    ) as neighbour:  # a program of its own, not a worker
        try:
            time.sleep(0.5)
        finally:
            neighbour.kill()
    during = Usage.now()
    assert before is not None
    assert during is not None
    assert during.busy - before.busy > 0.1
    assert during.own >= before.own


@linux
def test_waiting_for_a_core_is_counted_by_thread() -> None:
    here = (os.getpid(), os.getpid())
    first, second = queued_ns([here]), queued_ns([here])
    assert first is not None
    assert second is not None
    assert 0 <= first <= second
    assert queued_ns([]) is None
    assert queued_ns([here, (2**22 + 1, 1)]) is None
