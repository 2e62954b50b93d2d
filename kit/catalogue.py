"""The catalogue: every way to run a model by its name, what makes it, and what it needs from the machine."""

from __future__ import annotations

import inspect
import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, get_type_hints

from torch import nn

from kit import executors, hardware
from kit.errors import ShapeError
from kit.executors import Executor
from kit.executors.cuda_streams import CudaStreams
from kit.executors.cuda_streams import unavailable_because as cuda_streams_unavailable
from kit.executors.cuda_streams_threads import CudaStreamsThreads
from kit.executors.devices import Devices
from kit.executors.devices import unavailable_because as devices_unavailable
from kit.executors.processes import Processes
from kit.executors.processes_cold import ProcessesCold
from kit.executors.ranks import Ranks
from kit.executors.ranks import unavailable_because as ranks_unavailable
from kit.executors.threads import Threads
from kit.regions import some_regions
from kit.reprs import one_line
from kit.scheduling import PolicyName
from kit.transforms import Transform
from kit.transforms.channels_last import ChannelsLast
from kit.transforms.compiled import Compiled
from kit.transforms.folded import Folded
from kit.transforms.graphed import Graphed, GraphedStreams
from kit.transforms.merged import Merged
from kit.transforms.onnx_runtime import OnnxRuntime
from kit.transforms.replicated import Replicated
from kit.transforms.scripted_fork import ScriptedFork


class Runner(AbstractContextManager["Runner"]):
    """A model made ready to run one way: call it like the model, and close it (or use it as a context manager).

    Where it was prepared with a dict of keyword arguments, it is called with such a dict.
    """

    def __init__(self, model: nn.Module, executor: Executor, intra_op_threads: int, *, cold: bool = False) -> None:
        self.model = model
        self.executor = executor
        self.intra_op_threads = intra_op_threads  # of the calling thread while this runner has its turn
        self.cold = cold  # every call starts from nothing, so that no call can warm the next
        self.prepare_s = 0.0  # seconds that rewriting took: copying, exporting, compiling
        self.keywords: tuple[str, ...] = ()  # whose values are the arguments, where it was prepared with a dict

    def __call__(self, *args: Any) -> Any:
        if self.keywords and len(args) == 1 and isinstance(args[0], Mapping):
            if args[0].keys() != set(self.keywords):
                raise ShapeError(
                    f"this was prepared for {', '.join(self.keywords)}, and is given {', '.join(args[0])}."
                )
            args = tuple(args[0][name] for name in self.keywords)
        with executors.use(self.executor):
            return self.model(*args)

    @property
    def lane_threads(self) -> int | None:
        """Intra-op threads of each lane, where the kit sets them."""
        alone = isinstance(self.executor, executors.Sequential)
        return self.intra_op_threads if alone else getattr(self.executor, "intra_op_threads", None)

    def close(self) -> None:
        """Let go of the executor's threads or processes."""
        self.executor.close()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Runner({type(self.model).__name__} on {self.executor!r}, {self.intra_op_threads} intra-op threads)"


def sequential(model: nn.Module, cores: int, *, threads: int | None = None) -> Runner:
    """One branch after the other in the calling thread, each operator on all cores (or on ``threads`` of them)."""
    return Runner(model, executors.Sequential(), threads or cores)


