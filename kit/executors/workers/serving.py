"""What the ranks other than 0 do: run the tasks that rank 0 sends, until it ends or is lost.

A share of a model comes once, and per call only its inputs, packed. After a call the rank says how large its packed
results are, and sends them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from kit import spans
from kit.errors import TransferError, WorkerError, brief
from kit.executors.workers import rank as results
from kit.executors.workers.control import Control
from kit.executors.workers.group import join
from kit.executors.workers.membership import Membership
from kit.executors.workers.messages import Reply, Request
from kit.executors.workers.pickling import dump, load
from kit.executors.workers.worker import run_request
from kit.spans import SpanLog

WATCH_S = 1.0
_LONG = timedelta(days=1)  # whoever is lost meanwhile closes the connection, which ends this process


def take_part(member: Membership, work: Callable[[], int]) -> int:
    """Join the group; then work, as its rank 0, or serve rank 0 until it has ended. Returns the exit status.

    Raises:
        WorkerError: the ranks cannot reach each other, or one was lost meanwhile: torchrun must not wait for it.
    """
    joined = join(member)
    if isinstance(joined, Control):
        serve(joined, member.rank)
        return 0
    status = work()
    joined.check()
    joined.end()
    return status


def serve(control: Control, rank: int) -> None:
    """Answer rank 0 until it says that this is all. If rank 0 is lost, the process ends at once, with status 1.

    Messages, and the answers:

    - ``clock``: when it arrived, and when the answer left
    - ``load, key, size``, then a share of so many bytes: a reply
    - ``forget, keys``: nothing
    - ``run, key, size, threads, state, operators``, then inputs of so many bytes: a reply, then the results
    - ``end``: nothing
    """
    threading.current_thread().name = f"rank {rank}"
    lost = f"rank {rank} has lost rank 0, which has ended or closed the group."
    control.end_process_when_lost(lost)
    try:
        _serve(control)
    except (EOFError, OSError, RuntimeError) as error:  # of the connection or of gloo
        time.sleep(WATCH_S)  # if rank 0 is gone, the watch ends this process meanwhile
        raise WorkerError(f"{lost} ({brief(error)})") from error
    control.close()
    distributed.destroy_process_group()


def _serve(control: Control) -> None:
    shares: dict[int, results.Share] = {}
    with spans.collect() as log:
        while True:
            what, *details = control.receive()
            if what == "clock":
                control.send(control.arrived_ns, spans.clock())
            elif what == "load":
                key, size = details
                control.send(_loaded(log, shares, key, _received(size)).packed(dump))
            elif what == "forget":
                for key in details[0]:
                    shares.pop(key, None)
            elif what == "run":
                arrived = control.arrived_ns
                reply = _run(log, shares, *details)
                control.send(reply.packed(dump), arrived, spans.clock())
                for piece in results.taken() if reply.error is None else ():
                    _carried(distributed.isend(piece, 0))
            else:
                break


def _loaded(log: SpanLog, shares: dict[int, results.Share], key: int, piece: Tensor) -> Reply:
    try:
        with spans.span("load", "startup"):
            (shares[key],) = load(piece.numpy().data)
    except TransferError as error:
        return Reply.make(log, error=error)
    return Reply.make(log)


def _run(
    log: SpanLog,
    shares: dict[int, results.Share],
    key: int,
    size: int,
    threads: int,
    state: tuple[Any, ...],
    operators: bool,
) -> Reply:
    if torch.get_num_threads() != threads:  # setting the same number again would clear caches
        torch.set_num_threads(threads)
    with spans.span("receive", "transfer"):
        piece = _received(size)
    try:
        (inputs,) = load(piece.numpy().data)
    except TransferError as error:
        return Reply.make(log, error=error)
    return run_request(log, Request(key, None, False, "share", (inputs,), state, operators), shares[key])


def _received(size: int) -> Tensor:
    piece = torch.empty(size, dtype=torch.uint8)
    _carried(distributed.irecv(piece, 0))
    return piece


def _carried(work: distributed.Work | None) -> None:
    if work is not None:
        work.wait(_LONG)
