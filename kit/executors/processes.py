"""Persistent worker processes: started once, the model sent once, tensors through shared memory."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kit import spans
from kit.errors import WorkerError
from kit.executors.base import Executor, Task
from kit.executors.threads import Threads
from kit.executors.workers.counting import count
from kit.executors.workers.messages import Reply
from kit.executors.workers.process import WorkerProcess, answered, share_of_cores, starting
from kit.executors.workers.reports import no_answer, starting_is_possible
from kit.executors.workers.thread_state import ThreadState

GRACE_S = 1.0  # after the failure of one of several tasks that wait for each other


@dataclass(eq=False)
class Processes(Executor):
    """Run tasks in worker processes that stay alive between calls. For inference: gradients do not cross processes.

    Helps when tasks hold the GIL (pure Python), or when threads disturb each other. Costs about a second to start, a
    copy of the model for each worker, and for each call a copy of every input, two of every output and two wake-ups. A
    callable's weights are those of its first call: later changes in this process do not reach the workers.

    The workers start with the first call, by ``spawn``, and do not import the main module.
    """

    workers: int  # processes, >= 1
    intra_op_threads: int = 1  # OpenMP threads of each worker
    timeout: float = 60.0  # seconds that a call may take, start-up included

    def __post_init__(self) -> None:
        self._workers: list[WorkerProcess | None] = [None] * self.workers
        self._started, self._closed = 0, False
        self._joiner = Threads(1, name="merge")
        self._lock = threading.Lock()  # a channel carries one conversation at a time

    @property
    def lane_threads(self) -> int:
        return self.intra_op_threads

    def start(self) -> int:
        """Start the workers that are missing, and return how many have been started so far.

        While this number stays the same, the processes are the same.

        Raises:
            WorkerError: the system cannot start a process, or this executor is closed.
        """
        with self._lock:
            for position in range(self.workers):
                self._worker(position)
            return self._started

    def run(self, tasks: Sequence[Task], *, together: bool = False) -> list[Any]:
        """As :meth:`Executor.run`. Task i goes to worker i modulo their number, so that each model is sent once.

        Args:
            together: the tasks wait for each other, so if one fails the others may never end. They then get one more
                second before their workers are ended.

        Raises:
            TaskError: a task raised; its cause has the worker's traceback.
            WorkerError: a worker died or did not answer in time, this executor is closed, or the system cannot start a
                process. The next call replaces lost workers.
            TransferError: something cannot be sent to another process.
        """
        with self._lock:
            try:
                replies = self._replies(tasks, together)
            finally:  # after a KeyboardInterrupt too, no task still runs when the caller goes on
                self._end(lambda worker: worker.busy_with is not None)
        # None: the task did not begin, since another task failed.
        return [reply.outcome(task.name) for task, reply in zip(tasks, replies, strict=True) if reply is not None]

    def fork_join(self, tasks: Sequence[Task], merge: Callable[[list[Any]], Any]) -> Any:
        return self.join(self.run(tasks), merge)

    def join(self, results: list[Any], merge: Callable[[list[Any]], Any]) -> Any:
        """Merge in a thread without OpenMP helpers, for the reason of :meth:`Threads.fork_join`."""
        return self._joiner.fork_join([], lambda none: merge(results))

    def close(self) -> None:
        self._closed = True
        self._joiner.close()
        while not self._lock.acquire(timeout=0.05):  # a call of another thread ends with its workers
            for worker in [each for each in self._workers if each and each.busy_with is not None]:
                worker.kill()
        living = [worker for worker in self._workers if worker is not None]
        self._workers = [None] * self.workers
        self._lock.release()
        for worker in living:  # all pipes first, so that the workers end at the same time
            worker.channel.close()
        for worker in living:
            worker.end()

    def end(self) -> None:
        """End all workers at once, busy or not; the next call starts new ones."""
        with self._lock:
            self._end(lambda worker: True)

    def _end(self, which: Callable[[WorkerProcess], bool]) -> None:
        for i, worker in enumerate(self._workers):
            if worker is not None and which(worker):
                self._workers[i] = None
                worker.end(at_once=True)

    def _replies(self, tasks: Sequence[Task], together: bool) -> list[Reply | None]:
        """Send tasks and collect replies until all tasks have ended; after a failure no further task begins."""
        deadline = time.monotonic() + self.timeout
        replies: list[Reply | None] = [None] * len(tasks)
        state, log = ThreadState.here(), spans.current()
        operators = log is not None and log.operators
        waiting = [deque(range(i, len(tasks), self.workers)) for i in range(self.workers)]
        workers = [self._worker(i) for i in range(min(self.workers, len(tasks)))]
        failed = False
        while True:
            for worker, queue in zip(workers, waiting, strict=False):
                if worker.busy_with is None and queue and not failed:
                    with spans.span("send", "transfer"):
                        i = queue.popleft()
                        worker.give(i, tasks[i], state, operators)
            busy = {worker.busy_with: worker for worker in workers if worker.busy_with is not None}
            if not busy:
                return replies
            with spans.span("wait", "wait"):
                ready = answered(list(busy.values()), deadline)
            if not ready:
                if failed and together:
                    return replies
                late = [(tasks[i].name, worker.process.pid) for i, worker in busy.items()]
                raise WorkerError(no_answer(late, self.timeout))
            for i in [i for i, worker in busy.items() if worker in ready]:
                reply = busy[i].take(tasks[i])
                if log is not None:
                    log.spans += reply.arrived()
                replies[i], failed = reply, failed or reply.error is not None
                count([(tasks[i].args, reply.result)])
            if failed and together:
                deadline = min(deadline, time.monotonic() + GRACE_S)

    def _worker(self, position: int) -> WorkerProcess:
        """The live worker at this position; starts one if there is none."""
        if self._closed:
            raise WorkerError("the worker processes of this approach are closed: prepare the approach again.")
        worker = self._workers[position]
        if worker is None or not worker.process.is_alive():
            self._end(lambda each: each is worker)
            cores = share_of_cores(position, self.workers)
            with starting_is_possible(f"worker process {position}"), starting():
                worker = self._workers[position] = WorkerProcess(position, self.intra_op_threads, cores)
                self._started += 1
        return worker
