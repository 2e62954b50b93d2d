"""The picture of a graph: boxes that can be opened, side by side if independent, with pan and zoom.

The widget's state is saved in the notebook, so for a large graph it holds only the outer boxes, at most 300 kB; the
page requests the rest in one message. :meth:`GraphPicture.to_html` writes a page that needs neither kernel nor network.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from kit.errors import KitError
from kit.text import counted
from kit.views.boxes import Box, boxes, looks, opened_at_first, summary, unit
from kit.views.graph_still import graph_svg
from kit.views.page import module, page
from kit.views.palette import KNOT, branch_look
from kit.views.static import Figure

if TYPE_CHECKING:
    from kit.graphs import Graph

COPY_BYTES = 300_000  # the most that the synced copy may hold


def graph_picture(graph: Graph) -> GraphPicture:
    """The picture of a graph from ``kit.graph``: one box per module until it is opened; its width shows its time.

    >>> from kit import models
    >>> kit.graph_picture(kit.graph(models.inception_block(8, 8), torch.rand(1, 8, 9, 9)))
    GraphPicture(Branches, 23 operators)

    Raises:
        KitError: ``graph`` is not a :class:`kit.graphs.Graph`.
    """
    if not all(hasattr(graph, name) for name in ("operators", "regions", "critical_path")):
        raise KitError(
            f"a picture shows a Graph, not a {type(graph).__name__}: make one with kit.graph(model, inputs)."
        )
    return GraphPicture(graph)


def script() -> str:
    """The JavaScript of the page, with the layout library before it."""
    library = (Path(__file__).parent / "vendor" / "dagre.min.js").read_text(encoding="utf-8")
    return module("graph_picture.js", library.partition("//# sourceMappingURL")[0])


class GraphPicture(anywidget.AnyWidget):
    """A graph as boxes: wheel zooms, drag pans, hover describes a box, double click or Enter opens it."""

    _esm = script()
    copy = traitlets.Dict(read_only=True).tag(sync=True)  # what :func:`columns` returns, of at most COPY_BYTES
    opened = traitlets.List(traitlets.Unicode()).tag(sync=True)  # paths of the open boxes; "" is the model itself
    selected = traitlets.Unicode("").tag(sync=True)  # path of a box; "" is none

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._boxes = boxes(graph)
        super().__init__(opened=opened_at_first(self._boxes))
        self.set_trait("copy", fitting(graph, self._boxes))
        self.on_msg(self._answer)

    def figure(self) -> Figure:
        """A still picture with the boxes open that are open now, for viewers without widgets."""
        return Figure(graph_svg(self.graph, self._boxes, self.opened))

    def to_html(self, path: str | Path) -> None:
        """Write an HTML page with every operator, which needs neither kernel nor network.

        Raises:
            KitError: the file cannot be written.
        """
        full = columns(self.graph, self._boxes)
        traits = {"copy": {**full, "buffers": []}, "opened": self.opened, "selected": self.selected}
        written = page(script(), traits, self.figure().svg, full["summary"])
        try:
            Path(path).write_bytes(written)
        except OSError as error:
            raise KitError(f"cannot write {path}: {error}.") from error

    def _answer(self, _widget: object, content: Any, _buffers: object) -> None:
        if isinstance(content, dict) and content.get("ask") == "columns":
            self.send({"columns": columns(self.graph, self._boxes)})

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        return {**data, "text/plain": str(self.graph), "image/svg+xml": self.figure().svg}, metadata

    def __repr__(self) -> str:
        return f"GraphPicture({self.graph.name}, {counted(len(self.graph.operators), 'operator')})"


def fitting(graph: Graph, tree: Sequence[Box]) -> dict[str, Any]:
    """The columns with as many levels of boxes as fit into ``COPY_BYTES``; at least the model as one box."""
    deepest = max(_depths(tree))
    for depth in range(deepest, -1, -1):
        copy = columns(graph, tree, depth)
        if len(json.dumps(copy)) <= COPY_BYTES:
            break
    return copy


def columns(graph: Graph, tree: Sequence[Box], depth: int | None = None) -> dict[str, Any]:
    """What graph_picture.js reads, as plain data; boxes deeper than ``depth`` are left out.

    ``parts`` are the operators, or the boxes around operators that are left out: ``[parts whose results it takes, parts
    that only come before, shape, kind, operator's name]``. ``boxes``, each before what is in it: ``[path, label,
    parent, part or -1, ms or None, MACs, operators, on the critical path, branch around it or -1, branches in it,
    operators that are not series-parallel]``. A branch is a place in ``branches``, which has rows of ``[name, colour,
    strength, hatch]``.
    """
    depths = _depths(tree)
    kept = [i for i, d in enumerate(depths) if depth is None or d <= depth]
    number = {i: n for n, i in enumerate(kept)}
    holding = {tree[i].parent for i in kept}
    parts = [i for i in kept if i not in holding]  # boxes with nothing in them here
    part_of = {operator: n for n, i in enumerate(parts) for operator in tree[i].operators}
    place = {i: n for n, i in enumerate(parts)}
    critical, branches = set(graph.critical_path), looks(graph, tree)
    path = [part_of[i] for i in graph.critical_path]
    return {
        "name": graph.name,
        "summary": summary(graph),
        "answer": graph.answer,
        "text": str(graph),
        "unit": unit(graph),
        "more": len(kept) < len(tree),
        "parts": [_part(graph, tree[i], n, part_of) for n, i in enumerate(parts)],
        "path": [at for n, at in enumerate(path) if not n or path[n - 1] != at],
        "boxes": [
            [
                tree[i].path,
                tree[i].label,
                number.get(tree[i].parent, -1),
                place.get(i, -1),
                _ms(graph, tree[i]),
                sum(graph.operators[j].macs for j in tree[i].operators),
                len(tree[i].operators),
                int(not critical.isdisjoint(tree[i].operators)),
                branches.around[i],
                branches.inside[i],
                branches.knotted[i],
            ]
            for i in kept
        ],
        "branches": [[name, *branch_look(place)] for place, name in enumerate(branches.names)],
        "knot": list(KNOT),
    }


def _part(graph: Graph, box: Box, number: int, part_of: dict[int, int]) -> list[Any]:
    inside = [graph.operators[i] for i in box.operators]
    data = {part_of[i] for operator in inside for i in operator.data} - {number}
    order = {part_of[i] for operator in inside for i in operator.order} - {number} - data
    one = inside[0] if len(inside) == 1 else None
    return [
        sorted(data),
        sorted(order),
        inside[-1].shape if inside else "",
        one.kind if one else "",
        one.name if one else "",
    ]


def _ms(graph: Graph, box: Box) -> float | None:
    """The measured milliseconds, rounded; None if not measured, since JSON has no NaN."""
    known = [graph.operators[i].ms for i in box.operators if not math.isnan(graph.operators[i].ms)]
    return float(f"{sum(known):.4g}") if known else None


def _depths(tree: Sequence[Box]) -> list[int]:
    found: list[int] = []
    for box in tree:
        found.append(found[box.parent] + 1 if found else 0)
    return found
