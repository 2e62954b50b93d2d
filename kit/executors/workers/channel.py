"""Messages between two processes: pickles through a pipe, the data of tensors through shared memory.

Each end owns the memory that it sends through. It makes the memory on first use, and replaces it by a larger one when a
message needs more. The memory is anonymous (a memfd on Linux, an unlinked file elsewhere), and its descriptor goes
through the pipe. So it has no name in ``/dev/shm``, nothing is left of it when either process is killed, and a
container's small ``/dev/shm`` does not limit it.

Both ends copy: sending does not move a tensor into shared memory, and what is received belongs to the receiver. The
exception is ``lend``: the receiver uses the tensors in the memory until it answers. If it still holds a tensor then,
the memory is the receiver's from then on, and the sender makes a new one.
"""

from __future__ import annotations

import mmap
import os
import socket
import tempfile
from contextlib import ExitStack
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, sendfds
from typing import Any

from kit.errors import TransferError
from kit.executors.workers.pickling import PlacedTensors, TensorMemory, pickled, unpickled
from kit.executors.workers.reports import remedy
from kit.spans import clock

_GROW, _KEEP = b"grow", b"keep"  # before a message: "a new memory follows", "I keep the memory that you lent me"


class Channel:
    """One end of a two-way connection. Not thread-safe.

    Args:
        connection: an end of ``Pipe(duplex=True)``, a Unix socket.
        peer: process id of the other end, for messages.
    """

    def __init__(self, connection: Connection, peer: int) -> None:
        self.connection = connection
        self._peer = peer
        self.arrived_ns = 0  # when the last message arrived, before its tensors were copied; perf_counter_ns
        self._outgoing: TensorMemory | None = None
        self._incoming: TensorMemory | None = None

    def send(self, message: Any, *, lend: bool = False) -> None:
        """Send any object that cloudpickle can pickle; plain CPU tensors in it are copied through shared memory.

        A named tuple arrives as a plain tuple. The message overwrites the memory of the message before. So send only
        after the other end has answered, which shows that it has received that message.

        Args:
            lend: let the receiver use the tensors in the shared memory, instead of copies of its own.

        Raises:
            TransferError: a part of the message cannot be pickled (the message says which), or there is no memory.
            OSError: the other end is gone.
        """
        self.post(self.pack(message, lend=lend))

    def pack(self, message: Any, *, lend: bool = False) -> bytes:
        """The first half of :meth:`send`: pickle the message and copy its tensors. Then it may be deleted."""
        tensors = PlacedTensors(lend)
        body = pickled(message, tensors)
        if tensors.size:
            tensors.copy_to(self._memory_of(tensors.size))
        return body

    def post(self, body: bytes) -> None:
        """The second half of :meth:`send`. It gives lent memory back, unless a tensor here still uses that memory."""
        if self._incoming and self._incoming.in_use():
            self._incoming = None
            self.connection.send_bytes(_KEEP)
        self.connection.send_bytes(body)

    def _memory_of(self, size: int) -> TensorMemory:
        """Memory of at least ``size`` bytes for sending; if it is new, the other end is told to map it too."""
        before = self._outgoing.size if self._outgoing else 0
        if self._outgoing is None or size > before:
            with ExitStack() as stack:
                try:  # everything that the system may refuse, before the other end is told
                    descriptor = _anonymous_file(max(size, 2 * before))
                    stack.callback(os.close, descriptor)
                    memory = TensorMemory(mmap.mmap(descriptor, 0))
                    unix_socket = socket.fromfd(self.connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
                    stack.enter_context(unix_socket)
                except OSError as error:
                    raise TransferError(
                        f"no memory to send {size / 2**20:.0f} MiB to process {self._peer} ({error.strerror}): "
                        f"{remedy(error) or 'send less at a time'}."
                    ) from error
                self.connection.send_bytes(_GROW)
                sendfds(unix_socket, [descriptor])
                self._outgoing = memory
        return self._outgoing

    def receive(self) -> Any:
        """The next message; its tensors are the receiver's own, or lent to it.

        Raises:
            TransferError: the message arrived and cannot be unpickled here; the channel still works.
            EOFError, OSError: the other end is gone.
        """
        body = self.connection.recv_bytes()
        self.arrived_ns = clock()
        while body in (_GROW, _KEEP):
            if body == _KEEP:
                self._outgoing = None
            else:
                descriptor = recv_handle(self.connection)
                try:
                    self._incoming = TensorMemory(mmap.mmap(descriptor, 0))
                finally:
                    os.close(descriptor)
            body = self.connection.recv_bytes()
        return unpickled(body, self._incoming)

    def fileno(self) -> int:
        """The descriptor that becomes readable when a message has arrived, or when the other end is gone."""
        return self.connection.fileno()

    def close(self) -> None:
        """Close the pipe; the other end sees the end of the file."""
        self.connection.close()


def _anonymous_file(size: int) -> int:
    """The descriptor of a file of ``size`` bytes without a name. The bytes are reserved: later writes cannot fail."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("kit")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:
            os.ftruncate(descriptor, size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
