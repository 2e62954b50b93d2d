"""A still picture (SVG) of a graph, for viewers without widgets: the boxes that are open at first. No Jupyter."""

from __future__ import annotations

import math
import textwrap
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from kit.text import time_text, with_prefix
from kit.views.boxes import Box, Looks, children, looks, summary, unit
from kit.views.palette import HATCHES, KNOT, NEUTRAL, TILE, Look, branch_look, ink, mix

if TYPE_CHECKING:
    from kit.graphs import Graph

_PAGE, _INK, _MUTED = "#ffffff", "#1a1a1a", "#5f6368"
_FONT = "font-family='system-ui, Helvetica, Arial, sans-serif' font-size='12'"
_CHAR = 7.1  # pixels that a character of the 12-pixel font takes on average
_WIDEST, _NARROWEST, _TALL = 280.0, 88.0, 38.0  # pixels of a box
_ACROSS, _DOWN, _EDGE, _LINE = 16.0, 32.0, 16.0, 18.0  # pixels between boxes, around all, and of a line of text
_STRIP, _FOOT = 8.0, 5.0  # pixels of the strip at the left of a box, and of that at its foot
_LEAST = 620.0  # pixels across, so that the text above has room
_MOST = 120  # boxes that are drawn; a graph without modules may have thousands
_NAMED = 12  # branches that the key names


@dataclass(frozen=True)
class _Plan:
    """What is drawn and where, in pixels; boxes by their index in ``shown``."""

    graph: Graph
    tree: Sequence[Box]
    shown: Sequence[int]  # indices of boxes
    looks: Looks
    edges: dict[tuple[int, int], bool]  # whether a result goes that way, or it is order only
    widths: Sequence[float]
    places: Sequence[tuple[float, float]]  # left, top
    ways: dict[tuple[int, int], float]  # of edges that pass other rows: how far right, to be beside their boxes
    marked: Sequence[bool]  # holds a part of the critical path

    def box(self, n: int) -> Box:
        return self.tree[self.shown[n]]

    def knotted(self, n: int) -> bool:
        """Whether most of it is not series-parallel."""
        return 2 * self.looks.knotted[self.shown[n]] > len(self.box(n).operators)


def graph_svg(graph: Graph, tree: Sequence[Box], opened: Collection[str]) -> str:
    """The boxes in rows, each below the boxes that it depends on, as an SVG document on a light page.

    Args:
        opened: the paths of the boxes that are open, from the outside in; "" is the model.
    """
    every = _shown(tree, opened)
    plan = _planned(graph, tree, every[:_MOST])
    boxes = [(x, x + width) for (x, _), width in zip(plan.places, plan.widths, strict=True)]
    first = min((x for x, _ in boxes), default=0.0)
    across = max([0.0, *(end for _, end in boxes), *plan.ways.values()]) - first
    wide = max(_LEAST, across + 2 * _EDGE)
    above, top = _above(plan, wide)
    left = len(every) - len(plan.shown)
    tall = max((y + _TALL + _DOWN for _, y in plan.places), default=0.0)
    height = top + tall + (20 if left else 0)
    patterns = _patterns({*map(branch_look, range(len(plan.looks.names))), KNOT})
    body = [
        f"<defs>{''.join(sorted(patterns))}</defs>",
        *above,
        f"<g transform='translate({(wide - across) / 2 - first:.1f} {top:.0f})'>",
        *_lines(plan),
        *_drawn(plan),
        *_shapes(plan),
        "</g>",
        f"<text x='{_EDGE:.0f}' y='{height - 8:.0f}' fill='{_MUTED}'>Boxes that are not drawn: {left:,}.</text>"
        if left
        else "",
    ]
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{wide:.0f}' height='{height:.0f}' "
        f"viewBox='0 0 {wide:.0f} {height:.0f}' role='img' aria-label='{escape(summary(graph))}' {_FONT}>"
        f"<rect width='100%' height='100%' fill='{_PAGE}'/>{''.join(body)}</svg>"
    )


def _planned(graph: Graph, tree: Sequence[Box], shown: Sequence[int]) -> _Plan:
    """Rows around a middle at 0; the first one begins at 0."""
    edges = _edges(graph, tree, shown)
    cost = [_cost(graph, tree[i]) for i in shown]
    most = max(cost, default=0.0) or 1.0
    widths = [max(_NARROWEST, _WIDEST * each / most) for each in cost]
    places: list[tuple[float, float]] = [(0.0, 0.0)] * len(shown)
    depth, ends = [0] * len(shown), []  # the row of each box, and where each row ends
    for at, row in enumerate(_rows(len(shown), edges)):
        x = -(sum(widths[n] + _ACROSS for n in row) - _ACROSS) / 2
        for n in row:
            depth[n], places[n] = at, (x, at * (_TALL + _DOWN))
            x += widths[n] + _ACROSS
        ends.append(x - _ACROSS)
    passed = {(source, target): ends[depth[source] + 1 : depth[target]] for source, target in edges}
    ways = {edge: max(rows) + 4 + 8 * len(rows) for edge, rows in passed.items() if rows}
    critical = set(graph.critical_path)
    marked = [not critical.isdisjoint(tree[i].operators) for i in shown]
    return _Plan(graph, tree, shown, looks(graph, tree), edges, widths, places, ways, marked)


