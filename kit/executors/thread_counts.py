"""How many intra-op threads PyTorch's operators use: each thread has its own setting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
