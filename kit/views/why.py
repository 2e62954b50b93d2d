"""A waterfall chart of a speed-up: from the ideal, by its factors, to the measured speed-up."""

from __future__ import annotations

from itertools import accumulate, pairwise
from operator import mul
from textwrap import wrap

import numpy as np
import plotly.graph_objects as go

from kit.errors import MeasureError
from kit.explaining.explanation import Explanation
from kit.views.chart import Chart
from kit.views.figures import GRID, TEXT, ratio_ticks
from kit.views.palette import NEUTRAL, OKABE_ITO

_COLUMN = 11  # characters of a line below a bar: the longest words of the factors' names have as many
_PAGE = 60  # characters of a line across the chart


def waterfall(explanation: Explanation) -> Chart:
    """From the ideal speed-up (the number of lanes), factor by factor, to the measured speed-up.

    The axis is logarithmic, and bars start from 1, the speed of the baseline: the height of each factor is its
    logarithm, so that the largest step down is the smallest factor. The dashed line is the bound, which no schedule of
    these branches on these lanes can beat.

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
    names = ["<br>".join([*wrap(name, _COLUMN), f"x {value:.2f}"]) for name, value in steps]
    reached = list(accumulate((value for _, value in steps), mul))
    changes = [after - before for before, after in pairwise(reached)]
    figure = Chart(
        go.Waterfall(
            x=[f"ideal<br>{names[0]}", *names[1:], f"measured<br>{reached[-1]:.2f}x"],
            base=1,
            y=[reached[0] - 1, *changes, 0],
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
    drawn = reached
    if (bounds := explanation.bounds) is not None:
        drawn = [*reached, bounds.speed_up]
        label = "<br>".join(wrap(f"dashed: bound {bounds.speed_up:.2f}x, {explanation.reached}", _PAGE))
        figure.add_hline(y=bounds.speed_up, line={"color": OKABE_ITO[4], "dash": "dash"})
        above = {"x": 1, "xref": "x domain", "xanchor": "right", "y": 1, "yref": "y domain", "yanchor": "bottom"}
        figure.add_annotation(**above, text=label, showarrow=False)  # beside its line it would lie across bars
    ticks = ratio_ticks(np.array(drawn))
    figure.update_layout(
        **TEXT,
        height=420,
        margin={"l": 20, "r": 20, "t": 50, "b": 20},
        showlegend=False,
        xaxis={"tickangle": 0, "tickfont": {"size": 12}, "automargin": True, **GRID},
        yaxis={
            "type": "log",
            "range": [np.log10(ticks[0]), np.log10(ticks[-1])],
            "tickvals": ticks,
            "ticktext": [f"{tick:g}x" for tick in ticks],
            "title": {"text": f"speed-up over {explanation.baseline}"},
            "automargin": True,
            **GRID,
        },
    )
    return figure
