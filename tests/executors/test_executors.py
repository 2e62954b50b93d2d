"""What every executor promises: results in order, the caller's context, and errors that name their branch."""

import contextvars
import importlib
import pkgutil
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from unittest.mock import MagicMock

import pytest
import torch

import kit
from kit import spans
from kit.errors import TaskError
from kit.executors import Executor, Sequential, Task, current, use
from kit.executors.cluster import Cluster
from kit.executors.cuda_streams import CudaStreams
from kit.executors.cuda_streams_threads import CudaStreamsThreads
from kit.executors.declared import DeclaredNetwork
from kit.executors.devices import Devices
from kit.executors.group_ranks import GroupRanks
from kit.executors.lanes import Lanes
from kit.executors.processes import Processes
from kit.executors.processes_cold import ProcessesCold
from kit.executors.ranks import Ranks
from kit.executors.threads import Threads
from kit.scheduling.links import Link
from kit.workloads.branch_costs import Counting
from kit.workloads.cold_pool import ColdPool

MAKERS = {"sequential": Sequential, "threads": lambda: Threads(2), "one thread": lambda: Threads(1)}


@pytest.fixture(params=MAKERS)
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with MAKERS[request.param]() as made:
        yield made


def fail() -> None:
    raise ZeroDivisionError("on purpose")


def run(executor: Executor, *calls) -> list:
    return executor.run([Task(f"task {i}", call) for i, call in enumerate(calls)])


def test_results_come_in_the_order_of_the_tasks(executor: Executor) -> None:
    waits = [0.02, 0.0, 0.01, 0.0]
    assert executor.run([Task("t", lambda i, w: time.sleep(w) or i, (i, w)) for i, w in enumerate(waits)]) == [
        0,
        1,
        2,
        3,
    ]
    assert executor.run([]) == []


def test_an_error_names_the_branch_and_keeps_the_original_with_its_traceback(executor: Executor) -> None:
    with pytest.raises(TaskError, match=r"branch 'task 1' raised ZeroDivisionError: on purpose") as caught:
        run(executor, lambda: 1, fail, lambda: 3)
    assert caught.value.task == "task 1"
    cause = caught.value.__cause__
    assert isinstance(cause, ZeroDivisionError)
    assert traceback.extract_tb(cause.__traceback__)[-1].name == "fail"


def test_results_are_merged_and_a_merge_that_raises_is_no_tasks_error(executor: Executor) -> None:
    tasks = [Task("a", abs, (-1,)), Task("b", abs, (-2,))]
    assert executor.fork_join(tasks, lambda results: sum(results)) == 3
    assert executor.fork_join([], len) == 0
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        executor.fork_join(tasks, lambda results: fail())
    with pytest.raises(TaskError, match="task 0"):
        run(executor, fail, fail)
    assert executor.fork_join(tasks, tuple) == (1, 2), "and it still works"


def test_siblings_have_ended_when_an_error_arrives(executor: Executor) -> None:
    running = []

    def slow() -> None:
        running.append(1)
        time.sleep(0.1)
        running.pop()

    with pytest.raises(TaskError):
        run(executor, slow, fail, slow)
    assert running == []


def test_after_an_error_the_executor_still_works(executor: Executor) -> None:
    with pytest.raises(TaskError):
        run(executor, fail)
    assert run(executor, lambda: 1) == [1]


def test_of_several_errors_the_first_branchs_is_raised(executor: Executor) -> None:
    with pytest.raises(TaskError, match="task 0"):
        run(executor, lambda: time.sleep(0.02) or fail(), fail)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_torchs_modes_follow_into_the_tasks(executor: Executor, inference: bool, grad: bool) -> None:
    with torch.inference_mode(inference), torch.set_grad_enabled(grad):
        modes = run(executor, lambda: (torch.is_inference_mode_enabled(), torch.is_grad_enabled()))
    assert modes == [(inference, grad)]
    assert run(executor, torch.is_grad_enabled, torch.is_inference_mode_enabled) == [True, False]


