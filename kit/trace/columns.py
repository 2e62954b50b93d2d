"""A trace as columns: what happened, in which lane, when. Pure numpy; one row per complete event."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]


class Lane(NamedTuple):
    """One row of a timeline: a thread of a process, or a stream of a GPU."""

    process: int | str  # pid, or the device's index for a GPU stream; some writers use names
    thread: int | str  # native thread id, or the stream's id
    label: str  # for people: "caller", "worker 0", "stream 7"
    group: str = ""  # what the lane belongs to in a comparison: the approach's name


class Event(NamedTuple):
    """One complete event, as a row: the form in which traces are built."""

    name: str
    category: str
    start_ns: int
    duration_ns: int
    lane: Lane


@dataclass(frozen=True, eq=False)
class Trace:
    """Complete events in lanes on one clock. Times are integer nanoseconds; columns have shape ``(n,)``."""

    start_ns: Int64
    duration_ns: Int64  # >= 0
    lane: Int32  # index into lanes
    name: Int32  # index into names
    category: Int32  # index into categories
    lanes: tuple[Lane, ...]
    names: tuple[str, ...]
    categories: tuple[str, ...]

    @classmethod
    def build(cls, events: Iterable[Event]) -> Trace:
        """Columns from rows, sorted by start; lanes and names are numbered in order of first appearance."""
        rows = sorted(events, key=lambda event: (event.start_ns, -event.duration_ns))
        lanes: dict[Lane, int] = {}
        names: dict[str, int] = {}
        categories: dict[str, int] = {}
        return cls(
            start_ns=np.array([row.start_ns for row in rows], np.int64),
            duration_ns=np.array([row.duration_ns for row in rows], np.int64),
            lane=np.array([lanes.setdefault(row.lane, len(lanes)) for row in rows], np.int32),
            name=np.array([names.setdefault(row.name, len(names)) for row in rows], np.int32),
            category=np.array([categories.setdefault(row.category, len(categories)) for row in rows], np.int32),
            lanes=tuple(lanes),
            names=tuple(names),
            categories=tuple(categories),
        )

    def events(self) -> Iterable[Event]:
        """The rows again, in column order."""
        columns = (self.name, self.category, self.start_ns, self.duration_ns, self.lane)
        for name, category, start, duration, lane in zip(*(column.tolist() for column in columns), strict=True):
            yield Event(self.names[name], self.categories[category], start, duration, self.lanes[lane])

    @property
    def end_ns(self) -> Int64:
        """Where each event ends, shape ``(n,)``."""
        return self.start_ns + self.duration_ns

    def select(self, *, lanes: Iterable[int] | None = None, categories: Iterable[str] | None = None) -> Trace:
        """The events in these lanes (indices) and of these categories; the lane list itself stays as it is."""
        keep = np.ones(len(self), bool)
        if lanes is not None:
            keep &= np.isin(self.lane, list(lanes))
        if categories is not None:
            wanted = set(categories)
            keep &= np.isin(self.category, [i for i, name in enumerate(self.categories) if name in wanted])
        columns = ("start_ns", "duration_ns", "lane", "name", "category")
        return replace(self, **{column: getattr(self, column)[keep] for column in columns})

    def __len__(self) -> int:
        return len(self.start_ns)

    def __repr__(self) -> str:
        return f"Trace({len(self)} events in {len(self.lanes)} lanes)"


def stack(traces: Mapping[str, Trace]) -> Trace:
    """Several traces one above the other on one axis: each starts at 0, its lanes grouped under its key."""
    events: list[Event] = []
    for group, trace in traces.items():
        first = int(trace.start_ns.min()) if len(trace) else 0
        for event in trace.events():
            lane = event.lane._replace(group=group)
            events.append(event._replace(start_ns=event.start_ns - first, lane=lane))
    trace = Trace.build(events)
    # By label within a group, numbers by their size: which worker came first is chance.
    keys = [(list(traces).index(lane.group), _natural(lane.label)) for lane in trace.lanes]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return replace(trace, lane=rank[trace.lane], lanes=tuple(trace.lanes[i] for i in order))


def _natural(label: str) -> list[tuple[str, int]]:
    """A sort key that puts "worker 2" before "worker 10"."""
    return [(text, int(number or -1)) for text, number in re.findall(r"(\D*)(\d*)", label)]
