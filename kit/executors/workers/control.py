"""The connection between rank 0 and another rank of a group: short messages, and the news that an end is lost.

Tensors do not go this way: torch.distributed carries them. A plain TCP connection does what its backends cannot: it
shows at once that the process at the other end has ended, also while this end is busy, and some seconds later that the
other host is gone or the link between them is cut.
"""

from __future__ import annotations

import hmac
import os
import pickle
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from kit.errors import WorkerError
from kit.spans import clock

SILENT_S = 20  # after so many seconds without a sign of the other host, the connection is lost
_KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": SILENT_S // 5 - 1}  # s, s, probes
_KEEPALIVE |= {"TCP_USER_TIMEOUT": 1000 * SILENT_S, "TCP_NODELAY": 1}  # ms; do not wait for more to send
_HANG_UP = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


class Control:
    """One end of the connection. Messages are pickles: both ends trust each other, as the ranks of a group must."""

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(None)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._socket, self._connection = connected, Connection(os.dup(connected.fileno()))
        self.arrived_ns = 0  # when the last message arrived; perf_counter_ns
        self._watched = False

    def send(self, *message: Any) -> int:
        """Send a message; returns when (perf_counter_ns).

        Raises:
            OSError: the other end is gone.
        """
        body = pickle.dumps(message)
        now = clock()
        self._connection.send_bytes(body)
        return now

    def receive(self, within_s: float = 0.0) -> tuple[Any, ...]:
        """The next message.

        Args:
            within_s: how long the message may stay away, or stop on its way; 0: as long as the other end lives.

        Raises:
            EOFError, OSError: the other end is gone, or late.
        """
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(within_s))
        self._connection.poll(within_s or None)
        self.arrived_ns = clock()
        message: tuple[Any, ...] = pickle.loads(self._connection.recv_bytes())
        return message

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        """Close the connection; the other end sees the end of the file."""
        self._watched = False
        self._connection.close()
        self._socket.close()

    def end_process_when_lost(self, why: str) -> None:
        """Until :meth:`close`, end this process as soon as the other end is gone, even in the middle of a task."""
        self._watched = True
        poll = select.poll()
        poll.register(self.fileno(), _HANG_UP)

        def watch() -> None:
            poll.poll()
            if not self._watched:
                return
            with suppress(OSError, ValueError):
                sys.stderr.write(f"error: {why}\n")
                sys.stderr.flush()
            os._exit(1)

        threading.Thread(target=watch, name="watch rank 0", daemon=True).start()


def _timeval(seconds: float) -> bytes:
    """As the system takes it in a socket's options: whole seconds and microseconds; zeros for no limit."""
    whole = int(seconds)
    return struct.pack("ll", whole, int((seconds - whole) * 1e6))


def ready(controls: Sequence[Control], deadline: float) -> list[Control]:
    """Wait for connections with a message, or whose other end is gone; after the deadline an empty list.

    Args:
        deadline: time.monotonic.
    """
    by_descriptor = {control.fileno(): control for control in controls}
    poll = select.poll()
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    events = poll.poll(max(0.0, 1000 * (deadline - time.monotonic())))
    return [by_descriptor[descriptor] for descriptor, _ in events]


class Door:
    """Where the other ranks connect to rank 0. Who comes must know the token."""

    def __init__(self) -> None:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        self._socket = socket.create_server(("", 0), family=family, dualstack_ipv6=both)
        self.port: int = self._socket.getsockname()[1]
        self.token = os.urandom(32)

    def let_in(self, deadline: float) -> Control:
        """The next connection from who knows the token.

        Raises:
            WorkerError: nobody came before the deadline (time.monotonic).
        """
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                connected, _ = self._socket.accept()
                connected.settimeout(min(left, 5.0))
                shown = connected.recv(len(self.token), socket.MSG_WAITALL)
            except OSError:
                continue
            if hmac.compare_digest(shown, self.token):
                return Control(connected)
            connected.close()
        raise WorkerError("a rank of the group did not connect to rank 0 in time: look for its error above.")

    def close(self) -> None:
        self._socket.close()


def knock(address: str, port: int, token: bytes, timeout: float) -> Control:
    """Connect to the door of rank 0.

    Raises:
        WorkerError: there is no way to it.
    """
    try:
        connected = socket.create_connection((address, port), timeout)
        connected.sendall(token)
    except OSError as error:
        raise WorkerError(
            f"cannot connect to rank 0 at {address}, port {port} ({error.strerror or error}): the ranks must reach "
            "every port of each other."
        ) from error
    return Control(connected)
