"""How much of its cores this machine gives: what other programs took meanwhile, and what the cores do at their best."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from itertools import count
from multiprocessing import active_children
from pathlib import Path
from typing import Any, NamedTuple, Self

NOTABLE = 0.1  # a share of the cores beyond which a table says so
PROC = Path("/proc")
UNREADABLE = (OSError, ValueError, IndexError, OverflowError)  # what reading counters of another form ends in
HASHES = 5000  # about two milliseconds: a hand-over to a thread is little beside it


class Usage(NamedTuple):
    """The machine's counters at one moment, in seconds."""

    cores: float  # time that all cores together have had
    busy: float  # of it, spent on any program
    stolen: float  # of it, given to other machines by the host
    own: float  # of it, spent on this process and its children

    @classmethod
    def now(cls, proc: Path = PROC) -> Self | None:
        """The counters, or None where the system has none to read."""
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
    """What to say of other programs between two moments: a sentence where they took more than ``NOTABLE``."""
    if before is None or after is None:
        return []
    cores, busy, stolen, own = (b - a for a, b in zip(before, after, strict=True))
    if cores <= 0:
        return []
    others, stolen = max(0.0, busy - own) / cores, stolen / cores
    if others + stolen <= NOTABLE:
        return []
    return [
        f"other programs took {others:.0%} of the machine's cores during the rounds, and its host {stolen:.0%} (a load "
        f"of {os.getloadavg()[0]:.1f}): an approach that wants many cores suffers most from that. Its ratio holds for "
        "a machine so loaded, not for an idle one."
    ]


def queued_ns(threads: Iterable[tuple[int, int]]) -> int | None:
    """How long these threads (process, native id) have waited for a core since they began; None: not known of each."""
    try:
        files = [PROC / str(pid) / "task" / str(thread) / "schedstat" for pid, thread in threads]
        return sum(int(file.read_text().split()[1]) for file in files) if files else None
    except UNREADABLE:
        return None


class OwnWork(AbstractContextManager["OwnWork"]):
    """A yardstick among runners: a hash on each of so many threads, which shares nothing but the cores.

    It touches no memory and holds no lock, so that with every whole core it gets as much more done. It does not where
    two cores are hyper-threads of one, or where a virtual machine's host lends them to others; no counter in here
    tells that. Each thread stays on a core of its own: two that wake up on one would share it for milliseconds.
    """

    intra_op_threads, cold = 1, False

    def __init__(self, threads: int) -> None:
        place = partial(next, count())
        self._threads, self._pool = threads, ThreadPoolExecutor(threads, "own work", _stay, (place,))

    def __call__(self, *args: Any) -> None:
        list(self._pool.map(_hash, range(self._threads)))

    def __exit__(self, *exc_info: object) -> None:
        self._pool.shutdown()


def _stay(place: Callable[[], int]) -> None:
    """Pin the calling thread to a core, the next one for each thread."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[place() % len(cores)]})


def _hash(_: int) -> None:
    hashlib.pbkdf2_hmac("sha256", b"", b"", HASHES)


def _children() -> list[int]:
    return [child.pid for child in active_children() if child.pid is not None]


def _cpu(proc: Path, pid: int, second: int) -> float:
    """User and system time of another process, 0 once it has ended."""
    try:
        words = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / second
    except UNREADABLE:
        return 0.0
