"""A step as an ONNX graph, with what it remembers as inputs and outputs, run over a stream by ONNX Runtime."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kit.equality import Equality, compare_outputs
from kit.labs.conclusions import Claim, decided, in_a_cell
from kit.measuring.comparison import Comparison
from kit.models.continual import PureStep, stepper
from kit.reprs import one_line
from kit.text import counted
from kit.transforms.quiet import quiet


@one_line
@dataclass(frozen=True)
class Streamed:
    """A stream through an exported step."""

    started: int  # frames that PyTorch ran before the graph
    steps: int  # frames that the graph ran
    equality: Equality  # of the graph's outputs to those of the network on the whole clip
    remembered: tuple[tuple[int, ...], ...]  # shapes of the tensors that are inputs and outputs


def streamed(model: nn.Module, clip: Tensor, exported: Callable[[nn.Module, tuple[Any, ...]], nn.Module]) -> Streamed:
    """Start a stream in PyTorch, hand its state over to an exported step, and go on there to the end of the clip.

    Args:
        model: over clips ``(N, C, T, H, W)``, with stride 1 in time; the clip is twice as long as it looks.
        exported: from a step and its inputs to the same step elsewhere, as ``OnnxRuntime().apply``.
    """
    net = stepper(model)
    started = net.reach.receptive_field - 1  # then all frames that layers look at are there
    with torch.inference_mode():
        _, state = net.over(clip[:, :, : started + 1])
    pure = PureStep(net, state)
    frames, remembered = list(clip[:, :, started + 1 :].unbind(2)), pure.remembered
    step = exported(pure, (frames[0], *remembered))
    outputs = []
    with torch.no_grad():
        for frame in frames:
            out, *remembered = step(frame.contiguous(), *remembered)
            outputs.append(out)
        first = started + 1 - net.delay
        whole = model(clip)[:, :, first : first + len(outputs)]
    same = compare_outputs(whole, torch.stack(outputs, 2))
    return Streamed(started + 1, len(outputs), same, tuple(tuple(x.shape) for x in remembered))


def streamed_told(found: Streamed) -> str:
    """What the exported step takes, and whether its outputs over the stream are those of the network."""
    state = ", ".join("x".join(map(str, shape)) for shape in found.remembered)
    said = "are" if found.equality.equal else "are **not**"
    return (
        f"The graph takes a frame and {counted(len(found.remembered), 'tensor')} of state ({state}), and gives the "
        f"output and as many tensors. PyTorch ran the first {found.started} frames, and ONNX Runtime the next "
        f"{found.steps}. Its outputs {said} those of the network on the whole clip: {found.equality}."
    )


def exported_by_library(module: Any, frame: Tensor) -> str:
    """What the library's own export of a step gives here: nothing if it works, else the error, in one line."""
    import continual as co

    with torch.no_grad():
        module.forward_step(frame)  # its state is then there
        state = module.get_state()
        try:
            with quiet():
                co.onnx.export(module, (frame, *(state or ())), io.BytesIO(), input_names=["x"], output_names=["y"])
        except Exception as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return ""


def exported_told(error: str) -> str:
    """What came of the library's own export."""
    if not error:
        return "The library's `co.onnx.export` worked here."
    return (
        f"The library's `co.onnx.export` fails with PyTorch {torch.__version__.partition('+')[0]}: "
        f"`{in_a_cell(error)}`. It passes arguments of an older `torch.onnx.export`."
    )


def runtime_told(found: Comparison) -> str:
    """The approach ``onnxruntime`` on a step: whether it gives the same, and how fast it is.

    Args:
        found: of a step of :class:`kit.workloads.continual.OneStep`, with the row ``onnxruntime``.
    """
    rows = {row.name: row for row in found.rows}
    row = next((row for name, row in rows.items() if name.startswith("onnxruntime")), None)
    if row is None or row.timing is None:
        return f"ONNX Runtime did not run: {row.reason if row else 'it was not asked for'}"
    verdict = decided(found, row.name)
    said = f"**{row.ratio_text} as fast**" if verdict == "faster" else f"**{verdict}**"
    return f"The same step as the approach `onnxruntime`: same output: {row.equality}. Against PyTorch: {said}."


def onnx_claim(found: Streamed) -> Claim:
    """The claim on an exported step."""
    said = "A step with its state as inputs and outputs gives in ONNX Runtime what the network gives on the clip"
    return Claim(said, "true" if found.equality.equal else "false", f"{found.steps} outputs: {found.equality}")
