"""CUDA graphs: capture a model's kernel launches once, and replay all of them with one launch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from kit.equality import shapes
from kit.errors import KitError, ShapeError, TaskError, UnavailableError
from kit.executors import Executor, Sequential, use
from kit.executors.cuda_streams import CudaStreams, unavailable_because
from kit.machine.hardware import Hardware
from kit.scheduling import PolicyName
from kit.transforms.base import Transform

_WARM_UPS = 3  # libraries choose kernels and take workspaces in the first calls, which a capture may not do


@dataclass(frozen=True)
class Graphed(Transform):
    """The whole model as one CUDA graph, captured on one stream.

    Helps when launching is the bottleneck, as for many small kernels at batch 1: a replay launches all of them at once.
    Does not help when kernels are long. A model cannot be captured if its forward reads values back (``.item()``) or
    branches on values or shapes. On a timeline a replay has no regions and no branches, only kernels.

    Source: PyTorch's CUDA semantics, "CUDA Graphs".
    """

    opaque: ClassVar[str] = "one captured CUDA graph"
    not_picklable: ClassVar[str] = "a captured CUDA graph"

    def executor(self) -> Executor:
        """The executor of the regions during the capture."""
        return Sequential()

    def rewrite(self, model: nn.Module, args: tuple[Any, ...]) -> Graph:
        """Capture the model on inputs of these shapes; the model is not changed, and its weights are used in place.

        Raises:
            UnavailableError: inputs that are not on one GPU.
            KitError: the model does something that a CUDA graph cannot hold; the message has CUDA's error.
        """
        return Graph(model, args, self.executor())

    @classmethod
    def unavailable_because(cls, machine: Hardware) -> str | None:
        """Why graphs cannot be captured on this machine; None if they can."""
        return unavailable_because(machine)


@dataclass(frozen=True)
class GraphedStreams(Graphed):
    """One CUDA graph whose capture forks streams, so that its branches may run at the same time.

    Helps when ``graphed`` helps and, in addition, single kernels leave a part of the GPU idle: published speed-ups over
    one stream are 1.05x to 1.7x at batch 1. Does not help when kernels fill the GPU, and can be slower when kernels of
    several branches compete for its caches. In a graph the policy costs nothing per call.
    """

    wants_regions: ClassVar[bool] = True

    policy: PolicyName = "one_per_branch"  # which stage goes to which stream: kit.scheduling
    streams: int | None = None  # at most so many, >= 1; None: one per branch

    def executor(self) -> Executor:
        return CudaStreams(self.policy, self.streams)


class Graph(nn.Module):
    """A captured model: call it like the model, with inputs of the captured shapes.

    Its outputs are copies, so that the next replay does not overwrite them. It has one set of buffers, so only one
    stream at a time may call it. It uses weights that are changed in place, but not weights that are replaced.
    """

    def __init__(self, model: nn.Module, args: tuple[Any, ...], executor: Executor) -> None:
        super().__init__()
        device = _gpu_of(model, args)
        # Not as a submodule: the graph has no regions left that an executor could run. It reads the weights where they
        # were, so that memory must live as long, even where the model is moved or given others.
        self._keeps = (model, [weight.detach() for weight in (*model.parameters(), *model.buffers())])
        self._name, self._given, self._forms = type(model).__name__, shapes(args), _forms(args)
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.inference_mode(False), torch.no_grad(), torch.cuda.device(device), use(executor):
            self._inputs = tuple(x.clone() for x in args)  # inference tensors could be filled in inference mode only
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):  # left even where a capture that fails would not give its stream back
                for _ in range(_WARM_UPS):
                    model(*self._inputs)
                torch.clear_autocast_cache()  # weights cast so far go when autocast ends, and the graph would read on
                self._graph = torch.cuda.CUDAGraph()
                try:
                    with torch.cuda.graph(self._graph, stream=stream):
                        self._outputs = model(*self._inputs)
                except (RuntimeError, TaskError) as error:
                    raise KitError(
                        f"{self._name} cannot be captured into a CUDA graph: {error.__context__ or error}. Remove from "
                        "its forward what waits for the GPU (.item(), .cpu(), print) or creates CPU tensors."
                    ) from error
                finally:
                    torch.clear_autocast_cache()  # weights cast in the capture hold nothing before a replay

    def forward(self, *args: Any) -> Any:
        """Copy the inputs in, replay, copy the outputs out; all on the caller's stream.

        Raises:
            ShapeError: inputs of other shapes, dtypes or devices than those captured.
        """
        if _forms(args) != self._forms:
            raise ShapeError(
                f"the graph of {self._name} was captured for {self._given}, but was given {shapes(args)}: a graph "
                "takes inputs of one shape only. Prepare another graph for these inputs."
            )
        for captured, given in zip(self._inputs, args, strict=True):
            captured.copy_(given, non_blocking=True)
        self._graph.replay()
        return tree_map_only(Tensor, torch.clone, self._outputs)


def _forms(args: tuple[Any, ...]) -> list[Any]:
    return [(x.shape, x.dtype, x.device) if isinstance(x, Tensor) else type(x) for x in args]


def _gpu_of(model: nn.Module, args: tuple[Any, ...]) -> torch.device:
    """The one GPU that the model and all inputs are on."""
    devices = {x.device if isinstance(x, Tensor) else None for x in (*args, *model.parameters(), *model.buffers())}
    if args and len(devices) == 1 and (device := devices.pop()) is not None and device.type == "cuda":
        return device
    raise UnavailableError(
        f"{type(model).__name__} on {shapes(args)} cannot be captured into a CUDA graph: the model and all inputs must "
        "be tensors on one GPU. Move them, as in model.cuda() and x.cuda(), or with --device cuda."
    )
