"""The control of notebook 06: a link, bytes and work, and whether sending pays."""

from __future__ import annotations

import html
import math

import ipywidgets as widgets

from kit.labs.devices.charts import break_even_chart
from kit.scheduling.links import Branch, Link, by_branch, by_request
from kit.text import time_text, times
from kit.views.still import Still

RANGES = {  # control -> value, least, most; all on a logarithmic scale
    "Gbit/s": (1.0, 0.1, 5000.0),
    "latency, µs": (50.0, 1.0, 10_000.0),
    "kB there and back": (602.0, 1.0, 1_000_000.0),
    "work of a branch, ms": (20.0, 0.1, 1000.0),
}


class Explorer(Still):
    """Equal branches, each on a machine of its own over one link, or whole requests: computed, nothing measured."""

    def __init__(self) -> None:
        wide = {"description_width": "150px"}
        self.controls = {
            name: widgets.FloatLogSlider(
                value,
                min=math.log10(least),
                max=math.log10(most),
                step=0.05,
                description=name,
                style=wide,
                continuous_update=False,
                readout_format=",.3g",
                layout={"width": "440px"},
            )
            for name, (value, least, most) in RANGES.items()
        }
        self.branches = widgets.IntSlider(
            2, 2, 8, description="branches", style=wide, continuous_update=False, layout={"width": "440px"}
        )
        self.answer = widgets.HTML()
        super().__init__(*self.controls.values(), self.branches, self.answer)
        for control in (*self.controls.values(), self.branches):
            control.observe(self._show, "value")
        self._show()

    def setting(self) -> tuple[Link, Branch, int]:
        """The link, one branch, and how many there are."""
        gbit, us, kilobytes, ms = (control.value for control in self.controls.values())
        half = round(500 * kilobytes)
        return Link(1e9 * gbit, us / 1e6), Branch(ms / 1e3, half, half), self.branches.value

    def _show(self, change: object = None) -> None:
        link, branch, count = self.setting()
        chart = break_even_chart({str(link): link}, {"this branch": (branch.sent + branch.received, branch.work)})
        chart.update_layout(height=300)
        picture = chart.still().replace("<svg ", "<svg style='max-width:100%;height:auto' ", 1)
        self.answer.value = f"<p>{html.escape(told(link, branch, count))}</p>{picture}"
        self.renew()

    def still(self) -> str:
        """The settings, and what they give."""
        named = [f"{name} {control.value:,.3g}" for name, control in self.controls.items()]
        return f"<p>{', '.join(named)}, branches {self.branches.value}</p>{self.answer.value}"

    def __repr__(self) -> str:
        return "Explorer of break-even"


def told(link: Link, branch: Branch, count: int) -> str:
    """What sending branches does to one request, and sending whole requests to many."""
    alone, apart = count * branch.work, by_branch(link, [branch] * count)
    transfer = link.break_even(branch.sent, branch.received)
    verdict = "pays" if apart < alone else "does not pay"
    first = (
        f"Computed, not measured. The transfer of a branch takes {time_text(1e9 * transfer)}, and its work "
        f"{time_text(1e9 * branch.work)}. One request: {time_text(1e9 * alone)} on one machine, "
        f"{time_text(1e9 * apart)} with a machine for each branch. So sending branches {verdict} "
        f"({times(alone / apart)}x)."
    )
    request = Branch(alone, branch.sent, branch.received)
    rate = by_request(link, request, count)
    limit = "the link" if rate < count / alone * 0.999 else "the machines"
    return (
        f"{first} Many requests, each with the bytes of one branch: {times(rate * alone)} machines' worth of requests "
        f"per second on {count} machines, limited by {limit}."
    )
