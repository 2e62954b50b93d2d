"""The baseline: one task after the other, in the calling thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kit.executors.base import Executor, Task


@dataclass(frozen=True)
class Sequential(Executor):
    """Run tasks one after the other, as eager PyTorch does.

    Only operators run in parallel: each may use all intra-op threads. That is hard to beat if single operators are
    large enough to fill the cores; otherwise cores stay idle.

    >>> from kit.executors import Sequential, Task
    >>> Sequential().run([Task("first", abs, (-1,)), Task("second", abs, (-2,))])
    [1, 2]
    """

    intra_op_threads: int | None = None  # of the calling thread, which is the only lane; None: one for each core

    @property
    def caller_threads(self) -> int | None:
        return self.intra_op_threads

    @property
    def lane_threads(self) -> int | None:
        return self.intra_op_threads

    def run(self, tasks: Sequence[Task]) -> list[Any]:
        return [task() for task in tasks]
