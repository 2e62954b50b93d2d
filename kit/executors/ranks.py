"""Ranks of torch.distributed: processes that divide the tasks among themselves and gather the results."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from torch import distributed

from kit import spans
from kit.errors import TaskError
from kit.executors.base import Executor, Task
from kit.executors.channel import dump_inline, load
from kit.executors.processes import MOST_LOADED, Processes
from kit.executors.worker import portable, remote
from kit.hardware import Hardware


@dataclass(eq=False)
class Ranks(Executor):
    """Run tasks on the ranks of a process group, which outlive the call: rank i has every n-th task from the i-th on.

    It is what a large job does on many machines (`distributed overview
    <https://docs.pytorch.org/tutorials/beginner/dist_overview.html>`_), here with all ranks on one, over gloo. Helps
    where one machine is not enough. On one machine it costs what :class:`Processes` cost and, since ranks talk through
    sockets, a copy through the network's layers for every output.
    """

    workers: int  # ranks, >= 1
    intra_op_threads: int = 1  # OpenMP threads of each rank
    timeout: float = 60.0  # seconds that a call may take, start-up included
    _groups: int = field(init=False, repr=False, default=0)  # that have failed; a group that lost a rank is of no use
    _shares: dict[tuple[tuple[str, int], ...], list[_Share]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._processes = Processes(self.workers, self.intra_op_threads, self.timeout)
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def run(self, tasks: Sequence[Task]) -> list[Any]:
        """As :meth:`kit.executors.processes.Processes.run`."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="kit-ranks-")  # where ranks find each other
        if not self._processes.whole():  # a new rank cannot join a group, and the others would wait for the lost one
            self._groups += 1
        log, store = spans.current(), str(Path(self._folder.name) / str(self._groups))
        inputs = [[task.args for task in tasks[rank :: self.workers]] for rank in range(self.workers)]
        shares = [
            Task(f"rank {rank} ({', '.join(name for name, _ in share.calls) or 'idle'})", share, (store, own))
            for rank, (share, own) in enumerate(zip(self._loaded(tasks), inputs, strict=True))
        ]
        try:
            with spans.collect(operators=log is not None and log.operators) as own_log:
                gathered, *_ = self._processes.run(shares)
        except BaseException:  # whatever it was, some rank may still wait for the others
            self._groups += 1
            raise
        if log is not None:  # a rank is no task: what it does is tasks, and what it waits for is not
            names = {share.name for share in shares}
            log.spans += [each for each in own_log.spans if each.category != "task" or each.name not in names]
        answers = [Answer(*gathered[i % self.workers][i // self.workers]) for i in range(len(tasks))]
        return [answer.outcome(task.name) for answer, task in zip(answers, tasks, strict=True)]

    def fork_join(self, tasks: Sequence[Task], merge: Callable[[list[Any]], Any]) -> Any:
        return self._processes.join(self.run(tasks), merge)

    def close(self) -> None:
        self._processes.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _loaded(self, tasks: Sequence[Task]) -> list[_Share]:
        """What each rank does, the same objects for the same tasks, so that a model is sent once."""
        key = tuple(task.key for task in tasks)
        if len(self._shares) > MOST_LOADED:
            self._shares.clear()
        if key not in self._shares:
            own = [[(task.name, task.call) for task in tasks[rank :: self.workers]] for rank in range(self.workers)]
            self._shares[key] = [_Share(rank, self.workers, self.timeout, calls) for rank, calls in enumerate(own)]
        return self._shares[key]


@dataclass
class _Share:
    """What one rank does in a call."""

    rank: int
    ranks: int
    timeout: float
    calls: list[tuple[str, Callable[..., Any]]]

    def __call__(self, store: str, inputs: Sequence[tuple[Any, ...]]) -> list[list[tuple[bytes, str]]] | None:
        """In its own process: join the group, do the tasks, send the answers to rank 0, which returns all of them.

        Nothing may come between a rank and the gathering, for which all the others wait. So an answer is bytes before
        it begins: a task that raised, or whose result cannot be pickled, has that as its answer.
        """
        self._join(store)
        own = [tuple(Answer.of(Task(name, call, args))) for (name, call), args in zip(self.calls, inputs, strict=True)]
        everyone = [None] * self.ranks if self.rank == 0 else None
        with spans.span("gather", "transfer"):
            distributed.gather_object(own, everyone)
        return everyone  # type: ignore[return-value]  # filled by now

    def _join(self, store: str) -> None:
        global _group
        if _group == store:
            return
        with spans.span("join the group", "startup"):
            if distributed.is_initialized():
                distributed.destroy_process_group()
            if sys.platform == "linux":
                os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else the host's name must have an address
            distributed.init_process_group(
                "gloo", f"file://{store}", timedelta(seconds=self.timeout), self.ranks, self.rank
            )
        _group = store


class Answer(NamedTuple):
    """What one task gave, as bytes."""

    body: bytes  # the result, or the exception
    traceback: str  # of the exception, in its rank; "" where there is none

    @classmethod
    def of(cls, task: Task) -> Answer:
        """Run the task. Whatever it raises is its answer."""
        try:
            return cls(dump_inline(task()), "")
        except Exception as error:
            failure = error.__cause__ if isinstance(error, TaskError) and error.__cause__ else error
            return cls(dump_inline(portable(failure)), "".join(traceback.format_exception(failure)))

    def outcome(self, task: str) -> Any:
        """The result.

        Raises:
            TaskError: the task raised, or its result cannot be sent; the cause has its rank's traceback.
        """
        [value] = load(self.body)
        if self.traceback:
            raise TaskError(task, value) from remote(value, self.traceback)
        return value


_group = ""  # the store of the group that this process is a rank of


def unavailable_because(machine: Hardware) -> str | None:
    """Why ranks cannot talk here, or None."""
    if distributed.is_available() and distributed.is_gloo_available():
        return None
    return "this PyTorch was built without torch.distributed's gloo: take the wheels of pytorch.org."
