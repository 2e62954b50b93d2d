"""What runs in the processes of ranks: they join a group, do their tasks, and gather the packed results on rank 0."""

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
from kit.executors.channel import dump
from kit.executors.worker import portable

_joined: int | None = None  # the group that this process is a rank of
_packed: list[bytearray] = []  # the results of its tasks, until they are gathered


class _Result(NamedTuple):
    result: Any


@dataclass
class Share:
    """The tasks of one rank, which it does without a word to the others."""

    tasks: list[Task]

    def __call__(self, inputs: Sequence[tuple[Any, ...]]) -> list[int]:
        """Do them, and return how long each result is, packed, in bytes."""
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


def gather(group: int, sizes: Sequence[Sequence[int]]) -> list[list[Tensor]] | None:
    """Send the packed results to rank 0, which returns all of them: ``(bytes,)`` uint8 each, by rank and task."""
    if _joined != group:
        raise WorkerError("a rank was lost between its tasks and the gathering of their results: call again.")
    own = [torch.frombuffer(piece, dtype=torch.uint8) for piece in _packed]
    _packed.clear()
    with spans.span("gather", "transfer"):
        if distributed.get_rank() != 0:
            for tag, piece in enumerate(own):
                distributed.send(piece, 0, tag=tag)
            return None
        found = [own, *([torch.empty(size, dtype=torch.uint8) for size in each] for each in sizes[1:])]
        awaited = [
            distributed.irecv(piece, rank, tag=tag)
            for rank, pieces in enumerate(found[1:], start=1)
            for tag, piece in enumerate(pieces)
        ]
        for each in filter(None, awaited):
            each.wait()
        return found
