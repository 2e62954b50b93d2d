"""The code that runs in the processes of ranks.

They join a process group, run their tasks, and gather the packed results on rank 0.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed

from kit import spans
from kit.errors import TaskError, TransferError, WorkerError
from kit.executors.base import Task
from kit.executors.workers.messages import portable
from kit.executors.workers.pickling import dump, load

_joined: int | None = None  # the group that this process is a rank of
_packed: list[bytearray] = []  # the results of its tasks, until they are gathered


class _Result(NamedTuple):
    result: Any


@dataclass
class Share:
    """The tasks of one rank, which it runs without communication with the other ranks."""

    tasks: list[Task]

    @property
    def names(self) -> str:
        """Of its tasks, for messages."""
        return ", ".join(task.name for task in self.tasks)

    def __call__(self, inputs: Sequence[tuple[Any, ...]]) -> list[int]:
        """Run the tasks, keep their packed results, and return the size of each packed result in bytes."""
        _packed.clear()
        for task, args in zip(self.tasks, inputs, strict=True):
            try:
                result = _Result(task._replace(args=args)())
                with spans.span("pack", "transfer"):
                    _packed.append(dump(result))
            except TaskError as error:
                raise TaskError(task.name, portable(error.args[1])) from error.__cause__
            except TransferError as error:
                raise TaskError(task.name, error) from error
        return [len(piece) for piece in _packed]


def error_of_task(error: TaskError) -> TaskError | None:
    """The error of one task out of the error of the rank that ran it; None if the rank itself failed."""
    failed = error.__cause__
    if not isinstance(failed, TaskError):
        return None
    name, cause = failed.args
    cause.__cause__ = failed.__cause__  # the rank's traceback
    found = TaskError(name, cause)
    found.__cause__ = cause
    return found


def unpacked(task: Task, piece: Tensor) -> Any:
    """The result of a task, in the caller's process.

    Raises:
        TaskError: it cannot be rebuilt there.
    """
    try:
        return load(piece.numpy().data)[0]
    except TransferError as error:
        raise TaskError(task.name, error) from error


def join(group: int, store: str, timeout: float, ranks: int, rank: int) -> None:
    """Become a rank of a new group."""
    global _joined
    _joined = None
    if distributed.is_initialized():
        distributed.destroy_process_group()
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else the host's name must have an address
    with spans.span("join the group", "startup"):
        distributed.init_process_group("gloo", f"file://{store}", timedelta(seconds=timeout), ranks, rank)
    _joined = group


def taken() -> list[Tensor]:
    """The packed results, which are forgotten here: tensors ``(bytes,)`` uint8, by task."""
    own = [torch.frombuffer(piece, dtype=torch.uint8) for piece in _packed]
    _packed.clear()
    return own


def gather(group: int, sizes: Sequence[Sequence[int]]) -> list[list[Tensor]] | None:
    """Send the packed results to rank 0, which returns the results of all ranks; other ranks return None.

    Args:
        group: the group that the packed results belong to.
        sizes: of the packed results in bytes, by rank and task.

    Returns:
        tensors ``(bytes,)`` uint8, by rank and task.

    Raises:
        WorkerError: this process was replaced after the tasks, so the results are lost.
    """
    if _joined != group:
        raise WorkerError("a rank was lost after its tasks, before their results were gathered: call again.")
    own = taken()
    with spans.span("gather", "transfer"):
        if distributed.get_rank() != 0:
            for tag, piece in enumerate(own):
                distributed.send(piece, 0, tag=tag)
            return None
        gathered = [own, *([torch.empty(size, dtype=torch.uint8) for size in of_rank] for of_rank in sizes[1:])]
        receives = [
            distributed.irecv(piece, rank, tag=tag)
            for rank, pieces in enumerate(gathered[1:], start=1)
            for tag, piece in enumerate(pieces)
        ]
        for receive in filter(None, receives):
            receive.wait()
        return gathered
