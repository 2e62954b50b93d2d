"""Ranks: who does what, how results come together, and how a group ends and begins again."""

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import numpy as np
import pytest
import torch
from torch import Tensor, distributed, nn

from kit import spans
from kit.approaches import parse
from kit.equality import compare_outputs
from kit.errors import TaskError, UnavailableError, WorkerError
from kit.executors import Task
from kit.executors.processes import Processes
from kit.executors.ranks import Ranks
from kit.models import inception_block

cloudpickle.register_pickle_by_value(sys.modules[__name__])
SOAK = os.environ.get("KIT_SOAK") == "1"
LIMIT_S = 10.0  # the promise is 2 s, and a busy machine gets some more; whoever waited for a rank waited for 60
LOST_S = 40.0  # with the start of new processes: 3 s on an idle machine
pytestmark = pytest.mark.skipif(not distributed.is_gloo_available(), reason="this PyTorch has no gloo")


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    with Ranks(2) as executor:
        yield executor


def rank(_: Any = None) -> int:
    return distributed.get_rank()


def test_every_rank_has_its_share_and_results_are_in_order(ranks: Ranks) -> None:
    assert ranks.run([Task(f"t{i}", rank) for i in range(5)]) == [0, 1, 0, 1, 0]
    assert ranks.run([Task("alone", rank)]) == [0]
    assert ranks.run([]) == []


def test_a_group_lives_between_calls_and_a_model_is_sent_once(ranks: Ranks) -> None:
    model, x = nn.Linear(8, 8).eval(), torch.randn(2, 8)
    tasks = [Task("a", model, (x,)), Task("b", model, (2 * x,))]
    with torch.inference_mode():
        for _ in range(2):
            with spans.collect() as log:
                found = ranks.run(tasks)
            for y, task in zip(found, tasks, strict=True):
                assert compare_outputs(model(*task.args), y).equal
    names = [(each.name, each.category) for each in log.spans]
    assert not {"join the group", "load"} & {name for name, _ in names}
    assert sorted(name for name, category in names if category == "task") == ["a", "b"]
    assert names.count(("gather", "transfer")) == 2


def test_the_same_callable_under_another_name_has_that_name(ranks: Ranks) -> None:
    for name in ("one", "other"):
        with spans.collect() as log:
            ranks.run([Task(name, rank)])
        assert [each.name for each in log.spans if each.category == "task"] == [name]


def test_an_error_is_the_tasks_own_and_the_next_call_works(ranks: Ranks) -> None:
    def fail(x: Tensor) -> Tensor:
        raise ZeroDivisionError("on purpose")

    x = torch.ones(1)
    with pytest.raises(TaskError, match="branch 'second' raised ZeroDivisionError: on purpose") as caught:
        ranks.run([Task("first", torch.neg, (x,)), Task("second", fail, (x,))])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert ranks.run([Task("t", rank)] * 2) == [0, 1]


# Results that are not everyday ones -----------------------------------------------------------------------------------


class Pair(NamedTuple):
    """As one of a notebook's cell: the workers cannot import it."""

    x: Tensor
    n: int


@dataclass
class Box:
    x: Tensor
    note: str


DTYPES = [torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.uint32, torch.uint64, torch.complex32]
RESULTS: dict[str, Callable[[], Any]] = {
    "a named tuple": lambda: Pair(torch.arange(3), 3),
    "a dataclass": lambda: {"box": [Box(torch.ones(2), "text")]},
    "dtypes without arithmetic": lambda: [torch.arange(16, dtype=torch.uint8).view(dtype) for dtype in DTYPES],
    "a float8 parameter": lambda: nn.Parameter(torch.ones(4).to(torch.float8_e4m3fn), requires_grad=False),
    "a graph": lambda: torch.ones(3, requires_grad=True) * 2,
    "a leaf": lambda: torch.ones(3, requires_grad=True),
    "other strides": lambda: (torch.arange(24.0).view(2, 3, 4).permute(2, 0, 1), torch.arange(10)[::3], torch.ones(1)),
    "channels last": lambda: torch.rand(1, 3, 2, 2).contiguous(memory_format=torch.channels_last) * 0,
    "a view of much": lambda: torch.arange(1_000_000)[5:7],
    "sparse": lambda: (torch.eye(3).to_sparse(), torch.eye(3).to_sparse_csr()),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    "no tensors": lambda: {"n": 1, None: (2.5, "text", b"bytes", {3}), "array": np.arange(3.0), "dtype": torch.uint16},
    "nothing": lambda: None,
    "much": lambda: torch.arange(5_000_000),
    "no elements": lambda: torch.empty(0, 3),
}