def threads(model: nn.Module, cores: int, *, workers: int | None = None, threads: int | None = None) -> Runner:
    """A persistent thread per branch, at most one per core, the cores shared out among their operators."""
    workers = workers or min(_widest(model), cores)
    return Runner(model, Threads(workers, threads or max(1, cores // workers)), cores)


def processes(
    model: nn.Module, cores: int, *, workers: int | None = None, threads: int | None = None, timeout: int = 60
) -> Runner:
    """A persistent process per branch, at most one per core, pinned to its share of them; tensors in shared memory."""
    workers = workers or min(_widest(model), cores)
    return Runner(model, Processes(workers, threads or max(1, cores // workers), timeout), cores)


def ranks(
    model: nn.Module, cores: int, *, workers: int | None = None, threads: int | None = None, timeout: int = 60
) -> Runner:
    """A rank of torch.distributed per branch, at most one per core; results are gathered by gloo."""
    workers = workers or min(_widest(model), cores)
    return Runner(model, Ranks(workers, threads or max(1, cores // workers), timeout), cores)


def processes_cold(model: nn.Module, cores: int, *, timeout: int = 120) -> Runner:
    """A new process per branch and per call, with a queue each: the published recipe."""
    _widest(model)
    return Runner(model, ProcessesCold(timeout), cores, cold=True)


def cuda_streams(
    model: nn.Module, cores: int, *, policy: PolicyName = "one_per_branch", streams: int | None = None
) -> Runner:
    """A CUDA stream per branch, launched from the calling thread."""
    _widest(model)
    return Runner(model, CudaStreams(policy, streams), cores)


def cuda_streams_threads(model: nn.Module, cores: int) -> Runner:
    """A CUDA stream per branch, and a thread for each that launches onto it."""
    return Runner(model, CudaStreamsThreads(_widest(model)), cores)


def one_device_each(model: nn.Module, cores: int) -> Runner:
    """A device per branch: all GPUs in turn, or the one GPU and the CPU; inputs are moved without waiting."""
    _widest(model)
    return Runner(model, Devices(), cores)


def _widest(model: nn.Module) -> int:
    """The most branches that a region of the model has."""
    return max(len(region.branches) for region in some_regions(model).values())


def _needs_descriptors(machine: hardware.Hardware) -> str | None:
    if hasattr(socket, "AF_UNIX") and hasattr(socket.socket, "sendmsg"):
        return None
    return "this system cannot pass memory between processes without naming it. On Windows, use WSL."


@one_line
@dataclass(frozen=True)
class Entry:
    """A row of the catalogue. The keywords of what it makes are the approach's options."""

    make: Callable[..., Any]  # a Transform, or (model, cores, **options) -> Runner on an executor
    unavailable_because: Callable[[hardware.Hardware], str | None] = lambda machine: None
    sends: bool = False  # an executor whose tasks go to other processes
    seconds: Callable[[nn.Module], float] = lambda model: 0.0  # that preparing and the first call take, where many

    @property
    def rewrites(self) -> bool:
        """Whether this is a transform."""
        return isinstance(self.make, type)

    @property
    def options(self) -> dict[str, Any]:
        """Option -> its type."""
        hints = get_type_hints(self.make)
        parameters = inspect.signature(self.make).parameters
        return {name: hints[name] for name in parameters if name not in ("model", "cores")}


def _rewriting(transform: type[Transform], seconds: float = 0.0, each_layer: float = 0.0) -> Entry:
    return Entry(transform, transform.unavailable_because, seconds=lambda model: seconds + each_layer * _layers(model))


def _layers(model: nn.Module) -> int:
    """How many of its modules have weights of their own."""
    return sum(1 for module in model.modules() if next(module.parameters(recurse=False), None) is not None)


def _branches(model: nn.Module) -> int:
    return sum(len(region.branches) for region in some_regions(model).values())


CATALOGUE: dict[str, Entry] = {
    "sequential": Entry(sequential),
    "threads": Entry(threads),
    "channels_last": _rewriting(ChannelsLast),
    "folded": _rewriting(Folded),
    "merged": _rewriting(Merged),
    "scripted_fork": _rewriting(ScriptedFork, each_layer=0.05),
    "replicated": _rewriting(Replicated),
    "cuda_streams": Entry(cuda_streams, cuda_streams_unavailable),
    "cuda_streams_threads": Entry(cuda_streams_threads, cuda_streams_unavailable),
    "devices": Entry(one_device_each, devices_unavailable),
    "graphed": _rewriting(Graphed),
    "graphed_streams": _rewriting(GraphedStreams),
    "processes": Entry(processes, _needs_descriptors, sends=True, seconds=lambda model: 3.0),
    "ranks": Entry(
        ranks,
        lambda machine: ranks_unavailable(machine) or _needs_descriptors(machine),
        sends=True,
        seconds=lambda model: 4.0,
    ),
    "onnxruntime": _rewriting(OnnxRuntime, 2.0, 0.05),
    "compiled": _rewriting(Compiled, 3.0, 0.4),
    "processes_cold": Entry(processes_cold, sends=True, seconds=lambda model: 2.0 * _branches(model)),
}