def _above(plan: _Plan, wide: float) -> tuple[list[str], float]:
    """The title, the answer and the key of the marks; and their height."""
    room = int((wide - 2 * _EDGE) / _CHAR)
    title = textwrap.wrap(summary(plan.graph), int(0.9 * room))
    said = textwrap.wrap(f"{plan.graph.answer} {_key(plan)}", room)
    styles = [f"fill='{_INK}' font-weight='600'"] * len(title) + [f"fill='{_MUTED}'"] * len(said)
    parts = [
        f"<text x='{_EDGE:.0f}' y='{20 + n * _LINE:.0f}' {style}>{escape(text)}</text>"
        for n, (style, text) in enumerate(zip(styles, (*title, *said), strict=True))
    ]
    x, y = _EDGE, 14 + _LINE * len(styles)
    for style, text in _swatches(plan):
        after = 22 + len(text) * _CHAR
        if x > _EDGE and x + after > wide - _EDGE:
            x, y = _EDGE, y + _LINE
        parts += _filled(style, f"M{x:.0f} {y:.0f}h14v12h-14z")
        parts.append(f"<text x='{x + 20:.0f}' y='{y + 10:.0f}' fill='{_INK}'>{escape(text)}</text>")
        x += after + 14
    return parts, y + (2 * _LINE if x > _EDGE else _LINE / 2)


def _key(plan: _Plan) -> str:
    most = max((_cost(plan.graph, plan.box(n)) for n in range(len(plan.shown))), default=0.0)
    what = "time" if unit(plan.graph) == "ms" else "MACs (nothing was measured)"
    dashed = "" if all(plan.edges.values()) else " Dashed: order only."
    strips = (
        " Colours: branches; at the left of a box that is in a branch, at the bottom of a box that contains branches."
    )
    named = strips if plan.looks.names else ""
    return f"Width: {what}, the widest box {_cost_text(plan.graph, most)}. Thick: the critical path.{dashed}{named}"


def _swatches(plan: _Plan) -> Iterator[tuple[Look, str]]:
    names = plan.looks.names
    yield from ((branch_look(place), name) for place, name in enumerate(names[:_NAMED]))
    if len(names) > _NAMED:
        yield Look(NEUTRAL), f"{len(names) - _NAMED} branches more"
    if any(plan.knotted(n) for n in range(len(plan.shown))):
        yield (
            KNOT,
            "most of this part is not series-parallel: it does not fork and join, so no branches are found in it",
        )


def _shown(tree: Sequence[Box], opened: Collection[str]) -> list[int]:
    inside = children(tree)
    found, waiting = [], [0]
    while waiting:
        at = waiting.pop()
        if tree[at].module and tree[at].path in opened:
            waiting += reversed(inside[at])
        else:
            found.append(at)
    return found


def _cost(graph: Graph, box: Box) -> float:
    inside = [graph.operators[i] for i in box.operators]
    if unit(graph) == "MACs":
        return float(sum(operator.macs for operator in inside))
    return sum(operator.ms for operator in inside if not math.isnan(operator.ms))


def _cost_text(graph: Graph, cost: float) -> str:
    return time_text(1e6 * cost) if unit(graph) == "ms" else f"{with_prefix(round(cost))}MACs"


def _edges(graph: Graph, tree: Sequence[Box], shown: Sequence[int]) -> dict[tuple[int, int], bool]:
    """Pairs of indices in ``shown``, and whether a result is passed between them."""
    holder = {operator: n for n, i in enumerate(shown) for operator in tree[i].operators}
    found: dict[tuple[int, int], bool] = defaultdict(bool)
    for i, at in holder.items():
        for kind, sources in ((True, graph.operators[i].data), (False, graph.operators[i].order)):
            for source in sources:
                if source in holder and holder[source] != at:
                    found[holder[source], at] |= kind
    return dict(found)


def _rows(count: int, edges: dict[tuple[int, int], bool]) -> list[list[int]]:
    """Boxes by the longest path that leads to them; there are no cycles."""
    after: dict[int, list[int]] = defaultdict(list)
    waits = [0] * count
    for source, target in edges:
        after[source].append(target)
        waits[target] += 1
    rows = []
    row = [n for n in range(count) if not waits[n]]
    while row:
        rows.append(row)
        following = []
        for n in row:
            for target in after[n]:
                waits[target] -= 1
                if not waits[target]:
                    following.append(target)
        row = sorted(following)
    return rows


