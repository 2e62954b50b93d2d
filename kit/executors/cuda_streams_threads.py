"""A CUDA stream per branch, and a thread for each that launches onto it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from kit.executors.base import Executor, Task
from kit.executors.cuda_streams import SideStreams, gpu_of, record_stream, wait_for
from kit.executors.threads import Threads


@dataclass(eq=False)
class CudaStreamsThreads(Executor):
    """Launch each branch from its own thread onto its own CUDA stream.

    Helps when a model is launch-bound: its kernels are shorter than the microseconds that Python takes to launch one,
    and PyTorch releases the GIL for a part of those. Does not help when the GPU is the bottleneck, and is slower when
    the GIL is held for most of a launch: threads then wait for each other. A CUDA graph launches everything at once,
    and is better if the model can be captured.

    A span shows when a branch was launched, not when it ran: the kernels of a profile show that.
    """

    workers: int  # launching threads, >= 1; as many as branches, for one thread per stream

    def __post_init__(self) -> None:
        self._threads = Threads(self.workers)
        self._side = SideStreams()

    @property
    def lane_threads(self) -> int:
        return self._threads.lane_threads

    def run(self, tasks: Sequence[Task]) -> list[Any]:
        """As :meth:`Executor.run`: the results are ready for the caller's stream, which waits for them on the GPU.

        Raises:
            TaskError: a task raised; all other launched tasks have been joined.
            UnavailableError: the tasks' inputs are not on a GPU.
        """
        caller = torch.cuda.current_stream(gpu_of(tasks))
        side = self._side.fork(caller, len(tasks))
        fork = caller.record_event()
        launches = [
            task._replace(call=partial(_launch, stream, fork, task.call))
            for task, stream in zip(tasks, side, strict=True)
        ]
        try:
            results = self._threads.run(launches)
        finally:
            wait_for(caller, side)
        record_stream(results, caller)
        return results

    def close(self) -> None:
        self._threads.close()


def _launch(stream: torch.cuda.Stream, fork: torch.cuda.Event, call: Callable[..., Any], *args: Any) -> Any:
    """Launch in a worker thread, which has its own current stream."""
    stream.wait_event(fork)
    record_stream(args, stream)
    with torch.cuda.stream(stream):
        return call(*args)
