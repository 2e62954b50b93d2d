"""An approach for workloads: branches run on a pool of processes that every call starts and ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from kit.approaches import Runs
from kit.executors import Executor, Task
from kit.executors.processes import Processes
from kit.spans import span


@dataclass(frozen=True)
class ColdPool(Executor):
    """A pool of processes that is started and ended in every call, as in ``with Pool(4) as pool: pool.map(...)``."""

    cold: ClassVar[bool] = True
    workers: int
    intra_op_threads: int

    @property
    def lane_threads(self) -> int:
        return self.intra_op_threads

    def run(self, tasks: Sequence[Task]) -> list[Any]:
        """As :meth:`kit.executors.processes.Processes.run`."""
        pool = Processes(self.workers, self.intra_op_threads)
        try:
            return pool.run(tasks)
        finally:
            with span("end", "startup"):
                pool.close()


def pool_cold(cores: int, *, workers: int | None = None, threads: int | None = None) -> ColdPool:
    """A pool of processes that every call starts and ends."""
    return ColdPool(workers or cores, threads or cores)


POOL_COLD = Runs(pool_cold, sends=True)
