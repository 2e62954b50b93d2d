"""Workers of a Dask cluster, on one host or many, which somebody else has started.

The engine is `Dask <https://distributed.dask.org>`_, not ipyparallel, which was measured too. A method of a Dask actor
is called without the scheduler's planning, so a call costs less than one through ipyparallel's controller, which also
copies all messages to its hub. The scheduler says at once that a worker has ended, and lets go what a client held when
its process ends: so no weights are left behind. What speaks for ipyparallel is a smaller installation, of packages that
Jupyter has already. TorchServe is archived, and torch.distributed.rpc is not developed further.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from kit import spans
from kit.errors import KitError, TaskError, TransferError
from kit.executors.base import Executor, Task
from kit.executors.workers.counting import count
from kit.executors.workers.dask_workers import DaskWorkers
from kit.executors.workers.rank import unpacked
from kit.executors.workers.shares import Shares, packed
from kit.executors.workers.thread_state import ThreadState
from kit.machine.hardware import Hardware

_client: Any = None


def use_cluster(client: Any) -> None:
    """Let the approach ``cluster`` run on the workers of this client's cluster; None: on no cluster.

    With two workers on this machine::

        with LocalCluster(n_workers=2, threads_per_worker=1) as local, Client(local) as client:
            kit.use_cluster(client)
            kit.compare(model, inputs, ["sequential", "cluster"])

    >>> kit.use_cluster(None)  # from here on the approach says that no cluster was named

    The kit neither starts nor closes a cluster. Its workers and its scheduler need this version of the kit. The inputs
    and results of a call pass through the scheduler, unless the client is made with ``direct_to_workers=True``.

    Args:
        client: a ``distributed.Client`` that is not asynchronous.

    Raises:
        KitError: it is something else.
    """
    global _client
    if client is not None and getattr(client, "asynchronous", True):
        raise KitError(
            f"kit.use_cluster needs a distributed.Client that is not asynchronous, but this is a "
            f"{type(client).__name__}: give it Client(address), with the address of Dask's scheduler."
        )
    _client = client


def given_client() -> Any:
    """The client of :func:`use_cluster`, or None."""
    return _client


def unavailable_because(machine: Hardware) -> str | None:
    """Why there is no cluster to run on; None if there is one."""
    if importlib.util.find_spec("distributed") is None:
        return "distributed (of Dask) not installed: run `pip install -c constraints.txt -e .[cluster]`."
    if _client is None:
        return "no cluster was named: call kit.use_cluster(distributed.Client(address)) first, or give a LocalCluster."
    if _client.status != "running":
        return f"the client of kit.use_cluster is {_client.status}: give one that is connected."
    return None


@dataclass(eq=False)
class Cluster(Executor):
    """Run tasks on workers of a Dask cluster: worker i of n runs tasks i, i + n, i + 2n, ... in turn.

    Helps when one machine is not enough. Each worker gets its share of the model with the first call, and keeps it in
    an actor until this executor is closed. Per call only tensors travel. The kit sets the number of OpenMP threads in
    the actor's thread, since Dask starts its workers with OMP_NUM_THREADS=1 unless it is told otherwise.

    A worker that is lost, or late, closes this executor: later calls are refused. The cluster itself stays.
    """

    workers: DaskWorkers = field(repr=False)
    intra_op_threads: int = 1  # OpenMP threads of each worker
    timeout: float = 60.0  # seconds that a call may take, and before the first call the sending of the shares

    def __post_init__(self) -> None:
        self._shares = Shares(self.workers)
        self._lock = threading.Lock()  # one call at a time

    @property
    def lane_threads(self) -> int:
        return self.intra_op_threads

    @property
    def remark(self) -> str:
        few = [
            worker.name
            for worker, facts in zip(self.workers.all, self.workers.facts, strict=True)
            if facts.omp_num_threads not in ("", str(self.intra_op_threads))
        ]
        if not few:
            return ""
        return (
            f"OMP_NUM_THREADS is set for {', '.join(few)}, as Dask does. The branches have "
            f"{self.intra_op_threads} intra-op threads there all the same; other work there may have fewer."
        )

    def run(self, tasks: Sequence[Task]) -> list[Any]:
        """As :meth:`Executor.run`.

        Raises:
            TaskError: a task raised; its cause has the worker's traceback.
            WorkerError: a worker has ended or is late, now or in an earlier call.
            TransferError: something cannot be sent to another process.
        """
        n = self.workers.size
        with self._lock:
            self.workers.check()
            try:
                found = self._call(tasks)
            except (TaskError, TransferError):  # every worker waits for the next call
                raise
            except BaseException as error:  # this process does not know what the workers do now
                self.workers.release(f"a call was broken off ({type(error).__name__}).")
                raise
        results = [unpacked(task, found[i % n][i // n]) for i, task in enumerate(tasks)]
        count(([task.args for task in tasks[i::n]], results[i::n]) for i in range(n))
        return results

    def close(self) -> None:
        """Let the actors go, and the weights with them; the cluster stays."""
        with self._lock:
            self.workers.release("the executor was closed.")

    def _call(self, tasks: Sequence[Task]) -> list[list[Tensor]]:
        """The packed results of each worker's tasks."""
        n, log = self.workers.size, spans.current()
        busy = dict(enumerate(self.workers.all[: len(tasks)]))
        names = {i: ", ".join(repr(task.name) for task in tasks[i::n]) for i in busy}
        with spans.span("pack", "transfer"):  # before anything is sent: what cannot travel breaks nothing
            inputs = {
                i: packed([task.args for task in tasks[i::n]], f"the inputs of {names[i]}", worker)
                for i, worker in busy.items()
            }
        key, _ = self._shares.of(tasks, busy, self.timeout)
        operators = log is not None and log.operators
        if operators:
            with spans.span("compare clocks", "transfer"):
                for worker in busy.values():
                    self.workers.compare_clocks(worker, self.timeout)
        how = (self.intra_op_threads, tuple(ThreadState.here()), operators)
        arguments = {busy[i]: (key, np.frombuffer(piece, np.uint8), *how) for i, piece in inputs.items()}
        with spans.span("wait", "wait"):
            answers = self.workers.ask("run", arguments, self.timeout, ", ".join(names.values()))
        found: list[list[Tensor]] = []
        for outcome in [answers[worker].results(worker) for worker in busy.values()]:
            if isinstance(outcome, TaskError):
                raise outcome
            found.append(outcome)
        return found
