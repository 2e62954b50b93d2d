"""A timeline under its badge, so that nobody takes a simulated or a foreign trace for a measurement of their own."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import replace

import ipywidgets as widgets

from kit.trace import Trace, stack
from kit.views.badge import badge
from kit.views.palette import OKABE_ITO
from kit.views.still import Still
from kit.views.timeline import timeline

SIMULATED, RECORDED = "simulated", "recorded"


class Badged(Still):
    """A timeline, and above it for each origin one line: simulated with which numbers, or recorded where and when.

    The line comes from ``trace.about`` only. A trace that says nothing of its origin has none.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.timeline = timeline(trace)
        super().__init__(widgets.HTML(badge_html(trace)), self.timeline)

    def still(self) -> str:
        """The badge and a still picture of the timeline."""
        return badge_html(self.trace) + self.timeline.figure().svg

    def __repr__(self) -> str:
        return f"Badged({badge(self.trace).partition(':')[0] or 'no origin'}, {self.trace.size})"


def badged(what: Trace | Mapping[str, Trace]) -> Badged:
    """A timeline under its badge; of several traces, one above the other, each with its origin in its header."""
    return Badged(what if isinstance(what, Trace) else beside(what))


def beside(traces: Mapping[str, Trace]) -> Trace:
    """Traces one above the other; ``(simulated)`` or ``(recorded)`` stands behind the name of each."""
    return stack({f"{name} ({kind})" if (kind := origin(each)) else name: each for name, each in traces.items()})


def origin(trace: Trace) -> str:
    """``simulated``, ``recorded``, or nothing where the trace does not say."""
    return SIMULATED if trace.about.get("simulated") else RECORDED if badge(trace) else ""


def badge_html(trace: Trace) -> str:
    """The badge as HTML: a frame for each origin, a dashed one around what is simulated."""
    several = trace.about.get("traces")
    abouts = several if isinstance(several, Mapping) else {"": trace.about}
    names: dict[tuple[str, bool], list[str]] = {}
    for name, about in abouts.items():
        each = replace(trace, about=about)
        if said := badge(each):
            names.setdefault((said, origin(each) == SIMULATED), []).append(name)
    alone = len(names) == 1
    return "".join(_frame(said, simulated, "" if alone else ", ".join(of)) for (said, simulated), of in names.items())


def _frame(said: str, simulated: bool, of: str) -> str:
    colour, line = (OKABE_ITO[1], "dashed") if simulated else (OKABE_ITO[0], "solid")
    head, _, rest = said.partition(":")
    text = f"<b>{html.escape(head)}</b>:{html.escape(rest)}" + (f" <i>Here: {html.escape(of)}</i>" if of else "")
    style = f"border:2px {line} {colour};padding:2px 8px;margin:2px 0;font-size:13px;line-height:1.4"
    return f"<div style='{style}'>{text}</div>"
