"""The peak of a call: what it holds at the same time, whatever it frees, in all threads."""

import threading

import numpy as np
import pytest

from kit.machine import memory
from kit.machine.memory import RESET, peak_bytes

MIB = 2**20
linux = pytest.mark.skipif(not RESET.exists(), reason="only Linux tells the peak")


def held(mib: int) -> None:
    np.ones(mib * MIB, np.uint8)


@linux
def test_it_is_what_a_call_holds_at_once() -> None:
    def two_after_each_other() -> None:
        held(64)
        held(64)

    def two_at_once() -> None:
        first = np.ones(64 * MIB, np.uint8)
        held(64)
        del first

    for call, mib in ((two_after_each_other, 64), (two_at_once, 128), (lambda: None, 0)):
        found = peak_bytes(call)
        assert found is not None
        assert (mib - 1) * MIB <= found <= (mib + 24) * MIB  # the kernel counts pages in batches


@linux
def test_other_threads_count_too() -> None:
    def in_a_thread() -> None:
        thread = threading.Thread(target=held, args=(96,))
        thread.start()
        thread.join()

    found = peak_bytes(in_a_thread)
    assert found is not None
    assert found >= 95 * MIB


def test_where_the_system_does_not_tell_it_is_not_known(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(memory, "RESET", tmp_path / "missing")
    assert peak_bytes(lambda: None) is None
    monkeypatch.setattr(memory, "RESET", tmp_path)  # a folder: writing is refused
    assert peak_bytes(lambda: None) is None
