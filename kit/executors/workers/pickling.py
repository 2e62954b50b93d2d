"""Pickling for another process: cloudpickle, with the data of plain CPU tensors beside the pickle.

Classes and functions of a notebook's cells are pickled by value, so that a worker process needs no module to import
them from. The data of tensors is copied into memory: that of a channel, or the rest of one piece of bytes.
"""

from __future__ import annotations

import ctypes
import io
import math
import mmap
import pickle
import struct
from contextvars import ContextVar
from typing import Any

import cloudpickle
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from kit.errors import TransferError
from kit.executors.workers.reports import remedy
from kit.executors.workers.unpicklable import unpicklable_part

_ALIGNMENT = 64  # bytes: a cache line, and more than any dtype needs
_copy = ctypes.memmove  # by this thread alone: OpenMP's threads would wait for cores that workers use
_FOOTER = struct.Struct("<Q")  # at the end of one piece: where the data of its tensors begins, in bytes


def dump(message: Any) -> bytearray:
    """Pickle a message into one piece of bytes, for a transport without shared memory.

    Raises:
        TransferError: a part cannot be pickled (the message says which), or there is no memory.
    """
    tensors = PlacedTensors(lend=False)
    body = pickled(message, tensors)
    start = len(body)
    try:
        piece = bytearray(start + tensors.size + _FOOTER.size)
    except MemoryError as error:
        raise TransferError(f"no memory to send {tensors.size / 2**20:.0f} MiB: {remedy(error)}.") from error
    piece[:start], piece[-_FOOTER.size :] = body, _FOOTER.pack(start)
    if tensors.size:
        tensors.copy_to(TensorMemory(memoryview(piece)[start:]))
    return piece


def load(piece: bytearray | memoryview) -> Any:
    """The message that :func:`dump` was given; its tensors are copies.

    Raises:
        TransferError: the message cannot be unpickled in this process.
    """
    whole = memoryview(piece)
    (start,) = _FOOTER.unpack(whole[-_FOOTER.size :])
    return unpickled(whole[:start], TensorMemory(whole[start:]))


class TensorMemory:
    """Bytes with the data of tensors in them. They stay as long as this object or a tensor that was lent."""

    def __init__(self, buffer: mmap.mmap | memoryview) -> None:
        self._bytes = buffer
        self._lent: list[StorageWeakRef] = []
        self.size = len(self._bytes)
        self.address = torch.frombuffer(self._bytes, dtype=torch.uint8).data_ptr()

    def lend(self, offset: int, size: int) -> Tensor:
        """A tensor ``(size,)`` uint8 that lies in this memory, ``offset`` bytes from its start."""
        tensor = torch.frombuffer(self._bytes, dtype=torch.uint8, count=size, offset=offset)
        self._lent.append(StorageWeakRef(tensor.untyped_storage()))  # type: ignore[no-untyped-call]
        return tensor

    def in_use(self) -> bool:
        """Whether a tensor that was lent, or a view of one, is still alive."""
        self._lent = [ref for ref in self._lent if not ref.expired()]  # type: ignore[no-untyped-call]
        return bool(self._lent)


class PlacedTensors:
    """The tensors of one message, each with its place in a memory: one after the other, dense, in their own layout.

    Args:
        lend: let the receiver use the tensors in the memory, instead of copies of its own.
    """

    def __init__(self, lend: bool) -> None:
        self.rebuild = _lent_tensor if lend else _copied_tensor
        self.places: list[tuple[int, Tensor]] = []  # offset in bytes, and the tensor to copy there
        self.size = 0  # bytes

    def place(self, tensor: Tensor) -> tuple[Any, ...]:
        """Give a tensor its place, and return the arguments of ``rebuild``: offset, dtype, shape, strides."""
        tensor = tensor.detach().resolve_conj().resolve_neg()
        if not tensor.is_contiguous():
            dense = torch.empty_like(tensor, device="meta").stride()
            tensor = tensor if tensor.stride() == dense else tensor.clone()
        offset = self.size
        self.places.append((offset, tensor))
        self.size += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
        return offset, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), tensor.stride()

    def copy_to(self, memory: TensorMemory) -> None:
        """Copy the data of all tensors to their places."""
        for offset, tensor in self.places:
            _copy(memory.address + offset, tensor.data_ptr(), tensor.nbytes)


def pickled(message: Any, tensors: PlacedTensors) -> bytes:
    """Pickle a message, with the data of its plain CPU tensors left out and placed in ``tensors``.

    A named tuple arrives as a plain tuple.

    Raises:
        TransferError: a part cannot be pickled; the message names the attributes that lead to the part.
    """
    file = io.BytesIO()
    try:
        # A named tuple's class would take longer to pickle than all that it holds.
        _Pickler(file, tensors).dump(tuple(message) if isinstance(message, tuple) else message)
    except Exception as error:  # pickling runs the code of any object in the message
        path, part = unpicklable_part(message, _fault)
        raise TransferError(
            f"{path or 'the message'} is a {type(part).__name__}, which cannot be pickled, so it cannot be sent to "
            f"another process ({error}): create it inside forward, or leave it out with __getstate__."
        ) from error
    return file.getvalue()


def unpickled(body: bytes | memoryview, memory: TensorMemory | None) -> Any:
    """The message of a pickle.

    Args:
        memory: where the data of its tensors lies; None for a message without tensors.

    Raises:
        TransferError: the message cannot be unpickled in this process.
    """
    try:
        if memory is None:
            return pickle.loads(body)
        token = _memory.set(memory)
        try:
            return pickle.loads(body)
        finally:
            _memory.reset(token)
    except Exception as error:  # unpickling runs the code of any object in the message
        raise TransferError(
            f"the received object cannot be rebuilt in this process ({type(error).__name__}: {error}): its class must "
            "be importable here or defined in the notebook, and it must be possible to unpickle it."
        ) from error


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Leaves the data of plain CPU tensors out of the pickle."""

    def __init__(self, file: io.BytesIO, tensors: PlacedTensors) -> None:
        super().__init__(file)
        self._tensors = tensors

    def reducer_override(self, part: Any) -> Any:
        plain = type(part) is Tensor and part.device.type == "cpu" and part.layout is torch.strided
        if plain and not part.is_quantized:
            return self._tensors.rebuild, self._tensors.place(part)
        return super().reducer_override(part)


def _fault(part: Any) -> Exception | None:
    """The exception that pickling this part raises, or None."""
    try:
        _Pickler(io.BytesIO(), PlacedTensors(lend=False)).dump(part)
    except Exception as error:
        return error
    return None


_memory: ContextVar[TensorMemory] = ContextVar("kit_tensor_memory")  # of the message that is being unpickled


def _copied_tensor(offset: int, dtype: str, shape: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """A tensor with a copy of the data at this place of the memory."""
    tensor = torch.empty_strided(shape, stride, dtype=getattr(torch, dtype))
    if tensor.nbytes:
        _copy(tensor.data_ptr(), _memory.get().address + offset, tensor.nbytes)
    return tensor


def _lent_tensor(offset: int, dtype: str, shape: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """A tensor whose data lies at this place of the memory itself."""
    kind: torch.dtype = getattr(torch, dtype)
    size = math.prod(shape) * kind.itemsize
    if size == 0:
        return torch.empty_strided(shape, stride, dtype=kind)
    return _memory.get().lend(offset, size).view(kind).as_strided(shape, stride)
