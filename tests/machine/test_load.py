"""What other programs took, on counters written by hand and on this machine's own."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.machine import load
from kit.machine.load import Usage, caveats, queued_ns

linux = pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the system has no such counters")


def test_a_caveat_says_how_much_others_and_the_host_took() -> None:
    before = Usage(cores=100, busy=10, stolen=1, own=5)
    assert caveats(before, Usage(cores=120, busy=20, stolen=1, own=14)) == []  # others: 1 s of 20
    (caveat,) = caveats(before, Usage(cores=120, busy=20, stolen=2, own=8))
    assert "other programs took 35% of the machine's CPU time during the rounds" in caveat
    assert "the host of a virtual machine 5% (load average" in caveat


def test_without_counters_nothing_is_said() -> None:
    now = Usage(1, 1, 1, 1)
    assert caveats(None, now) == caveats(now, None) == caveats(now, now) == []
    assert Usage.now(Path("/nowhere")) is None


@linux
def test_counters_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    second = os.sysconf("SC_CLK_TCK")
    (tmp_path / "stat").write_text(
        f"cpu  {second} {second} {second} {5 * second} 0 0 {second} {2 * second} 0 0\ncpu0 1\n"
    )
    now = Usage.now(tmp_path)
    assert now is not None
    assert now[:3] == (11, 4, 2)


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
