"""Ranks of torch.distributed: processes that divide the tasks among themselves and gather the results."""

from __future__ import annotations

import secrets
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import distributed

from kit import spans
from kit.errors import TaskError
from kit.executors.base import Executor, Task
from kit.executors.processes import Processes
from kit.executors.workers.counting import count
from kit.executors.workers.process import MOST_LOADED
from kit.executors.workers.rank import Share, error_of_task, gather, join, unpacked
from kit.machine.hardware import Hardware


@dataclass(eq=False)
class Ranks(Executor):
    """Run tasks on the ranks of a process group, which stay alive: rank i of n runs tasks i, i + n, i + 2n, ...

    A large job does this on many machines (`distributed overview
    <https://docs.pytorch.org/tutorials/beginner/dist_overview.html>`_), here with all ranks on one, over gloo. Helps
    when one machine is not enough. On one machine it costs as much as :class:`Processes`, and also a copy of every
    output through sockets.

    A call has two steps. First each rank does its tasks, packs the results, and tells the caller that they are ready.
    Only when all ranks are ready, they send the results to rank 0: so no rank waits for one that has failed.
    """

    workers: int  # ranks, >= 1
    intra_op_threads: int = 1  # OpenMP threads of each rank
    timeout: float = 60.0  # seconds that a step may take: joining the group and starting, the tasks, the gathering
    _shares: dict[tuple[tuple[str, int], ...], list[Share]] = field(init=False, repr=False, default_factory=dict)
    _group: int = field(init=False, repr=False, default=0)  # the processes that had been started when it was formed

    def __post_init__(self) -> None:
        self._processes = Processes(self.workers, self.intra_op_threads, self.timeout)
        self._lock = threading.Lock()  # nothing of another call between the steps of one

    @property
    def lane_threads(self) -> int:
        return self.intra_op_threads

    def run(self, tasks: Sequence[Task]) -> list[Any]:
        """As :meth:`kit.executors.processes.Processes.run`; the next call forms a new group if a rank was lost."""
        inputs = [[task.args for task in tasks[rank :: self.workers]] for rank in range(self.workers)]
        with self._lock:
            try:
                self._form_group()
                sizes = self._step(self._loaded(tasks), lambda rank: (inputs[rank],))
                packed, *_ = self._step([gather] * self.workers, lambda rank: (self._group, sizes), together=True)
            except TaskError as error:  # of a rank; its cause is the task's
                if (failed := error_of_task(error)) is not None:
                    raise failed from failed.__cause__
                self._processes.end()
                raise
            except BaseException:  # a rank is lost, and with it the group
                self._processes.end()
                raise
        results = [unpacked(task, packed[i % self.workers][i // self.workers]) for i, task in enumerate(tasks)]
        count((inputs[rank], results[rank :: self.workers]) for rank in range(self.workers))
        return results

    def fork_join(self, tasks: Sequence[Task], merge: Callable[[list[Any]], Any]) -> Any:
        return self._processes.join(self.run(tasks), merge)

    def close(self) -> None:
        self._processes.close()

    def _form_group(self) -> None:
        """Let all ranks join a new group, unless all processes of the old group are still alive."""
        started = self._processes.start()
        if self._group == started:
            return
        store = Path(tempfile.gettempdir(), f"kit-ranks-{secrets.token_hex(8)}")  # where ranks find each other
        try:
            arguments = (started, str(store), self.timeout, self.workers)
            self._step([join] * self.workers, lambda rank: (*arguments, rank), together=True)
        finally:
            store.unlink(missing_ok=True)
        self._group = started

    def _step(
        self, calls: Sequence[Callable[..., Any]], arguments: Callable[[int], tuple[Any, ...]], **options: bool
    ) -> list[Any]:
        """Let every rank do its call. A rank itself is not a task: spans are written for the tasks that it runs."""
        log = spans.current()
        tasks = [Task(f"rank {rank}{_branches(call)}", call, arguments(rank)) for rank, call in enumerate(calls)]
        with spans.collect(operators=log is not None and log.operators) as own:
            found = self._processes.run(tasks, **options)
        if log is not None:
            names = {task.name for task in tasks}
            log.spans += [each for each in own.spans if each.category != "task" or each.name not in names]
        return found

    def _loaded(self, tasks: Sequence[Task]) -> list[Share]:
        """The share of each rank; the same objects for the same tasks, so that a model is sent only once."""
        key = tuple(task.key for task in tasks)
        if len(self._shares) > MOST_LOADED:
            self._shares.clear()
        if key not in self._shares:
            calls = [Task(task.name, task.call) for task in tasks]
            self._shares[key] = [Share(calls[rank :: self.workers]) for rank in range(self.workers)]
        return self._shares[key]


def _branches(call: Callable[..., Any]) -> str:
    return f" ({call.names})" if isinstance(call, Share) else ""


def unavailable_because(machine: Hardware) -> str | None:
    """Why ranks cannot communicate on this machine; None if they can."""
    if distributed.is_available() and distributed.is_gloo_available():
        return None
    return "this PyTorch was built without the gloo backend of torch.distributed: install the wheels from pytorch.org."