def test_autocast_follows_into_the_tasks_and_leaves_no_trace(executor: Executor) -> None:
    x = torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert run(executor, lambda: (x @ x).dtype) == [torch.bfloat16]
    assert run(executor, lambda: (x @ x).dtype, torch.is_autocast_enabled) == [torch.float32, False]


def test_context_variables_follow_into_the_tasks_and_do_not_come_back(executor: Executor) -> None:
    variable = contextvars.ContextVar("variable", default=0)
    token = variable.set(7)
    assert run(executor, variable.get, variable.get) == [7, 7]
    variable.reset(token)
    assert run(executor, variable.get) == [0]


def test_one_span_per_task_on_the_thread_that_ran_it(executor: Executor) -> None:
    with spans.collect() as log:
        threads = run(executor, threading.get_native_id, threading.get_native_id)
    found = sorted((span.name, span.category, span.thread) for span in log.spans)
    assert found == [("task 0", "task", threads[0]), ("task 1", "task", threads[1])]
    assert all(span.start_ns <= span.end_ns for span in log.spans)
    run(executor, lambda: 1)
    assert len(log.spans) == 2  # nothing collects any more


def test_a_failing_task_leaves_its_span(executor: Executor) -> None:
    with spans.collect() as log, pytest.raises(TaskError):
        run(executor, fail)
    assert [span.name for span in log.spans] == ["task 0"]


def test_tasks_inside_tasks_do_not_deadlock(executor: Executor) -> None:
    """More of them than the pool has threads, three deep."""

    def nest(depth: int) -> int:
        return 1 if depth == 0 else sum(run(executor, *[lambda: nest(depth - 1)] * 4))

    result: list[int] = []
    thread = threading.Thread(target=lambda: result.append(nest(3)), daemon=True)  # a deadlock must not hang the tests
    thread.start()
    thread.join(20)
    assert result == [64]


def test_a_nested_error_names_the_way_to_it(executor: Executor) -> None:
    with pytest.raises(TaskError, match=r"'task 0' raised TaskError: branch 'task 1' raised ZeroDivisionError"):
        run(executor, lambda: run(executor, lambda: 1, fail))


def test_closing_twice_is_harmless(executor: Executor) -> None:
    run(executor, lambda: 1)
    executor.close()
    executor.close()


def test_the_innermost_use_decides() -> None:
    outer, inner = Sequential(), Threads(1)
    assert current() is None
    with use(outer):
        with use(inner):
            assert current() is inner
        assert current() is outer
    assert current() is None


PROMISES: dict[Callable[[], Executor], tuple[bool, int | None]] = {  # executor -> cold, lane threads
    lambda: Sequential(): (False, None),
    lambda: Threads(2, 3): (False, 3),
    lambda: Lanes(2): (False, 1),
    lambda: Processes(2, 3): (False, 3),
    lambda: Ranks(2, 3): (False, 3),
    lambda: ProcessesCold(): (True, None),
    lambda: ColdPool(2, 3): (True, 3),
    lambda: Devices(("cpu",)): (False, None),
    lambda: CudaStreams(): (False, None),
    lambda: CudaStreamsThreads(2): (False, 1),
    lambda: DeclaredNetwork(Link(1e9), 2, 3): (False, 3),
    lambda: Counting(): (False, None),
    lambda: GroupRanks(MagicMock(), 3): (False, 3),  # needs ranks that torchrun has started
    lambda: Cluster(MagicMock(), 3): (False, 3),  # needs workers of Dask
}


def test_every_executor_says_whether_it_is_cold_and_how_many_threads_a_lane_has() -> None:
    for module in pkgutil.walk_packages(kit.__path__, "kit."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    seen = set()
    for make, (cold, lane_threads) in PROMISES.items():
        with make() as made:
            assert (made.cold, made.lane_threads) == (cold, lane_threads), type(made).__name__
            seen.add(type(made))

    def below(parent: type[Executor]) -> set[type[Executor]]:
        children = set(parent.__subclasses__())
        return children.union(*map(below, children))

    assert seen == {each for each in below(Executor) if each.__module__.startswith("kit.") and each.__name__[0] != "_"}
