"""The picture of a graph as a still (SVG), for where widgets are absent: the boxes that show at first. No Jupyter."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from kit.text import milliseconds, with_prefix
from kit.views.boxes import Box, branch_of, children, opened_at_first, shared_branch, summary, unit
from kit.views.palette import NEUTRAL, branch_look, ink, mix

if TYPE_CHECKING:
    from kit.graphs import Graph

_PAGE, _INK, _MUTED = "#ffffff", "#1a1a1a", "#5f6368"
_FONT = "font-family='system-ui, Helvetica, Arial, sans-serif' font-size='12'"
_CHAR = 6.6  # pixels that a character of the 12-pixel font takes on average
_WIDEST, _NARROWEST, _TALL = 280.0, 76.0, 34.0  # pixels of a box
_ACROSS, _DOWN, _EDGE, _HEAD = 16.0, 30.0, 16.0, 52.0  # pixels between boxes, around all, and for the text above
_MOST = 120  # boxes that are drawn; a graph without modules may have thousands


def graph_svg(graph: Graph, tree: Sequence[Box]) -> str:
    """The outer boxes in rows, each below all that it depends on, as an SVG document on a light page."""
    every = _shown(tree)
    shown = every[:_MOST]
    edges = _edges(graph, tree, shown)
    rows = _rows(len(shown), edges)
    cost = [_cost(graph, tree[i]) for i in shown]
    most = max(cost, default=0.0) or 1.0
    widths = [max(_NARROWEST, _WIDEST * each / most) for each in cost]
    wide = max((sum(widths[n] + _ACROSS for n in row) for row in rows), default=0.0) + 2 * _EDGE
    wide = max(wide, 560.0)
    places: list[tuple[float, float]] = [(0.0, 0.0)] * len(shown)
    for depth, row in enumerate(rows):
        x = (wide - sum(widths[n] + _ACROSS for n in row) + _ACROSS) / 2
        for n in row:
            places[n] = (x, _HEAD + depth * (_TALL + _DOWN))
            x += widths[n] + _ACROSS
    critical = set(graph.critical_path)
    marked = [not critical.isdisjoint(tree[i].operators) for i in shown]
    left = len(every) - len(shown)
    height = _HEAD + len(rows) * (_TALL + _DOWN) + (20 if left else 0)
    title = summary(graph)
    body = [
        f"<text x='{_EDGE:.0f}' y='20' fill='{_INK}' font-weight='600'>{escape(title)}</text>",
        f"<text x='{_EDGE:.0f}' y='38' fill='{_MUTED}'>{escape(_key(graph, most))}</text>",
        *_lines(edges, places, widths, marked),
        *_drawn(graph, tree, shown, places, widths, marked),
        f"<text x='{_EDGE:.0f}' y='{height - 8:.0f}' fill='{_MUTED}'>Boxes that are not drawn: {left:,}.</text>"
        if left
        else "",
    ]
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{wide:.0f}' height='{height:.0f}' "
        f"viewBox='0 0 {wide:.0f} {height:.0f}' role='img' aria-label='{escape(title)}' {_FONT}>"
        f"<rect width='100%' height='100%' fill='{_PAGE}'/>{''.join(body)}</svg>"
    )


def _key(graph: Graph, most: float) -> str:
    widest = milliseconds(most) if unit(graph) == "ms" else f"{with_prefix(round(most))}MACs"
    what = "time" if unit(graph) == "ms" else "MACs (nothing was measured)"
    return f"Width: {what}, the widest box {widest}. Thick: the critical path. Dashed: order only."


def _shown(tree: Sequence[Box]) -> list[int]:
    opened = set(opened_at_first(tree))
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


def _edges(graph: Graph, tree: Sequence[Box], shown: Sequence[int]) -> dict[tuple[int, int], bool]:
    """Pairs of places in ``shown``, and whether a result goes that way."""
    holder = {operator: n for n, i in enumerate(shown) for operator in tree[i].operators}
    found: dict[tuple[int, int], bool] = defaultdict(bool)
    for i, at in holder.items():
        for kind, sources in ((True, graph.operators[i].data), (False, graph.operators[i].order)):
            for source in sources:
                if source in holder and holder[source] != at:
                    found[holder[source], at] |= kind
    return dict(found)


def _rows(count: int, edges: dict[tuple[int, int], bool]) -> list[list[int]]:
    """Boxes by the longest way that leads to them; there are no circles."""
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


def _lines(
    edges: dict[tuple[int, int], bool],
    places: Sequence[tuple[float, float]],
    widths: Sequence[float],
    marked: Sequence[bool],
) -> Iterator[str]:
    for (source, target), data in edges.items():
        x, y = places[source][0] + widths[source] / 2, places[source][1] + _TALL
        end, low = places[target][0] + widths[target] / 2, places[target][1]
        away = low - y > _DOWN + 1  # it passes other rows: beside their boxes
        bend = 0.8 * _WIDEST + 12 * (low - y) / (_TALL + _DOWN) if away else 0.0
        path = f"M{x:.0f} {y:.0f}C{x + bend:.0f} {y + _DOWN:.0f} {end + bend:.0f} {low - _DOWN:.0f} {end:.0f} {low:.0f}"
        thick = marked[source] and marked[target] and not away
        dash = "" if data else " stroke-dasharray='5 4'"
        stroke = f"stroke='{_INK}' stroke-width='2.5'" if thick else f"stroke='{_MUTED}'"
        yield f"<path d='{path}' fill='none' {stroke}{dash}/>"


def _drawn(
    graph: Graph,
    tree: Sequence[Box],
    shown: Sequence[int],
    places: Sequence[tuple[float, float]],
    widths: Sequence[float],
    marked: Sequence[bool],
) -> Iterator[str]:
    within = branch_of(graph)
    for n, i in enumerate(shown):
        box, (x, y) = tree[i], places[n]
        branch = shared_branch(within, box.operators)
        colour = branch_look(branch[1]).colour if branch else NEUTRAL
        fill = mix(colour, _PAGE, 0.4)
        edge = f"stroke='{_INK}' stroke-width='2.5'" if marked[n] else f"stroke='{_MUTED}'"
        size = f"width='{widths[n]:.1f}' height='{_TALL:.0f}'"
        yield f"<rect x='{x:.1f}' y='{y:.0f}' {size} rx='4' fill='{fill}' {edge}/>"
        cost = _cost(graph, box)
        below = milliseconds(cost) if unit(graph) == "ms" else f"{with_prefix(round(cost))}MACs"
        room = int((widths[n] - 8) / _CHAR)
        outer = f"{tree[box.parent].label}." if box.parent > 0 else ""
        name = box.label if box.label.startswith(outer) else outer + box.label
        for text, line in ((name if len(name) <= room else box.label, 14), (below, 28)):
            cut = text if len(text) <= room else text[: max(1, room - 1)] + "…"
            middle = f"x='{x + widths[n] / 2:.1f}' y='{y + line:.0f}' text-anchor='middle'"
            yield f"<text {middle} fill='{ink(fill)}'>{escape(cut)}</text>"
