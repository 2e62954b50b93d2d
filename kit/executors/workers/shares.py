"""The tasks of each rank or worker, without their inputs: sent to it once, and kept there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Generic, Protocol, TypeVar

from kit import spans
from kit.errors import TransferError
from kit.executors.base import Task
from kit.executors.workers.clocks import OtherClock, on_this_clock
from kit.executors.workers.messages import Reply
from kit.executors.workers.pickling import dump, load
from kit.executors.workers.process import MOST_LOADED
from kit.executors.workers.rank import Share

_keys = count(1)  # of shares: no two of this process have the same


class Place(Protocol):
    """Another process that runs tasks, on this host or another one."""

    @property
    def name(self) -> str:
        """With its host, for messages."""

    host: str
    same_clock: bool  # whether it is on this host, and so on its clock
    clock: OtherClock
    has: set[int]  # keys of the shares that it has


P = TypeVar("P", bound=Place)


class Places(Protocol[P]):
    """All processes that an executor divides its tasks among."""

    @property
    def size(self) -> int:
        """How many there are."""

    def load(self, key: int, pieces: Mapping[P, bytearray], timeout: float) -> Mapping[P, Reply]:
        """Give each of these a packed share, to keep under this key; their replies."""

    def forget(self, keys: set[int]) -> None:
        """Let all forget the shares of these keys."""


class Shares(Generic[P]):
    """The shares of one executor."""

    def __init__(self, places: Places[P]) -> None:
        self._places = places
        self._known: dict[tuple[tuple[str, int], ...], tuple[int, list[Share]]] = {}

    def of(self, tasks: Sequence[Task], busy: Mapping[int, P], timeout: float) -> tuple[int, list[Share]]:
        """The shares of these tasks by position, and their key. A busy place that does not have its share gets it.

        Args:
            busy: by position.

        Raises:
            TaskError: a share cannot be rebuilt there; the cause is a TransferError.
            TransferError: a share cannot be pickled.
            WorkerError: not all have received theirs within ``timeout`` seconds.
        """
        name = tuple(task.key for task in tasks)
        if len(self._known) > MOST_LOADED:
            self.forget()
        if name not in self._known:
            calls, n = [Task(task.name, task.call) for task in tasks], self._places.size
            self._known[name] = next(_keys), [Share(calls[i::n]) for i in range(n)]
        key, shares = self._known[name]
        if new := {place: shares[i] for i, place in busy.items() if key not in place.has}:
            with spans.span("load", "startup"):
                pieces = {place: packed(share, share.names, place) for place, share in new.items()}
                for place, reply in self._places.load(key, pieces, timeout).items():
                    write_spans(place, reply)
                    reply.outcome(f"{place.name} ({new[place].names})")
                    place.has.add(key)
        return key, shares

    def forget(self) -> None:
        """Let all forget all shares."""
        keys = {key for key, _ in self._known.values()}
        self._known.clear()
        self._places.forget(keys)


def packed(what: object, names: str, place: Place) -> bytearray:
    """What these tasks need in another process, as bytes.

    Raises:
        TransferError: it cannot be pickled; the message names the tasks and the process.
    """
    try:
        return dump((what,))
    except TransferError as error:
        raise TransferError(f"{names}, for {place.name}: {error}") from error


def reply_of(piece: bytearray | memoryview) -> Reply:
    """The reply in a packed answer."""
    try:
        return Reply(*load(piece))
    except TransferError as error:  # of a task's own exception: sizes and spans can always be rebuilt
        return Reply.lost(error)


def write_spans(place: Place, reply: Reply) -> None:
    """Write the spans of another process into the log that collects, on this host's clock."""
    log = spans.current()
    if log is None:
        return
    found = [spans.Span(*values) for values in reply.spans]
    found = [each for each in found if (each.name, each.category) != ("share", "task")]  # the tasks in it have theirs
    if not place.same_clock:
        aligned = place.clock.best(spans.clock())
        found = on_this_clock(found, place.host, aligned)
        log.clocks[place.host] = max(aligned.uncertainty_ns, log.clocks.get(place.host, 0))
    log.spans += found
