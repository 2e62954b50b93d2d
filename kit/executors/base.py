"""The base class of executors: an executor runs independent tasks and returns their results in order."""

from __future__ import annotations

import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, NamedTuple, Self

from kit.errors import TaskError
from kit.reprs import one_line
from kit.spans import span


@one_line
class Task(NamedTuple):
    """One piece of work that does not depend on the other tasks of its call.

    >>> from kit.executors import Task
    >>> task = Task("absolute", abs, (-3,))
    >>> task, task()
    (Task(name='absolute', call=abs, args=(-3,)), 3)
    """

    name: str  # a branch's name; the span and any error carry it
    call: Callable[..., Any]  # an nn.Module or any callable
    args: tuple[Any, ...] = ()

    @property
    def key(self) -> tuple[str, int]:
        """A key that is the same in every call, as long as the callable lives; names alone are not unique."""
        return self.name, id(self.call)

    def __call__(self) -> Any:
        """Run in the calling thread, as one span of category ``task``.

        Raises:
            TaskError: the callable raised; its own exception is the cause.
        """
        try:
            with span(self.name, "task", cpu=True):
                return self.call(*self.args)
        except Exception as error:
            raise TaskError(self.name, error) from error


class Executor(ABC):
    """Runs independent tasks. Use it as a context manager, or close it, since it may own threads or processes.

    >>> class Backwards(kit.Executor):
    ...     '''The branches one after the other, the last one first.'''
    ...
    ...     def run(self, tasks):
    ...         return [task() for task in reversed(tasks)][::-1]
    >>> from kit.executors import Task
    >>> with Backwards() as executor:
    ...     executor.run([Task("first", lambda: 1), Task("second", lambda: 2)])
    [1, 2]
    """

    cold: ClassVar[bool] = False  # whether every call starts new processes, so that no call warms up the next one

    @property
    def caller_threads(self) -> int | None:
        """Intra-op threads that the calling thread should have; None: one per core."""
        return None

    @property
    def lane_threads(self) -> int | None:
        """Intra-op threads of each lane; None: the executor does not set them, and lanes use the caller's number."""
        return None

    @property
    def remark(self) -> str:
        """A caveat for a reader of its results, as sentences; empty: none."""
        return ""

    @abstractmethod
    def run(self, tasks: Sequence[Task]) -> list[Any]:
        """Run all tasks and return their results in the order of the tasks.

        Raises:
            TaskError: a task raised. All other tasks have ended by then, so none still reads the inputs.
        """

    def fork_join(self, tasks: Sequence[Task], merge: Callable[[list[Any]], Any]) -> Any:
        """Run all tasks, and merge their results, in the calling thread or in a worker of the executor.

        Raises:
            TaskError: as :meth:`run`. Exceptions of ``merge`` are raised unchanged.
        """
        return merge(self.run(tasks))

    def close(self) -> None:  # noqa: B027 - most executors own nothing
        """End its threads and processes. Closing twice is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay an interrupt or alarm to the end of this block, in which something is started and recorded."""
    here = threading.current_thread() is threading.main_thread()  # other threads are never interrupted
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGALRM") if here and hasattr(signal, name)]
    before = {number: handler for number in numbers if callable(handler := signal.getsignal(number))}
    arrived: list[tuple[Any, ...]] = []
    for number in before:
        signal.signal(number, lambda *args: arrived.append(args))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if arrived:
            before[arrived[0][0]](*arrived[0])


_current: ContextVar[Executor | None] = ContextVar("kit_executor", default=None)


@contextmanager
def use(executor: Executor) -> Iterator[None]:
    """In this block, every region of every model runs its branches on this executor.

    The caller chooses the executor, not the model: it is a context variable. So the model is not changed, and the same
    model can run under several executors at once.

    >>> from kit.executors import use
    >>> from kit.executors.threads import Threads
    >>> block = kit.Branches({"a": nn.Linear(8, 4), "b": nn.Linear(8, 4)}, kit.Concat(1)).eval()
    >>> with torch.inference_mode(), Threads(2) as pool, use(pool):  # each branch on a thread of its own
    ...     block(torch.rand(1, 8)).shape
    torch.Size([1, 8])
    """
    token = _current.set(executor)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> Executor | None:
    """The executor chosen by the innermost :func:`use`, or None.

    >>> from kit.executors import Sequential, current, use
    >>> current() is None
    True
    >>> with use(Sequential()):
    ...     current()
    Sequential(intra_op_threads=None)
    """
    return _current.get()
