"""The timeline as a still picture (SVG), for viewers without widgets. No Jupyter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from kit.text import time_text
from kit.trace.columns import Int32, Int64, Trace
from kit.trace.curves import Curve, curves, instants
from kit.trace.lanes import depths
from kit.trace.metrics import wall_ns
from kit.views.facts import (
    Sayings,
    branch_of,
    drawn_rows,
    groups,
    lane_meaning,
    left_out,
    palette,
    part_of,
    parts_of,
    usual_colours,
)
from kit.views.levels import Level, thin
from kit.views.palette import HATCHES, TILE, Look, ink, mix
from kit.views.points import COUNTERS, points_text, value_text

_PAGE, _INK, _MUTED, _LINE, _BAND = "#ffffff", "#1a1a1a", "#5f6368", "#d0d4da", "#f1f3f5"
_FONT = "font-family='system-ui, Helvetica, Arial, sans-serif' font-size='12'"
_CHAR = 6.6  # pixels that a character of the 12-pixel font takes on average
_BARS = 2000  # a picture this detailed stays near 100 kB
_ROWS = 400  # a picture this tall can still be scrolled through
_KEY = 40  # characters of a key of the legend
_POINTS = 400  # of a curve, about one for every second pixel
_CURVE, _CURVE_INK = 44, "#1976d2"  # pixels of a counter's lane, and the colour of its line
_LEGEND, _AXIS, _HEADER, _GAP, _FOOT = 24, 22, 26, 6, 20


@dataclass(frozen=True)
class Figure:
    """A still picture, as notebooks and pages show it."""

    svg: str  # a whole SVG document

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"Figure(SVG of {len(self.svg):,} characters)"


def figure_svg(
    trace: Trace, width: int = 900, row: Int32 | None = None, level: Level | None = None, said: Sayings | None = None
) -> str:
    """A still picture of the whole trace on a light page, as an SVG document ``width`` pixels wide.

    Give ``row`` (the row of each event) and ``level`` if they are known: both take long for a million events. ``said``
    has the texts of the groups' headers, beside the time that each group took.
    """
    if not len(trace):
        text = f"<text x='12' y='26' fill='{_MUTED}'>No events: this trace is empty.</text>"
        return _document(width, 44, "Timeline without events", text)
    row = depths(trace) if row is None else row
    rows = drawn_rows(trace, row, _ROWS)
    level = part_of(trace, row, rows, _BARS) if level is None else _coarser(trace, row, rows, level, _BARS)
    keys = _keys(trace, width)
    plan = _plan(trace, rows, width, _LEGEND * keys[-1][1] + _LEGEND if keys else 0)
    rest = left_out(trace, row, rows)
    parts = [
        *_legend(keys),
        *_axis(plan),
        *_headers(trace, plan, said or {}),
        *_lanes(trace, plan),
        *_bars(trace, row, level, plan),
        *_curves(trace, plan),
        *_instants(trace, plan),
        f"<text x='12' y='{plan.height + 10:.0f}' fill='{_MUTED}'>{rest}</text>" if rest else "",
    ]
    label = f"Timeline of {', '.join(filter(None, [trace.size, points_text(trace)]))}, {time_text(plan.wall)} long"
    return _document(width, plan.height + _FOOT * bool(rest), label, "".join(parts))


def _coarser(trace: Trace, row: Int32, rows: Int64, level: Level, limit: int) -> Level:
    """A coarser level made from a level, as from ``part_of``, without reading all events again."""
    inside = row[level.event] < rows[trace.lane[level.event]]
    level = Level(*(column[inside] for column in level))
    at = level.event
    parts = parts_of(trace, at, level.start_ns, level.duration_ns)
    found = thin(parts, row[at], limit)
    return found._replace(event=at[found.event], weight=np.maximum(found.weight, level.weight[found.event]))


@dataclass(frozen=True)
class _Plan:
    """The layout of the picture, in pixels."""

    top: float  # of the first header, below legend and axis
    left: float  # of the plot, right of the lane labels
    right: float
    bar: float  # height of a row
    tops: dict[int, float]  # of each lane that is drawn
    headers: dict[str, float]  # per group, where its header begins
    curves: list[tuple[Curve, float]]  # counters that are drawn, and where each lane begins
    height: float
    wall: int  # ns

    def x(self, ns: float) -> float:
        return self.left + ns / self.wall * (self.right - self.left)


def _plan(trace: Trace, rows: Int64, width: int, above: float) -> _Plan:
    bar = float(min(18, max(4, 1200 // int(rows.sum()))))
    tops: dict[int, float] = {}
    headers: dict[str, float] = {}
    drawn: list[tuple[Curve, float]] = []
    found = [curve.thinned(_POINTS) for curve in curves(trace)[:COUNTERS]]
    y = top = above + _AXIS
    shown = [(trace.lanes[i].group, i) for i in np.flatnonzero(rows).tolist()]
    for group in dict.fromkeys(group for group, _ in shown):
        headers[group] = y
        y += _HEADER
        for i in (i for of, i in shown if of == group):
            tops[i] = y
            y += max(rows[i] * bar, 16) + _GAP
        for curve in (curve for curve in found if curve.group == group):
            drawn.append((curve, y))
            y += _CURVE + _GAP
    longest = max(map(len, (*(trace.lanes[i].label for i in tops), *(curve.label for curve, _ in drawn))))
    left = min(220.0, longest * _CHAR + 24)
    return _Plan(top, left, width - 12.0, bar, tops, headers, drawn, y + 4, max(1, wall_ns(trace)))


def _keys(trace: Trace, width: int) -> list[tuple[float, int, str, Look]]:
    """The entries of the legend: x position, line, text and look."""
    x, line, found = 12.0, 0, []
    for label, style in palette(trace, usual_colours(trace)).legend():
        words = _cut(label, _KEY)
        wide = 36 + len(words) * _CHAR
        if x + wide > width and x > 12:
            x, line = 12.0, line + 1
        found.append((x, line, words, style))
        x += wide
    return found


def _legend(keys: Sequence[tuple[float, int, str, Look]]) -> Iterator[str]:
    for x, line, words, style in keys:
        y = _LEGEND * line + 6
        yield _box(style, f"M{x:.0f} {y}h14v12h-14z")
        yield f"<text x='{x + 20:.0f}' y='{y + 10}' fill='{_INK}'>{escape(words)}</text>"


def _axis(plan: _Plan) -> Iterator[str]:
    step = _round_step(plan.wall / max(2, (plan.right - plan.left) / 110))
    top = plan.top
    for i in range(int(plan.wall // step) + 1):
        x = plan.x(i * step)
        yield f"<path d='M{x:.1f} {top - 4:.0f}V{plan.height - 4:.0f}' stroke='{_LINE}'/>"
        anchor = "end" if x > plan.right - 24 else "middle" if i else "start"
        label = _tick(i * step, step) if i else "0"
        yield f"<text x='{x:.1f}' y='{top - 8:.0f}' fill='{_MUTED}' text-anchor='{anchor}'>{label}</text>"


def _headers(trace: Trace, plan: _Plan, said: Sayings) -> Iterator[str]:
    for group in groups(trace):
        if group.name not in plan.headers:
            continue
        y = plan.headers[group.name]
        name = group.name or trace.size
        start, end = plan.x(group.start_ns), plan.x(group.start_ns + group.wall_ns)
        yield f"<path d='M0 {y:.0f}h{plan.right + 12:.0f}v20h-{plan.right + 12:.0f}z' fill='{_BAND}'/>"
        yield f"<path d='M{start:.1f} {y + 20:.0f}H{end:.1f}' stroke='{_MUTED}' stroke-width='2'/>"
        yield f"<text x='12' y='{y + 14:.0f}' fill='{_INK}' font-weight='600'>{escape(_cut(name, 80))}</text>"
        wall = time_text(group.wall_ns)
        if (told := said.get(group.name)) is not None:
            colour = _INK if told.decided else _MUTED
            wall = f"this call {wall}, <tspan fill='{colour}'>{escape(told.text)}</tspan>"
        yield f"<text x='{plan.right:.0f}' y='{y + 14:.0f}' fill='{_INK}' text-anchor='end'>{wall}</text>"


def _lanes(trace: Trace, plan: _Plan) -> Iterator[str]:
    for lane, y in plan.tops.items():
        label = escape(_cut(trace.lanes[lane].label, int((plan.left - 20) / _CHAR)))
        meaning = escape(lane_meaning(trace, trace.lanes[lane]))
        title = f"<title>{meaning}</title>" if meaning else ""
        yield f"<text x='12' y='{y + 13:.0f}' fill='{_INK}'>{label}{title}</text>"


def _bars(trace: Trace, row: Int32, level: Level, plan: _Plan) -> Iterator[str]:
    """One path per look, since separate rectangles would need five times as many bytes; then the labels."""
    looks, branch = palette(trace, usual_colours(trace)), branch_of(trace)
    boxes: dict[Look, list[str]] = defaultdict(list)
    labels = []
    first = int(trace.start_ns.min())
    for start, duration, i, count in zip(*(column.tolist() for column in level), strict=True):
        name = trace.names[trace.name[i]]
        style = looks.look(trace.categories[trace.category[i]], name, int(branch[i]))
        x, end = plan.x(start - first), plan.x(start - first + duration)
        y, w = plan.tops[int(trace.lane[i])] + float(row[i]) * plan.bar, max(0.6, end - x)
        inset = plan.bar / 6 if count > 1 else 0.0  # a block of several events is lower than an event
        boxes[style].append(f"M{x:.1f} {y + inset:.0f}h{w:.1f}v{plan.bar - 1 - 2 * inset:.0f}h-{w:.1f}z")
        room = int((w - 8) / _CHAR)
        text = name if len(name) <= room else _cut(name.rsplit("::", 1)[-1], room)  # "aten::" says the least
        if count == 1 and plan.bar >= 14 and room >= min(4, len(name)):
            fill = mix(style.colour, _PAGE, style.strength)
            plate = f"M{x + 2:.1f} {y + 2:.0f}h{len(text) * _CHAR + 3:.0f}v13h-{len(text) * _CHAR + 3:.0f}z"
            labels.append(f"<path d='{plate}' fill='{fill}'/>" if style.hatch else "")
            labels.append(f"<text x='{x + 4:.1f}' y='{y + 13:.0f}' fill='{ink(fill)}'>{escape(text)}</text>")
    for style, paths in boxes.items():
        yield _box(style, "".join(paths))
    yield from labels


def _curves(trace: Trace, plan: _Plan) -> Iterator[str]:
    """Each counter as a step function, with its highest and its lowest value."""
    first = int(trace.start_ns.min())
    for curve, y in plan.curves:
        low, high = float(curve.value.min()), float(curve.value.max())
        up = ((1 - (curve.value - low) / ((high - low) or 1.0)) * (_CURVE - 4) + y + 2).tolist()
        across = [min(max(plan.x(ns), plan.left), plan.right) for ns in (curve.time_ns - first).tolist()]
        steps = "".join(f"H{x:.1f}V{to:.1f}" for x, to in zip(across, up, strict=True))
        path = f"M{across[0]:.1f} {up[0]:.1f}{steps}H{max(across[-1], plan.right):.1f}"
        yield f"<path d='{path}' fill='none' stroke='{_CURVE_INK}' stroke-width='1.5'/>"
        label = escape(_cut(curve.label, int((plan.left - 20) / _CHAR)))
        yield f"<text x='12' y='{y + 13:.0f}' fill='{_INK}'>{label}</text>"
        for value, at in ((high, y + 12), (low, y + _CURVE - 4))[: 1 + (high > low)]:
            text = escape(value_text(value, curve.in_bytes))
            plate = f"M{plan.left + 2:.0f} {at - 11:.0f}h{len(text) * _CHAR + 4:.0f}v14h-{len(text) * _CHAR + 4:.0f}z"
            yield f"<path d='{plate}' fill='{_PAGE}' fill-opacity='0.8'/>"
            yield f"<text x='{plan.left + 4:.0f}' y='{at:.0f}' fill='{_MUTED}'>{text}</text>"


def _instants(trace: Trace, plan: _Plan) -> Iterator[str]:
    """A triangle at the top of the lane of each instant, one for each pixel; of the whole trace, on the axis."""
    marks = instants(trace)
    if marks is None:
        return
    across = np.rint(plan.x(0) + (marks.time_ns - trace.start_ns.min()) / plan.wall * (plan.right - plan.left))
    inside = np.flatnonzero((across >= plan.left) & (across <= plan.right))
    spots = np.unique(np.stack([marks.lane[inside], across[inside].astype(np.int64)], axis=1), axis=0).tolist()
    tops = {**plan.tops, -1: plan.top - 2.0}
    path = "".join(f"M{x - 4} {tops[lane] - 4:.0f}h8l-4 7z" for lane, x in spots[:_BARS] if lane in tops)
    yield f"<path d='{path}' fill='{_INK}'/>" if path else ""


def _box(style: Look, path: str) -> str:
    fill = mix(style.colour, _PAGE, style.strength)
    edge = mix(style.colour, "#000000", 0.8)
    box = f"<path d='{path}' fill='{fill}' stroke='{edge}' stroke-width='0.4'/>"
    if not style.hatch:
        return box
    pattern = f"kit-{style.colour[1:]}-{HATCHES.index(style.hatch)}"
    lines = f"<path d='{style.hatch}' stroke='{ink(fill)}' stroke-opacity='0.4' fill='none'/>"
    tile = f"<pattern id='{pattern}' width='{TILE}' height='{TILE}' patternUnits='userSpaceOnUse'>{lines}</pattern>"
    return f"{box}{tile}<path d='{path}' fill='url(#{pattern})'/>"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: max(0, length - 1)] + "…"


def _tick(ns: float, step: float) -> str:
    """A position in the unit in which the step is a round number: ``200 µs``, ``1,500 µs``, ``2 ms``."""
    unit, size = next((u, s) for u, s in (("s", 1e9), ("ms", 1e6), ("µs", 1e3), ("ns", 1)) if step >= s)
    return f"{ns / size:,.0f} {unit}"


def _round_step(least: float) -> float:
    """The smallest 1, 2 or 5 times a power of ten that is at least ``least``."""
    power = 10.0 ** np.floor(np.log10(max(least, 1.0)))
    return float(next(power * step for step in (1, 2, 5, 10) if power * step >= least * (1 - 1e-9)))


def _document(width: int, height: float, label: str, body: str) -> str:
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height:.0f}' "
        f"viewBox='0 0 {width} {height:.0f}' role='img' aria-label='{escape(label)}' {_FONT}>"
        f"<rect width='100%' height='100%' fill='{_PAGE}'/>{body}</svg>"
    )
