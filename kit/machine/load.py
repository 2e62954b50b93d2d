"""The load of this machine: how much CPU time other programs took, and how long threads waited for a core."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from multiprocessing import active_children
from pathlib import Path
from typing import NamedTuple, Self

NOTABLE = 0.1  # share of the machine's CPU time: if other programs took more, a table says so
PROC = Path("/proc")
UNREADABLE = (OSError, ValueError, IndexError, OverflowError)  # raised by reading counters of an unknown form


def load_average() -> float:
    """Runnable threads of all programs, on average over the last minute; 0 if the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


class Usage(NamedTuple):
    """The machine's CPU time counters at one moment, in seconds since it started."""

    cores: float  # CPU time of all cores together
    busy: float  # the part of it that any program used
    stolen: float  # the part of it that the host of a virtual machine gave to others
    own: float  # the part of it that this process and its children used

    @classmethod
    def now(cls, proc: Path = PROC) -> Self | None:
        """Read the counters; None if the system has none."""
        try:
            ticks = [int(word) for word in (proc / "stat").read_text().split("\n", 1)[0].split()[1:9]]
            user, nice, system, _idle, _waiting, irq, softirq, stolen = ticks
            second = os.sysconf("SC_CLK_TCK")
            had, busy, lent = sum(ticks) / second, (user + nice + system + irq + softirq) / second, stolen / second
        except UNREADABLE:
            return None
        own = sum(time.process_time() if pid is None else _cpu(proc, pid, second) for pid in (None, *_children()))
        ended = os.times()
        own += ended.children_user + ended.children_system
        return cls(had, busy, lent, own)


def caveats(before: Usage | None, after: Usage | None) -> list[str]:
    """The caveat of a measurement between two moments: none, unless others took more than ``NOTABLE`` of the cores."""
    if before is None or after is None:
        return []
    cores, busy, stolen, own = (b - a for a, b in zip(before, after, strict=True))
    if cores <= 0:
        return []
    others, stolen = max(0.0, busy - own) / cores, stolen / cores
    if others + stolen <= NOTABLE:
        return []
    return [
        f"other programs took {others:.0%} of the machine's CPU time during the rounds, and the host of a virtual "
        f"machine {stolen:.0%} (load average {load_average():.1f}). Approaches that use many cores lose most from "
        "this: their ratios hold for a machine with this load, not for an idle one."
    ]


def queued_ns(threads: Iterable[tuple[int, int]]) -> int | None:
    """How long threads could have run but waited for a core, summed since each began, in nanoseconds.

    None if that is not known of every thread, or if there are none.

    Args:
        threads: process id and native thread id of each.
    """
    try:
        files = [PROC / str(pid) / "task" / str(thread) / "schedstat" for pid, thread in threads]
        return sum(int(file.read_text().split()[1]) for file in files) if files else None
    except UNREADABLE:
        return None


def _children() -> list[int]:
    return [child.pid for child in active_children() if child.pid is not None]


def _cpu(proc: Path, pid: int, second: int) -> float:
    """User and system time of another process, 0 once it has ended."""
    try:
        words = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / second
    except UNREADABLE:
        return 0.0
