"""The messages between a process and its worker: a request to run a task, and the reply."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from kit.errors import KitError, TaskError, TransferError
from kit.spans import Span, SpanLog, clock


class Request(NamedTuple):
    """A task for a worker. A channel's memory holds one message, so the next request waits for the reply.

    Requests and replies hold builtin types: pickling a named tuple takes several times as long as a plain tuple.
    """

    key: int  # of the callable
    call: Any  # the callable itself if the worker does not have it yet, else None
    forget: bool  # whether the worker shall drop the callables that were sent before
    name: str  # of the task
    args: tuple[Any, ...]
    state: tuple[Any, ...]  # the fields of the caller's ThreadState
    operators: bool  # whether to run torch.profiler


class Reply(NamedTuple):
    """The outcome of a task, and the worker's spans."""

    result: Any  # None if the task failed
    error: BaseException | None
    traceback: str  # of the error, in the worker; "" if the task did not fail
    spans: list[tuple[Any, ...]]  # the fields of each Span; the last span is the worker's own, not a profiler's
    sent_ns: int  # when sending began

    @classmethod
    def make(cls, log: SpanLog, result: Any = None, error: BaseException | None = None) -> Reply:
        """A reply with the log's spans, which are removed from the log."""
        spans = [tuple(span) for span in log.spans]
        log.spans.clear()
        if error is None:
            return cls(result, None, "", spans, clock())
        return cls(None, portable(error), "".join(traceback.format_exception(error)), spans, clock())

    @classmethod
    def lost(cls, error: KitError) -> Reply:
        """A reply that the task failed, instead of one that cannot be pickled or unpickled."""
        return cls(None, error, "", [], clock())

    def packed(self, pack: Callable[[Reply], Any]) -> Any:
        """Pack the reply. A result that cannot be pickled is a failure of the task."""
        try:
            return pack(self)
        except TransferError as error:
            return pack(self._replace(result=None, error=error, traceback="".join(traceback.format_exception(error))))

    def arrived(self) -> list[Span]:
        """The spans, and one for sending the reply, which ends now: call this in the parent, on arrival."""
        spans = [Span(*values) for values in self.spans]
        if not spans:  # of a lost reply
            return []
        return [*spans, spans[-1]._replace(name="send", category="transfer", start_ns=self.sent_ns, end_ns=clock())]

    def outcome(self, task: str) -> Any:
        """The result of the task of this name.

        Raises:
            TaskError: the task raised. The cause is the task's exception, which has the worker's traceback.
        """
        if self.error is not None:
            if self.traceback:
                self.error.__cause__ = RemoteTraceback(self.traceback)
            raise TaskError(task, self.error) from self.error
        return self.result


class RemoteTraceback(Exception):
    """The traceback of a worker process, as the cause of the exception that the worker sent."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


def portable(error: BaseException) -> BaseException:
    """The exception itself if it can be pickled and unpickled, else a RuntimeError with the same message."""
    from kit.executors.workers.pickling import dump, load

    try:
        load(dump((error,)))
    except TransferError:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
