"""What each branch of a network costs: its time here, and the bytes that would travel to another machine and back."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from kit.executors import Executor, Sequential, Task, use
from kit.executors.thread_counts import intra_op_threads
from kit.executors.workers.counting import tensor_bytes
from kit.inputs import opened
from kit.regions import some_regions
from kit.scheduling.links import Branch
from kit.scheduling.many_machines import Job


class Counting(Executor):
    """Runs the branches one after the other, and notes the time and the bytes of each, region by region."""

    def __init__(self) -> None:
        self.regions: list[tuple[Branch, ...]] = []

    def run(self, tasks: Sequence[Task]) -> list[Any]:
        found, costs = [], []
        for task in tasks:
            start = time.thread_time_ns()
            with use(Sequential()):  # a region within a branch is a part of it
                found.append(task())
            costs.append(
                Branch((time.thread_time_ns() - start) / 1e9, tensor_bytes(task.args), tensor_bytes(found[-1]))
            )
        self.regions.append(tuple(costs))
        return found


def job(model: nn.Module, inputs: Any, calls: int = 9) -> Job:
    """A network as one thread of this machine runs it: medians of several calls.

    It is CPU time of the calling thread: other programs, which may keep it from a core, hardly change it.

    Args:
        model: in eval mode, with regions. Regions within a branch count as part of it.
        inputs: as for :func:`kit.compare`.

    Raises:
        KitError: it has no region.
    """
    given, args = opened(model, inputs)
    some_regions(given)
    walls, counted = [], []
    with torch.inference_mode(), intra_op_threads(1):
        for i in range(calls + 2):
            executor, start = Counting(), time.thread_time_ns()
            with use(executor):
                output = given(*args)
            if i >= 2:  # the first calls choose kernels
                walls.append((time.thread_time_ns() - start) / 1e9)
                counted.append(executor.regions)
    whole = Branch(statistics.median(walls), tensor_bytes(args), tensor_bytes(output))
    regions = [
        tuple(
            each._replace(work=statistics.median(call[r][b].work for call in counted)) for b, each in enumerate(region)
        )
        for r, region in enumerate(counted[0])
    ]
    return Job(whole, tuple(regions))
