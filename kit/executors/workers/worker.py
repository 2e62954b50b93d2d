"""The code that runs in worker processes. Light to import: the clock is read before torch is imported.

Jupyter interrupts the whole process group, so workers ignore SIGINT. A worker ends when its pipe closes or its parent
process has ended, for any reason.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from multiprocessing.connection import Connection
from typing import Any

from kit.errors import TransferError, WorkerError
from kit.executors.base import Task
from kit.executors.workers.messages import Reply, Request
from kit.executors.workers.reports import remedy
from kit.spans import SpanLog, collect, span


def serve(connection: Connection, position: int, threads: int, cores: Sequence[int], started_ns: int) -> None:
    """The main function of a persistent worker: load callables once, run them on request, until the pipe closes.

    Args:
        position: among the workers of its executor.
        threads: intra-op threads.
        cores: to which the process is pinned; empty: it is not pinned.
        started_ns: when the parent began to start this process; perf_counter_ns.
    """
    with collect() as log:
        try:
            _begin(log, position, cores, started_ns)
            with span("imports", "startup"):
                import torch

                import kit.profiler  # noqa: F401  # which run_request needs
                from kit.executors.workers.channel import Channel

                torch.set_num_threads(threads)
        except Exception as error:  # no memory, or too many open files
            connection.send_bytes(pickle.dumps(tuple(_not_started(error))))
            return
        channel = Channel(connection, os.getppid())
        calls: dict[int, Any] = {}
        try:
            while True:
                try:
                    request = Request(*channel.receive())
                except TransferError as error:
                    log.write("receive", "transfer", channel.arrived_ns)
                    channel.send(Reply.make(log, error=error))
                    continue
                if request.call is None:
                    log.write("receive", "transfer", channel.arrived_ns)
                else:
                    calls = {**({} if request.forget else calls), request.key: request.call}
                    log.write("load", "startup", channel.arrived_ns)
                reply = run_request(log, request, calls[request.key])
                body = reply.packed(channel.pack)
                del request, reply  # the inputs are lent: post gives them back, unless the model keeps them
                channel.post(body)
        except (EOFError, OSError):  # the parent is gone or has closed the pipe: end at once, without torch's clean-up
            with suppress(OSError, ValueError):  # nobody may be there to read the output either
                sys.stdout.flush()
            os._exit(0)


def run_once(queue: Any, payload: bytearray, position: int, started_ns: int) -> None:
    """The main function of a cold worker: import, load the model, run one task, put the reply into the queue, end."""
    with collect() as log:
        try:
            _begin(log, position, (), started_ns)
            with span("imports", "startup"):
                import kit.profiler  # noqa: F401  # which run_request needs
                from kit.executors.workers.pickling import dump, load
        except Exception as error:  # no memory, or too many open files
            queue.put(_not_started(error))
            return
        try:
            with span("load", "startup"):
                request = Request(*load(payload))
            reply = run_request(log, request, request.call)
        except TransferError as error:
            reply = Reply.make(log, error=error)
        queue.put(reply.packed(dump))


def run_request(log: SpanLog, request: Request, call: Any) -> Reply:
    """Run the request's task in its caller's thread state, under torch.profiler if the request asks for operators."""
    from kit.executors.workers.thread_state import ThreadState
    from kit.profiler import Profile, profiled

    task, state = Task(request.name, call, request.args), ThreadState(*request.state)
    result, failure = None, None
    profile = Profile()
    try:
        with profiled() if request.operators else nullcontext(profile) as profile:
            result = state.run(task)
    except Exception as error:
        failure = error.__cause__ or error  # the task's own exception, below the TaskError
    # The worker's own spans come last: Reply.arrived copies the last one. Correlation ids mean nothing elsewhere.
    log.spans[:0] = [operator._replace(correlation=-1) for operator in profile.spans()]
    return Reply.make(log, result, failure)


def _not_started(error: Exception) -> Reply:
    hint = remedy(error)
    return Reply.lost(WorkerError(f"its process cannot start ({type(error).__name__}: {error}){hint and ': '}{hint}."))


def _begin(log: SpanLog, position: int, cores: Sequence[int], started_ns: int) -> None:
    threading.current_thread().name = f"process {position}"
    log.write("spawn", "startup", started_ns)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def _end_with_parent() -> None:
    """End this worker if its parent has ended: a worker that is busy in a long task does not see its pipe close."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
