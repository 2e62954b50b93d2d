"""The control of notebook 04: how many cores, and what a call of the block could take on them."""

from __future__ import annotations

import html

import ipywidgets as widgets

from kit.explaining.explanation import Explanation
from kit.scheduling import Node, lower_bound
from kit.text import counted, html_table, milliseconds, times
from kit.views.palette import OKABE_ITO
from kit.views.still import Still


def why_not(why: Explanation) -> str:
    """Why nothing is predicted from these rounds; nothing where they may be used."""
    if why.branch_times is None or why.bounds is None:
        return f"not measured: {' '.join(why.notes) or why.verdict}"
    if why.excess is not None:
        return f"not decided: {why.excess}"
    if why.verdict == "not decided":
        return (
            f"not decided: the rounds of {why.approach} decide nothing, so nothing is predicted from them. Press "
            "Measure again under the table of this section, then run this cell once more"
        )
    return ""


def bound_ms(why: Explanation, cores: int) -> float:
    """No schedule of these branches, each on one thread, takes less on so many cores; from medians of the rounds."""
    assert why.branch_times is not None
    assert why.bounds is not None
    regions = [[Node(cost=ms) for ms in region.values()] for region in why.branch_times.regions_ms]
    return why.bounds.serial_ms + sum(lower_bound(each, cores) for each in regions)


def cores_told(why: Explanation, cores: int) -> str:
    """The predicted call of branches on so many cores, its bound, and what limits it.

    Args:
        why: of an approach that gives each branch one thread.
        cores: at least 1; a lane each.
    """
    if said := why_not(why):
        return f"No prediction: {said}."
    assert why.branch_times is not None
    found, least = why.what_if(cores), bound_ms(why, cores)
    region = max(why.branch_times.regions_ms, key=len)
    longest = max(region, key=region.__getitem__)
    by_cores = sum(region.values()) / cores > region[longest]
    limit = "the cores: one more would help" if by_cores else f"the longest branch, {longest}: more cores do not help"
    error = why.branch_times.error
    return (
        f"Predicted for {counted(cores, 'core')}: a call of {milliseconds(found.ms)}, {times(found.speed_up)}x as fast "
        f"as {why.baseline} was here. Bound: {milliseconds(least)}. The limit is {limit}. Check: measured here, on "
        f"{counted(why.branch_times.lanes, 'lane')}, {milliseconds(why.branch_times.measured_ms)}; the prediction for "
        f"that is {error:+.0%} off."
    )


class Cores(Still):
    """A slider of cores: the predicted call of branches that run at the same time, beside its bound.

    Args:
        why: of an approach that gives each branch one thread.
    """

    def __init__(self, why: Explanation) -> None:
        self._why = why
        regions = why.branch_times.regions_ms if why.branch_times else []
        self._most = max(2, *map(len, regions)) if regions else 2
        self.cores = widgets.IntSlider(1, 1, self._most, description="cores", continuous_update=False)
        self._said = widgets.HTML()
        super().__init__(self.cores, self._said)
        self.cores.observe(self._show, "value")
        self._show()

    def _show(self, change: object = None) -> None:
        self._said.value = f"<p>{html.escape(cores_told(self._why, self.cores.value))}</p>{self._bars()}"

    def _bars(self) -> str:
        if why_not(self._why):
            return ""
        whole, cores = self._why.what_if(1).ms, self.cores.value
        bars = (("predicted", self._why.what_if(cores).ms, 0), ("bound", bound_ms(self._why, cores), 4))
        return "".join(
            f"<div style='font-size:13px;display:flex;gap:8px'><span style='width:6em'>{name}</span>"
            f"<span style='background:{OKABE_ITO[colour]};width:{ms / whole * 60:.1f}%;height:1em'></span>"
            f"<span>{milliseconds(ms)}</span></div>"
            for name, ms, colour in bars
        )

    def still(self) -> str:
        """The predictions for every number of cores."""
        if said := why_not(self._why):
            return f"<p>No prediction: {html.escape(said)}.</p>"
        head = ("cores", "predicted call", "bound")
        rows = [
            (str(n), milliseconds(self._why.what_if(n).ms), milliseconds(bound_ms(self._why, n)))
            for n in range(1, self._most + 1)
        ]
        return html_table([head, *rows], [cores_told(self._why, self.cores.value)])

    def __repr__(self) -> str:
        return f"Cores(1 to {self._most})"
