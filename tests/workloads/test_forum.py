"""The forum's experiment, in a process of its own that forks a pool."""

from __future__ import annotations

import sys

import pytest

from kit.errors import WorkerError
from kit.workloads import forum

pytest.importorskip("onnxscript")


def test_elsewhere_than_on_linux_a_sentence_says_why_not() -> None:
    assert "on this system (darwin)" in str(forum.forked(6, platform="darwin"))


@pytest.mark.skipif(sys.platform != "linux", reason="a fork beside threads is unsafe, and on Windows there is none")
def test_the_pool_forks_from_a_process_without_threads_and_gives_the_loop_s_scores() -> None:
    found = forum.forked(6, 6, 0.01, progress=False)
    assert isinstance(found, forum.Forked)
    assert found.threads == 1
    assert [row.name for row in found.images.rows] == ["loop", "pool", "batch"]
    assert all(row.equality and row.equality.equal for row in found.images.rows)
    assert found.sleeps.baseline.timing is not None
    assert found.sleeps.baseline.timing.median_ms >= 40, "four sleeps of 10 ms"
    inference = found.inference.baseline.timing
    assert inference is not None
    assert inference.median_ms < 40, "without its sleep"


def test_a_program_that_fails_is_reported_with_its_last_line() -> None:
    with pytest.raises(WorkerError, match="ended with 1: ValueError: no"):
        forum._run([sys.executable, "-c", "raise ValueError('no')"], 1, progress=False)
