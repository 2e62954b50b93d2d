"""Ranks that exist already, on one host or several: tasks are divided among them, rank 0 is the caller itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from kit import spans
from kit.errors import TaskError, TransferError
from kit.executors.base import Executor, Task, use
from kit.executors.sequential import Sequential
from kit.executors.workers.clocks import Sample
from kit.executors.workers.counting import count
from kit.executors.workers.group import Group, Peer
from kit.executors.workers.rank import Share, error_of_task, unpacked
from kit.executors.workers.shares import Shares, packed, reply_of, write_spans
from kit.executors.workers.thread_state import ThreadState


@dataclass(eq=False)
class GroupRanks(Executor):
    """Run tasks on the ranks of a group that torchrun or Slurm has started: rank i of n runs tasks i, i + n, ...

    Rank 0 is this process, which runs its tasks in the calling thread. Every other rank gets its share of the model
    with the first call, and keeps it. Per call only tensors travel: inputs there, results back, over gloo.

    A rank that is lost, or late, closes the group. This process cannot start it again, so later calls are refused.
    """

    group: Group = field(repr=False)
    intra_op_threads: int = 1  # OpenMP threads of each rank
    timeout: float = 60.0  # seconds that a call may take, and before the first call the sending of the shares

    def __post_init__(self) -> None:
        self._shares = Shares(self.group)

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
                    self.group.close(f"a call was broken off ({type(error).__name__}).")
                raise
        for outcome in outcomes:
            if isinstance(outcome, TaskError):
                raise outcome
        found = [outcomes[i % n][i // n] for i in range(len(tasks))]
        results = [each if i % n == 0 else unpacked(tasks[i], each) for i, each in enumerate(found)]
        count(([task.args for task in tasks[rank::n]], results[rank::n]) for rank in range(1, n))
        return results

    def close(self) -> None:
        """Let the ranks forget the shares of this executor; the group stays."""
        with self.group.lock:
            self._shares.forget()

    def _call(self, tasks: Sequence[Task]) -> list[Any]:
        """For each rank the results of its tasks, or a TaskError: rank 0's as they are, the other ranks' packed."""
        group, n, log = self.group, self.group.size, spans.current()
        inputs = [[task.args for task in tasks[rank::n]] for rank in range(n)]
        names = [", ".join(repr(task.name) for task in tasks[rank::n]) for rank in range(n)]
        busy = [peer for peer in group.peers if inputs[peer.rank]]
        with spans.span("pack", "transfer"):  # before anything is sent: what cannot travel breaks nothing
            pieces = {peer: packed(inputs[peer.rank], f"the inputs of {names[peer.rank]}", peer) for peer in busy}
        key, shares = self._shares.of(tasks, {peer.rank: peer for peer in busy}, self.timeout)
        operators = log is not None and log.operators
        state, deadline = tuple(ThreadState.here()), time.monotonic() + self.timeout
        if operators:
            with spans.span("compare clocks", "transfer"):
                for peer in busy:
                    group.compare_clocks(peer, deadline)
        sent, sending = {}, []
        with spans.span("send", "transfer"):
            for peer in busy:
                sent[peer] = group.tell(peer, "run", key, len(pieces[peer]), self.intra_op_threads, state, operators)
                sending.append(group.give(peer, pieces[peer]))
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
        reply, (_, arrived, answered) = reply_of(message[0]), message
        if not peer.same_clock:
            peer.clock.add(Sample.of(sent_ns, arrived, answered, peer.control.arrived_ns))
        write_spans(peer, reply)
        try:
            sizes = reply.outcome(peer.name)
        except TaskError as error:
            return error_of_task(error) or error
        with spans.span("gather", "transfer"):
            return self.group.take(peer, sizes, deadline)


def _own(share: Share, inputs: Sequence[tuple[Any, ...]]) -> list[Any] | TaskError:
    """The results of rank 0's tasks, which run here; regions within them run as on the other ranks, in turn."""
    try:
        with use(Sequential()):
            return [task._replace(args=args)() for task, args in zip(share.tasks, inputs, strict=True)]
    except TaskError as error:
        return error
