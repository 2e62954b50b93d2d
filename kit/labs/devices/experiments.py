"""Notebook 06: its networks, and what a copy costs here."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kit.labs.speed import size
from kit.scheduling.many_machines import Job
from kit.spans import clock
from kit.workloads import branch_costs
from kit.workloads.two_hosts import SIZES, network, streams

ECHOES = 20
IN_MEMORY, TO_THE_GPU = "in memory", "to the GPU"


def two_streams(device: str = "") -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The two-stream network, and a frame and ten flow fields of 112 x 112.

    Args:
        device: of both; by default the GPU if there is one, else the CPU.
    """
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model, inputs = streams()
    return model.to(place), tuple(x.to(place) for x in inputs)


def costs() -> Job:
    """What the branches of the narrow GoogLeNet cost on this machine, and the bytes that they would send."""
    model, images = network()
    return branch_costs.job(model, images[0], size(15, 5))


def copies_here(sizes: Sequence[int] = SIZES) -> dict[str, dict[int, float]]:
    """What -> bytes -> seconds of a copy: within this machine's memory, and to its GPU if there is one."""
    found = {IN_MEMORY: {each: _took(torch.rand(each // 4).clone) for each in sizes}}
    if torch.cuda.is_available():
        found[TO_THE_GPU] = {each: _took(_to_gpu(torch.rand(each // 4))) for each in sizes}
    return found


def _to_gpu(x: Tensor) -> Callable[[], None]:
    def copy() -> None:
        x.cuda()
        torch.cuda.synchronize()

    return copy


def _took(copy: Callable[[], object]) -> float:
    took = []
    for _ in range(ECHOES):
        start = clock()
        copy()
        took.append((clock() - start) / 1e9)
    return statistics.median(took)
