"""Modules over clips that go frame by frame: their steps, whether these give the same, and which frames they see."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kit.equality import Equality, compare_outputs
from kit.labs.continual.diagram import Diagram
from kit.models.continual import State, Stepper, stepper
from kit.models.init import keep_signal
from kit.reprs import one_line

FrameStep = Callable[[Tensor], Tensor | None]  # one frame in, an output or nothing out; it remembers by itself


def by_library(module: Any) -> FrameStep:
    """The step of one of the library's modules, from the start of a clip."""
    module.clean_state()
    step: FrameStep = module.forward_step
    return step


def by_kit(model: nn.Module) -> FrameStep:
    """The step of a network by :func:`kit.models.continual.stepper`, from the start of a clip."""
    return by_stepper(stepper(model))


def by_stepper(net: Stepper) -> FrameStep:
    """The step of a network that has been converted, from the start of a clip."""
    states: list[State | None] = [None]

    def step(frame: Tensor) -> Tensor | None:
        out: Tensor | None
        out, states[0] = net(frame, states[0])
        return out

    return step


@one_line
@dataclass(frozen=True)
class FrameByFrame:
    """What the steps over a clip gave."""

    outputs: tuple[bool, ...]  # frame by frame: whether the step gave one
    equality: Equality | None  # to the outputs of the module on the whole clip; None where no step gave any

    def __str__(self) -> str:
        pattern = "".join("█" if gave else "·" for gave in self.outputs)
        return f"{pattern} {self.equality or 'no output within this clip'}"


def frame_by_frame(module: nn.Module, step: FrameStep, clip: Tensor) -> FrameByFrame:
    """When a step gives outputs, and whether they are those of the module on the whole clip.

    Args:
        clip: ``(N, C, T, H, W)``.
    """
    with torch.no_grad():
        whole, outs = module(clip), [step(clip[:, :, t]) for t in range(clip.shape[2])]
    found = [out for out in outs if out is not None]
    same = compare_outputs(whole[:, :, : len(found)], torch.stack(found, 2)) if found else None
    return FrameByFrame(tuple(out is not None for out in outs), same)


@one_line
@dataclass(frozen=True)
class Stepped:
    """Modules of the library, each run frame by frame over the same clip: when outputs came, and a diagram of each."""

    modules: Mapping[str, Any]
    results: Mapping[str, FrameByFrame]

    @property
    def equality(self) -> dict[str, Equality]:
        """Of each module: its steps against the whole clip."""
        return {name: each.equality or Equality(False, 0.0) for name, each in self.results.items()}

    def _repr_html_(self) -> str:
        return "".join(
            f"<p><b>{html.escape(name)}</b>: receptive field {module.receptive_field}, delay {module.delay}. "
            f"<code>{html.escape(str(self.results[name]))}</code></p>{Diagram(module)._repr_html_()}"
            for name, module in self.modules.items()
        )


def stepped(modules: Mapping[str, Any], clip: Tensor) -> Stepped:
    """Run modules of the library frame by frame, with weights under which the signal survives.

    Args:
        clip: ``(N, C, T, H, W)``.
    """
    for module in modules.values():
        keep_signal(module, 0).eval()
    results = {name: frame_by_frame(module, by_library(module), clip) for name, module in modules.items()}
    return Stepped(modules, results)


def influence(make: Callable[[], FrameStep], clip: Tensor) -> NDArray[np.int8]:
    """Which frames reach which outputs, found by changing one frame after the other.

    Args:
        make: a fresh step, at the start of a clip.
        clip: ``(N, C, T, H, W)``.

    Returns:
        ``(T, T)``, a row for the step at each frame: 1 where the output depends on that column's frame, 0 where it does
        not, -1 in the whole row where there is no output.
    """
    length = clip.shape[2]

    def run(frames: Tensor) -> list[Tensor | None]:
        step = make()
        with torch.no_grad():
            return [step(frames[:, :, t]) for t in range(length)]

    base, found = run(clip), np.zeros((length, length), np.int8)
    for t in range(length):
        other = clip.clone()
        other[:, :, t] = -other[:, :, t] + 1
        for i, (before, after) in enumerate(zip(base, run(other), strict=True)):
            if before is None or after is None:
                found[i] = -1
            elif not torch.allclose(before, after):
                found[i, t] = 1
    return found


def first_outputs(found: NDArray[np.int8]) -> int:
    """The number of the first step that gives an output, counted from 0, of what :func:`influence` found."""
    return int((found.max(1) >= 0).argmax())
