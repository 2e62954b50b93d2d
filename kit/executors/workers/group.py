"""The ranks of a group that somebody else has started, as rank 0 sees them: how it joins, asks, and lets them go.

Every rank runs the same program. Rank 0 goes on with it; the others serve (:mod:`kit.executors.workers.serving`).
"""

from __future__ import annotations

import atexit
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NoReturn

import torch
from torch import Tensor, distributed

from kit.errors import WorkerError
from kit.executors.workers.clocks import EXCHANGES, OtherClock, Sample
from kit.executors.workers.control import Control, Door, knock, ready
from kit.executors.workers.membership import Membership, boot_id, host_names, interface_towards
from kit.executors.workers.messages import Reply
from kit.executors.workers.shares import reply_of
from kit.machine.load import also_own

JOIN_S = 120.0  # for all ranks to come
ENDING_S = 5.0  # for the other ranks to end
NEWS_S = 0.5  # for the connection to say that a rank has ended, after gloo has failed


@dataclass(eq=False)
class Peer:
    """Another rank, as rank 0 knows it."""

    rank: int
    host: str  # its name, which no other host of the group has
    process: int  # pid
    same_clock: bool  # whether it is on rank 0's host, and so on its clock
    control: Control = field(repr=False)
    clock: OtherClock = field(repr=False, default_factory=OtherClock)
    has: set[int] = field(repr=False, default_factory=set)  # keys of the shares that it has

    @property
    def name(self) -> str:
        return f"rank {self.rank} on {self.host}"


class Group:
    """The group of which this process is rank 0. One call at a time: hold ``lock``.

    A group that has lost a rank stays closed: only whoever started the ranks can start them again.
    """

    def __init__(self, peers: Sequence[Peer], host: str, on_this_host: int) -> None:
        self.peers, self.host, self.size, self.on_this_host = tuple(peers), host, len(peers) + 1, on_this_host
        self.lock = threading.Lock()
        self.lost: str | None = None  # why it is closed
        for peer in self.peers:
            self.compare_clocks(peer, time.monotonic() + JOIN_S)

    def check(self) -> None:
        """Raise a WorkerError if the group is closed."""
        if self.lost:
            raise WorkerError(f"the group of ranks is closed, so nothing can run there: {self.lost}")

    def close(self, why: str) -> None:
        """Close the group: the other ranks end, also in the middle of a task."""
        self.lost = why
        for peer in self.peers:
            peer.control.close()

    def lose(self, why: str) -> NoReturn:
        """Close the group, and raise a WorkerError with the reason."""
        self.close(why)
        raise WorkerError(f"{why} The group of ranks is closed: start all ranks again.")

    def end(self) -> None:
        """Let the other ranks end, and wait until they have."""
        with self.lock:
            if self.lost is not None:
                return
            self.lost = "it was ended."
            for peer in self.peers:
                with suppress(OSError):
                    peer.control.send("end")
            left, deadline = list(self.peers), time.monotonic() + ENDING_S
            while left and (gone := ready([peer.control for peer in left], deadline)):
                left = [peer for peer in left if peer.control not in gone]
            for peer in self.peers:
                peer.control.close()

    def compare_clocks(self, peer: Peer, deadline: float) -> None:
        """Exchange some messages with a rank that waits for one, if it is on another host."""
        for _ in range(0 if peer.same_clock else EXCHANGES):
            sent = self.tell(peer, "clock")
            arrived, answered = self.answers([peer], deadline, "its clock")[peer]
            peer.clock.add(Sample.of(sent, arrived, answered, peer.control.arrived_ns))

    def tell(self, peer: Peer, *message: Any) -> int:
        """Send a message to a rank; returns when (perf_counter_ns)."""
        try:
            return peer.control.send(*message)
        except OSError:
            self.lose(_ended(peer, ""))

    def load(self, key: int, pieces: Mapping[Peer, bytearray], timeout: float) -> dict[Peer, Reply]:
        """As :meth:`kit.executors.workers.shares.Places.load`."""
        deadline = time.monotonic() + timeout
        for peer, piece in pieces.items():
            self.tell(peer, "load", key, len(piece))
        sending = [self.give(peer, piece) for peer, piece in pieces.items()]
        answers = self.answers(pieces, deadline, "its share of the model")
        for wait in sending:
            wait(deadline)
        return {peer: reply_of(message[0]) for peer, message in answers.items()}

    def forget(self, keys: set[int]) -> None:
        """As :meth:`kit.executors.workers.shares.Places.forget`."""
        for peer in self.peers:
            if self.lost is None and keys & peer.has:
                self.tell(peer, "forget", keys & peer.has)
                peer.has -= keys

    def give(self, peer: Peer, piece: bytearray) -> Callable[[float], None]:
        """Begin to send bytes to a rank that expects them; returns what waits until they are sent, or a deadline."""
        tensor = torch.frombuffer(piece, dtype=torch.uint8)
        with self._carried(peer, tensor):
            work = distributed.isend(tensor, peer.rank)
        return lambda deadline: self._wait(peer, tensor, work, deadline)

    def take(self, peer: Peer, sizes: Iterable[int], deadline: float) -> list[Tensor]:
        """Receive pieces of these sizes in bytes from a rank that sends them: tensors ``(bytes,)`` uint8."""
        pieces = [torch.empty(size, dtype=torch.uint8) for size in sizes]
        for piece in pieces:
            with self._carried(peer, piece):
                work = distributed.irecv(piece, peer.rank)
            self._wait(peer, piece, work, deadline)
        return pieces

    def answers(self, peers: Iterable[Peer], deadline: float, what: str = "") -> dict[Peer, tuple[Any, ...]]:
        """A message from each of these ranks, in the order in which they come.

        Args:
            deadline: time.monotonic.
            what: what they were asked for, for messages.

        Raises:
            WorkerError: a rank has ended, or does not answer before the deadline. The group is then closed.
        """
        begun = time.monotonic()
        waiting, found = list(peers), {}
        while waiting:
            come = ready([peer.control for peer in waiting], deadline)
            if not come:
                names = ", ".join(peer.name for peer in waiting)
                self.lose(
                    f"no answer within {deadline - begun:.2g} s from {names}{what and ', asked for '}{what}. Allow "
                    "more time, as in ranks(timeout=300), or look at the link between the hosts, or for a deadlock."
                )
            for peer in [each for each in waiting if each.control in come]:
                try:
                    found[peer] = peer.control.receive(max(0.01, deadline - time.monotonic()))
                except (EOFError, OSError):
                    self.lose(_ended(peer, what))
                waiting.remove(peer)
        return found

    def _wait(self, peer: Peer, tensor: Tensor, work: distributed.Work | None, deadline: float) -> None:
        with self._carried(peer, tensor):
            if work is not None:
                work.wait(timedelta(seconds=max(0.001, deadline - time.monotonic())))

    @contextmanager
    def _carried(self, peer: Peer, tensor: Tensor) -> Iterator[None]:
        """Carry a tensor to or from a rank in this block. What gloo raises says neither rank nor host."""
        try:
            yield
        except RuntimeError:
            if ready([peer.control], time.monotonic() + NEWS_S):  # if it has ended, its connection says so
                self.answers([peer], time.monotonic() + NEWS_S, "its tensors")
            self.lose(
                f"{tensor.nbytes / 2**20:.3g} MiB were not carried to or from {peer.name} in time: it is stopped, "
                "or the link between the hosts is cut or too slow. Allow more time, as in ranks(timeout=300)."
            )