def description(thing: Any) -> Any:
    """All that can be compared of a result."""
    if isinstance(thing, Tensor):
        strides = thing.stride() if thing.layout is torch.strided else thing.layout
        here = type(thing).__name__, thing.dtype, thing.shape, strides, thing.requires_grad
        if thing.is_quantized:
            return *here, thing.dequantize().tolist()
        if thing.layout is not torch.strided:
            return *here, thing.to_dense().tolist()
        return (
            *here,
            thing.untyped_storage().nbytes(),
            thing.detach().clone().flatten().view(torch.uint8).numpy().tobytes(),
        )
    if isinstance(thing, np.ndarray):
        return thing.dtype, thing.tolist()
    if isinstance(thing, Box):
        return Box, description(thing.x), thing.note
    if isinstance(thing, dict):
        return {key: description(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return type(thing), [description(each) for each in thing]
    return thing


@pytest.mark.filterwarnings("ignore:.*quantized tensor creation:UserWarning", "ignore:TypedStorage is deprecated")
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning", "ignore:ComplexHalf:UserWarning")
def test_results_are_those_of_processes(ranks: Ranks) -> None:
    tasks = [Task(name, call) for name, call in RESULTS.items()]
    with Processes(1) as executor:
        expected = executor.run(tasks)
    for turned in (tasks, tasks[::-1]):  # each result from rank 0 and from rank 1
        found = dict(zip([task.name for task in turned], ranks.run(turned), strict=True))
        for name, result in zip(RESULTS, expected, strict=True):
            assert description(found[name]) == description(result), name
    assert isinstance(found["a named tuple"], Pair)
    assert found["a view of much"].untyped_storage().nbytes() == 16


class Unwelcome:
    """It leaves a rank, and does not arrive."""

    def __reduce__(self) -> Any:
        here = os.getpid()
        return (lambda: abs(1) if os.getpid() == here else 1 / 0), ()


CANNOT_TRAVEL: dict[str, tuple[Callable[[], Any], str]] = {
    "a lock": (lambda: {"x": threading.Lock()}, r"TransferError: result\.x is a lock"),
    "a generator": (lambda: (1, (i for i in ())), r"TransferError: result\.1 is a generator"),
    "what does not arrive": (Unwelcome, "TransferError: the received object cannot be rebuilt .*ZeroDivisionError"),
    "an error with a lock": (lambda: raises(Locked()), "RuntimeError: Locked: holds a lock"),
    "a nest": (lambda: reduce(lambda nest, _: [nest], range(5000), threading.Lock()), "TransferError: result"),
}


class Locked(Exception):
    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()


def raises(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("what", CANNOT_TRAVEL)
def test_what_cannot_travel_is_named_at_once_and_keeps_nobody_waiting(ranks: Ranks, what: str, position: int) -> None:
    call, says = CANNOT_TRAVEL[what]
    tasks = [Task("fine", rank), Task("fine", rank)]
    pids = ranks.run([Task("t", os.getpid)] * 2)
    tasks[position] = Task("bad", call)
    start = time.monotonic()
    with pytest.raises(TaskError, match=f"branch 'bad' raised {says}"):
        ranks.run(tasks)
    assert time.monotonic() - start < LIMIT_S
    assert ranks.run([Task("t", os.getpid)] * 2) == pids, "nothing had to start again"


def test_an_error_brings_the_ranks_traceback(ranks: Ranks) -> None:
    with pytest.raises(TaskError) as caught:
        ranks.run([Task("t", rank), Task("bad", raises, (ZeroDivisionError("on purpose"),))])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "in raises" in "".join(traceback.format_exception(caught.value))


def test_calls_of_several_threads_do_not_mix(ranks: Ranks) -> None:
    found: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: ranks.run([Task("t", abs, (i,)), Task("t", abs, (-i,))])}))
        for i in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: [i, i] for i in range(6)}


