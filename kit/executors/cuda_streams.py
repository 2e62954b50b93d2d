"""A CUDA stream per branch: each waits for an event of the caller's stream, which then waits for an event of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from kit.errors import UnavailableError
from kit.executors.base import Executor, Task
from kit.machine.hardware import Hardware
from kit.scheduling import Node, PolicyName, policy


@dataclass(eq=False)
class CudaStreams(Executor):
    """Launch branches from one thread, each onto its own CUDA stream.

    Helps when a branch's kernels are too small to fill the GPU, and run long enough to pay for their launch. Does not
    help when one kernel fills the GPU already, or when launching is the bottleneck: the GPU then waits for Python in
    any stream (use a CUDA graph, or ``cuda_streams_threads``). `PyTorch issue 59692
    <https://github.com/pytorch/pytorch/issues/59692>`_ has both cases.

    A span shows when a branch was launched, not when it ran: the kernels of a profile show that. A policy that launches
    a branch in several turns writes a span for each turn. The stages of a branch, the parts of its nn.Sequential, are
    those of its first call.

    Raises:
        UnknownNameError: no such policy.
        KitError: fewer than one stream.
    """

    policy: PolicyName = "one_per_branch"  # which stage goes to which stream, in which order: kit.scheduling
    streams: int | None = None  # at most so many, >= 1; None: one per branch

    def __post_init__(self) -> None:
        policy(self.policy, 1 if self.streams is None else self.streams)  # an unknown name shows here
        self._side = SideStreams()
        self._plan = lru_cache(128)(self._make_plan)  # planning takes longer than launching

    def run(self, tasks: Sequence[Task]) -> list[Any]:
        """As :meth:`Executor.run`: the results are ready for the caller's stream, which waits for them on the GPU.

        Raises:
            TaskError: a task raised; tasks launched before it have been joined, and no later task begins.
            UnavailableError: the tasks' inputs are not on a GPU.
        """
        calls = tuple(task.call for task in tasks)
        # What is no module may be new on every call, and must not be kept together with all that it holds.
        modules = all(isinstance(call, nn.Module) for call in calls)
        plan = self._plan(calls) if modules else self._make_plan(calls)
        caller = torch.cuda.current_stream(gpu_of(tasks))
        side = self._side.fork(caller, plan.streams)
        fork = caller.record_event()
        values = [task.args for task in tasks]
        place: dict[int, torch.cuda.Stream] = {}  # branch -> the stream of its last turn
        used: dict[int, torch.cuda.Stream] = {}
        try:
            for branch, number, stages in plan.turns:
                stream = side[number]
                if number not in used:
                    stream.wait_event(fork)
                    used[number] = stream
                before = place.get(branch, stream)
                if before is not stream:
                    stream.wait_event(before.record_event())
                place[branch] = stream
                record_stream(values[branch], stream)
                with torch.cuda.stream(stream):
                    values[branch] = (Task(tasks[branch].name, _chain(*stages), values[branch])(),)
        finally:
            wait_for(caller, used.values())
        results = [value for (value,) in values]
        record_stream(results, caller)
        return results

    def _make_plan(self, calls: tuple[Callable[..., Any], ...]) -> _Plan:
        nodes: list[Node] = []
        stages: list[Callable[..., Any]] = []
        for branch, call in enumerate(calls):
            for i, stage in enumerate(_stages(call)):
                nodes.append(Node(branch, _kernels(stage), (len(nodes) - 1,) if i else ()))
                stages.append(stage)
        streams = self.streams or max(1, len(calls))
        steps = policy(self.policy, streams)(nodes, streams)
        turns = groupby(steps, key=lambda step: (nodes[step.node].branch, step.lane))
        return _Plan(streams, [(*place, [stages[step.node] for step in turn]) for place, turn in turns])


class _Plan(NamedTuple):
    """The order and the streams in which the stages of one region's tasks are launched."""

    streams: int
    turns: list[tuple[int, int, list[Callable[..., Any]]]]  # branch, stream, the stages to launch there


def _chain(first: Callable[..., Any], *others: Callable[..., Any]) -> Callable[..., Any]:
    """Stages one after the other, each with the output of the stage before."""
    return lambda *args: reduce(lambda value, stage: stage(value), others, first(*args))


class SideStreams:
    """The side streams of each forking stream. A region inside a branch gets its own side streams.

    PyTorch takes streams from a pool of 32 per device: with more, two names mean one stream, which only costs overlap.
    """

    def __init__(self) -> None:
        self._of: dict[tuple[torch.device, int], list[torch.cuda.Stream]] = {}

    def fork(self, caller: torch.cuda.Stream, count: int) -> list[torch.cuda.Stream]:
        """The first ``count`` streams beside the caller's, the same ones on every call."""
        streams = self._of.setdefault((caller.device, caller.cuda_stream), [])
        while len(streams) < count:
            streams.append(torch.cuda.Stream(caller.device))  # type: ignore[no-untyped-call]
        return streams[:count]


def record_stream(value: Any, stream: torch.cuda.Stream) -> None:
    """Tell the caching allocator that tensors are used on another stream than the one that created them.

    The allocator reuses freed memory as soon as the stream that created it has finished. Without this call, a tensor
    that Python has freed could be overwritten while the other stream still reads it.

    Source: ``torch.Tensor.record_stream``; PyTorch's CUDA semantics, "CUDA streams".
    """
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor) and leaf.is_cuda:
            leaf.record_stream(stream)


def wait_for(caller: torch.cuda.Stream, streams: Iterable[torch.cuda.Stream]) -> None:
    """Let the caller's stream wait, on the GPU, for all work launched on these streams."""
    for stream in streams:
        caller.wait_event(stream.record_event())


def gpu_of(tasks: Sequence[Task]) -> torch.device:
    """The GPU that the tasks' tensors are on; the current one for tasks without tensors.

    Raises:
        UnavailableError: there are tensors, but none of them is on a GPU.
    """
    tensors = [(task.name, leaf) for task in tasks for leaf in tree_leaves(task.args) if isinstance(leaf, Tensor)]
    for _, tensor in tensors:
        if tensor.is_cuda:
            return tensor.device
    for name, tensor in tensors:
        raise UnavailableError(
            f"branch {name!r} was given {tuple(tensor.shape)} on {tensor.device}, which has no CUDA streams: move the "
            "model and its inputs to a GPU, as in model.cuda() and x.cuda(), or with --device cuda."
        )
    return torch.device("cuda", torch.cuda.current_device())


def unavailable_because(machine: Hardware) -> str | None:
    """Why CUDA streams and graphs cannot run on this machine; None if they can."""
    if machine.gpus:
        return None
    if machine.nvidia_device:
        return f"torch {machine.torch} cannot use this machine's GPU: `python -m kit doctor` says what to install."
    return "it needs a CUDA GPU, but torch finds none here."


def _stages(call: Callable[..., Any]) -> list[Callable[..., Any]]:
    """The parts of a plain nn.Sequential; anything else is one stage."""
    own = isinstance(call, nn.Module) and (call._forward_hooks or call._forward_pre_hooks or "forward" in vars(call))
    plain = type(call) is nn.Sequential and not own
    return list(call) if isinstance(call, nn.Sequential) and plain and len(call) else [call]


def _kernels(stage: Callable[..., Any]) -> int:
    """Rough number of kernels that a stage launches: at batch 1, small kernels take about equally long."""
    return sum(not list(part.children()) for part in stage.modules()) if isinstance(stage, nn.Module) else 1
