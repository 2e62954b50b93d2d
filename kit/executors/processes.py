"""Persistent worker processes: started once, the model sent once, tensors through shared memory."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from typing import Any

from torch import multiprocessing

from kit import spans
from kit.errors import TransferError, WorkerError
from kit.executors.base import Executor, Task, uninterrupted
from kit.executors.channel import Channel
from kit.executors.modes import Modes
from kit.executors.reports import how_it_ended, starting_is_possible, stopped
from kit.executors.threads import Threads
from kit.executors.worker import Reply, Request, serve

MOST_LOADED = 100  # callables that a worker keeps: whoever makes a new lambda for every call shall not fill it
LOOK_S = 0.5  # between two looks at whether busy workers live: a process that a task has forked keeps its pipe open
GRACE_S = 1.0  # after the failure of one of several tasks that wait for each other


@dataclass(eq=False)
class Processes(Executor):
    """Run tasks in worker processes that outlive the call. For inference: gradients do not cross processes.

    Helps when tasks hold the GIL (pure Python), or when threads disturb each other. Costs about a second to start, a
    copy of the model for each worker, and for each call a copy of every input, two of every output and two wake-ups. A
    callable's weights are those of its first call: later changes in this process do not reach the workers.

    The workers start with the first call, by ``spawn``, and do not import the main module.
    """

    workers: int  # processes, >= 1
    intra_op_threads: int = 1  # OpenMP threads of each worker
    timeout: float = 60.0  # seconds that a call may take, start-up included
    _joiner: Threads = field(init=False, repr=False)
    _workers: list[_Worker | None] = field(init=False, repr=False)
    _closed: bool = field(init=False, repr=False, default=False)

    def __post_init__(self) -> None:
        self._workers = [None] * self.workers
        self._started = 0
        self._joiner = Threads(1, name="merge")
        self._lock = threading.Lock()  # a channel carries one conversation at a time

    def start(self) -> int:
        """Start the workers that are not there, and return how many have been started so far.

        As long as that number stays the same, so do the processes.

        Raises:
            WorkerError: the system refuses a process, or this executor is closed.
        """
        with self._lock:
            for position in range(self.workers):
                self._worker(position)
            return self._started

    @property
    def lane_threads(self) -> int:
        return self.intra_op_threads

    def run(self, tasks: Sequence[Task], *, together: bool = False) -> list[Any]:
        """As :meth:`Executor.run`. Task i goes to worker i modulo their number, so that each model is sent once.

        Args:
            together: the tasks wait for each other, so that after the failure of one the others may never end: they
                are given a second to, and then ended with their workers.

        Raises:
            TaskError: a task raised; its cause has the worker's traceback.
            WorkerError: a worker died or did not answer in time, or this executor is closed, or the system
                refuses a process. Lost workers are replaced by the next call.
            TransferError: something cannot be sent to another process.
        """
        with self._lock:
            try:
                replies = self._converse(tasks, together)
            finally:  # after a KeyboardInterrupt too nothing still runs when the caller goes on
                self._end(lambda worker: worker.busy_with is not None)
        # None: not begun, since another task failed.
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
        for worker in living:  # all of them first, so that they end at the same time
            worker.channel.close()
        for worker in living:
            worker.end()

    def end(self) -> None:
        """End all workers, whatever they do; the next call starts new ones."""
        with self._lock:
            self._end(lambda worker: True)

    def _end(self, which: Callable[[_Worker], bool]) -> None:
        for i, worker in enumerate(self._workers):
            if worker is not None and which(worker):
                self._workers[i] = None
                worker.end(at_once=True)

    def _converse(self, tasks: Sequence[Task], together: bool) -> list[Reply | None]:
        """Hand out tasks and gather replies until all have ended; after a failure no further task begins."""
        deadline = time.monotonic() + self.timeout
        replies: list[Reply | None] = [None] * len(tasks)
        modes, log = Modes.here(), spans.current()
        operators = log is not None and log.operators
        waiting = [deque(range(i, len(tasks), self.workers)) for i in range(self.workers)]
        workers = [self._worker(i) for i in range(min(self.workers, len(tasks)))]
        failed = False
        while True:
            for worker, queue in zip(workers, waiting, strict=False):
                if worker.busy_with is None and queue and not failed:
                    i = queue.popleft()
                    worker.busy_with = i
                    with spans.span("send", "transfer"):
                        worker.give(tasks[i], modes, operators)
            busy = {worker.channel.fileno(): worker for worker in workers if worker.busy_with is not None}
            if not busy:
                return replies
            with spans.span("wait", "wait"):
                ready = _answered(busy, deadline)
            if not ready and failed and together:
                return replies
            if not ready:
                names = ", ".join(
                    repr(tasks[worker.busy_with or 0].name) + " (stopped)" * stopped(worker.process.pid)
                    for worker in busy.values()
                )
                raise WorkerError(
                    f"no answer within {self.timeout:g} s from {names}: the workers were ended, and the next call "
                    "starts new ones. Give more time, as in processes(timeout=300) or Stage(..., timeout=300), or look "
                    "for a deadlock."
                )
            for descriptor in ready:
                worker = busy[descriptor]
                i = worker.busy_with or 0
                reply = worker.take(tasks[i])
                if log is not None:
                    log.spans += reply.arrived()
                replies[i], failed = reply, failed or reply.error is not None
            if failed and together:
                deadline = min(deadline, time.monotonic() + GRACE_S)

    def _worker(self, position: int) -> _Worker:
        """The living worker of this position, started anew where there is none."""
        if self._closed:
            raise WorkerError("these worker processes are closed: prepare the approach again.")
        worker = self._workers[position]
        if worker is not None and not worker.process.is_alive():
            worker.end(at_once=True)
            worker = None
        if worker is None:
            self._workers[position] = None
            with starting_is_possible(f"worker process {position}"), starting():
                worker = self._workers[position] = _Worker(position, self.intra_op_threads, self._cores(position))
                self._started += 1
        return worker

    def _cores(self, position: int) -> list[int]:
        """The share of this process's cores that a worker is pinned to; empty where the system cannot pin."""
        if not hasattr(os, "sched_getaffinity"):
            return []
        cores = sorted(os.sched_getaffinity(0))
        share = max(1, len(cores) // self.workers)
        first = position * share % len(cores)
        return cores[first : first + share]


def _answered(busy: Mapping[int, _Worker], deadline: float) -> list[int]:
    """The descriptors of those that have answered, or never will; none after the deadline."""
    while True:
        left = deadline - time.monotonic()
        ready = _readable(busy, min(LOOK_S, left))
        ready = ready or [descriptor for descriptor, worker in busy.items() if not worker.process.is_alive()]
        if ready or left <= 0:
            return ready


def _readable(descriptors: Iterable[int], timeout: float) -> list[int]:
    """Those that can be read or have ended, at the latest after ``timeout`` seconds."""
    poll = select.poll()  # a third of the time of multiprocessing's wait
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(max(0.0, 1000 * timeout))]


