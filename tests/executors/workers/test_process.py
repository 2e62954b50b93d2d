"""Starting worker processes: what they are told of the main module, and what other threads notice of it."""

import sys
import threading
import types
from multiprocessing import spawn
from typing import Any

import pytest

from kit.executors.workers.process import starting

MAIN = {"init_main_from_name", "init_main_from_path"}


def test_only_the_thread_that_starts_processes_hides_the_main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever another thread starts or pickles meanwhile sees the main module as always."""
    main, seen = types.ModuleType("__main__"), []
    main.__file__ = __file__  # as of a script; a worker of the test runner has none
    monkeypatch.setitem(sys.modules, "__main__", main)

    def other() -> None:
        seen.append((sys.modules["__main__"], spawn.get_preparation_data("other")))

    with starting():
        here = spawn.get_preparation_data("ours")
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    ((module, there),) = seen
    assert module is main
    assert MAIN & there.keys()
    assert not MAIN & here.keys()
    assert here.keys() | MAIN >= there.keys(), "the rest of the data is there"
    assert MAIN & spawn.get_preparation_data("after").keys()


def test_starts_of_several_threads_wait_for_each_other_and_leave_nothing_behind() -> None:
    plain, keys = spawn.get_preparation_data, []

    def start() -> None:
        for _ in range(20):
            with starting():
                keys.append(spawn.get_preparation_data("worker").keys())

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 80
    assert not any(MAIN & each for each in keys)
    assert spawn.get_preparation_data is plain


def test_a_failed_start_leaves_nothing_behind() -> None:
    plain: Any = spawn.get_preparation_data
    with pytest.raises(OSError, match="no process"), starting():
        raise OSError("no process")
    assert spawn.get_preparation_data is plain
