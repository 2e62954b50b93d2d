"""Messages between two processes: small things through a pipe, tensors through shared memory.

Each side owns the memory that it sends through, made on first use and replaced by a larger one when a message needs
more. It is anonymous (a memfd on Linux, an unlinked file elsewhere): its descriptor travels through the pipe, so it has
no name in ``/dev/shm``, nothing is left when either side is killed, and a container's small ``/dev/shm`` does not limit
it. Both sides copy: what is sent is not moved into shared memory, and what is received belongs to the receiver. Only
what is sent with ``lend`` is used where it lies, until the receiver answers; where it then still holds any of it, that
memory is its own from then on, and the sender takes new one.
"""

from __future__ import annotations

import ctypes
import io
import math
import mmap
import os
import pickle
import socket
import struct
import tempfile
from contextlib import ExitStack
from contextvars import ContextVar
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, sendfds
from typing import Any

import cloudpickle
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from kit.errors import TransferError
from kit.executors.culprit import culprit
from kit.executors.reports import remedy
from kit.spans import clock

_ALIGNMENT = 64  # bytes: a cache line, and more than any dtype needs
_copy = ctypes.memmove  # by this thread alone: OpenMP's threads would wait for cores that workers use
_GROW, _KEEP = b"grow", b"keep"
_FOOTER = struct.Struct("<Q")  # of a message in one piece, a pickle and its tensors: where these begin, in bytes


