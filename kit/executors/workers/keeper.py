"""The code that runs on a worker of Dask: an actor that keeps the tasks of a model, and runs them on request."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from kit import spans
from kit.errors import TransferError
from kit.executors.thread_counts import own_intra_op_threads
from kit.executors.workers import rank as results
from kit.executors.workers.membership import boot_id
from kit.executors.workers.messages import Reply, Request
from kit.executors.workers.pickling import dump, load
from kit.executors.workers.worker import run_request
from kit.reprs import one_line

Piece = NDArray[np.uint8]  # packed bytes ``(n,)``: Dask sends an array without a copy


@one_line
class Facts(NamedTuple):
    """What a process has, as far as it matters for running tasks there."""

    host: str
    boot: str  # as boot_id
    process: int  # pid
    cores: int  # that the process may use
    omp_num_threads: str  # of its environment; "": not set
    versions: dict[str, str]  # of what must be the same in both processes

    @classmethod
    def here(cls) -> Facts:
        """The facts of this process."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        versions = {"Python": python, "torch": str(torch.__version__), "the kit": f"with code {_code()}"}
        threads = os.environ.get("OMP_NUM_THREADS", "")
        return cls(socket.gethostname(), boot_id(), os.getpid(), cores, threads, versions)


class Keeper:
    """An actor: Dask makes it on a worker, and calls its methods there, one at a time, in a thread of their own.

    It lives until the caller, or the caller's process, lets it go.
    """

    def __init__(self) -> None:
        self._shares: dict[int, results.Share] = {}

    def facts(self) -> tuple[Any, ...]:
        """The fields of the :class:`Facts` of this process."""
        return tuple(Facts.here())

    def clock(self) -> tuple[int, int]:
        """When the request came, and when the answer leaves, on this clock."""
        return spans.clock(), spans.clock()

    def keep(self, key: int, piece: Piece, lane: str) -> Piece:
        """Keep a packed share under this key; returns a packed reply. ``lane`` names this thread in timelines."""
        threading.current_thread().name = lane
        with spans.collect() as log:
            try:
                with spans.span("load", "startup"):
                    (self._shares[key],) = load(piece.data)
            except TransferError as error:
                return _array(Reply.make(log, error=error).packed(dump))
            return _array(Reply.make(log).packed(dump))

    def forget(self, keys: set[int]) -> None:
        """Forget the shares of these keys."""
        for key in keys:
            self._shares.pop(key, None)

    def run(
        self, key: int, piece: Piece, threads: int, state: tuple[Any, ...], operators: bool
    ) -> tuple[int, int, Piece, list[Piece]]:
        """Run a share on packed inputs.

        Returns:
            when the request came and when the answer leaves, on this clock; a packed reply; and a packed result for
            each task, if none failed.
        """
        arrived = spans.clock()
        if torch.get_num_threads() != threads:  # the worker's other threads keep theirs
            own_intra_op_threads(threads)
        with spans.collect() as log:
            try:
                with spans.span("receive", "transfer"):
                    (inputs,) = load(piece.data)
                request = Request(key, None, False, "share", (inputs,), state, operators)
                reply = run_request(log, request, self._shares[key])
            except TransferError as error:
                reply = Reply.make(log, error=error)
        found = [piece.numpy() for piece in results.taken()] if reply.error is None else []
        packed = _array(reply.packed(dump))
        return arrived, spans.clock(), packed, found


def _array(piece: bytearray) -> Piece:
    return np.frombuffer(piece, np.uint8)


@cache
def _code() -> str:
    """What tells one version of the kit's code from another: a part of its hash."""
    found = hashlib.sha256()
    folder = Path(spans.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        found.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return found.hexdigest()[:12]