_group: Group | None = None


def joined_group() -> Group | None:
    """The group of which this process is rank 0; None if it has not joined one."""
    return _group


def join(member: Membership) -> Group | Control:
    """Join the group, with all other ranks: rank 0 gets the group, another rank its connection to rank 0.

    Raises:
        WorkerError: not all ranks came within ``JOIN_S`` seconds, or they cannot reach each other.
    """
    global _group
    deadline = time.monotonic() + JOIN_S
    interface = interface_towards(member.address)
    if interface:  # else gloo takes the one that has the address of the host's name, which is often the loopback
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    try:
        distributed.init_process_group("gloo", "env://", timedelta(seconds=JOIN_S), member.size, member.rank)
        door = Door() if member.rank == 0 else None
        where = [(door.port, door.token) if door else None]
        distributed.broadcast_object_list(where, 0)
    except (RuntimeError, ValueError) as error:
        raise WorkerError(
            f"rank {member.rank} on {socket.gethostname()} cannot join the group of {member.size} at "
            f"{member.address}, port {member.port} ({error})."
        ) from error
    if door is None:
        assert where[0] is not None
        control = knock(member.address, *where[0], deadline - time.monotonic())
        control.send(member.rank, socket.gethostname(), boot_id(), os.getpid())
        return control
    try:
        controls = [door.let_in(deadline) for _ in range(member.size - 1)]
    finally:
        door.close()
    _group = Group(_peers(controls), socket.gethostname(), member.on_this_host)
    atexit.register(_group.end)
    return _group


def _peers(controls: Iterable[Control]) -> list[Peer]:
    """Who is at these connections, by rank."""
    told = sorted(((*control.receive(), control) for control in controls), key=lambda each: int(each[0]))
    here = (socket.gethostname(), boot_id())
    _, *names = host_names([here, *((name, boot) for _, name, boot, _, _ in told)])
    also_own.update(pid for _, _, boot, pid, _ in told if boot == here[1])  # also on hosts that are namespaces
    return [
        Peer(rank, host, pid, (name, boot) == here, control)
        for host, (rank, name, boot, pid, control) in zip(names, told, strict=True)
    ]


def _ended(peer: Peer, what: str) -> str:
    return (
        f"{peer.name} (process {peer.process}) has ended, or its connection is lost"
        f"{what and ', while it was asked for '}{what}: its own output says why."
    )
