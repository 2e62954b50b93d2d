"""The independent load: it uses all of its threads at once, and leaves none of them behind."""

import os
import threading

import pytest

from kit.machine.hardware import detect
from kit.measuring.core_scaling import independent_load


def test_the_load_runs_on_so_many_threads_and_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(3)
    monkeypatch.setattr("kit.measuring.core_scaling._hash", lambda _: together.wait(20))
    with independent_load(3) as load:
        load()  # one after the other, none would ever get past the barrier
        assert not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) == detect().affinity
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("independent load")]
