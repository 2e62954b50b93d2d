"""A persistent pool of threads, each with its own share of the cores."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import torch

from kit.executors.base import Executor, Task, uninterrupted
from kit.executors.modes import Modes

_inside = threading.local()


@dataclass(eq=False)
class Threads(Executor):
    """Run tasks on a pool of threads that outlives the call.

    PyTorch's operators release the GIL, so threads do run in parallel. Helps when single operators are too small to
    fill the cores. Does not help when they already do: the threads then share the same cores, and each gets only
    ``cores / workers`` intra-op threads (`CPU threading notes
    <https://docs.pytorch.org/docs/stable/notes/cpu_threading_torchscript_inference.html>`_).
    """

    workers: int  # threads in the pool, >= 1
    intra_op_threads: int = 1  # OpenMP threads of each worker, >= 1: every Python thread owns an OpenMP pool
    _pool: ThreadPoolExecutor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.workers, "worker", initializer=self._start_worker)

    def run(self, tasks: Sequence[Task]) -> list[Any]:
        # A region inside a branch: all lanes may be taken by its parents, so waiting for one could wait forever.
        if getattr(_inside, "pool", None) is self._pool:
            return [task() for task in tasks]
        modes = Modes.here()
        futures: list[Future[Any]] = []
        try:
            with uninterrupted():  # else a thread could start, or a task begin, that nobody waits for
                for task in tasks:
                    futures.append(self._pool.submit(contextvars.copy_context().run, modes.run, task))
            wait(futures)
        except BaseException:  # KeyboardInterrupt: what has not begun never will, and what runs is waited for
            for future in futures:
                future.cancel()
            wait(futures)
            raise
        return [future.result() for future in futures]

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _start_worker(self) -> None:
        _inside.pool = self._pool
        torch.set_num_threads(self.intra_op_threads)
