"""A process per task and call: right results, clear errors, and nothing left after any of them."""

import errno
import gc
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from torch import Tensor, nn

import kit
from kit import spans
from kit.errors import TaskError, TransferError, WorkerError
from kit.executors import Task, use
from kit.executors.processes_cold import ProcessesCold

# Functions and classes of this file travel as those of a notebook do: workers need not import it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

IN_SOAK = pytest.mark.skipif(os.environ.get("KIT_SOAK") != "1", reason="as warm workers tell it, slower: make soak")
LIMIT_S = 15.0  # beyond the start of the processes; the promise is 2 s, and a busy machine gets some more


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = set(multiprocessing.active_children())
    yield
    assert set(multiprocessing.active_children()) <= before


def run(*calls: Callable[[], Any], timeout: float = 120) -> list[Any]:
    return ProcessesCold(timeout).run([Task(f"task {i}", call) for i, call in enumerate(calls)])


def test_a_region_of_cell_classes_and_closures_gives_sequentials_output_and_changes_nothing() -> None:
    scale = torch.tensor(2.0)

    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> dict[str, Any]:
            return {"out": self.linear(x.mul_(scale)), "channels last": (x[..., ::2], x.bool(), x.bfloat16())}

    model = kit.Branches({"a": InPlace(), "b": InPlace()}, merge=lambda parts: parts).eval()
    inputs = torch.randn(2, 4), torch.randn(2, 4)
    copies = [x.clone() for x in inputs]
    with torch.inference_mode():
        expected = model(*(x.clone() for x in inputs))
        with use(ProcessesCold()):
            found = model(*inputs)
    torch.testing.assert_close(found, expected)
    assert all(map(torch.equal, inputs, copies))
    assert not any(x.is_shared() for x in [*inputs, scale, *model.state_dict().values(), found[0]["out"]])


def test_each_call_and_task_has_its_own_process_under_the_callers_modes() -> None:
    def where() -> tuple[int, bool, bool, bool]:
        return os.getpid(), torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")

    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = run(where, where, where)
    assert len({pid for pid, *_ in found} | {os.getpid()}) == 4
    assert {tuple(modes) for _, *modes in found} == {(False, False, True)}
    assert run() == []


def fail() -> None:
    raise ZeroDivisionError("on purpose")


def test_an_error_names_the_branch_and_brings_the_workers_traceback() -> None:
    with pytest.raises(TaskError, match=r"branch 'task 1' raised ZeroDivisionError: on purpose") as caught:
        run(lambda: 1, fail)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    line = fail.__code__.co_firstlineno + 1
    text = "".join(traceback.format_exception(caught.value))
    assert f'File "{fail.__code__.co_filename}", line {line}, in fail' in text


def test_what_cannot_travel_is_named_and_starts_nothing() -> None:
    class Locked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

    region = kit.Branches({"a": nn.Sequential(Locked())}, kit.Concat(1))
    with use(ProcessesCold()), pytest.raises(TransferError, match=r"branch 'a': call\.0\.lock is a lock"):
        region(torch.ones(1))


def test_results_that_cannot_travel_and_callables_that_cannot_be_rebuilt() -> None:
    class Shy:
        def __reduce__(self) -> Any:
            return fail, ()

        def __call__(self) -> None: ...

    with pytest.raises(TaskError, match=r"'task 0' raised TransferError: result\.x is a lock"):
        run(lambda: {"x": threading.Lock()})
    with pytest.raises(TaskError, match=r"'task 0' raised TransferError.*rebuilt in this process \(ZeroDivisionError"):
        ProcessesCold().run([Task("task 0", _Later(Shy()))])


def test_tensors_of_any_dtype_and_views_travel_as_they_do_between_warm_workers() -> None:
    def give() -> tuple[Tensor, ...]:
        eight = torch.arange(8, dtype=torch.uint8)
        kinds = (torch.float8_e4m3fn, torch.uint16, torch.uint64)
        return *(eight.view(kind) for kind in kinds), torch.arange(1_000_000)[3:5], torch.ones(2, requires_grad=True)

    (found,) = run(give)
    for one, expected in zip(found, give(), strict=True):
        assert (one.dtype, one.shape) == (expected.dtype, expected.shape)
        assert one.detach().view(torch.uint8).tolist() == expected.detach().view(torch.uint8).tolist()
        assert one.untyped_storage().nbytes() == one.nbytes
        assert not one.requires_grad


