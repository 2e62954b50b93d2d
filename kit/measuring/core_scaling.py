"""A benchmark of the cores alone: how much faster an independent load runs on all of them than on one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count

from kit.approaches.runner import FunctionRunner

HASHES = 5000  # about two milliseconds: handing over to a thread costs little beside it


def independent_load(threads: int) -> FunctionRunner:
    """A runner whose call computes a hash on each of ``threads`` threads, which share only the cores.

    The load uses almost no memory and no lock, so n physical cores do n times as much of it as one. They do less if two
    cores are hyper-threads of one physical core, or if the host of a virtual machine gives CPU time to others, which no
    counter inside the machine shows. Every thread is pinned to a core: two threads that wake up on the same core would
    share it for milliseconds.
    """
    pool = ThreadPoolExecutor(threads, "independent load", _pin, (partial(next, count()),))

    def call() -> None:
        list(pool.map(_hash, range(threads)))

    return FunctionRunner(call, pool.shutdown)


def _pin(place: Callable[[], int]) -> None:
    """Pin the calling thread to a core, the next core for each thread."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[place() % len(cores)]})


def _hash(_: int) -> None:
    hashlib.pbkdf2_hmac("sha256", b"", b"", HASHES)
