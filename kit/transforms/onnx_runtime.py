"""ONNX Runtime: another runtime that a practitioner would try instead of PyTorch."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only, tree_structure, tree_unflatten

from kit.equality import shapes
from kit.errors import KitError, ShapeError
from kit.machine.hardware import Hardware, detect
from kit.transforms.base import Transform


@dataclass(frozen=True, kw_only=True)
class OnnxRuntime(Transform):
    """The model exported to ONNX for these inputs' shapes, run by ONNX Runtime on the CPU with its own threads.

    Helps like a compiled graph: fused operators, memory layouts chosen once, no Python between operators. Its parallel
    execution mode runs independent operators at the same time, but has not been developed since version 1.14. The
    export fails if ONNX has no operator for a part of the model.

    Source: `Thread management <https://onnxruntime.ai/docs/performance/tune-performance/threading.html>`_.
    """

    execution: Literal["sequential", "parallel"] = "sequential"  # one operator at a time, or independent ones together
    threads: int | None = None  # intra-op, >= 1; by default as many as there are cores
    inter_op: int | None = None  # operators at the same time in parallel execution, >= 1; by default as many

    opaque: ClassVar[str] = "an exported graph without regions"

    def rewrite(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        import onnxruntime

        if not all(
            isinstance(x, Tensor) and x.device.type == "cpu" and x.dtype != torch.bfloat16 for x in tree_leaves(args)
        ):
            raise KitError(f"onnxruntime takes CPU tensors of a dtype that numpy has, but was given {shapes(args)}.")
        example = model(*tree_map_only(Tensor, torch.clone, args))
        if other := [type(x).__name__ for x in tree_leaves(example) if not (x is None or isinstance(x, Tensor))]:
            raise KitError(f"an ONNX graph returns only tensors, but {type(model).__name__} also returns a {other[0]}.")
        graph = exported(model, args)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads or detect().cores
        options.inter_op_num_threads = self.inter_op or detect().cores
        options.execution_mode = getattr(onnxruntime.ExecutionMode, f"ORT_{self.execution.upper()}")
        options.log_severity_level = 3
        # Its threads wait in a busy loop, which after a call would take the cores of whoever runs next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        return _Session(onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"]), args, example)

    @classmethod
    def unavailable_because(cls, machine: Hardware) -> str | None:
        missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
        if missing:
            return f"{', '.join(missing)} not installed: run `pip install -c constraints.txt -e .[onnx]`."
        return None


def exported(model: nn.Module, args: tuple[Any, ...], dynamic_shapes: Any = None) -> bytes:
    """A model as an ONNX file, for inputs of these shapes; ``dynamic_shapes`` as in :func:`torch.export.export`."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it logs that torchvision is not there
    try:
        # The empty dict holds the keyword arguments: without it, a dict that comes last would count as those.
        program: Any = torch.onnx.export(model, (*args, {}), dynamo=True, verbose=False, dynamic_shapes=dynamic_shapes)
    finally:
        logging.disable(before)
    graph: bytes = program.model_proto.SerializeToString()
    return graph


class _Session(nn.Module):
    def __init__(self, session: Any, args: tuple[Any, ...], example: Any) -> None:
        super().__init__()
        self.session = session
        self.names = [argument.name for argument in session.get_inputs()]
        self.given, self.form = shapes(args), tree_structure(args)
        leaves, self.gives = tree_flatten(example)
        self.left_out = [leaf is None for leaf in leaves]

    def forward(self, *args: Any) -> Any:
        if tree_structure(args) != self.form:
            raise ShapeError(f"exported for {self.given}, but was given {shapes(args)}: prepare it again.")
        given = {name: x.contiguous().numpy() for name, x in zip(self.names, tree_leaves(args), strict=True)}
        outputs = map(torch.from_numpy, self.session.run(None, given))
        return tree_unflatten([None if none else next(outputs) for none in self.left_out], self.gives)
