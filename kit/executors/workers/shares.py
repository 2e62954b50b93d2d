"""The tasks of each rank of a group, without their inputs: sent to it once, and kept there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import count

from kit import spans
from kit.errors import TransferError
from kit.executors.base import Task
from kit.executors.workers.clocks import on_this_clock
from kit.executors.workers.group import Group, Peer, reply_of
from kit.executors.workers.messages import Reply
from kit.executors.workers.pickling import dump
from kit.executors.workers.process import MOST_LOADED
from kit.executors.workers.rank import Share

_keys = count(1)  # of shares: no two of this process have the same


class Shares:
    """The shares of one executor."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._known: dict[tuple[tuple[str, int], ...], tuple[int, list[Share]]] = {}

    def of(self, tasks: Sequence[Task], busy: Sequence[Peer], timeout: float) -> tuple[int, list[Share]]:
        """The shares of these tasks by rank, and their key. A busy rank that does not have its share gets it.

        Raises:
            TaskError: a share cannot be rebuilt on its rank; the cause is a TransferError.
            TransferError: a share cannot be pickled.
            WorkerError: the ranks have not received all within ``timeout`` seconds.
        """
        name = tuple(task.key for task in tasks)
        if len(self._known) > MOST_LOADED:
            self.forget()
        if name not in self._known:
            calls, n = [Task(task.name, task.call) for task in tasks], self._group.size
            self._known[name] = next(_keys), [Share(calls[rank::n]) for rank in range(n)]
        key, shares = self._known[name]
        if new := [peer for peer in busy if key not in peer.has]:
            with spans.span("load", "startup"):
                self._send(key, {peer: shares[peer.rank] for peer in new}, time.monotonic() + timeout)
        return key, shares

    def forget(self) -> None:
        """Let all ranks forget all shares."""
        keys = {key for key, _ in self._known.values()}
        self._known.clear()
        for peer in self._group.peers:
            if self._group.lost is None and keys & peer.has:
                self._group.tell(peer, "forget", keys & peer.has)
                peer.has -= keys

    def _send(self, key: int, shares: dict[Peer, Share], deadline: float) -> None:
        pieces = {peer: packed(share, share.names, peer) for peer, share in shares.items()}
        for peer, piece in pieces.items():
            self._group.tell(peer, "load", key, len(piece))
        sending = [self._group.give(peer, piece) for peer, piece in pieces.items()]
        answers = self._group.answers(shares, deadline, "its share of the model")
        for wait in sending:
            wait(deadline)
        for peer, message in answers.items():
            reply = reply_of(message)
            write_spans(peer, reply)
            reply.outcome(f"{peer.name} ({shares[peer].names})")
            peer.has.add(key)


def packed(what: object, names: str, peer: Peer) -> bytearray:
    """What these tasks need on a rank, as bytes.

    Raises:
        TransferError: it cannot be pickled; the message names the tasks and the rank.
    """
    try:
        return dump((what,))
    except TransferError as error:
        raise TransferError(f"{names}, for {peer.name}: {error}") from error


def write_spans(peer: Peer, reply: Reply) -> None:
    """Write the spans of a rank into the log that collects, on this host's clock."""
    log = spans.current()
    if log is None:
        return
    found = [spans.Span(*values) for values in reply.spans]
    found = [each for each in found if (each.name, each.category) != ("share", "task")]  # the tasks in it have theirs
    if not peer.same_clock:
        aligned = peer.clock.best(spans.clock())
        found = on_this_clock(found, peer.host, aligned)
        log.clocks[peer.host] = max(aligned.uncertainty_ns, log.clocks.get(peer.host, 0))
    log.spans += found
