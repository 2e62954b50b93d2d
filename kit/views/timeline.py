"""The timeline: every event of a trace, on a canvas that pans and zooms in the notebook.

Synced widget state is saved whole into the notebook, so the columns of a large trace do not go there: the page asks for
them, and one binary message brings them, 28 bytes an event. What is synced is a thinned copy of at most 300 kB, which
says how much it leaves out; a notebook reopened without its kernel draws that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets

from kit.comparison import Comparison
from kit.errors import KitError, TraceError
from kit.trace.columns import Int32, Int64, Trace, stack
from kit.trace.lanes import Level, depths, every_event, thin
from kit.views.palette import Look, legend, look
from kit.views.static import branches, categories, figure_svg, groups, human, table

COPY_BYTES = 300_000  # the most that the synced copy may hold
_COPY_EVENTS = 6_000  # 168 kB of columns; the names come on top
_TABLE_ROWS, _TABLE_NAME = 200, 120  # of the table twin on the page; :meth:`Timeline.table` cuts nothing


def timeline(what: Trace | Comparison) -> Timeline:
    """An interactive timeline; lanes of one ``group`` stand together under its name.

    A comparison puts its approaches one above the other on one time axis, each as the spans of its most typical
    measured round and all starting at 0. A trace is shown whole.

    Raises:
        KitError: it is neither.
    """
    if isinstance(what, Comparison):
        what = stack(what.traces)
    if not isinstance(what, Trace):
        raise KitError(
            f"a timeline shows a Trace or a Comparison, not a {type(what).__name__}: make one with kit.record or "
            "kit.compare, or read a file with kit.load_trace."
        )
    return Timeline(what)


class Timeline(anywidget.AnyWidget):
    """A trace on a canvas: wheel zooms, drag pans, hover names, click selects; F fits, the arrows walk the events."""

    _esm = Path(__file__).parent / "timeline.js"
    copy = traitlets.Dict(read_only=True).tag(sync=True)  # what :func:`columns` returns, thinned to COPY_BYTES
    view = traitlets.Tuple(traitlets.Float(), traitlets.Float()).tag(sync=True)  # visible ns, from the trace's start
    selected = traitlets.Int(-1).tag(sync=True)  # index of an event of the trace, or -1

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._row = depths(trace)
        copy = thinned(trace, self._row)
        super().__init__(view=(0.0, float(max(1, copy["wall"]))))
        self.set_trait("copy", copy)
        self.on_msg(self._answer)

    def table(self) -> list[dict[str, str | int]]:
        """The table twin: ``group, lane, name, count, total_ns`` of the top names of each lane."""
        return table(self.trace)

    def _answer(self, _widget: object, content: Any, _buffers: object) -> None:
        if isinstance(content, dict) and content.get("ask") == "columns":
            full = columns(self.trace, self._row, every_event(self.trace))
            self.send({"columns": {k: v for k, v in full.items() if k != "buffers"}}, full["buffers"])

    @traitlets.validate("view")
    def _validate_view(self, proposal: Any) -> tuple[float, float]:
        begin, end = proposal["value"]
        if not (np.isfinite(begin) and np.isfinite(end) and begin < end):
            raise TraceError(f"a view of {begin} to {end} ns shows nothing: give (begin, end) with begin < end.")
        return begin, end

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        return {**data, "text/plain": repr(self), "image/svg+xml": figure_svg(self.trace)}, metadata

    def __repr__(self) -> str:
        return f"Timeline({len(self.trace)} events in {len(self.trace.lanes)} lanes)"


def thinned(trace: Trace, row: Int32) -> dict[str, Any]:
    """The columns of as many events as fit into ``COPY_BYTES``."""
    limit = _COPY_EVENTS
    while True:
        copy = columns(trace, row, thin(trace, row, limit))
        if limit == 0 or _size(copy) <= COPY_BYTES:
            return copy
        limit //= 2


def columns(trace: Trace, row: Int32, level: Level) -> dict[str, Any]:
    """What timeline.js reads: where things go and how they look as JSON, and the events of a level as binary columns.

    They are sorted by lane, row and start, so that a row is a slice. ``buffers`` are, little-endian: the first place of
    each row (uint32, and the end of the last); then per event the start (float64, ns from the trace's start, exact),
    the duration (float64, ns), its kind (uint32, of ``kinds``), its index in the trace and its weight (uint32 each).
    """
    heights = np.ones(len(trace.lanes), np.int64)  # a lane without events keeps an empty row
    np.maximum.at(heights, trace.lane, row + 1)
    strip = (np.cumsum(heights) - heights)[trace.lane[level.event]] + row[level.event]
    order = np.lexsort((level.start_ns, strip))
    level = Level(*(column[order] for column in level))
    first = np.searchsorted(strip[order], np.arange(int(heights.sum()) + 1))
    kinds, kind = _kinds(trace, level.event)
    start = int(trace.start_ns.min()) if len(trace) else 0
    wall = int(trace.end_ns.max()) - start if len(trace) else 0
    looks, places = _numbered(look for _, _, look in kinds)
    lanes = [
        {"label": lane.label, "group": lane.group, "rows": rows}
        for lane, rows in zip(trace.lanes, heights.tolist(), strict=True)
    ]
    return {
        "total": len(trace),
        "count": len(level.event),
        "wall": wall,
        "summary": f"Timeline of {len(trace)} events in {len(trace.lanes)} lanes, {human(wall)} long",
        "lanes": lanes,
        "groups": [{"name": group.name, "start": group.start_ns, "wall": group.wall_ns} for group in groups(trace)],
        "kinds": [[name, category, place] for (name, category, _), place in zip(kinds, places, strict=True)],
        "looks": looks,
        "legend": [[label, *style] for label, style in legend(categories(trace), branches(trace))],
        "table": [_table_row(line) for line in table(trace)[:_TABLE_ROWS]],
        "buffers": [
            first.astype("<u4").tobytes(),
            (level.start_ns - start).astype("<f8").tobytes(),
            level.duration_ns.astype("<f8").tobytes(),
            *(column.astype("<u4").tobytes() for column in (kind, level.event, level.weight)),
        ],
    }


def _kinds(trace: Trace, events: Int64) -> tuple[list[tuple[str, str, Look]], Int64]:
    """The different (name, category) pairs of these events, with their looks, and the pair of each event."""
    key = trace.category[events].astype(np.int64) * max(1, len(trace.names)) + trace.name[events]
    pairs, kind = np.unique(key, return_inverse=True)
    tasks = branches(trace)
    kinds = []
    for category, name in (divmod(pair, len(trace.names)) for pair in pairs.tolist()):
        style = look(trace.categories[category], trace.names[name], tasks)
        kinds.append((trace.names[name], trace.categories[category], style))
    return kinds, kind


def _numbered(looks: Iterable[Look]) -> tuple[list[Look], list[int]]:
    """The different looks, and the number of each one given."""
    numbers: dict[Look, int] = {}
    places = [numbers.setdefault(look, len(numbers)) for look in looks]
    return list(numbers), places


def _table_row(line: dict[str, str | int]) -> list[str | int]:
    name = str(line["name"])
    cut = name if len(name) <= _TABLE_NAME else name[:_TABLE_NAME] + "…"
    return [line["group"], line["lane"], cut, line["count"], line["total_ns"]]


def _size(copy: dict[str, Any]) -> int:
    """Bytes of a copy as it travels: its JSON and its buffers."""
    text = json.dumps({k: v for k, v in copy.items() if k != "buffers"})
    return len(text) + sum(len(buffer) for buffer in copy["buffers"])