def _lines(plan: _Plan) -> Iterator[str]:
    for (source, target), data in plan.edges.items():
        x, y = plan.places[source][0] + plan.widths[source] / 2, plan.places[source][1] + _TALL
        end, low = plan.places[target][0] + plan.widths[target] / 2, plan.places[target][1]
        way = plan.ways.get((source, target))
        if way is None:
            path = f"M{x:.0f} {y:.0f}C{x:.0f} {y + _DOWN:.0f} {end:.0f} {low - _DOWN:.0f} {end:.0f} {low:.0f}"
        else:  # beside the boxes of the rows that it passes
            out, back = y + _DOWN, low - _DOWN
            path = (
                f"M{x:.0f} {y:.0f}C{x:.0f} {out:.0f} {way:.0f} {y:.0f} {way:.0f} {out:.0f}"
                f"V{back:.0f}C{way:.0f} {low:.0f} {end:.0f} {back:.0f} {end:.0f} {low:.0f}"
            )
        thick = plan.marked[source] and plan.marked[target] and way is None
        dash = "" if data else " stroke-dasharray='5 4'"
        stroke = f"stroke='{_INK}' stroke-width='2.5'" if thick else f"stroke='{_MUTED}'"
        yield f"<path d='{path}' fill='none' {stroke}{dash}/>"


def _drawn(plan: _Plan) -> Iterator[str]:
    for n, i in enumerate(plan.shown):
        (x, y), width = plan.places[n], plan.widths[n]
        around, inside = plan.looks.around[i], plan.looks.inside[i]
        look = branch_look(around) if around >= 0 else KNOT if plan.knotted(n) else None
        fill = mix(look.colour if look else NEUTRAL, _PAGE, 0.4)
        edge = f"stroke='{_INK}' stroke-width='2.5'" if plan.marked[n] else f"stroke='{_MUTED}'"
        yield f"<rect x='{x:.1f}' y='{y:.0f}' width='{width:.1f}' height='{_TALL:.0f}' rx='4' fill='{fill}' {edge}/>"
        strip = _STRIP if look else 0.0
        if look:
            yield from _filled(look, f"M{x + 1.5:.1f} {y + 1.5:.1f}h{strip:.0f}v{_TALL - 3:.0f}h-{strip:.0f}z")
        part = (width - 3 - strip) / max(1, len(inside))
        for at, place in enumerate(inside):
            corner = f"M{x + 1.5 + strip + at * part:.1f} {y + _TALL - 1.5:.1f}"
            yield from _filled(branch_look(place), f"{corner}v-{_FOOT:.0f}h{part:.1f}v{_FOOT:.0f}z")
        box = plan.box(n)
        outer = f"{plan.tree[box.parent].label}." if box.parent > 0 else ""
        name = box.label if box.label.startswith(outer) else outer + box.label
        room = int((width - strip - 6) / _CHAR)
        for text, line in (
            (name if len(name) <= room else box.label, 14),
            (_cost_text(plan.graph, _cost(plan.graph, box)), 28),
        ):
            cut = text if len(text) <= room else text[: max(1, room - 1)] + "…"
            middle = f"x='{x + (strip + width) / 2:.1f}' y='{y + line:.0f}' text-anchor='middle'"
            yield f"<text {middle} fill='{ink(fill)}'>{escape(cut)}</text>"


def _shapes(plan: _Plan) -> Iterator[str]:
    """The shapes of a box's outputs, right of the line down, if they do not touch the next line."""
    sources = {source for source, _ in plan.edges}
    for n in sorted(sources):
        shape = plan.graph.operators[plan.box(n).operators[-1]].shape
        (x, y), width = plan.places[n], plan.widths[n]
        if len(shape) * _CHAR <= width / 2 + _ACROSS + _NARROWEST / 2 - 12:
            at = f"x='{x + width / 2 + 6:.1f}' y='{y + _TALL + 14:.0f}' fill='{_MUTED}'"
            yield f"<text {at} stroke='{_PAGE}' stroke-width='3' paint-order='stroke'>{escape(shape)}</text>"


def _filled(look: Look, path: str) -> Iterator[str]:
    yield f"<path d='{path}' fill='{mix(look.colour, _PAGE, look.strength)}'/>"
    if look.hatch:
        yield f"<path d='{path}' fill='url(#{_pattern(look)})'/>"


def _pattern(look: Look) -> str:
    return f"kit-graph-{look.colour[1:]}-{HATCHES.index(look.hatch)}"


def _patterns(looks: Iterable[Look]) -> Iterator[str]:
    """The hatches that :func:`_filled` uses."""
    for look in looks:
        if look.hatch:
            lines = f"<path d='{look.hatch}' stroke='{ink(look.colour)}' stroke-opacity='0.5' fill='none'/>"
            size = f"width='{TILE}' height='{TILE}' patternUnits='userSpaceOnUse'"
            yield f"<pattern id='{_pattern(look)}' {size}>{lines}</pattern>"
