"""The parent's side of a worker process: start it, send it a task, receive the reply, wait, end it."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker, spawn
from typing import Any

from torch import multiprocessing

from kit import spans
from kit.errors import TransferError, WorkerError
from kit.executors.base import Task, uninterrupted
from kit.executors.workers.channel import Channel
from kit.executors.workers.messages import Reply, Request
from kit.executors.workers.reports import how_it_ended
from kit.executors.workers.thread_state import ThreadState
from kit.executors.workers.worker import serve

MOST_LOADED = 100  # callables that a worker keeps: a caller that makes a new lambda for every call must not fill it
LIVENESS_S = 0.5  # between two checks that busy workers live: a process that a task has forked keeps the pipe open
_one_start_at_a_time = threading.Lock()


class WorkerProcess:
    """A persistent worker process, which works on one task at a time.

    Create it and keep a reference to it within :func:`starting`: an interrupt could otherwise leave a process running.

    Args:
        position: among the workers of its executor.
        threads: intra-op threads.
        cores: to which the process is pinned; empty: it is not pinned.
    """

    def __init__(self, position: int, threads: int, cores: Sequence[int]) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=True)
        arguments = (theirs, position, threads, cores, spans.clock())
        self.busy_with: int | None = None  # index of the task that it works on
        self._killed = False  # by this object
        self.process = context.Process(target=serve, args=arguments, name=f"kit process {position}", daemon=True)
        try:
            self.process.start()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()  # so that the worker's death is the end of the file here
        self.channel = Channel(ours, self.process.pid or 0)
        self._loaded: dict[int, Any] = {}  # id -> callable that the worker has: kept alive, so that ids stay unique

    def give(self, index: int, task: Task, state: ThreadState, operators: bool) -> None:
        """Send a task, together with its callable if the worker does not have the callable yet.

        Args:
            index: of the task, for ``busy_with``.
            operators: whether the worker shall run torch.profiler.

        Raises:
            TransferError: something in the task cannot be pickled; nothing was sent.
            WorkerError: the worker has died.
        """
        self.busy_with = index
        key = id(task.call)
        new, full = key not in self._loaded, len(self._loaded) >= MOST_LOADED
        request = Request(key, task.call if new else None, new and full, task.name, task.args, tuple(state), operators)
        try:
            self.channel.send(request, lend=not new)  # a model stays, so its tensors must be the worker's own
        except TransferError as error:
            self.busy_with = None  # nothing was sent
            raise TransferError(f"branch {task.name!r}: {error}") from error
        except OSError as error:
            raise self._lost(task) from error
        if new:
            self._loaded = {**({} if full else self._loaded), key: task.call}

    def take(self, task: Task) -> Reply:
        """The reply to the task that the worker has: call this when :func:`answered` says that there is one.

        Raises:
            WorkerError: the worker has died.
        """
        if not self.process.is_alive() and not self.channel.connection.poll():
            raise self._lost(task)
        try:
            reply = Reply(*self.channel.receive())
        except (EOFError, OSError) as error:
            raise self._lost(task) from error
        except TransferError as error:
            reply = Reply.lost(error)
        self.busy_with = None
        if isinstance(reply.error, TransferError):  # perhaps the callable did not arrive
            self._loaded = {}
        return reply

    def kill(self) -> None:
        """End the process in the middle of its task."""
        self._killed = True
        with suppress(ValueError):  # the process has ended and was closed meanwhile
            self.process.kill()

    def end(self, *, at_once: bool = False) -> None:
        """Close the pipe, at which an idle worker ends by itself; ``at_once`` does not wait for a busy worker."""
        self.channel.close()
        if at_once or not self._loaded:  # nor wait for one that still imports: it has been given nothing yet
            self.process.kill()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()

    def _lost(self, task: Task) -> WorkerError:
        self.process.join(2)
        return WorkerError(how_it_ended(self.process, task.name, self._killed))


def answered(busy: Sequence[WorkerProcess], deadline: float) -> list[WorkerProcess]:
    """Wait for the workers that have answered or have died; after the deadline (time.monotonic) an empty list."""
    by_descriptor = {worker.channel.fileno(): worker for worker in busy}
    poll = select.poll()  # takes a third of the time of multiprocessing's wait
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    while True:
        left = deadline - time.monotonic()
        events = poll.poll(max(0.0, 1000 * min(LIVENESS_S, left)))
        ready = [by_descriptor[descriptor] for descriptor, _ in events]
        ready = ready or [worker for worker in busy if not worker.process.is_alive()]
        if ready or left <= 0:
            return ready


def share_of_cores(position: int, workers: int) -> list[int]:
    """The cores of this process that one of so many workers is pinned to; empty if the system cannot pin."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // workers)
    first = position * share % len(cores)
    return cores[first : first + share]


@contextmanager
def starting() -> Iterator[None]:
    """Start processes in this block, from this thread.

    The new processes inherit the blocked SIGINT, and so ignore it from their first instruction. They do not import the
    main module, which spawn would run again in each of them: what they need of it comes by cloudpickle.
    """
    can_block = hasattr(signal, "pthread_sigmask")
    with _one_start_at_a_time, uninterrupted():
        resource_tracker.ensure_running()  # with the first process it would start, and unblock the signal
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if can_block else set()
        try:
            with _without_main_module():
                yield
        finally:
            if can_block:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _without_main_module() -> Iterator[None]:
    """Let the processes that this thread spawns in the block start without a main module.

    Spawn tells a new process in its preparation data which main module to import. Only this thread's data changes:
    ``sys.modules`` does not, and other threads may start processes of their own meanwhile.
    """
    complete, here = spawn.get_preparation_data, threading.get_ident()

    def without_main(name: str) -> dict[str, Any]:
        data = complete(name)
        if threading.get_ident() == here:
            data.pop("init_main_from_name", None)
            data.pop("init_main_from_path", None)
        return data

    spawn.get_preparation_data = without_main
    try:
        yield
    finally:
        spawn.get_preparation_data = complete
