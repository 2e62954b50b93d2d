"""The exercises of notebook 03."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from kit.labs.checks import check, first_wrong


@check
def check_share(share: Callable[[int, int], Any]) -> str | None:
    """``share(cores, workers)``: the intra-op threads of each worker, so that all of them fit the cores."""
    cases = [
        ((8, 2), 4, "8 cores for 2 workers are 4 threads each."),
        ((1, 1), 1, "one worker on one core has one thread."),
        (
            (8, 3),
            2,
            "8 cores for 3 workers: a thread is whole, and 3 threads each would be 9, one too many. // rounds down.",
        ),
        ((2, 4), 1, "4 workers on 2 cores are too many already, but a worker cannot have less than one thread."),
    ]
    return first_wrong(share, cases)


@check
def check_pool(make: Callable[[int, int], Any]) -> str | None:
    """``make(workers, cores)``: a ThreadPoolExecutor whose threads share the cores; its caller keeps what it has."""
    before = torch.get_num_threads()
    torch.set_num_threads(6)  # what a thread has that nobody tells otherwise
    try:
        pool = make(3, 6)
        if not isinstance(pool, ThreadPoolExecutor):
            return f"it gives {pool!r} and not a ThreadPoolExecutor: is there a return?"
        with pool:
            return _hint_of_pool(pool)
    finally:
        torch.set_num_threads(before)


def _hint_of_pool(pool: ThreadPoolExecutor) -> str | None:
    meet = threading.Barrier(3)

    def ask() -> int:
        meet.wait(5)
        return torch.get_num_threads()

    try:
        found = [future.result() for future in [pool.submit(ask) for _ in range(3)]]
    except threading.BrokenBarrierError:
        return "3 workers were asked for, and 3 tasks never ran at the same time: give max_workers."
    if torch.get_num_threads() != 6:
        return f"the thread that made the pool now has {torch.get_num_threads()} and had 6: set them in the workers."
    if found != [2, 2, 2]:
        return f"3 workers on 6 cores have {found} intra-op threads, {sum(found)} in all: 2 each would fit."
    return None
