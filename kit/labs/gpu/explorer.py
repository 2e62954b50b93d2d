"""The control of notebook 05: turn a simulated GPU's numbers, and see its timeline."""

from __future__ import annotations

import html

import ipywidgets as widgets

from kit.labs.gpu.measures import window_ns
from kit.labs.gpu.programs import US, branches
from kit.simulating import Gpu, simulate
from kit.text import counted, time_text, times
from kit.trace import Trace, gpu_busy_ns, launch_bound
from kit.views.badged import badge_html, beside
from kit.views.static import figure_svg
from kit.views.still import Still

KERNELS = 4  # of each branch
RANGES = {  # control -> value, least, most
    "SMs": (132, 16, 148),
    "blocks of a kernel": (33, 1, 264),
    "µs of a kernel": (150, 2, 400),
    "branches": (4, 1, 8),
    "µs from launch to launch": (50, 5, 100),
    "streams": (4, 1, 8),
}


class Explorer(Still):
    """Branches of equal kernels: all on one stream, and below on as many streams as the controls say."""

    def __init__(self) -> None:
        wide = {"description_width": "170px"}
        self.controls = {
            name: widgets.IntSlider(
                *value_and_range,
                description=name,
                style=wide,
                continuous_update=False,
                layout={"width": "440px"},
            )
            for name, value_and_range in RANGES.items()
        }
        self.graph = widgets.Checkbox(False, description="captured graph", style=wide, layout={"width": "440px"})
        self.answer = widgets.HTML()
        super().__init__(*self.controls.values(), self.graph, self.answer)
        for control in (*self.controls.values(), self.graph):
            control.observe(self._show, "value")
        self._show()

    def traces(self) -> tuple[Trace, Trace]:
        """One stream, and as many as the controls say; both launched alike."""
        sms, blocks, us, count, launch, streams = (control.value for control in self.controls.values())
        gpu = Gpu(sms=sms, eager_ns=launch * US, launch_ns=min(launch, 5) * US)
        given = branches(count, KERNELS, blocks, us * US)
        one, several = ("graphed", "graphed_streams") if self.graph.value else ("sequential", "cuda_streams")
        return simulate(given, one, gpu=gpu), simulate(given, several, gpu=gpu, streams=streams)

    def _show(self, change: object = None) -> None:
        one, several = self.traces()
        shown = beside({"one stream": one, counted(self.controls["streams"].value, "side stream"): several})
        picture = figure_svg(shown).replace("<svg ", "<svg style='max-width:100%;height:auto' ", 1)
        self.answer.value = f"{badge_html(shown)}<p>{html.escape(told(one, several))}</p>{picture}"
        self.renew()

    def still(self) -> str:
        """The settings, and what they give."""
        settings = ", ".join(f"{name} {control.value}" for name, control in self.controls.items())
        return f"<p>{settings}, captured graph: {'yes' if self.graph.value else 'no'}</p>{self.answer.value}"

    def __repr__(self) -> str:
        return "Explorer of a simulated GPU"


def told(one: Trace, several: Trace) -> str:
    """What the streams gain, and what limits them."""
    before, after = window_ns(one), window_ns(several)
    busy = gpu_busy_ns(several) / after
    return (
        f"One stream {time_text(before)}, several {time_text(after)}: {times(before / after)}x as fast. With several, "
        f"the GPU works for {busy:.0%} of the time: {launch_bound(several).verdict}."
    )
