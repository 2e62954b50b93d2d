"""Data for a picture of a trace: how much of it to draw, its groups, branches and largest names. No Jupyter."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from kit.measuring.comparison import Comparison
from kit.reprs import one_line
from kit.trace.columns import KINDS, Float64, Int32, Int64, Lane, Trace
from kit.trace.lanes import by_lane
from kit.trace.metrics import lane_concurrency, wall_ns
from kit.views.levels import Level, thin
from kit.views.palette import Palette, in_order


@one_line
class Group(NamedTuple):
    """One approach of a comparison, or the whole of a single trace."""

    name: str
    start_ns: int  # of its first event, from the start of the trace
    wall_ns: int  # from its first event's start to its last one's end


@one_line
class Said(NamedTuple):
    """The verdict of a comparison's table on one approach, for the header of its group."""

    text: str  # "median of all rounds 1.63x as fast", "not decided"
    decided: bool = True


Sayings = Mapping[str, Said]  # by the name of the group; empty where nothing was compared
_LANES = {  # what the kit's own threads and processes are for; other programs' lanes have names of their own
    r"caller": "the thread that called the model",
    r"worker \d+": "a thread of the pool that runs branches",
    r"process \d+": "a worker process that runs branches",
    r"rank \d+": "a rank of torch.distributed that runs branches",
    r"merge \d+": "a thread of the calling process that joins the outputs of the branches",
    r"GPU \d+ stream \d+": "a queue of the GPU: its kernels start in this order",
}


def said_of(comparison: Comparison) -> Sayings:
    """The verdict and speed-up of each row, as in the table."""
    rounds = dict.fromkeys(("faster", "slower"), "median of all rounds ")  # and not the call that is drawn
    return {
        row.name: Said(rounds.get(row.verdict, "") + row.speed_text, row.verdict != "not decided")
        for row in comparison.rows
    }


def lane_meaning(trace: Trace, lane: Lane) -> str:
    """The meaning of a lane, as a clause; empty for lanes that the kit did not name.

    Of a lane on another host it also says how exactly the clock of that host is known.
    """
    host, _, label = lane.label.rpartition(": ")
    meaning = next((meaning for pattern, meaning in _LANES.items() if re.fullmatch(pattern, label)), "")
    origin = trace.about.get("traces", {}).get(lane.group, trace.about)
    uncertain: int | None = origin.get("clocks_ns", {}).get(host)
    return meaning if uncertain is None else f"{meaning}; its times are exact to ±{uncertain / 1e6:.3g} ms"


