"""Notebook 05: at which batch size streams stop paying, simulated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from kit.graphs import Graph, analysed, graph_of
from kit.inputs import opened
from kit.models import inception_block
from kit.reprs import one_line
from kit.simulating import simulate
from kit.trace import Trace, wall_ns
from kit.views.badge import badge
from kit.views.chart import Chart
from kit.views.figures import line_chart

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PAYS = 1.05  # times as fast: less is not called a gain
EAGER, CAPTURED = "launched by Python", "in a captured graph"
PAIRS = {EAGER: ("sequential", "cuda_streams"), CAPTURED: ("graphed", "graphed_streams")}


@one_line
class Sweep(NamedTuple):
    """What a stream for each branch gains, over batch sizes."""

    batches: Sequence[int]
    gains: Mapping[str, Sequence[float]]  # of ``PAIRS``: time on one stream by time on several, for each batch
    trace: Trace  # one of the simulations: its origin is that of all

    def pays(self, name: str) -> list[int]:
        """The batches at which streams gain ``PAYS`` or more."""
        return [batch for batch, gain in zip(self.batches, self.gains[name], strict=True) if gain >= PAYS]


def sweep(batches: Sequence[int] = BATCHES) -> Sweep:
    """An Inception block under four approaches, by batch size: kernels by the roofline guess, nothing measured."""
    torch.manual_seed(0)
    model, args = opened(inception_block().eval(), torch.rand(1, 192, 35, 35))
    graph = graph_of(analysed(model, args), "InceptionBlock", "")
    gains: dict[str, list[float]] = {name: [] for name in PAIRS}
    for batch in batches:
        given = batched(graph, batch)
        for name, (one, several) in PAIRS.items():
            gains[name].append(wall_ns(simulate(given, one)) / wall_ns(trace := simulate(given, several)))
    return Sweep(batches, gains, trace)


def batched(graph: Graph, batch: int) -> Graph:
    """The graph of the same model for more inputs at a time, from that for one input.

    Every output has its batch in front; the MACs grow with it.
    """
    return replace(
        graph,
        operators=tuple(
            replace(each, shape=_shape(each.shape, batch), macs=batch * each.macs) for each in graph.operators
        ),
    )


def _shape(shape: str, batch: int) -> str:
    first, _, rest = shape.partition("x")
    return f"{batch * int(first)}x{rest}"


def sweep_chart(found: Sweep) -> Chart:
    """The gain of streams over the batch size, under the badge of the simulation."""
    x, y = "batch size", "time on one stream / time on several"
    chart = line_chart(found.batches, found.gains, x_title=x, y_title=y)
    badge_text = badge(found.trace).replace(": ", ":<br>", 1)
    chart.update_layout(title={"text": badge_text, "font": {"size": 13}}, margin={"t": 60}, legend={"x": 0.6})
    chart.update_xaxes(tickvals=list(found.batches), dtick=None)
    chart.update_yaxes(type="linear", dtick=0.1)
    return chart
