"""Threads alone: that they are threads, their share of the cores, and what an interrupt leaves behind."""

import gc
import signal
import threading
import time
import weakref
from functools import partial

import pytest
import torch

from kit.errors import WorkerError
from kit.executors import Task
from kit.executors.processes import Processes
from kit.executors.thread_counts import intra_op_threads
from kit.executors.threads import Threads


def workers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("worker")}


def interrupt() -> None:
    """As the stop button does: SIGINT to the main thread, wherever it waits."""
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def test_tasks_run_at_the_same_time() -> None:
    barrier = threading.Barrier(3)
    with Threads(3) as executor:
        executor.run([Task("wait", barrier.wait, (20,))] * 3)  # one after the other, none would ever get past it


def test_a_thread_that_cannot_start_is_said_and_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    real_start = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if len(workers()) == 2:
            raise RuntimeError("can't start new thread")
        real_start(self)

    with Threads(3) as executor:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            with pytest.raises(WorkerError, match=r"cannot start a thread \(.*can't start new thread\): .*ulimit -u"):
                executor.run([Task("t", abs, (-1,))])
        assert not workers()
        assert executor.run([Task("t", abs, (-1,))]) == [1]
        assert len(workers()) == 3


def test_the_threads_outlive_a_call_and_end_with_the_executor() -> None:
    with Threads(2) as executor:
        barrier = threading.Barrier(2)
        tasks = [Task("t", lambda: (barrier.wait(20), threading.get_ident())[1])] * 2
        first, second = executor.run(tasks), executor.run(tasks)
        assert set(first) == set(second)
        assert threading.get_ident() not in first
        assert len(workers()) == 2
    assert not workers()


@pytest.mark.parametrize("share", [1, 2, 3])
def test_each_worker_has_its_share_and_the_caller_keeps_its_own(share: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    try:
        barrier = threading.Barrier(2)
        with Threads(2, share) as executor:
            executor.run([Task("t", barrier.wait, (20,))] * 2)
            torch.set_num_threads(5)  # as a comparison does; a thread that was never asked before would take it over
            shares = executor.run([Task("t", lambda: (barrier.wait(20), torch.get_num_threads())[1])] * 2)
        assert shares == [share, share]
        assert torch.get_num_threads() == 5
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("make", [lambda: Threads(2, 3), lambda: Processes(1)])
def test_the_merge_wakes_no_helper_of_the_caller(make) -> None:
    """It runs where there are as many intra-op threads as workers have, whatever the caller's number."""
    with make() as executor, torch.inference_mode(), intra_op_threads(5):
        results, thread, threads, inference = executor.fork_join(
            [Task("a", abs, (-1,)), Task("b", abs, (-2,))],
            lambda results: (
                results,
                threading.get_ident(),
                torch.get_num_threads(),
                torch.is_inference_mode_enabled(),
            ),
        )
        assert torch.get_num_threads() == 5
    assert results == [1, 2]
    assert thread != threading.get_ident()
    assert threads == getattr(executor, "intra_op_threads", 1)
    assert inference, "the caller's modes hold"


def test_what_a_call_made_goes_with_the_last_who_holds_it() -> None:
    """And not when the garbage collector comes by: a network's activations would pile up until then."""
    gc.collect()
    gc.disable()
    try:
        with Threads(2) as executor:
            made = [weakref.ref(each) for each in executor.run([Task("t", torch.ones, (3,))] * 2)]
            made.append(weakref.ref(executor.fork_join([Task("t", torch.ones, (3,))] * 2, torch.stack)))
        assert [each() for each in made] == [None] * 3
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals of one thread are POSIX")
def test_an_interrupt_while_tasks_are_handed_out_loses_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes in the middle of starting a thread, where the pool has not noted it down yet."""
    ended: list[str] = []

    def slow() -> None:
        time.sleep(0.2)
        ended.append("slow")

    real_start = threading.Thread.start

    def start(self: threading.Thread) -> None:
        real_start(self)
        interrupt()

    with Threads(1) as executor:
        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(KeyboardInterrupt):
            executor.run([Task("a", slow)])
        assert ended in ([], ["slow"])
        before = list(ended)
    assert not workers()
    assert ended == before  # nothing went on after the interrupt had arrived


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals of one thread are POSIX")
def test_an_interrupt_waits_for_what_runs_drops_what_waits_and_leaves_no_thread() -> None:
    ran: list[str] = []

    def running() -> None:
        time.sleep(0.1)  # the caller has nothing left to do but wait
        interrupt()
        time.sleep(0.1)
        ran.append("running")

    with Threads(1) as executor:
        with pytest.raises(KeyboardInterrupt):
            executor.run([Task("a", running), Task("b", ran.append, ("never begun",))])
        assert ran == ["running"]
        with pytest.raises(KeyboardInterrupt):
            executor.fork_join([Task("a", running)], lambda results: ran.append("merged"))
        assert ran.pop() == "running", "nor is anything merged"
        assert executor.run([Task("c", lambda: "still works")]) == ["still works"]
    assert not workers()
    assert ran == ["running"]


def test_the_task_that_took_longest_begins_first_and_a_first_call_goes_in_order() -> None:
    begun: list[str] = []

    def work(name: str, seconds: float) -> str:
        begun.append(name)
        time.sleep(seconds)
        return name

    calls = [(name, partial(work, name)) for name in ("short", "longer", "longest")]
    tasks = [Task("same name", call, (0.02 * i,)) for i, (_, call) in enumerate(calls)]
    with Threads(1) as executor:
        assert executor.run(tasks) == ["short", "longer", "longest"]
        assert executor.run(tasks) == ["short", "longer", "longest"], "results stay in order"
    assert begun == ["short", "longer", "longest", "longest", "longer", "short"]
