"""Ranks: who does what, how results come together, and how a group ends and begins again."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import pytest
import torch
from torch import Tensor, distributed, nn

from kit import spans
from kit.approaches import parse
from kit.equality import compare_outputs
from kit.errors import TaskError, TransferError, UnavailableError, WorkerError
from kit.executors import Task
from kit.executors.processes import Processes
from kit.executors.ranks import Ranks
from kit.models import inception_block

cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = pytest.mark.skipif(not distributed.is_gloo_available(), reason="this PyTorch has no gloo")


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with Processes(2) as executor:
        yield executor


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


class Pair(NamedTuple):
    number: int
    tensor: Tensor


@dataclass
class Box:
    tensor: Tensor


RESULTS: list[Callable[[], Any]] = [
    lambda: Pair(1, torch.ones(2)),
    lambda: Box(torch.ones(2)),
    lambda: torch.arange(4).to(torch.uint16),
    lambda: torch.ones(3).to(torch.float8_e4m3fn),
    lambda: torch.arange(60.0).reshape(6, 10)[::2, 3:5].t(),
    lambda: {"a": [torch.ones(1, dtype=torch.bfloat16), (None, "text")]},
    lambda: torch.ones(2, requires_grad=True) * 2,
]


@pytest.mark.parametrize("make", RESULTS)
def test_a_result_is_what_processes_give_from_every_rank(
    ranks: Ranks, processes: Processes, make: Callable[[], Any]
) -> None:
    for executor in (ranks, processes):
        for result in executor.run([Task("a", make), Task("b", make)]):
            assert repr(result) == repr(make()).replace(", grad_fn=<MulBackward0>", "")
            assert type(result) is type(make())


@pytest.mark.parametrize("place", [0, 1])
def test_a_result_that_cannot_be_pickled_is_its_branchs_error_and_no_rank_waits(ranks: Ranks, place: int) -> None:
    tasks = [Task("good", rank), Task("good", rank)]
    tasks[place] = Task("locked", threading.Lock)
    with pytest.raises(TaskError, match="branch 'locked' raised TransferError: result is a lock") as told:
        ranks.run(tasks)
    assert isinstance(told.value.__cause__, TransferError)
    assert ranks.run([Task("t", rank)] * 2) == [0, 1]  # the same group, at once: no timeout of a minute has passed


def test_a_rank_that_was_killed_between_calls_is_replaced() -> None:
    with Ranks(2, timeout=40) as executor:
        for lost in (0, 1):
            before = executor.run([Task("t", os.getpid)] * 2)
            os.kill(before[lost], signal.SIGKILL)
            while executor._processes.whole():
                time.sleep(0.01)
            after = executor.run([Task("t", os.getpid)] * 2)  # else a WorkerError, after the timeout
            assert before[1 - lost] == after[1 - lost]
            assert before[lost] != after[lost]


def test_a_group_that_lost_a_rank_is_made_anew() -> None:
    with Ranks(2, timeout=30) as executor:
        first = executor.run([Task("t", os.getpid)] * 2)
        with pytest.raises(WorkerError, match=r"was killed by SIGKILL while it had branch 'rank 1 \(die\)'"):
            executor.run([Task("wait", rank), Task("die", os.kill, (first[1], signal.SIGKILL))])
        again = executor.run([Task("t", os.getpid)] * 2)
        assert not set(first) & set(again)
        assert executor._folder is not None
        folder = Path(executor._folder.name)
    assert not folder.exists()
    assert not {child.pid for child in multiprocessing.active_children()} & set(again)


def test_the_approach_gives_sequentials_output() -> None:
    model, x = inception_block(3).eval(), torch.randn(1, 3, 12, 12)
    with parse("ranks(workers=2)").prepare(model, x) as runner, torch.inference_mode():
        assert compare_outputs(model(x), runner(x)).equal


def test_without_gloo_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "is_gloo_available", lambda: False)
    with pytest.raises(UnavailableError, match=r"ranks cannot run here: .*gloo"):
        parse("ranks").prepare(inception_block(3))