# Ranks that are lost --------------------------------------------------------------------------------------------------

ENDS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "SIGKILL": (lambda: os.kill(os.getpid(), signal.SIGKILL), WorkerError, "killed by SIGKILL"),
    "KeyboardInterrupt": (lambda: raises(KeyboardInterrupt()), WorkerError, "ended with status 1"),
    "sys.exit": (lambda: sys.exit(7), WorkerError, "ended with status 7"),
    "no rebuilding": (lambda: None, TaskError, r"'rank . \(t, bad\)' raised TransferError: .*cannot be rebuilt"),
    "between calls": (lambda: None, WorkerError, ""),
    "in the gathering": (lambda: spoil("send", "irecv"), TaskError, "'rank .' raised OSError: spoiled"),
    "in the joining": (lambda: spoil("init_process_group"), TaskError, "'rank .' raised OSError: spoiled"),
}


def spoil(*names: str) -> None:
    """Let this rank fail on its way into a collective."""
    for name in names:
        setattr(distributed, name, lambda *args, **options: raises(OSError("spoiled")))


class NotRebuilt:
    def __reduce__(self) -> Any:
        return raises, (ImportError("not here"),)

    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("how", "position"),
    [(how, position) for how in ENDS for position in (0, 1)]
    if SOAK
    else [("in the gathering", 1), ("no rebuilding", 0)],
)
def test_a_rank_that_is_lost_is_named_at_once_and_the_next_call_works(how: str, position: int) -> None:
    end, error, says = ENDS[how]
    with Ranks(2, timeout=60) as executor:
        pids = executor.run([Task("t", os.getpid)] * 2)
        tasks = [Task("t", rank)] * 4
        tasks[2 + position] = Task("bad", NotRebuilt() if how == "no rebuilding" else end)
        start = time.monotonic()
        if how == "in the joining":
            executor.run(tasks)
            os.kill(pids[1 - position], signal.SIGKILL)
            time.sleep(0.1)
        if how == "between calls":
            os.kill(pids[position], signal.SIGKILL)
            time.sleep(0.1)
        else:
            with pytest.raises(error, match=says) as caught:
                executor.run(tasks)
            if error is WorkerError:
                assert f"'rank {position} (t, bad)'" in str(caught.value)
                assert f"worker process {pids[position]} " in str(caught.value)
        assert executor.run([Task("t", rank)] * 2) == [0, 1]
        assert time.monotonic() - start < LOST_S


def test_a_rank_that_was_killed_between_calls_is_replaced() -> None:
    with Ranks(2, timeout=40) as executor:
        for lost in (0, 1):
            before = executor.run([Task("t", os.getpid)] * 2)
            os.kill(before[lost], signal.SIGKILL)
            while before[lost] in {process.pid for process in multiprocessing.active_children()}:
                time.sleep(0.01)
            after = executor.run([Task("t", os.getpid)] * 2)  # else a WorkerError, after the timeout
            assert before[1 - lost] == after[1 - lost]
            assert before[lost] != after[lost]


def test_a_group_that_lost_a_rank_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Ranks(2, timeout=30) as executor:
        first = executor.run([Task("t", os.getpid)] * 2)
        with pytest.raises(WorkerError, match=r"was killed by SIGKILL while it had branch 'rank 1 \(die\)'"):
            executor.run([Task("wait", rank), Task("die", os.kill, (first[1], signal.SIGKILL))])
        again = executor.run([Task("t", os.getpid)] * 2)
        assert not set(first) & set(again)
        assert not list(tmp_path.glob("kit-ranks-*")), "where ranks found each other"
    assert not {child.pid for child in multiprocessing.active_children()} & set(again)


def test_the_approach_gives_sequentials_output() -> None:
    model, x = inception_block(3).eval(), torch.randn(1, 3, 12, 12)
    with parse("ranks(workers=2)").prepare(model, x) as runner, torch.inference_mode():
        assert compare_outputs(model(x), runner()).equal


def test_without_gloo_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "is_gloo_available", lambda: False)
    with pytest.raises(UnavailableError, match=r"ranks cannot run here: .*gloo"):
        parse("ranks").prepare(inception_block(3), torch.rand(1, 3, 8, 8))
