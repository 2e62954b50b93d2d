"""PyTorch's state of a thread: a worker must use its caller's state, or its results may differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from kit.executors.base import Task


class ThreadState(NamedTuple):
    """Inference mode, grad mode and autocast: PyTorch keeps them for each thread."""

    inference: bool
    grad: bool
    autocast: tuple[tuple[str, torch.dtype], ...]  # device type and dtype, for every device type with autocast on

    @classmethod
    def here(cls) -> ThreadState:
        """The state of the calling thread."""
        on = [device for device in ("cpu", "cuda") if torch.is_autocast_enabled(device)]
        autocast = tuple((device, torch.get_autocast_dtype(device)) for device in on)
        return cls(torch.is_inference_mode_enabled(), torch.is_grad_enabled(), autocast)

    def run(self, task: Task | Callable[[], Any]) -> Any:
        """Call with this state in the calling thread, and return the result."""
        with torch.inference_mode(self.inference), torch.set_grad_enabled(self.grad):
            call: Task | Callable[[], Any] = task
            for device, dtype in self.autocast:
                call = torch.autocast(device, dtype=dtype)(call)
            return call()