class _Worker:
    """The parent's side of one worker process."""

    def __init__(self, position: int, threads: int, cores: list[int]) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=True)
        arguments = (theirs, position, threads, cores, spans.clock())
        self.busy_with: int | None = None  # index of the task it works on
        self._killed = False  # by this executor
        self.process = context.Process(target=serve, args=arguments, name=f"kit process {position}", daemon=True)
        try:
            self.process.start()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()  # so that the worker's death is the end of the file here
        self.channel = Channel(ours, self.process.pid or 0)
        self._loaded: dict[int, Any] = {}  # id -> callable: kept alive here, so that an id means one thing

    def give(self, task: Task, modes: Modes, operators: bool) -> None:
        """Send a task, and before it the callable where the worker does not have it."""
        key = id(task.call)
        new, full = key not in self._loaded, len(self._loaded) >= MOST_LOADED
        request = Request(key, task.call if new else None, new and full, task.name, task.args, tuple(modes), operators)
        try:
            self.channel.send(request, lend=not new)  # a model stays, so it is to be the worker's own
        except TransferError as error:
            self.busy_with = None  # nothing was sent
            raise TransferError(f"branch {task.name!r}: {error}") from error
        except OSError as error:
            raise self._lost(task) from error
        if new:
            self._loaded = {**({} if full else self._loaded), key: task.call}

    def take(self, task: Task) -> Reply:
        """The reply to the task that it works on, which has arrived or never will."""
        if not self.process.is_alive() and not self.channel.connection.poll():
            raise self._lost(task)
        try:
            reply = Reply(*self.channel.receive())
        except (EOFError, OSError) as error:
            raise self._lost(task) from error
        except TransferError as error:
            reply = Reply.lost(error)
        self.busy_with = None
        if isinstance(reply.error, TransferError):  # perhaps the callable did not get there
            self._loaded = {}
        return reply

    def kill(self) -> None:
        """End it in the middle of its task."""
        self._killed = True
        with suppress(ValueError):  # it has ended meanwhile
            self.process.kill()

    def end(self, *, at_once: bool = False) -> None:
        """Close the pipe, at which an idle worker ends by itself; ``at_once`` does not wait for a busy one."""
        self.channel.close()
        if at_once or not self._loaded:  # nor is one waited for that still imports: it has been given nothing yet
            self.process.kill()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()

    def _lost(self, task: Task) -> WorkerError:
        self.process.join(2)
        return WorkerError(how_it_ended(self.process, task.name, self._killed))


_one_at_a_time = threading.Lock()


@contextmanager
def starting() -> Iterator[None]:
    """Start processes in this block.

    They inherit the blocked SIGINT and so are deaf to it from their first instruction. They do not see ``__main__``,
    which spawn would run again in each of them: what they need of it comes by cloudpickle.
    """
    can_block = hasattr(signal, "pthread_sigmask")
    with _one_at_a_time, uninterrupted():
        main = sys.modules["__main__"]
        resource_tracker.ensure_running()  # with the first process it would start, and unblock the signal
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if can_block else set()
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main
            if can_block:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
