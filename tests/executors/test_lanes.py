"""Tasks that wait for each other: all of a call begin, whoever else calls, and whatever interrupts it."""

import os
import signal
import threading
import time

import pytest
import torch

from kit.errors import TaskError
from kit.executors import Task
from kit.executors.lanes import Lanes

CYCLES = 2000 if os.environ.get("KIT_SOAK") == "1" else 100


def meet() -> list[Task]:
    """Two tasks, neither of which can end before the other one has begun."""
    barrier = threading.Barrier(2, timeout=20)
    return [Task(name, barrier.wait) for name in "ab"]


def lanes() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("lane")}


def test_tasks_may_wait_for_each_other_and_each_lane_has_its_intra_op_threads() -> None:
    with Lanes(2) as executor:
        assert sorted(executor.run(meet())) == [0, 1]
        assert executor.run([Task("t", torch.get_num_threads)] * 2) == [1, 1]
        assert executor.run([]) == []
    assert not lanes()


def test_callers_at_the_same_time_have_their_turns() -> None:
    with Lanes(2) as executor:
        found: list[list[int]] = []
        callers = [
            threading.Thread(target=lambda: found.extend(sorted(executor.run(meet())) for _ in range(CYCLES)))
            for _ in range(3)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(60)
        assert found == [[0, 1]] * (3 * CYCLES)


def test_an_error_names_its_task_and_the_lanes_go_on() -> None:
    def fail() -> None:
        raise ZeroDivisionError("on purpose")

    with Lanes(2) as executor:
        with pytest.raises(TaskError, match="second"):
            executor.run([Task("first", int), Task("second", fail)])
        assert sorted(executor.run(meet())) == [0, 1]


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals of one thread are POSIX")
def test_wherever_an_interrupt_comes_all_tasks_of_the_call_end_before_it_is_raised() -> None:
    ended: list[int] = []

    def task(barrier: threading.Barrier) -> None:
        barrier.wait()
        time.sleep(0.002)
        ended.append(1)

    main = threading.main_thread().ident
    assert main is not None
    raised = 0
    with Lanes(2) as executor:
        executor.run(meet())
        for cycle in range(CYCLES):
            ended.clear()
            barrier = threading.Barrier(2, timeout=20)
            timer = threading.Timer((cycle % 20) * 0.0002, signal.pthread_kill, (main, signal.SIGINT))
            try:
                timer.start()
                executor.run([Task(name, task, (barrier,)) for name in "ab"])
                timer.join()
                time.sleep(0.01)
            except KeyboardInterrupt:
                raised += 1
                assert len(ended) in (0, 2), "either all tasks have ended or none has begun"
                timer.join()
            assert barrier.n_waiting == 0
        assert sorted(executor.run(meet())) == [0, 1]
    assert raised > CYCLES // 2
    assert not lanes()
