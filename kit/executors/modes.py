"""PyTorch's modes, which it keeps per thread: what a worker must take over to compute what its caller would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from kit.executors.base import Task


@contextmanager
def intra_op_threads(count: int) -> Iterator[None]:
    """Run the block with so many intra-op threads of the calling thread, and with those of before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def own_intra_op_threads(count: int) -> None:
    """Give the calling thread, a new one, so many intra-op threads for good.

    With its first parallel operator, or when it is first asked, a thread takes over the number that was last set
    anywhere in the process, even where it has set its own before. So it is asked first.
    """
    torch.get_num_threads()
    torch.set_num_threads(count)


class Modes(NamedTuple):
    """Grad, inference and autocast, as one thread has them."""

    inference: bool
    grad: bool
    autocast: tuple[tuple[str, torch.dtype], ...]  # device type and dtype, where autocast is on

    @classmethod
    def here(cls) -> Modes:
        """The calling thread's modes."""
        on = [device for device in ("cpu", "cuda") if torch.is_autocast_enabled(device)]
        autocast = tuple((device, torch.get_autocast_dtype(device)) for device in on)
        return cls(torch.is_inference_mode_enabled(), torch.is_grad_enabled(), autocast)

    def run(self, task: Task | Callable[[], Any]) -> Any:
        """Call with these modes in the calling thread."""
        with torch.inference_mode(self.inference), torch.set_grad_enabled(self.grad):
            call: Task | Callable[[], Any] = task
            for device, dtype in self.autocast:
                call = torch.autocast(device, dtype=dtype)(call)
            return call()
