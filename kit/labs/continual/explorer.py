"""Turn the settings of a layer over time, and see what its step sees, gives and costs."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
from torch import nn

from kit.errors import KitError
from kit.labs.continual.frame_grid import FrameGrid, influence_on_clip
from kit.labs.continual.steps import FrameStep, by_library, by_stepper, frame_by_frame, influence
from kit.macs import macs_of_call
from kit.models.continual import Reach, Stepper, stepper
from kit.views.still import Still
from kit.workloads.continual import OneStep

CHANNELS, SIDE, FRAMES = 4, 6, 16
END = "The rows <code>end</code> are outputs that need padding after the last frame. "
Make = Callable[[int, int, int, int], Any]  # kernel, stride, padding, dilation in time -> a module


def conv_of_torch(kernel: int, stride: int, padding: int, dilation: int) -> nn.Module:
    """A 3-D convolution; in space it has a kernel of 3 and keeps the size."""
    c = CHANNELS
    return nn.Conv3d(c, c, (kernel, 3, 3), (stride, 1, 1), (padding, 1, 1), (dilation, 1, 1))


class Explorer(Still):
    """Kernel, stride, padding, dilation in time: what the step of a layer sees, gives and costs.

    Args:
        modules: to choose from, by name: those of the library by their own steps, others by the kit's.
    """

    def __init__(self, modules: Mapping[str, Make] | None = None) -> None:
        self.modules = modules or {"Conv3d": conv_of_torch}
        ranges = {"kernel": (3, 1, 7), "stride": (1, 1, 4), "padding": (0, 0, 6), "dilation": (1, 1, 3)}
        self.controls = tuple(
            widgets.IntSlider(*value_and_range, description=name, continuous_update=False)
            for name, value_and_range in ranges.items()
        )
        self.module = widgets.Dropdown(options=list(self.modules), description="module")
        self.answer = widgets.HTML()
        chosen = [self.module] if len(self.modules) > 1 else []
        super().__init__(*chosen, *self.controls, self.answer)
        for control in (self.module, *self.controls):
            control.observe(self._show, "value")
        self._show()

    def _show(self, change: object = None) -> None:
        settings = [control.value for control in self.controls]
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.manual_seed(0)
                self.answer.value = answered(self.modules[self.module.value](*settings).eval(), *settings)
        except (KitError, AssertionError, RuntimeError) as error:  # the last two are the library's and torch's
            self.answer.value = f"<p>{html.escape(str(error))}</p>"
        self.renew()

    def still(self) -> str:
        """The settings, and what they give."""
        settings = ", ".join(f"{control.description} {control.value}" for control in self.controls)
        return f"<p>{self.module.value}: {settings}</p>{self.answer.value}"

    def __repr__(self) -> str:
        return (
            "Explorer of a convolution's step" if len(self.modules) == 1 else f"Explorer of {len(self.modules)} steps"
        )


def answered(module: Any, kernel: int, stride: int, padding: int, dilation: int) -> str:
    """What the explorer says of a module of the library, or of torch by the kit's step.

    Raises: what the module, or :func:`kit.models.continual.stepper`, does not take.
    """
    net = None if hasattr(module, "forward_step") else stepper(module)

    def step() -> FrameStep:
        return by_library(module) if net is None else by_stepper(net)

    clip = torch.randn(1, CHANNELS, FRAMES, SIDE, SIDE) - 1  # mostly below zero: a max pool tells zeros from nothing
    found, seen = influence(step, clip), frame_by_frame(module, step(), clip)
    late = influence_on_clip(module, clip, sum(seen.outputs)) if padding else np.zeros((0, FRAMES), np.int8)
    grid = FrameGrid(found, late, Reach((kernel - 1) * dilation + 1, padding, stride), dilation)
    says = module if net is None else net.reach
    pattern = "".join("█" if gave else "·" for gave in seen.outputs)
    spent = "" if net is None else cost(module, net)
    agreed = seen.equality or "no output within this clip"
    return (
        f"<p>Receptive field <b>{says.receptive_field}</b>, delay <b>{says.delay}</b>; outputs at the first {FRAMES} "
        f"frames: <code>{pattern}</code>{spent}<br>The steps' outputs, against the whole clip: {agreed}. "
        f"{END if np.size(late) else ''}A dot marks the frame that has just come, a cross marks padding.</p>"
        f"{grid.svg()}{grid.table()}"
    )


def cost(model: nn.Module, net: Stepper) -> str:
    """What a step costs in MACs, and what a window; nothing for a layer that multiplies nothing."""
    reach, frames = net.reach, max(FRAMES, net.reach.receptive_field)
    # Not the first step that gives an output: padding stands for frames there, which are not multiplied.
    end = next(t for t in range(reach.receptive_field, 2 * frames) if reach.gives(t - 1))
    step = OneStep(net, torch.zeros(1, CHANNELS, end, SIDE, SIDE))
    macs = macs_of_call(step, *step.frames)
    window = macs_of_call(model, torch.zeros(1, CHANNELS, frames, SIDE, SIDE))
    if not macs:
        return ""
    return (
        f"<br>MACs of a step with an output: <b>{macs:,}</b>, of a frame on average {macs / reach.stride:,.0f}; of a "
        f"window of {frames} frames: {window:,}."
    )
