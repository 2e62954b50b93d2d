"""The load of this machine: how much CPU time other programs took, and how long threads waited for a core."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from multiprocessing import active_children
from pathlib import Path
from typing import NamedTuple, Self

from kit.reprs import one_line

NOTABLE = 0.1  # share of the machine's CPU time: if others took more, a table says so
CALM_S, CHECK_S = 3.0, 0.5  # so long it has to be calm, looked at so often
PROC = Path("/proc")
also_own = set[int]()  # pids of processes that somebody else has started and that work for this one, as ranks do
UNREADABLE = (OSError, ValueError, IndexError, OverflowError)  # raised by reading counters of an unknown form


def load_average() -> float:
    """Runnable threads of all programs, on average over the last minute; 0 if that is not known."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


class Usage(NamedTuple):
    """The machine's CPU time counters at one moment, in seconds since it started."""

    cores: float  # CPU time of all cores together
    busy: float  # the part of it that any program used
    stolen: float  # the part of it that the host of a virtual machine gave to others
    own: float  # the part of it that this process, its children and ``also_own`` used
    counted: int = 0  # whose time that is: in a container this can be all cores of its host; 0: not known

    @classmethod
    def now(cls, proc: Path = PROC) -> Self | None:
        """Read the counters; None if the system has none."""
        try:
            every, *each = (line for line in (proc / "stat").read_text().splitlines() if line.startswith("cpu"))
            ticks = [int(word) for word in every.split()[1:9]]
            user, nice, system, _idle, _waiting, irq, softirq, stolen = ticks
            second = os.sysconf("SC_CLK_TCK")
            had, busy, lent = sum(ticks) / second, (user + nice + system + irq + softirq) / second, stolen / second
        except UNREADABLE:
            return None
        own = time.process_time() + sum(os.times()[2:4])  # with its children that have ended, and those that run
        pids = {*also_own, *(child.pid for child in active_children() if child.pid is not None)}
        own += sum(_cpu(proc, pid, second) for pid in pids)
        return cls(had, busy, lent, own, len(each))


@one_line
class Taken(NamedTuple):
    """CPU time that was not available to a measurement, as shares (0 to 1) of the CPU time of all cores."""

    others: float  # by other programs
    host: float  # by the host of a virtual machine, for others
    counted: int = 0  # cores whose counters said so: a host's may be more than this process may use; 0: unknown

    @property
    def share(self) -> float:
        return self.others + self.host

    def __str__(self) -> str:
        host = f", and the host of this virtual machine took {self.host:.0%}" if round(self.host, 2) else ""
        return f"other programs took {self.others:.0%} of the machine's CPU time during the rounds{host}"


def taken(before: Usage | None, after: Usage | None) -> Taken | None:
    """CPU time that others took between two moments; None if that is not known."""
    if before is None or after is None:
        return None
    cores, busy, stolen, own = (b - a for a, b in zip(before[:4], after[:4], strict=True))
    known = cores > 0 and own >= 0  # what a process of ``also_own`` had used is lost when it ends
    return Taken(max(0.0, busy - own) / cores, stolen / cores, after.counted) if known else None


def wait_for_calm(patience_s: float, sleep: Callable[[float], object] = time.sleep) -> float | None:
    """Wait until other programs have taken at most the share ``NOTABLE`` of the cores for ``CALM_S`` seconds.

    Returns:
        The seconds that it waited; None if other programs still used the cores after ``patience_s`` seconds, or if that
        is not known.
    """
    waited, calm_since, before = 0.0, 0.0, Usage.now()
    while before is not None and waited < patience_s:
        sleep(CHECK_S)
        waited, after = waited + CHECK_S, Usage.now()
        others = taken(before, after)
        if others is None or others.share > NOTABLE:
            calm_since = waited
        elif waited - calm_since >= CALM_S:
            return calm_since
        before = after
    return None


def queued_ns(threads: Iterable[tuple[int | str, int]]) -> int | None:
    """How long these threads were ready to run but waited for a core: nanoseconds, summed since each began.

    None if that is not known for every thread, or if ``threads`` is empty.

    Args:
        threads: process id and native thread id of each.
    """
    try:
        files = [PROC / str(pid) / "task" / str(thread) / "schedstat" for pid, thread in threads]
        return sum(int(file.read_text().split()[1]) for file in files) if files else None
    except UNREADABLE:
        return None


def _cpu(proc: Path, pid: int, second: int) -> float:
    """User and system time of another process, 0 once it has ended."""
    try:
        words = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / second
    except UNREADABLE:
        return 0.0
