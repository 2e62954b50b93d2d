"""What runs inside worker processes. Light to import: the clock is read before torch comes in.

Jupyter interrupts the whole process group, so workers ignore SIGINT; they end when their pipe closes or their parent is
gone, however it went.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from kit.errors import KitError, TaskError, TransferError, WorkerError
from kit.executors.base import Task
from kit.executors.reports import remedy
from kit.spans import Span, SpanLog, clock, collect, span


class Request(NamedTuple):
    """What a worker is sent for a task. A channel's memory holds one message, so the next waits for the reply.

    Like the reply it has builtin types inside: pickling a named tuple takes several times as long as a plain one.
    """

    key: int  # of the callable
    call: Any  # the callable itself where the worker does not have it yet, or None
    forget: bool  # whether to let go of the callables sent before
    name: str
    args: tuple[Any, ...]
    modes: tuple[Any, ...]  # of Modes
    operators: bool  # whether to profile


class Reply(NamedTuple):
    """What a worker sends back for a task."""

    result: Any  # None where the task failed
    error: BaseException | None
    traceback: str  # the worker's own, "" where the task did not fail
    spans: list[tuple[Any, ...]]  # of Span; the last one is the worker's own
    sent_ns: int  # when sending began

    @classmethod
    def make(cls, log: SpanLog, result: Any = None, error: BaseException | None = None) -> Reply:
        """A reply with the log's spans, which it takes out of the log."""
        spans = [tuple(each) for each in log.spans]
        log.spans.clear()
        if error is None:
            return cls(result, None, "", spans, clock())
        return cls(None, portable(error), "".join(traceback.format_exception(error)), spans, clock())

    @classmethod
    def lost(cls, error: KitError) -> Reply:
        """In place of one that cannot be made, or cannot be rebuilt by the parent: that too is the task's failure."""
        return cls(None, error, "", [], clock())

    def packed(self, pack: Callable[[Reply], Any]) -> Any:
        """Where the result cannot travel, that is the task's own failure."""
        try:
            return pack(self)
        except TransferError as error:
            return pack(self._replace(result=None, error=error, traceback="".join(traceback.format_exception(error))))

    def arrived(self) -> list[Span]:
        """The spans, and that of sending the reply, which ends now: on the parent's side, where it has arrived."""
        spans = [Span(*values) for values in self.spans]
        if not spans:  # of one that was lost
            return []
        return [*spans, spans[-1]._replace(name="send", category="transfer", start_ns=self.sent_ns, end_ns=clock())]

    def outcome(self, task: str) -> Any:
        """The result of the task of this name.

        Raises:
            TaskError: it raised; from its own exception, with the worker's traceback.
        """
        if self.error is not None:
            if self.traceback:
                self.error.__cause__ = RemoteTraceback(self.traceback)
            raise TaskError(task, self.error) from self.error
        return self.result


class RemoteTraceback(Exception):
    """The traceback of a worker process, as the cause of the exception that it sent."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


def serve(connection: Connection, position: int, threads: int, cores: Sequence[int], started_ns: int) -> None:
    """The life of a persistent worker: load callables once, run them on request, until the pipe closes."""
    with collect() as log:
        try:
            _begin(log, position, cores, started_ns)
            with span("imports", "startup"):
                import torch

                import kit.capture  # noqa: F401  # what run_request will want
                from kit.executors.channel import Channel

                torch.set_num_threads(threads)
        except Exception as error:  # no memory, or too many open files
            connection.send_bytes(pickle.dumps(tuple(_not_started(error))))
            return
        channel = Channel(connection, os.getppid())
        calls: dict[int, Any] = {}
        try:
            while True:
                try:
                    request = Request(*channel.receive())
                except TransferError as error:
                    log.write("receive", "transfer", channel.arrived_ns)
                    channel.send(Reply.make(log, error=error))
                    continue
                if request.call is None:
                    log.write("receive", "transfer", channel.arrived_ns)
                else:
                    calls = {**({} if request.forget else calls), request.key: request.call}
                    log.write("load", "startup", channel.arrived_ns)
                reply = run_request(log, request, calls[request.key])
                body = reply.packed(channel.pack)
                del request, reply  # the inputs are lent, and go back unless the model keeps them
                channel.post(body)
        except (EOFError, OSError):  # nobody waits for anything any more, nor shall anyone for torch's tidying up
            with suppress(OSError, ValueError):  # nor may there be anybody left to read it
                sys.stdout.flush()
            os._exit(0)


def run_once(queue: Any, payload: bytearray, position: int, started_ns: int) -> None:
    """The life of a cold worker: import, load the model, run one task, put the result into the queue, end."""
    with collect() as log:
        try:
            _begin(log, position, (), started_ns)
            with span("imports", "startup"):
                import kit.capture  # noqa: F401  # what run_request will want
                from kit.executors.channel import dump, load
        except Exception as error:  # no memory, or too many open files
            queue.put(_not_started(error))
            return
        try:
            with span("load", "startup"):
                request = Request(*load(payload))
            reply = run_request(log, request, request.call)
        except TransferError as error:
            reply = Reply.make(log, error=error)
        queue.put(reply.packed(dump))


def run_request(log: SpanLog, request: Request, call: Any) -> Reply:
    """Run the request's task under its caller's modes, with torch.profiler where operators are wanted."""
    from kit import capture
    from kit.executors.modes import Modes

    task, modes = Task(request.name, call, request.args), Modes(*request.modes)
    result, failure = None, None
    found: list[Span] = []
    try:
        with capture.operators() if request.operators else nullcontext(found) as found:
            result = modes.run(task)
    except Exception as error:
        failure = error.__cause__ or error  # the task's own exception, below the TaskError
    # The worker's own spans last: the sending that follows them is theirs. Correlation ids are this process's own.
    log.spans[:0] = [each._replace(correlation=-1) for each in found]
    return Reply.make(log, result, failure)


def _not_started(error: Exception) -> Reply:
    said = remedy(error)
    return Reply.lost(WorkerError(f"its process cannot start ({type(error).__name__}: {error}){said and ': '}{said}."))


def _begin(log: SpanLog, position: int, cores: Sequence[int], started_ns: int) -> None:
    threading.current_thread().name = f"process {position}"
    log.write("spawn", "startup", started_ns)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def _end_with_parent() -> None:
    """A worker busy in a long task does not see its pipe close: this thread sees its parent go."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def portable(error: BaseException) -> BaseException:
    """The exception itself if it survives the journey, or one that says the same."""
    from kit.executors.channel import dump, load

    try:
        load(dump((error,)))
    except TransferError:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
