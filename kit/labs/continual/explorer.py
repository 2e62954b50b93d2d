"""Turn the settings of a convolution, and see what its step sees, gives and costs."""

from __future__ import annotations

import html

import ipywidgets as widgets
import torch
from torch import nn

from kit.errors import KitError
from kit.macs import macs_of_call
from kit.models.continual import stepper
from kit.views.still import Still
from kit.workloads.continual import OneStep


class Explorer(Still):
    """Kernel, stride, padding, dilation in time: what a convolution's step sees, gives and costs."""

    CHANNELS, SIDE, FRAMES = 4, 6, 16

    def __init__(self) -> None:
        ranges = {"kernel": (3, 1, 7), "stride": (1, 1, 4), "padding": (0, 0, 6), "dilation": (1, 1, 3)}
        self.controls = tuple(
            widgets.IntSlider(*value_and_range, description=name, continuous_update=False)
            for name, value_and_range in ranges.items()
        )
        self.answer = widgets.HTML()
        super().__init__(*self.controls, self.answer)
        for control in self.controls:
            control.observe(self._show, "value")
        self._show()

    def _show(self, change: object = None) -> None:
        kernel, stride, padding, dilation = (control.value for control in self.controls)
        c = self.CHANNELS
        conv = nn.Conv3d(c, c, (kernel, 3, 3), (stride, 1, 1), (padding, 1, 1), (dilation, 1, 1)).eval()
        try:
            net = stepper(conv)
        except KitError as error:
            self.answer.value = f"<p>{html.escape(str(error))}</p>"
            return
        reach = net.reach
        pattern = "".join("█" if reach.gives(t) else "·" for t in range(self.FRAMES))
        frames = max(self.FRAMES, reach.receptive_field)
        clip = torch.zeros(1, c, frames, self.SIDE, self.SIDE)
        # Not the first step that gives an output: padding stands for frames there, which are not multiplied.
        end = next(t for t in range(reach.receptive_field, 2 * frames) if reach.gives(t - 1))
        step = OneStep(net, torch.zeros(1, c, end, self.SIDE, self.SIDE))
        macs = macs_of_call(step, *step.frames)
        window = macs_of_call(conv, clip)
        self.answer.value = (
            f"<p>Receptive field <b>{reach.receptive_field}</b>, delay <b>{reach.delay}</b>; outputs at the first "
            f"{self.FRAMES} frames: <code>{pattern}</code><br>MACs of a step with an output: <b>{macs:,}</b>, of a "
            f"frame on average {macs / reach.stride:,.0f}; of a window of {frames} frames: {window:,}.</p>"
        )

    def still(self) -> str:
        """The settings, and what they give."""
        settings = ", ".join(f"{control.description} {control.value}" for control in self.controls)
        return f"<p>{settings}</p>{self.answer.value}"

    def __repr__(self) -> str:
        return "Explorer of a convolution's step"
