"""OpenVINO: Intel's runtime, which a practitioner would try instead of PyTorch on a CPU."""

from __future__ import annotations

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import fx, nn
from torch.utils._pytree import tree_leaves

from kit.errors import KitError
from kit.machine.hardware import Hardware, detect
from kit.transforms.quiet import quiet
from kit.transforms.runtimes import Graph, OtherRuntime


@dataclass(frozen=True, kw_only=True)
class OpenVino(OtherRuntime):
    """The model converted to OpenVINO for these inputs' shapes, run on the CPU with its own threads.

    Helps like a compiled graph: fused operators, memory layouts chosen once, no Python between operators. It fails if
    ``torch.export`` cannot capture the model, or if OpenVINO has no operator for a part of it. Numbers of type float64
    are computed as float32, and int64 as int32. Some of the weights are still the model's own: after a change of them,
    prepare it again.

    ``hint`` says what it is tuned for. With ``latency`` all threads work on one call. With ``throughput`` the threads
    are divided among several calls at a time, as in :func:`kit.throughput`, so one call alone uses only some of them.

    Source: `Performance hints and thread scheduling <https://docs.openvino.ai/2025/openvino-workflow/running-inference/
    inference-devices-and-modes/cpu-device/performance-hint-and-thread-scheduling.html>`_.
    """

    hint: Literal["latency", "throughput"] = "latency"  # one call at a time, or several
    threads: int | None = None  # of all calls together, >= 1; by default as many as there are cores

    runtime: ClassVar[str] = "openvino"

    def graph(self, model: nn.Module, args: tuple[Any, ...]) -> Graph:
        # Without this package OpenVINO is silent. With it, an import is reported to Google Analytics, by a fork of this
        # process. So is each call of openvino.convert_model; the front end itself reports nothing.
        modules: dict[str, Any] = sys.modules
        modules.setdefault("openvino_telemetry", None)
        import openvino
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

        with quiet():
            program = torch.export.export(model, args, strict=False)
            decoder = TorchFXPythonDecoder.from_exported_program(program, dynamic_shapes=False)
        _check(decoder.fx_gm.graph, type(model).__name__)
        front_end = FrontEndManager().load_by_framework("pytorch")
        options = {
            "PERFORMANCE_HINT": self.hint.upper(),
            "INFERENCE_NUM_THREADS": self.threads or detect().cores,
            # On a CPU with instructions for bfloat16 it would use that, and its output would not be the model's.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        converted = front_end.convert(front_end.load(decoder))
        # OpenVINO gives the thread in which it loads its CPU plugin another stack for signal handlers, and frees that
        # stack later: in this thread, the next Ctrl-C could end Python with a segmentation fault.
        with ThreadPoolExecutor(1) as apart:
            compiled = apart.submit(openvino.Core().compile_model, converted, "CPU", options).result()
        # A request serves one call at a time. A new one for each call takes 10 us, and then any thread may call. Its
        # threads wait in a busy loop for 1 ms after a call, which nothing can stop; PyTorch's own do so for longer.
        return lambda arrays: compiled.create_infer_request().infer(arrays, share_inputs=True).values()

    @classmethod
    def unavailable_because(cls, machine: Hardware) -> str | None:
        if importlib.util.find_spec("openvino") is None:
            return "openvino not installed: run `pip install -c constraints.txt -e .[openvino]`."
        return None


def _check(graph: fx.Graph, title: str) -> None:
    """Raise where OpenVINO would leave out what a model does, or fail without saying why.

    Raises:
        KitError: the model writes into a buffer or an input, or returns the same tensor twice.
    """
    for node in graph.nodes:
        if node.target is torch.ops.aten.copy_.default:  # which torch.export puts where a call ends, and nowhere else
            raise KitError(
                f"a graph of openvino only returns tensors, but each call of {title} writes into "
                f"{node.args[0].target!r}: write into a tensor that its forward makes, and return that."
            )
    returned = [node for node in tree_leaves(graph.output_node().args) if node is not None]
    if len({*returned}) < len(returned):
        raise KitError(
            f"a graph of openvino returns each tensor once, but {title} returns the same tensor twice: return a clone."
        )