def drawn_rows(trace: Trace, row: Int32, limit: int | None = None) -> Int64:
    """How many rows of each lane to draw, shape ``(lanes,)``: all, or at most ``limit`` together.

    With a limit, the lanes with the most work get rows first, at most a quarter of the limit for each lane; other lanes
    are left out. A lane without events also has a row, unless it has counters: these are drawn as curves.
    """
    rows = np.ones(len(trace.lanes), np.int64)
    rows[_of_counters(trace)] = 0
    np.maximum.at(rows, trace.lane, row + 1)
    if limit is None or rows.sum() <= limit:
        return rows
    rows = np.minimum(rows, max(1, limit // 4))
    busiest = np.argsort(-np.bincount(trace.lane, trace.duration_ns, len(rows)), kind="stable")
    before = np.cumsum(rows[busiest]) - rows[busiest]
    rows[busiest] = np.clip(limit - before, 0, rows[busiest])
    return rows


def part_of(trace: Trace, row: Int32, rows: Int64, limit: int) -> Level:
    """A level with at most ``limit`` parts, made of the events in these rows of each lane."""
    inside = np.flatnonzero(row < rows[trace.lane])
    level = thin(trace.take(inside), row[inside], limit)
    return level._replace(event=inside[level.event])


def left_out(trace: Trace, row: Int32, rows: Int64) -> str:
    """What is not drawn if only these rows of each lane are drawn, as text; empty if everything is drawn."""
    hidden = np.setdiff1d(np.flatnonzero(rows == 0), _of_counters(trace))
    lanes, events = len(hidden), int(np.count_nonzero(row >= rows[trace.lane]))
    named = [f"{n:,} {what}{'s' * (n != 1)}" for n, what in ((lanes, "lane"), (events, "event")) if n]
    return f"not drawn: {' and '.join(named)}" if named else ""


def _of_counters(trace: Trace) -> Int64:
    """The indices of lanes with counters and without events."""
    if trace.marks is None:
        return np.zeros(0, np.int64)
    return np.setdiff1d(trace.marks.lane[trace.marks.kind == KINDS.index("C")], np.append(trace.lane, -1)).astype(int)


def busy_lanes(trace: Trace, bins: int = 400) -> Float64:
    """The average number of busy lanes in each of ``bins`` equal parts of the wall time, shape ``(bins,)``.

    Only for one recording: the groups of a comparison ran one after the other, so a sum over them has no meaning.
    """
    steps = lane_concurrency(trace)
    if not len(steps.time_ns):
        return np.zeros(bins)
    time = steps.time_ns - trace.start_ns.min()
    area = np.append(0, np.cumsum(np.diff(time) * steps.level[:-1]))
    edges = np.linspace(0, wall_ns(trace), bins + 1)
    average: Float64 = np.diff(np.interp(edges, time, area)) / (edges[1] - edges[0])
    return average


def groups(trace: Trace) -> list[Group]:
    """The groups of a trace's lanes, in order, with the time that each one took."""
    first = int(trace.start_ns.min()) if len(trace) else 0
    found = []
    for name in dict.fromkeys(lane.group for lane in trace.lanes):
        members = [i for i, lane in enumerate(trace.lanes) if lane.group == name]
        inside = trace.select(lanes=members)
        start = int(inside.start_ns.min()) - first if len(inside) else 0
        found.append(Group(name, start, wall_ns(inside)))
    return found


def branches(trace: Trace) -> list[str]:
    """The names of the tasks, in the order of their colours."""
    if "task" not in trace.categories:
        return []
    names = np.unique(trace.name[trace.category == trace.categories.index("task")])
    return in_order(trace.names[i] for i in names)


def categories(trace: Trace) -> list[str]:
    """The categories that events of this trace have."""
    return [trace.categories[i] for i in np.unique(trace.category)]


def branch_of(trace: Trace) -> Int64:
    """The branch that each event runs in: a position in :func:`branches`, or -1; shape ``(n,)``.

    It is the last task of the event's lane that starts before the event, if the event also ends within the task.
    """
    inside = np.full(len(trace), -1, np.int64)
    if "task" not in trace.categories:
        return inside
    is_task = trace.category == trace.categories.index("task")
    names = {name: i for i, name in enumerate(branches(trace))}
    position = np.array([names.get(name, -1) for name in trace.names], np.int64)
    lanes = by_lane(trace)
    for lane in np.unique(trace.lane[is_task]).tolist():
        events = lanes[lane]
        tasks = events[is_task[events]]
        before = np.searchsorted(trace.start_ns[tasks], trace.start_ns[events], side="right") - 1
        task = tasks[before]  # of -1 it is the last task, which starts later and is taken out below
        holds = (before >= 0) & (trace.end_ns[events] <= trace.end_ns[task])
        inside[events[holds]] = position[trace.name[task[holds]]]
    return inside


def parts_of(trace: Trace, event: Int64, start_ns: Int64, duration_ns: Int64) -> Trace:
    """A trace of parts of these events (indices), or of blocks that they represent, with other times."""
    return replace(trace.take(event), start_ns=start_ns, duration_ns=duration_ns, marks=None)


def usual_colours(trace: Trace) -> str:
    """The default meaning of colours: branches, or names if there are no branches."""
    return "branch" if branches(trace) else "name"


def palette(trace: Trace, by: str) -> Palette:
    """The looks of this trace's events."""
    return Palette(by, tuple(branches(trace)), tuple(categories(trace)))


def table(trace: Trace, top: int = 8) -> list[dict[str, str | int]]:
    """The timeline as numbers: the ``top`` names of each lane by total time, with their counts.

    Returns rows of ``group, lane, name, count, total_ns``. Totals count nested events of one name more than once.
    """
    key = trace.lane.astype(np.int64) * max(1, len(trace.names)) + trace.name
    kinds, kind, counts = np.unique(key, return_inverse=True, return_counts=True)
    totals = np.zeros(len(kinds), np.int64)
    np.add.at(totals, kind, trace.duration_ns)
    rows: dict[int, list[dict[str, str | int]]] = defaultdict(list)
    for i in np.argsort(-totals, kind="stable").tolist():
        at, name = divmod(int(kinds[i]), len(trace.names))
        if len(rows[at]) < top:
            lane = trace.lanes[at]
            row = {"group": lane.group, "lane": lane.label, "name": trace.names[name]}
            rows[at].append({**row, "count": int(counts[i]), "total_ns": int(totals[i])})
    return [row for at in sorted(rows) for row in rows[at]]
