"""Ranks that exist already, on one host or several: tasks are divided among them, rank 0 is the caller itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from torch import Tensor

from kit import spans
from kit.errors import TaskError, TransferError
from kit.executors.base import Executor, Task
from kit.executors.workers.clocks import Sample, on_this_clock
from kit.executors.workers.group import Group, Peer, reply_of
from kit.executors.workers.messages import Reply
from kit.executors.workers.pickling import dump
from kit.executors.workers.process import MOST_LOADED
from kit.executors.workers.rank import Share, unpacked
from kit.executors.workers.thread_state import ThreadState

_keys = count(1)  # of shares: no two of this process have the same


@dataclass(eq=False)
class GroupRanks(Executor):
    """Run tasks on the ranks of a group that torchrun or Slurm has started: rank i of n runs tasks i, i + n, ...

    Rank 0 is this process, which runs its tasks in the calling thread. Every other rank gets its share of the model
    with the first call, and keeps it. Per call only tensors travel: inputs there, results back, over gloo.

    A rank that is lost, or late, closes the group. This process cannot start it again, so later calls are refused.
    """

    group: Group = field(repr=False)
    intra_op_threads: int = 1  # OpenMP threads of each rank
    timeout: float = 60.0  # seconds that a call may take, and the sending of the shares before the first call
    _shares: dict[tuple[tuple[str, int], ...], tuple[int, list[Share]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._shares = {}

    @property
    def caller_threads(self) -> int:
        """As each rank's: rank 0 runs its tasks in the calling thread, and a switch of the number costs time."""
        return self.intra_op_threads

    @property
    def lane_threads(self) -> int:
        return self.intra_op_threads

    def run(self, tasks: Sequence[Task]) -> list[Any]:
        """As :meth:`Executor.run`.

        Raises:
            TaskError: a task raised; the cause of one that ran on another rank has that rank's traceback.
            WorkerError: a rank has ended or is late, now or in an earlier call: the group is closed.
            TransferError: something cannot be sent to another process.
        """
        n = self.group.size
        with self.group.lock:
            self.group.check()
            try:
                outcomes = self._call(tasks)
            except (TaskError, TransferError):  # every rank waits for the next call
                raise
            except BaseException as error:  # this process does not know what the ranks do now
                if self.group.lost is None:
                    self.group.lose(f"a call was broken off ({type(error).__name__}).")
                raise
        for outcome in outcomes:
            if isinstance(outcome, TaskError):
                raise outcome
        found = [outcomes[i % n][i // n] for i in range(len(tasks))]
        return [each if i % n == 0 else unpacked(tasks[i], each) for i, each in enumerate(found)]

    def close(self) -> None:
        """Let the ranks forget the shares of this executor; the group stays."""
        with self.group.lock:
            keys = {key for key, _ in self._shares.values()}
            self._shares.clear()
            for peer in self.group.peers:
                if self.group.lost is None and keys & peer.has:
                    self.group.tell(peer, "forget", keys & peer.has)
                    peer.has -= keys

    def _call(self, tasks: Sequence[Task]) -> list[Any]:
        """The results of each rank's tasks, or a TaskError: rank 0's as they are, the other ranks' packed."""
        group, n, log = self.group, self.group.size, spans.current()
        inputs = [[task.args for task in tasks[rank::n]] for rank in range(n)]
        names = [", ".join(repr(task.name) for task in tasks[rank::n]) for rank in range(n)]
        busy = [peer for peer in group.peers if inputs[peer.rank]]
        with spans.span("pack", "transfer"):  # before anything is sent: what cannot travel breaks nothing
            packed = {peer: _packed(inputs[peer.rank], peer, names[peer.rank]) for peer in busy}
        key, shares = self._loaded(tasks, busy)
        operators = log is not None and log.operators
        if operators:
            with spans.span("compare clocks", "transfer"):
                for peer in busy:
                    group.compare_clocks(peer)
        state, deadline = tuple(ThreadState.here()), time.monotonic() + self.timeout
        sent, sending = {}, []
        with spans.span("send", "transfer"):
            for peer in busy:
                sent[peer] = group.tell(peer, "run", key, len(packed[peer]), self.intra_op_threads, state, operators)
                sending.append(group.give(peer, packed[peer]))
        outcomes: list[Any] = [_own(shares[0], inputs[0]), *[[]] * (n - 1)]
        with spans.span("wait", "wait"):
            answers = group.answers(busy, deadline, ", ".join(names[peer.rank] for peer in busy))
        for peer, message in answers.items():
            outcomes[peer.rank] = self._received(peer, message, sent[peer], deadline)
        for wait in sending:
            wait(deadline)
        return outcomes

    def _received(
        self, peer: Peer, message: tuple[Any, ...], sent_ns: int, deadline: float
    ) -> list[Tensor] | TaskError:
        """The packed results of a rank that has answered, or the error of one of its tasks."""
        reply = reply_of(message)
        if not peer.same_clock:
            _, arrived, answered = message
            peer.clock.add(Sample.of(sent_ns, arrived, answered, peer.control.arrived_ns))
        self._write(peer, reply)
        try:
            sizes = reply.outcome(peer.name)
        except TaskError as error:
            cause = error.__cause__
            return cause if isinstance(cause, TaskError) else error
        with spans.span("gather", "transfer"):
            return self.group.take(peer, sizes, deadline)

    def _write(self, peer: Peer, reply: Reply) -> None:
        """Write the spans of a rank into the log that collects, on this host's clock."""
        log = spans.current()
        if log is None:
            return
        found = [spans.Span(*values) for values in reply.spans]
        found = [each for each in found if (each.name, each.category) != ("share", "task")]
        if not peer.same_clock:
            aligned = peer.clock.best(spans.clock())
            found = on_this_clock(found, peer.host, aligned)
            log.clocks[peer.host] = max(aligned.uncertainty_ns, log.clocks.get(peer.host, 0))
        log.spans += found

    def _loaded(self, tasks: Sequence[Task], busy: Sequence[Peer]) -> tuple[int, list[Share]]:
        """The shares of these tasks, and their key; ranks that do not have theirs get it."""
        name = tuple(task.key for task in tasks)
        if len(self._shares) > MOST_LOADED:
            self.close()
        if name not in self._shares:
            calls = [Task(task.name, task.call) for task in tasks]
            n = self.group.size
            self._shares[name] = next(_keys), [Share(calls[rank::n]) for rank in range(n)]
        key, shares = self._shares[name]
        new = [peer for peer in busy if key not in peer.has]
        if not new:
            return key, shares
        deadline = time.monotonic() + self.timeout
        with spans.span("load", "startup"):
            pieces = {peer: dump((shares[peer.rank],)) for peer in new}
            for peer, piece in pieces.items():
                self.group.tell(peer, "load", key, len(piece))
            sending = [self.group.give(peer, piece) for peer, piece in pieces.items()]
            answers = self.group.answers(new, deadline, "its share of the model")
            for wait in sending:
                wait(deadline)
            for peer, message in answers.items():
                reply = reply_of(message)
                self._write(peer, reply)
                reply.outcome(f"{peer.name} ({shares[peer.rank].names})")
                peer.has.add(key)
        return key, shares


def _packed(inputs: Sequence[tuple[Any, ...]], peer: Peer, names: str) -> bytearray:
    try:
        return dump((inputs,))
    except TransferError as error:
        raise TransferError(f"the inputs of {names}, for {peer.name}: {error}") from error


def _own(share: Share, inputs: Sequence[tuple[Any, ...]]) -> list[Any] | TaskError:
    """The results of rank 0's tasks, which run here."""
    try:
        return [task._replace(args=args)() for task, args in zip(share.tasks, inputs, strict=True)]
    except TaskError as error:
        return error
