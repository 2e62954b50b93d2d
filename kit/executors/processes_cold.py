"""A process per task and per call: a recipe that is often published."""

from __future__ import annotations

import queue
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import multiprocessing

from kit import spans
from kit.errors import TransferError, WorkerError
from kit.executors.base import Executor, Task
from kit.executors.workers.messages import Reply, Request
from kit.executors.workers.pickling import dump, load
from kit.executors.workers.process import starting
from kit.executors.workers.reports import how_it_ended, starting_is_possible
from kit.executors.workers.thread_state import ThreadState
from kit.executors.workers.worker import run_once


@dataclass(frozen=True)
class ProcessesCold(Executor):
    """Spawn a process with a queue for each task of each call, as published; everything is set up again every time.

    Helps only when a task takes many seconds, or must start in a clean process. The model and the inputs are sent as
    copies in the pickled arguments: a torch.multiprocessing queue would move the caller's own tensors into shared
    memory.
    """

    cold: ClassVar[bool] = True
    timeout: float = 120.0  # seconds that a call may take

    def run(self, tasks: Sequence[Task]) -> list[Any]:
        """As :meth:`Executor.run`.

        Raises:
            TaskError: a task raised; its cause has the worker's traceback.
            WorkerError: a worker died, did not answer in time, or was refused by the system.
            TransferError: something cannot be sent to another process.
        """
        context = multiprocessing.get_context("spawn")
        log = spans.current()
        operators = log is not None and log.operators
        deadline = time.monotonic() + self.timeout
        processes: list[Any] = []
        queues: list[Any] = []
        replies: list[Reply] = []
        try:
            for i, task in enumerate(tasks):
                with spans.span("start", "startup"):
                    payload = _payload(task, operators)
                    with starting_is_possible(f"a process for branch {task.name!r}"), starting():
                        queues.append(context.Queue())
                        arguments = (queues[i], payload, i, spans.clock())
                        # No daemon, which could start no worker processes; it ends with its parent all the same.
                        process = context.Process(target=run_once, args=arguments)
                        process.start()
                        processes.append(process)  # only now: one that did not start cannot be killed
                    queues[i]._writer.close()  # so that the worker's death is the end of the file here
            for task, process, results in zip(tasks, processes, queues, strict=True):
                with spans.span("wait", "wait"):
                    replies.append(_answer(task, process, results, deadline))
                if log is not None:
                    log.spans += replies[-1].arrived()
            with spans.span("join", "startup"):
                for process in processes:
                    process.join(max(0.0, deadline - time.monotonic()))
        finally:
            for process in processes:
                process.kill()
                process.join()
                process.close()
            for results in queues:
                results._writer.close()
                results.close()
        return [reply.outcome(task.name) for task, reply in zip(tasks, replies, strict=True)]


def _payload(task: Task, operators: bool) -> bytearray:
    try:
        return dump(Request(0, task.call, False, task.name, task.args, tuple(ThreadState.here()), operators))
    except TransferError as error:
        raise TransferError(f"branch {task.name!r}: {error}") from error


def _answer(task: Task, process: Any, results: Any, deadline: float) -> Reply:
    """The reply that a worker put into its queue."""
    try:
        found = results.get(timeout=max(0.0, deadline - time.monotonic()))
        return found if isinstance(found, Reply) else Reply(*load(found))
    except TransferError as error:
        return Reply.lost(error)
    except queue.Empty:
        raise WorkerError(f"no answer from branch {task.name!r} in time: its process was ended.") from None
    except (EOFError, OSError) as error:
        process.join(2)
        raise WorkerError(how_it_ended(process, task.name)) from error
