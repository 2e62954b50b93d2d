"""The timeline: every event of a trace on a canvas in the notebook, with pan and zoom.

The widget's state is saved in the notebook, so it does not hold the columns of a large trace: the page requests them,
and gets them in one binary message, 28 bytes per event, 8 per arrow, 16 per instant or value of a counter. It also
requests the arguments of the event that is selected. The saved state is a thinned copy of at most 300 kB, which says
how much it leaves out; a notebook that is reopened without its kernel draws this copy, without arguments.
:meth:`Timeline.to_html` writes a page that needs neither kernel nor network.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets

from kit.errors import KitError, TraceError
from kit.measuring.comparison import Comparison
from kit.text import time_text
from kit.trace.columns import Int32, Int64, Trace, stack
from kit.trace.lanes import depths
from kit.trace.links import links
from kit.trace.metrics import busy_ns, lane_concurrency, time_at_least, wall_ns
from kit.views.details import described
from kit.views.facts import (
    Group,
    Said,
    Sayings,
    branch_of,
    branches,
    busy_lanes,
    drawn_rows,
    groups,
    lane_meaning,
    left_out,
    palette,
    part_of,
    parts_of,
    said_of,
    table,
    usual_colours,
)
from kit.views.levels import Level, every_event
from kit.views.page import module, standalone
from kit.views.palette import MODES, Look
from kit.views.points import packed_points, points_text
from kit.views.static import Figure, figure_svg

COPY_BYTES = 300_000  # the most that the synced copy may hold
HTML_BYTES = 64_000_000  # the most that a page of its own may hold: about 1,700,000 events
WHOLE = 5_000_000  # the most events that are sent to a page: 140 MB; of a larger trace it gets the copy only
_COPY_EVENTS = 6_000  # 168 kB of columns; the names come on top
_PARTS_A_ROW = 3  # of the copy at least: it has a third as many rows, of the busiest lanes, where there are more
_TABLE_ROWS, _TABLE_NAME = 200, 120  # of the table twin on the page; :meth:`Timeline.table` cuts nothing


def timeline(what: Trace | Comparison) -> Timeline:
    """An interactive timeline; lanes of one ``group`` are together under its name.

    A comparison is shown with its approaches one above the other on one time axis, aligned where their branches fork.
    Each approach shows the spans of one measured call whose time is near the median. Its header gives the time of this
    call, and the verdict of the table on all rounds. A trace is shown as a whole.

    >>> from kit.trace import Event, Lane
    >>> a, b = Lane(1, 1, "worker 0"), Lane(1, 2, "worker 1")
    >>> trace = kit.Trace.build([Event("left", "task", 0, 300, a), Event("right", "task", 200, 300, b)])
    >>> kit.timeline(trace)
    Timeline(2 events in 2 lanes)
    >>> kit.timeline(trace).to_html("timeline.html")  # one page, without Jupyter

    Raises:
        KitError: ``what`` is neither a trace nor a comparison.
    """
    said: Sayings = {}
    if isinstance(what, Comparison):
        said, what = said_of(what), stack(what.traces)
    if not isinstance(what, Trace):
        raise KitError(
            f"a timeline shows a Trace or a Comparison, not a {type(what).__name__}: make one with kit.record or "
            "kit.compare, or read a file with kit.load_trace."
        )
    return Timeline(what, said)


class Timeline(anywidget.AnyWidget):
    """A trace on a canvas: wheel zooms, drag pans, shift-drag measures, hover names, click selects, ``/`` searches."""

    _esm = module("timeline.js")
    copy = traitlets.Dict(read_only=True).tag(sync=True)  # what :func:`columns` returns, thinned to COPY_BYTES
    view = traitlets.Tuple(traitlets.Float(), traitlets.Float()).tag(sync=True)  # visible ns, from the trace's start
    selected = traitlets.Int(-1).tag(sync=True)  # index of an event of the trace, or -1
    selection = traitlets.Tuple(traitlets.Float(), traitlets.Float(), allow_none=True, default_value=None).tag(
        sync=True
    )
    lanes = traitlets.List(traitlets.Int()).tag(sync=True)  # those to measure `selection` on, by index; none means all
    measured = traitlets.Dict(read_only=True).tag(sync=True)  # what :func:`measure` finds in `selection`
    ruler = traitlets.Float(None, allow_none=True).tag(sync=True)  # where the ruler is set, ns from the trace's start
    colour = traitlets.Enum(MODES, "branch").tag(sync=True)  # what the colours stand for
    # Whether each group has a time axis of its own; then `view` is the part in sight if all were as long as the trace.
    own_axes = traitlets.Bool(False).tag(sync=True)

    def __init__(self, trace: Trace, said: Sayings | None = None) -> None:
        self.trace = trace
        self._said = said or {}
        self._row = depths(trace)
        self._links = links(trace)
        copy, self._level = _fitting(trace, self._row, self._links, self._said)
        super().__init__(view=(0.0, float(max(1, copy["wall"]))), colour=usual_colours(trace))
        self.set_trait("copy", copy)
        self.on_msg(self._answer)

    def table(self) -> list[dict[str, str | int]]:
        """The timeline as a table: ``group, lane, name, count, total_ns`` of the top names of each lane."""
        return table(self.trace)

    def figure(self) -> Figure:
        """A still picture of the whole trace, for viewers without widgets."""
        return Figure(figure_svg(self.trace, row=self._row, level=self._level, said=self._said))

    def to_html(self, path: str | Path) -> None:
        """Write an HTML page with every event, which needs neither kernel nor network.

        Raises:
            TraceError: the page would be larger than ``HTML_BYTES``, or cannot be written.
        """
        state = {"view": self.view, "colour": self.colour, "own_axes": self.own_axes}
        page = standalone(self._full(), state, self.figure().svg)
        if len(page) > HTML_BYTES:
            raise TraceError(
                f"a page of all {len(self.trace):,} events would hold {len(page) / 1e6:,.0f} MB, more than the "
                f"{HTML_BYTES / 1e6:,.0f} MB that every browser can open: select a part of the trace with "
                "trace.select, or save it with kit.save_trace and open that file in Perfetto."
            )
        try:
            Path(path).write_bytes(page)
        except OSError as error:
            raise TraceError(f"cannot write {path}: {error}.") from error

    def _full(self) -> dict[str, Any]:
        return columns(self.trace, self._row, every_event(self.trace), self._links, said=self._said)

    @traitlets.observe("selection", "lanes")
    def _measure(self, _change: object) -> None:
        asked = [self.selection, list(self.lanes)]
        if self.selection is None:
            self.set_trait("measured", {})
        elif self.measured.get("asked") != asked:
            found = measure(self.trace, self.selection, self.lanes)
            self.set_trait("measured", {"asked": asked, "window": self.selection, "groups": found})

    def _answer(self, _widget: object, content: Any, _buffers: object) -> None:
        if not isinstance(content, dict):
            return
        event = content.get("event")
        if content.get("ask") == "columns" and len(self.trace) <= WHOLE:
            full = self._full()
            self.send({"columns": {k: v for k, v in full.items() if k != "buffers"}}, full["buffers"])
        elif content.get("ask") == "args" and type(event) is int and 0 <= event < len(self.trace):
            self.send({"args": described(self.trace.args(event)), "event": event})

    @traitlets.validate("view", "selection")
    def _validate_window(self, proposal: Any) -> tuple[float, float] | None:
        if proposal["value"] is None:
            return None
        begin, end = proposal["value"]
        if not (np.isfinite(begin) and np.isfinite(end) and begin < end):
            raise TraceError(
                f"{proposal['trait'].name} of {begin} to {end} ns is empty: give (begin, end) with begin < end."
            )
        return begin, end

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        return {**data, "text/plain": repr(self), "image/svg+xml": self.figure().svg}, metadata

    def __repr__(self) -> str:
        return repr(self.trace).replace("Trace", "Timeline", 1)


def thinned(trace: Trace, row: Int32) -> dict[str, Any]:
    """The columns of as many events as fit into ``COPY_BYTES``."""
    return _fitting(trace, row, links(trace))[0]


def _fitting(trace: Trace, row: Int32, arrows: Int64, said: Sayings | None = None) -> tuple[dict[str, Any], Level]:
    """A copy of at most ``COPY_BYTES``, and its level."""
    limit = _COPY_EVENTS
    while True:
        rows = drawn_rows(trace, row, limit // _PARTS_A_ROW)
        level = part_of(trace, row, rows, limit)
        copy = columns(trace, row, level, arrows, rows, said, limit // 2)
        if limit == 0 or _size(copy) <= COPY_BYTES:
            return copy, level
        limit //= 2


def measure(trace: Trace, window: tuple[float, float], lanes: Sequence[int] = ()) -> list[dict[str, Any]]:
    """The metrics of a window (ns from the trace's start), for each group with any of these lanes.

    Groups are measured separately, since the approaches of a comparison did not run at the same time. Returns, in ns,
    ``name, busy, sum`` (of the lanes' busy times), ``overlap, branches``; the last is a list of ``[branch, sum]``.
    """
    part = _clip(trace, window)
    wanted: dict[str, list[int]] = {}
    for i in sorted(set(lanes)) or range(len(trace.lanes)):
        wanted.setdefault(trace.lanes[i].group, []).append(i)
    found = []
    for group, members in wanted.items():
        inside = part.select(lanes=members)
        tasks = inside.select(categories=["task"])
        sums = [[name, int(tasks.duration_ns[tasks.name == tasks.names.index(name)].sum())] for name in branches(tasks)]
        steps = lane_concurrency(inside)
        lanes_sum = int((np.diff(steps.time_ns) * steps.level[:-1]).sum())
        numbers = {"busy": busy_ns(inside), "sum": lanes_sum, "overlap": time_at_least(steps, 2), "branches": sums}
        found.append({"name": group, **numbers})
    return found


def _clip(trace: Trace, window: tuple[float, float]) -> Trace:
    """The parts of the events that lie in a window, to whole nanoseconds."""
    first = int(trace.start_ns.min()) if len(trace) else 0
    begin, end = (first + round(edge) for edge in window)
    inside = np.flatnonzero((trace.start_ns < end) & (trace.end_ns > begin))
    start = np.maximum(trace.start_ns[inside], begin)
    return parts_of(trace, inside, start, np.minimum(trace.end_ns[inside], end) - start)


def columns(
    trace: Trace,
    row: Int32,
    level: Level,
    arrows: Int64,
    rows: Int64 | None = None,
    said: Sayings | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """The data for timeline.js: layout and looks as JSON, and the events of a level as binary columns.

    They are sorted by lane, row and start, so that a row is a slice. ``buffers`` are, little-endian: the first place of
    each row (uint32, and the end of the last); then per event the start (float64, ns from the trace's start, exact),
    the duration (float64, ns), its kind (uint32, of ``kinds``), its index in the trace and its weight (uint32 each);
    then per arrow the places of both events (uint32). Of ``arrows`` (k, 2), those between events of the level are
    included. Then come the columns of :func:`~kit.views.points.packed_points`, as many as its ``limit`` allows.
    If only some rows of each lane are drawn, ``rows`` says how many, and the level has no others. ``said`` has the
    texts of the groups' headers, beside the time that each group took.
    """
    found = groups(trace)
    heights = drawn_rows(trace, row) if rows is None else rows
    strip = (np.cumsum(heights) - heights)[trace.lane[level.event]] + row[level.event]
    order = np.lexsort((level.start_ns, strip))
    level = Level(*(column[order] for column in level))
    place = np.full(len(trace), -1, np.int64)
    place[level.event] = np.where(level.weight == 1, np.arange(len(order)), -1)
    ends = place[arrows]
    first = np.searchsorted(strip[order], np.arange(int(heights.sum()) + 1))
    palettes = [palette(trace, mode) for mode in MODES]
    kinds, kind = _kinds(trace, level.event)
    start = int(trace.start_ns.min()) if len(trace) else 0
    wall = wall_ns(trace)
    looks, places = _numbered(
        each.look(category, name, branch) for name, category, branch in kinds for each in palettes
    )
    lanes = [
        {"index": i, "label": lane.label, "meaning": lane_meaning(trace, lane), "group": lane.group, "rows": count}
        for i, (lane, count) in enumerate(zip(trace.lanes, heights.tolist(), strict=True))
        if count
    ]
    points, more = packed_points(trace, [lane["index"] for lane in lanes], limit)
    also = points_text(trace)
    return {
        **points,
        "thin": (points["fewer"] or len(level.event) < len(trace)) and len(trace) <= WHOLE,
        "total": len(trace),
        "count": len(level.event),
        "more": len(level.event) < len(trace) <= WHOLE,
        "wall": wall,
        "size": trace.size,
        "also": also,
        "summary": f"Timeline of {', '.join(filter(None, [trace.size, also]))}, {time_text(wall)} long",
        "left_out": left_out(trace, row, heights),
        "busy": [round(lanes, 3) for lanes in busy_lanes(trace).tolist()] if len(found) < 2 else [],
        "lanes": lanes,
        "groups": [_group(each, (said or {}).get(each.name)) for each in found],
        "kinds": [[name, category, *places[3 * i : 3 * i + 3]] for i, (name, category, _) in enumerate(kinds)],
        "looks": looks,
        "legend": [[[label, *style] for label, style in each.legend()] for each in palettes],
        "table": [_table_row(line) for line in table(trace)[:_TABLE_ROWS]],
        "buffers": [
            first.astype("<u4").tobytes(),
            (level.start_ns - start).astype("<f8").tobytes(),
            level.duration_ns.astype("<f8").tobytes(),
            *(column.astype("<u4").tobytes() for column in (kind, level.event, level.weight)),
            ends[ends.min(axis=1, initial=0) >= 0].astype("<u4").tobytes(),
            *more,
        ],
    }


def _kinds(trace: Trace, events: Int64) -> tuple[list[tuple[str, str, int]], Int64]:
    """The distinct (name, category, branch) of these events, and the index of each event's kind among them."""
    shape = (len(branches(trace)) + 1, max(1, len(trace.categories)), max(1, len(trace.names)))
    parts = (branch_of(trace)[events] + 1, trace.category[events], trace.name[events])
    different, kind = np.unique(np.ravel_multi_index(parts, shape), return_inverse=True)
    rows = zip(*(part.tolist() for part in np.unravel_index(different, shape)), strict=True)
    return [(trace.names[name], trace.categories[category], branch - 1) for branch, category, name in rows], kind


def _group(group: Group, said: Said | None) -> dict[str, Any]:
    told = {} if said is None else {"said": said.text, "decided": said.decided}
    return {"name": group.name, "start": group.start_ns, "wall": group.wall_ns, **told}


def _numbered(looks: Iterable[Look]) -> tuple[list[Look], list[int]]:
    """The distinct looks, and the index of each given look among them."""
    numbers: dict[Look, int] = {}
    places = [numbers.setdefault(look, len(numbers)) for look in looks]
    return list(numbers), places


def _table_row(line: dict[str, str | int]) -> list[str | int]:
    name = str(line["name"])
    cut = name if len(name) <= _TABLE_NAME else name[:_TABLE_NAME] + "…"
    return [line["group"], line["lane"], cut, line["count"], line["total_ns"]]


def _size(copy: dict[str, Any]) -> int:
    """Size of a copy in bytes: its JSON and its buffers."""
    text = json.dumps({k: v for k, v in copy.items() if k != "buffers"})
    return len(text) + sum(len(buffer) for buffer in copy["buffers"])
