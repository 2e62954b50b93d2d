"""Where the traces of notebook 05 are from: this machine's GPU, or recordings of another machine's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kit.data_files import data_file
from kit.machine.about import about_here
from kit.models import inception_block
from kit.trace import Trace, load_trace
from kit.verbs import record
from kit.views.quiz import How
from kit.workloads.chunks import one_stream, overlap

MACHINE, SIMULATION = "this machine", "a simulation"
CALLS = ("sequential", "cuda_streams", "cuda_streams_threads", "graphed_streams")
WHOLE = ("sequential", "cuda_streams", "graphed_streams")  # of which there are recordings of Inception v3
PRODUCTS, SIDE = 10, 4096  # of matrices
CHUNKS, CHUNK = 4, 1408  # a float32 matrix of 1408 x 1408 has 7.9 MB, as a chunk that is simulated


def on_this_gpu() -> bool:
    """Whether this machine has a GPU that PyTorch can use."""
    return torch.cuda.is_available()


def call_of(approach: str) -> Trace:
    """One warm call of an Inception block, batch 1: on this machine's GPU, else a recording of another machine's."""
    if not on_this_gpu():
        return recorded("block", approach)
    return record(inception_block().eval().cuda(), torch.rand(1, 192, 35, 35).cuda(), approach)


def recorded(network: str, approach: str) -> Trace:
    """A recording that comes with the kit: of ``block`` or ``v3``, under one of ``CALLS`` or ``WHOLE``."""
    return load_trace(data_file(f"traces/h200-inception-{network}-{approach}.json.gz"))


def how(what: Trace | Mapping[str, Trace]) -> How:
    """Whether a trace was simulated, recorded elsewhere, or measured on this machine; of several, the last one."""
    said = whose(what if isinstance(what, Trace) else [*what.values()][-1])
    return "simulated" if said == SIMULATION else "measured" if said == MACHINE else "recorded"


def whose(trace: Trace) -> str:
    """Who says what a trace says: a simulation, this machine, or a recording of another one; from its own data."""
    if trace.about.get("simulated"):
        return SIMULATION
    machine = trace.about.get("machine") or {}
    if machine == about_here().machine:
        return MACHINE
    found = ", ".join(filter(None, (machine.get("gpus"), str(trace.about.get("date", ""))[:10])))
    return f"a recording ({found})" if found else "a recording"


# What runs on a GPU only: small models that are recorded as any other ------------------------------------------------


class Products(nn.Module):
    """Ten products of large matrices, one after the other."""

    def __init__(self, side: int = SIDE) -> None:
        super().__init__()
        self.weight: Tensor
        self.register_buffer("weight", torch.eye(side))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(PRODUCTS):
            x = x @ self.weight
        return x


class Copies(nn.Module):
    """Chunks of host memory: each is copied to the device of the weight, multiplied with it, and copied back.

    Args:
        pinned: the host memory.
        non_blocking: as in ``Tensor.to``.
        streams: uploads, products and downloads on a stream each; else all on the caller's. Needs a GPU.
    """

    def __init__(self, pinned: bool, non_blocking: bool, streams: bool, side: int = CHUNK) -> None:
        super().__init__()
        self.pinned, self.non_blocking, self.streams, self.side = pinned, non_blocking, streams, side
        self._memory: list[tuple[Tensor, Tensor]] = []  # made in the process that calls: pinned memory cannot be sent

    def forward(self, weight: Tensor) -> list[Tensor]:
        if not self._memory:
            make = [torch.rand(self.side, self.side, pin_memory=self.pinned) for _ in range(2 * CHUNKS)]
            self._memory = list(zip(make[::2], make[1::2], strict=True))
        places = (taken for _, taken in self._memory)
        order = overlap if self.streams else one_stream
        return order(
            [given for given, _ in self._memory],
            lambda given: self._up(given, weight),
            lambda x: x @ weight,
            lambda y: self._down(y, next(places)),
        )

    def _up(self, given: Tensor, weight: Tensor) -> Tensor:
        return given.to(weight.device, non_blocking=self.non_blocking)

    def _down(self, y: Tensor, taken: Tensor) -> Tensor:
        return taken.copy_(y, non_blocking=self.non_blocking)


def record_here(model: nn.Module, x: Any) -> Trace:
    """One warm call on this machine's GPU, recorded in a new process."""
    return record(model.eval().cuda(), x.cuda(), "sequential")
