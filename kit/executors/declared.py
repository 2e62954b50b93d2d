"""A network that is declared and not there: hosts are threads, and a hand-over sleeps as long as a link would take."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from kit import spans
from kit.errors import TaskError
from kit.executors.base import Executor, Task, use
from kit.executors.sequential import Sequential
from kit.executors.thread_counts import own_intra_op_threads
from kit.executors.workers.counting import count, tensor_bytes
from kit.executors.workers.thread_state import ThreadState
from kit.reprs import one_line
from kit.scheduling.links import Link, arrivals


@one_line
@dataclass(eq=False)
class DeclaredNetwork(Executor):
    """Run tasks on hosts that are only declared: host i of n runs tasks i, i + n, ..., as real ranks do.

    Host 0 is the caller. Every other host is a thread of this process. It sleeps before its tasks for as long as the
    link takes for their inputs, and after them for as long as it takes for their results. The caller sends to one host
    after the other. So the delay is that of a network, and everything else is this machine: the hosts share its cores
    and its memory, nothing is packed, and nothing can get lost.

    For lessons where no second host can be made. A recording says in ``trace.about`` that it is simulated, and with
    which link; so does a remark below the table of a comparison.

    >>> kit.register("declared", lambda: DeclaredNetwork(kit.Link(1e9, 50e-6)))
    """

    link: Link
    hosts: int = 2  # >= 1
    intra_op_threads: int = 1  # OpenMP threads of each host
    carried: int = field(init=False, repr=False, default=0)  # bytes that the link has carried so far, both directions
    _lanes: list[ThreadPoolExecutor] = field(init=False, repr=False, default_factory=list)

    @property
    def caller_threads(self) -> int:
        return self.intra_op_threads

    @property
    def lane_threads(self) -> int:
        return self.intra_op_threads

    @property
    def remark(self) -> str:
        """That nothing of the network is measured."""
        return f"its network is simulated, not measured: {self.link}, slept at each hand-over; hosts are threads here."

    def run(self, tasks: Sequence[Task]) -> list[Any]:
        """As :meth:`Executor.run`."""
        if (log := spans.current()) is not None:
            log.about |= {"simulated": True, "network": asdict(self.link)}
        shares = [tasks[host :: self.hosts] for host in range(self.hosts)]
        busy = [host for host in range(1, self.hosts) if shares[host]]
        sizes = [tensor_bytes([task.args for task in shares[host]]) for host in busy]
        delays = arrivals(self.link, sizes)
        self.carried += sum(sizes)
        state, sent = ThreadState.here(), {}
        for host, delay in zip(busy, delays, strict=True):
            call = partial(state.run, partial(self._there, shares[host], delay))
            sent[host] = self._lane(host).submit(contextvars.copy_context().run, call)
        found: dict[int, Any] = {0: _results(shares[0])}
        with spans.span("wait", "wait"):
            wait(sent.values())
        found |= {host: future.result() for host, future in sent.items()}
        self.carried += sum(tensor_bytes(found[host]) for host in busy)
        for each in found.values():
            if isinstance(each, TaskError):
                raise each
        count(([task.args for task in shares[host]], found[host]) for host in busy)
        return [found[i % self.hosts][i // self.hosts] for i in range(len(tasks))]

    def close(self) -> None:
        for lane in self._lanes:
            lane.shutdown()
        self._lanes.clear()

    def _lane(self, host: int) -> ThreadPoolExecutor:
        while len(self._lanes) < host:
            name = f"host {len(self._lanes) + 1} (declared)"
            self._lanes.append(ThreadPoolExecutor(1, initializer=_begin, initargs=(name, self.intra_op_threads)))
        return self._lanes[host - 1]

    def _there(self, share: Sequence[Task], delay: float) -> list[Any] | TaskError:
        with spans.span("inputs, declared link", "transfer"):
            time.sleep(delay)
        found = _results(share)
        with spans.span("outputs, declared link", "transfer"):
            time.sleep(self.link.seconds(tensor_bytes(found)))
        return found


def _begin(name: str, threads: int) -> None:
    threading.current_thread().name = name
    own_intra_op_threads(threads)


def _results(share: Sequence[Task]) -> list[Any] | TaskError:
    """The results of the tasks of one host; regions within them run there, one branch after the other."""
    try:
        with use(Sequential()):
            return [task() for task in share]
    except TaskError as error:
        return error
