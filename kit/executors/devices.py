"""A branch per device: each branch's weights are on its device, and the inputs are moved there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from kit.errors import UnavailableError
from kit.executors.base import Executor, Task, use
from kit.executors.sequential import Sequential
from kit.machine.hardware import Hardware
from kit.reprs import one_line
from kit.spans import span


@one_line
@dataclass(eq=False)
class Devices(Executor):
    """Run branch i on device i modulo the number of devices, and move the results back to the inputs' device.

    Helps when branches are heavy and their inputs and outputs small: a two-stream network whose streams meet in a few
    scores. Does not help when the data transfer takes as long as the computation, nor with a CPU beside a GPU that
    would compute both branches sooner. Inputs in pinned memory are copied while the CPU continues; inputs in pageable
    memory are not, even with ``non_blocking=True``. A module's weights on another device are a copy, made on its first
    call: later changes do not reach it. Regions inside a branch stay on its device, one branch after the other.

    A GPU may compute convolutions in TF32, which a CPU does not have: their outputs then differ in the fourth digit,
    unless ``torch.backends.cudnn.allow_tf32`` is False.

    On a GPU, a span shows when a branch was launched, not when it ran: the kernels of a profile show that.

    Source: PyTorch tutorial *A guide on good usage of non_blocking and pin_memory()*.

    Raises:
        UnavailableError: no devices were given, and this machine has no GPU.
    """

    devices: tuple[str, ...] = ()  # as in ("cuda:0", "cpu"); none: every GPU, and the CPU beside an only one
    _replicas: dict[tuple[int, torch.device], tuple[Any, Any]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        gpus = torch.cuda.device_count()
        if not self.devices and not gpus:
            raise UnavailableError("torch finds no GPU: name the devices, as in Devices(('cpu', 'cpu')).")
        self.devices = self.devices or (*(f"cuda:{i}" for i in range(gpus)), *(["cpu"] if gpus == 1 else []))

    @property
    def remark(self) -> str:
        """That there is only one device, whatever the names."""
        if len({torch.device(name) for name in self.devices}) > 1:
            return ""
        only = self.devices[0]
        return f"all of its devices are {only}: nothing is copied, and the branches run there one after the other."

    def run(self, tasks: Sequence[Task]) -> list[Any]:
        places = [torch.device(self.devices[i % len(self.devices)]) for i in range(len(tasks))]
        homes = [_home(task) for task in tasks]
        # All copies before all work: one out of a GPU waits for what that GPU was given before.
        with span("inputs", "transfer"):
            args = [moved(task.args, place) for task, place in zip(tasks, places, strict=True)]
            arrivals = [_arrival(home, place) for home, place in zip(homes, places, strict=True)]
        results: list[Any] = [None] * len(tasks)
        # A GPU's branch returns when it is launched, the CPU's own when it is done: so that one comes last.
        for i in sorted(range(len(tasks)), key=lambda i: places[i].type == "cpu"):
            call = self._replica(tasks[i].call, places[i])
            arrival = arrivals[i]
            if arrival is not None:
                with span("wait", "wait"):
                    arrival.synchronize()
            with use(Sequential()):
                results[i] = Task(tasks[i].name, call, args[i])()
        with span("outputs", "transfer"):
            # Into the CPU's memory the copy must have ended when Python reads it, so there it blocks.
            return [moved(value, home, wait=home.type == "cpu") for value, home in zip(results, homes, strict=True)]

    def close(self) -> None:
        self._replicas.clear()

    def _replica(self, call: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
        """The callable with its weights on that device: a copy, or itself if they are there already."""
        if not isinstance(call, nn.Module) or all(
            weight.device == device for weight in (*call.parameters(), *call.buffers())
        ):
            return call
        key = (id(call), device)
        if key not in self._replicas:
            self._replicas[key] = (call, copy.deepcopy(call).to(device))  # the original too, so that its id stays its
        replica: nn.Module = self._replicas[key][1]
        return replica


def moved(value: Any, device: torch.device, *, wait: bool = False) -> Any:
    """Nested tensors, copied to another device; without ``wait``, the copies are only queued."""
    return tree_map_only(Tensor, lambda tensor: tensor.to(device, non_blocking=not wait), value)


def unavailable_because(machine: Hardware) -> str | None:
    """Why this machine cannot give each branch a device; None if it can."""
    if machine.gpus:
        return None
    return "it needs two devices, such as two GPUs, or a GPU and the CPU, but torch finds only the CPU here."


def _home(task: Task) -> torch.device:
    tensors = [leaf for leaf in tree_leaves(task.args) if isinstance(leaf, Tensor)]
    return tensors[0].device if tensors else torch.device("cpu")


def _arrival(home: torch.device, place: torch.device) -> torch.cuda.Event | None:
    """An event to wait for until inputs from a GPU have arrived in the CPU's memory; None if no copy needs one."""
    on_its_way = home.type == "cuda" and place.type == "cpu"
    return torch.cuda.current_stream(home).record_event() if on_its_way else None