def test_a_result_that_cannot_be_rebuilt_here_is_its_branchs_error() -> None:
    here = os.getpid()

    class Unwelcome:
        def __reduce__(self) -> Any:
            return (lambda: fail() if os.getpid() == here else 1), ()

    with pytest.raises(TaskError, match=r"'task 0' raised TransferError.*rebuilt in this process \(ZeroDivisionError"):
        run(Unwelcome)


class _Later:
    """Travels, and takes what cannot be rebuilt with it."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def __call__(self) -> Any:
        return self.thing()


@pytest.mark.parametrize(
    ("die", "how"),
    [
        pytest.param(lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed by SIGKILL", id="SIGKILL"),
        pytest.param(lambda: os._exit(3), "ended with status 3", id="os._exit", marks=IN_SOAK),
        pytest.param(lambda: sys.exit(4), "ended with status 4", id="sys.exit", marks=IN_SOAK),
    ],
)
def test_a_worker_that_dies(die: Callable[[], None], how: str) -> None:
    start = time.monotonic()
    with pytest.raises(WorkerError, match=rf"{how} while it had branch 'task 0'"):
        run(die, lambda: time.sleep(60))
    print(f"{how}: {time.monotonic() - start:.2f} s with the start")
    assert time.monotonic() - start < LIMIT_S + 10


def test_a_worker_that_dies_while_it_sends() -> None:
    """Half a result is no result, and nobody waits for the other half."""

    def half() -> bytes:
        def kill() -> None:
            while not any("Feeder" in thread.name for thread in threading.enumerate()):
                time.sleep(0.001)
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)

        threading.Thread(target=kill, daemon=True).start()
        return bytes(500_000_000)

    handler = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("the caller waits for ever"))
    signal.alarm(60)
    try:
        with pytest.raises(WorkerError, match="SIGKILL"):
            run(half)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)


@pytest.fixture(scope="module")
def enough() -> float:
    """Seconds in which two workers start and answer here and now, whatever else runs on this machine."""
    start = time.monotonic()
    run(lambda: 1, lambda: 2)
    return 2 + 3 * (time.monotonic() - start)


def test_a_worker_that_hangs(enough: float) -> None:
    start = time.monotonic()
    with pytest.raises(WorkerError, match="no answer from branch 'task 1' in time"):
        run(lambda: 1, lambda: time.sleep(100), timeout=enough)
    assert time.monotonic() - start < enough + LIMIT_S


def test_a_worker_that_answers_and_does_not_end(enough: float) -> None:
    def linger() -> int:
        threading.Thread(target=time.sleep, args=(100,)).start()  # no daemon: the process would wait for it
        return 1

    start = time.monotonic()
    assert run(linger, timeout=enough) == [1]
    assert time.monotonic() - start < enough + LIMIT_S


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are counted on Linux")
def test_errors_leave_no_descriptor_and_no_semaphore() -> None:
    def state() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), Path("/proc/self/maps").read_text().count("/dev/shm")  # noqa: PTH208

    def failing() -> None:
        with pytest.raises(TaskError):
            run(fail)

    failing()
    before = state()
    failing()
    assert state() == before


def test_every_step_of_the_way_is_a_span_in_order() -> None:
    with spans.collect() as log, spans.span("call", "call"):
        run(lambda: time.sleep(0.01), lambda: time.sleep(0.02))
    (call,) = [span for span in log.spans if span.name == "call"]
    caller = [span for span in log.spans if span.process == os.getpid() and span is not call]
    assert [span.name for span in caller] == ["start", "start", "wait", "wait", "join"]
    for i in range(2):
        own = [span for span in log.spans if span.thread_name == f"process {i}"]
        assert [span.name for span in own] == ["spawn", "imports", "load", f"task {i}", "send"]
        assert all(call.start_ns <= span.start_ns <= span.end_ns <= call.end_ns for span in own)
        assert all(a.end_ns <= b.start_ns for a, b in itertools.pairwise(own))


def test_a_process_that_cannot_start_is_said_with_the_limit_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    real = multiprocessing.context.SpawnProcess.start

    def start(process: Any) -> None:
        if started:
            raise OSError(errno.EMFILE, "Too many open files")
        started.append(process)
        real(process)

    monkeypatch.setattr(multiprocessing.context.SpawnProcess, "start", start)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0  # noqa: PTH208
    with pytest.raises(WorkerError, match=r"a process for branch 'second' \(OSError: .*Too many open files\)"):
        ProcessesCold().run([Task("first", abs, (-1,)), Task("second", abs, (-1,))])
    assert multiprocessing.active_children() == []
    gc.collect()
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 1  # noqa: PTH208 - the tracker of semaphores may be new
