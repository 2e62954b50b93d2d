"""A waterfall chart of a speed-up: from the ideal, by its factors, to the measured speed-up."""

from __future__ import annotations

from itertools import accumulate, pairwise
from operator import mul

import plotly.graph_objects as go

from kit.errors import MeasureError
from kit.explaining.explanation import Explanation
from kit.views.chart import Chart
from kit.views.figures import GRID, TEXT
from kit.views.palette import NEUTRAL, OKABE_ITO


def waterfall(explanation: Explanation) -> Chart:
    """From the ideal speed-up (the number of lanes), factor by factor, to the measured speed-up.

    The dashed line is the bound, which no schedule of these branches on these lanes can beat.

    >>> from kit import models
    >>> model, inputs = models.toy_two_stream(), (torch.rand(1, 3, 25, 25), torch.rand(1, 2, 25, 25))
    >>> comparison = kit.compare(model, inputs, "sequential, threads", rounds=6, progress=False)
    >>> kit.waterfall(kit.explain(comparison, "threads"))
    Chart(speed-up over sequential)

    Raises:
        MeasureError: the explanation has no factors.
    """
    steps = explanation.steps()
    if not steps:
        raise MeasureError(f"{explanation.approach} has no factors to draw: {' '.join(explanation.notes)}")
    names = [f"{name.replace(' ', '<br>', 1)}<br>x {value:.2f}" for name, value in steps]
    reached = list(accumulate((value for _, value in steps), mul))
    changes = [after - before for before, after in pairwise(reached)]
    figure = Chart(
        go.Waterfall(
            x=[f"ideal<br>{names[0]}", *names[1:], f"measured<br>{reached[-1]:.2f}x"],
            y=[reached[0], *changes, 0],
            measure=["absolute", *["relative"] * len(changes), "total"],
            text=[f"{value:.2f}x" for value in (*reached, reached[-1])],
            textposition="none",  # on hover: on the bars some would lie across the bound's line
            decreasing={"marker": {"color": OKABE_ITO[5]}},
            increasing={"marker": {"color": OKABE_ITO[2]}},
            totals={"marker": {"color": NEUTRAL}},
            connector={"line": {"color": NEUTRAL, "width": 1}},
            hovertemplate="%{x}: %{text}<extra></extra>",
        )
    )
    figure.add_hline(y=1, line={"color": NEUTRAL, "width": 1})
    if (bounds := explanation.bounds) is not None:
        label = f"bound {bounds.speed_up:.2f}x, {explanation.reached}"
        figure.add_hline(y=bounds.speed_up, line={"color": OKABE_ITO[4], "dash": "dash"}, annotation_text=label)
    figure.update_layout(
        **TEXT,
        height=420,
        margin={"l": 20, "r": 20, "t": 30, "b": 20},
        showlegend=False,
        xaxis={"tickangle": 0, **GRID},
        yaxis={"title": {"text": f"speed-up over {explanation.baseline}"}, "rangemode": "tozero", **GRID},
    )
    return figure
