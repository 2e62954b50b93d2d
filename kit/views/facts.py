"""What a picture of a trace needs to know about it: its groups, its branches, its largest names. No Jupyter."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from kit.reprs import one_line
from kit.trace.columns import Int64, Trace
from kit.trace.metrics import wall_ns
from kit.views.palette import Palette


@one_line
class Group(NamedTuple):
    """One approach of a comparison, or the whole of a single trace."""

    name: str
    start_ns: int  # of its first event, from the start of the trace
    wall_ns: int  # from its first event's start to its last one's end


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
    """The names of the tasks, sorted: a branch keeps its colour in every timeline, whichever started first."""
    if "task" not in trace.categories:
        return []
    names = np.unique(trace.name[trace.category == trace.categories.index("task")])
    return sorted(trace.names[i] for i in names)


def categories(trace: Trace) -> list[str]:
    """The categories that events of this trace have."""
    return [trace.categories[i] for i in np.unique(trace.category)]


def branch_of(trace: Trace) -> Int64:
    """The branch that each event runs in: a position in :func:`branches`, or -1; shape ``(n,)``.

    It is the last task of the event's own lane to start before it, if the event also ends within it.
    """
    inside = np.full(len(trace), -1, np.int64)
    if "task" not in trace.categories:
        return inside
    is_task = trace.category == trace.categories.index("task")
    names = {name: i for i, name in enumerate(branches(trace))}
    position = np.array([names.get(name, -1) for name in trace.names], np.int64)
    for lane in np.unique(trace.lane[is_task]).tolist():
        events = np.flatnonzero(trace.lane == lane)
        tasks = np.flatnonzero(is_task & (trace.lane == lane))
        tasks = tasks[np.argsort(trace.start_ns[tasks], kind="stable")]
        before = np.searchsorted(trace.start_ns[tasks], trace.start_ns[events], side="right") - 1
        task = tasks[before]  # of -1 it is the last task, which starts later and is taken out below
        holds = (before >= 0) & (trace.end_ns[events] <= trace.end_ns[task])
        inside[events[holds]] = position[trace.name[task[holds]]]
    return inside


def parts_of(trace: Trace, event: Int64, start_ns: Int64, duration_ns: Int64) -> Trace:
    """A trace of parts of these events (indices) or of blocks that they stand for, with times of their own."""
    return replace(trace.take(event), start_ns=start_ns, duration_ns=duration_ns, marks=None)


def usual_colours(trace: Trace) -> str:
    """What the colours stand for unless somebody chooses: branches, or names where there are none."""
    return "branch" if branches(trace) else "name"


def palette(trace: Trace, by: str) -> Palette:
    """The looks of this trace's events."""
    return Palette(by, tuple(branches(trace)), tuple(categories(trace)))


def table(trace: Trace, top: int = 8) -> list[dict[str, str | int]]:
    """The timeline in numbers: the ``top`` names of each lane by total time, with how often they occur.

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


def human(ns: float) -> str:
    """A duration for people, to three digits: ``812 ns``, ``1.23 µs``, ``45.6 ms``, ``7.89 s``."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if abs(ns) >= size * 0.9995:  # 999.5 and up would round to 1000 of the smaller unit
            value = ns / size
            return f"{value:.{max(0, 3 - len(str(int(abs(value) + 5e-4))))}f} {unit}"
    return f"{ns:.0f} ns"
