"""ONNX Runtime: another runtime that a practitioner would try instead of PyTorch."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from kit.machine.hardware import Hardware, detect
from kit.transforms.quiet import quiet
from kit.transforms.runtimes import Graph, OtherRuntime


@dataclass(frozen=True, kw_only=True)
class OnnxRuntime(OtherRuntime):
    """The model exported to ONNX for these inputs' shapes, run by ONNX Runtime on the CPU with its own threads.

    Helps like a compiled graph: fused operators, memory layouts chosen once, no Python between operators. Its parallel
    execution mode runs independent operators at the same time, but has not been developed since version 1.14. The
    export fails if ONNX has no operator for a part of the model.

    Source: `Thread management <https://onnxruntime.ai/docs/performance/tune-performance/threading.html>`_.
    """

    execution: Literal["sequential", "parallel"] = "sequential"  # one operator at a time, or independent ones together
    threads: int | None = None  # intra-op, >= 1; by default as many as there are cores
    inter_op: int | None = None  # operators at the same time in parallel execution, >= 1; by default as many

    runtime: ClassVar[str] = "onnxruntime"

    def graph(self, model: nn.Module, args: tuple[Any, ...]) -> Graph:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads or detect().cores
        options.inter_op_num_threads = self.inter_op or detect().cores
        options.execution_mode = getattr(onnxruntime.ExecutionMode, f"ORT_{self.execution.upper()}")
        options.log_severity_level = 3
        # Its threads wait in a busy loop, which after a call would take the cores of whoever runs next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        session = onnxruntime.InferenceSession(exported(model, args), options, ["CPUExecutionProvider"])
        names = [argument.name for argument in session.get_inputs()]
        return lambda arrays: session.run(None, dict(zip(names, arrays, strict=True)))

    @classmethod
    def unavailable_because(cls, machine: Hardware) -> str | None:
        missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
        if missing:
            return f"{', '.join(missing)} not installed: run `pip install -c constraints.txt -e .[onnx]`."
        return None


def exported(model: nn.Module, args: tuple[Any, ...], dynamic_shapes: Any = None) -> bytes:
    """A model as an ONNX file, for inputs of these shapes; ``dynamic_shapes`` as in :func:`torch.export.export`."""
    with quiet():
        # The empty dict holds the keyword arguments: without it, a dict that comes last would count as those.
        program: Any = torch.onnx.export(model, (*args, {}), dynamo=True, verbose=False, dynamic_shapes=dynamic_shapes)
    graph: bytes = program.model_proto.SerializeToString()
    return graph
