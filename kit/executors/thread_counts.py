"""How many intra-op threads PyTorch's operators use: each thread has its own setting."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch


@contextmanager
def intra_op_threads(count: int) -> Iterator[None]:
    """Set the calling thread's number of intra-op threads for this block; restore the number before it afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def own_intra_op_threads(count: int) -> None:
    """Set the number of intra-op threads of the calling thread, which is new, for the rest of its life.

    At its first parallel operator, or its first ``get_num_threads``, a thread takes over the number that any thread of
    the process set last, even if it has set its own number before. So this function calls ``get_num_threads`` first.
    """
    torch.get_num_threads()
    torch.set_num_threads(count)


def let_helpers_go() -> None:
    """End the OpenMP helper threads of the calling thread, which would spin on other threads' cores.

    After an operator on all cores, the helpers of GNU's OpenMP wait for the next one in a busy loop: some 5 ms on two
    cores (`GOMP_SPINCOUNT <https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html>`_). To end them takes
    some 40 us, and the next operator on all cores starts new ones. Nothing happens where there are none, or with
    another OpenMP.
    """
    pause = _pause()
    if pause is not None:
        pause(_SOFT)


_SOFT = 1  # omp_pause_soft: thread counts and other settings stay


@cache
def _pause() -> Callable[[int], int] | None:
    """``omp_pause_resource_all`` of the GNU OpenMP that PyTorch has loaded; None where it has loaded another."""
    maps = Path("/proc/self/maps")
    loaded = maps.read_text().split() if maps.exists() else []
    path = next((each for each in loaded if "libgomp" in each), None)
    return None if path is None else getattr(ctypes.CDLL(path), "omp_pause_resource_all", None)