class Channel:
    """One end of a two-way connection. Not thread-safe.

    Args:
        connection: an end of ``Pipe(duplex=True)``, a Unix socket.
        peer: process id of the other end, for messages.
    """

    def __init__(self, connection: Connection, peer: int) -> None:
        self.connection = connection
        self._peer = peer
        self.arrived_ns = 0  # when the last message was here, before its tensors were copied; perf_counter_ns
        self._outgoing: _Memory | None = None
        self._incoming: _Memory | None = None

    def send(self, message: Any, *, lend: bool = False) -> None:
        """Send anything that cloudpickle can; plain CPU tensors in it are copied through shared memory.

        A named tuple arrives as a plain one. The memory is that of the message before: the other end must have
        received it, which its answer shows.

        Args:
            lend: let the receiver use the tensors in the shared memory, instead of copies of its own.

        Raises:
            TransferError: a part of the message cannot be pickled (the message says which), or there is no memory.
            OSError: the other end is gone.
        """
        self.post(self.pack(message, lend=lend))

    def pack(self, message: Any, *, lend: bool = False) -> bytes:
        """The first half of :meth:`send`, after which the message is not needed any more."""
        tensors = _Tensors(lend)
        body = _pickled(message, tensors)
        if tensors.size:
            tensors.copy_to(self._room_for(tensors.size))
        return body

    def post(self, body: bytes) -> None:
        """The second half. What was lent goes back, unless something here still uses it."""
        if self._incoming and self._incoming.in_use():
            self._incoming = None
            self.connection.send_bytes(_KEEP)
        self.connection.send_bytes(body)

    def _room_for(self, size: int) -> _Memory:
        """Memory of at least so many bytes, which the other end has, or is told to take, too."""
        before = self._outgoing.size if self._outgoing else 0
        if self._outgoing is None or size > before:
            with ExitStack() as stack:
                try:  # all that may be refused, before the other end is told
                    descriptor = _anonymous_file(max(size, 2 * before))
                    stack.callback(os.close, descriptor)
                    memory = _Memory(mmap.mmap(descriptor, 0))
                    road = socket.fromfd(self.connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
                    stack.enter_context(road)
                except OSError as error:
                    raise TransferError(
                        f"no memory to send {size / 2**20:.0f} MiB to process {self._peer} ({error.strerror}): "
                        f"{remedy(error) or 'send less at a time'}."
                    ) from error
                self.connection.send_bytes(_GROW)
                sendfds(road, [descriptor])
                self._outgoing = memory
        return self._outgoing

    def receive(self) -> Any:
        """The next message; its tensors are the receiver's own, or lent to it.

        Raises:
            TransferError: it arrived and cannot be unpickled here; the channel still works.
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
                    self._incoming = _Memory(mmap.mmap(descriptor, 0))
                finally:
                    os.close(descriptor)
            body = self.connection.recv_bytes()
        return _unpickled(body, self._incoming)

    def fileno(self) -> int:
        """What becomes readable when a message is there, and when the other end is gone."""
        return self.connection.fileno()

    def close(self) -> None:
        """Close the pipe; the other end sees the end of the file."""
        self.connection.close()


class _Tensors:
    """Tensors one behind the other in memory, dense, in their own memory format."""

    def __init__(self, lend: bool) -> None:
        self.rebuild = _lent_at if lend else _tensor_at
        self.placed: list[tuple[int, Tensor]] = []  # offset in bytes, and what to copy there
        self.size = 0  # bytes

    def place(self, tensor: Tensor) -> tuple[Any, ...]:
        """Where it will lie: the arguments of :func:`_tensor_at`."""
        tensor = tensor.detach().resolve_conj().resolve_neg()
        if not tensor.is_contiguous():
            dense = torch.empty_like(tensor, device="meta").stride()
            tensor = tensor if tensor.stride() == dense else tensor.clone()
        offset = self.size
        self.placed.append((offset, tensor))
        self.size += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
        return offset, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), tensor.stride()

    def copy_to(self, memory: _Memory) -> None:
        for offset, tensor in self.placed:
            _copy(memory.address + offset, tensor.data_ptr(), tensor.nbytes)


class _Memory:
    """Bytes with tensors in them, which stay for as long as this or a tensor that was lent."""

    def __init__(self, buffer: mmap.mmap | memoryview) -> None:
        self._bytes = buffer
        self._lent: list[StorageWeakRef] = []
        self.size = len(self._bytes)
        self.address = torch.frombuffer(self._bytes, dtype=torch.uint8).data_ptr()

    def lend(self, offset: int, size: int) -> Tensor:
        """A tensor ``(size,)`` uint8 in this memory."""
        tensor = torch.frombuffer(self._bytes, dtype=torch.uint8, count=size, offset=offset)
        self._lent.append(StorageWeakRef(tensor.untyped_storage()))  # type: ignore[no-untyped-call]
        return tensor

    def in_use(self) -> bool:
        """Whether any tensor that was lent is still alive, or a view of one."""
        self._lent = [ref for ref in self._lent if not ref.expired()]  # type: ignore[no-untyped-call]
        return bool(self._lent)


_memory: ContextVar[_Memory] = ContextVar("kit_channel_memory")  # of the message that is being unpickled


def _tensor_at(offset: int, dtype: str, shape: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """A tensor of its own with what lies in the channel's memory."""
    tensor = torch.empty_strided(shape, stride, dtype=getattr(torch, dtype))
    if tensor.nbytes:
        _copy(tensor.data_ptr(), _memory.get().address + offset, tensor.nbytes)
    return tensor


def _lent_at(offset: int, dtype: str, shape: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """A tensor that lies in the channel's memory itself."""
    kind: torch.dtype = getattr(torch, dtype)
    size = math.prod(shape) * kind.itemsize
    if size == 0:
        return torch.empty_strided(shape, stride, dtype=kind)
    return _memory.get().lend(offset, size).view(kind).as_strided(shape, stride)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Takes plain CPU tensors out of what it pickles."""

    def __init__(self, file: io.BytesIO, tensors: _Tensors) -> None:
        super().__init__(file)
        self._tensors = tensors

    def reducer_override(self, thing: Any) -> Any:
        plain = type(thing) is Tensor and thing.device.type == "cpu" and thing.layout is torch.strided
        if plain and not thing.is_quantized:
            return self._tensors.rebuild, self._tensors.place(thing)
        return super().reducer_override(thing)


def dump(message: Any) -> bytearray:
    """Pack a message as a channel does, into one piece: for a way without shared memory.

    Raises:
        TransferError: a part cannot be pickled (the message says which), or there is no memory.
    """
    tensors = _Tensors(lend=False)
    body = _pickled(message, tensors)
    start = len(body)
    try:
        piece = bytearray(start + tensors.size + _FOOTER.size)
    except MemoryError as error:
        raise TransferError(f"no memory to send {tensors.size / 2**20:.0f} MiB: {remedy(error)}.") from error
    piece[:start], piece[-_FOOTER.size :] = body, _FOOTER.pack(start)
    if tensors.size:
        tensors.copy_to(_Memory(memoryview(piece)[start:]))
    return piece


def load(piece: bytearray | memoryview) -> Any:
    """What :func:`dump` was given, with tensors of its own.

    Raises:
        TransferError: it cannot be unpickled in this process.
    """
    whole = memoryview(piece)
    (start,) = _FOOTER.unpack(whole[-_FOOTER.size :])
    return _unpickled(whole[:start], _Memory(whole[start:]))


def _pickled(message: Any, tensors: _Tensors) -> bytes:
    """Pickle with cloudpickle, so that classes and functions of a notebook's cells travel; plain tensors are placed.

    A named tuple arrives as a plain one.

    Raises:
        TransferError: a part cannot be pickled; the message names the attributes that lead to it.
    """
    file = io.BytesIO()
    try:
        # A named tuple's class would take longer to pickle than all that it holds.
        _Pickler(file, tensors).dump(tuple(message) if isinstance(message, tuple) else message)
    except Exception as error:  # pickling runs the code of whatever it meets
        path, thing = culprit(message, _fault)
        raise TransferError(
            f"{path or 'the message'} is a {type(thing).__name__}, which cannot travel to another process "
            f"({error}): make it inside forward, or leave it out with __getstate__."
        ) from error
    return file.getvalue()


def _unpickled(body: bytes | memoryview, memory: _Memory | None) -> Any:
    """What was pickled; ``memory`` is where its tensors were placed.

    Raises:
        TransferError: it cannot be unpickled in this process.
    """
    try:
        if memory is None:
            return pickle.loads(body)
        token = _memory.set(memory)
        try:
            return pickle.loads(body)
        finally:
            _memory.reset(token)
    except Exception as error:  # unpickling runs the code of whatever it meets
        raise TransferError(
            f"what was sent cannot be rebuilt in this process ({type(error).__name__}: {error}): its class must be "
            "importable here or defined in the notebook, and must unpickle."
        ) from error


def _fault(thing: Any) -> Exception | None:
    """What keeps a thing from being pickled."""
    try:
        _Pickler(io.BytesIO(), _Tensors(lend=False)).dump(thing)
    except Exception as error:
        return error
    return None


def _anonymous_file(size: int) -> int:
    """A descriptor of ``size`` bytes that have no name and are really there: later writes cannot fail."""
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
