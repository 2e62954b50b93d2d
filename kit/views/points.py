"""Counters and instants for the timeline: what has a time but no duration. No Jupyter."""

from __future__ import annotations

from typing import Any

import numpy as np

from kit.trace.columns import Float64, Trace
from kit.trace.curves import curves, instants

COUNTERS = 40  # that are drawn, the first ones
LONGEST = 300  # characters of a name
_FEW = 8  # points of a curve in a copy at least


def value_text(value: float, in_bytes: bool) -> str:
    """A counter's value: "1,234.5", "92.1 MiB"."""
    if in_bytes:
        for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
            if abs(value) >= size:
                return f"{value / size:.{1 if abs(value) < 100 * size else 0}f} {unit}"
        return f"{value:,.0f} B"
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:,.4g}"


def points_text(trace: Trace) -> str:
    """How many instants and counters a trace has: "3 instants, 2 counters"; empty without any."""
    marks = instants(trace)
    if marks is None:
        return ""
    found = (len(marks.time_ns), "instant"), (len(curves(trace)), "counter")
    return ", ".join(f"{n:,} {what}{'s' * (n != 1)}" for n, what in found if n)


def packed_points(trace: Trace, lanes: list[int], limit: int | None) -> tuple[dict[str, Any], list[bytes]]:
    """The data for timeline.js: looks as JSON, and the points as binary columns.

    The buffers are, little-endian: per point of all curves its time (float64, ns from the trace's start) and its value
    (float64); per instant its time (float64), the place of its lane in ``lanes`` (uint32, the number of them for an
    instant of the whole trace) and its name (uint32, of ``marks``), sorted by lane and time. With a limit, there are
    about as many points at most, the lowest and the highest of each part of the time among them, and as many instants;
    ``fewer`` says that some are left out.

    Args:
        trace: any.
        lanes: indices of the lanes that are drawn, in order.
        limit: number of points, or None for all.
    """
    first = int(trace.start_ns.min()) if len(trace) else 0
    all_of_them = curves(trace)[:COUNTERS]
    found = [curve if limit is None else curve.thinned(max(_FEW, limit // len(all_of_them))) for curve in all_of_them]
    fewer = sum(len(curve.time_ns) for curve in all_of_them) > sum(len(curve.time_ns) for curve in found)
    ends = np.cumsum([0, *(len(curve.time_ns) for curve in found)]).tolist()
    said = [
        {
            "label": curve.label[:LONGEST],
            "group": curve.group,
            "first": begin,
            "end": end,
            "bytes": curve.in_bytes,
            "low": float(curve.value.min()),
            "high": float(curve.value.max()),
        }
        for curve, begin, end in zip(found, ends, ends[1:], strict=False)
    ]
    marks = instants(trace)
    place = np.full(len(trace.lanes) + 1, -1, np.int64)
    place[lanes] = np.arange(len(lanes))
    place[-1] = len(lanes)  # of lane -1
    time = lane = name = np.zeros(0, np.int64)
    if marks is not None:
        shown = np.flatnonzero(place[marks.lane] >= 0)
        shown = shown[np.argsort(place[marks.lane[shown]], kind="stable")]
        if limit is not None and len(shown) > limit:
            fewer = True
            shown = shown[np.linspace(0, len(shown) - 1, limit).astype(np.int64)]
        time, lane, name = marks.time_ns[shown] - first, place[marks.lane[shown]], marks.name[shown].astype(np.int64)
    names, numbered = np.unique(name, return_inverse=True)
    times: Float64 = np.concatenate([curve.time_ns - first for curve in found]) if found else np.zeros(0)
    values: Float64 = np.concatenate([curve.value for curve in found]) if found else np.zeros(0)
    columns = (times, "<f8"), (values, "<f8"), (time, "<f8"), (lane, "<u4"), (numbered, "<u4")
    return (
        {"curves": said, "marks": [trace.names[i][:LONGEST] for i in names.tolist()], "fewer": fewer},
        [column.astype(kind).tobytes() for column, kind in columns],
    )
