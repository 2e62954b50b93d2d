"""A trace as numpy columns: one row per complete event, with its name, lane and times."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kit.reprs import one_line
from kit.trace.arguments import Arguments, made_of, one_store

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]
Float64 = NDArray[np.float64]


class Interner(dict[Any, int]):
    """Gives each distinct value an integer id, in order of first use."""

    def __missing__(self, value: Any) -> int:
        self[value] = number = len(self)
        return number

    def of(self, values: Iterable[Any]) -> Int32:
        """The id of each value."""
        return np.array([self[value] for value in values], np.int32)


@one_line
class Lane(NamedTuple):
    """One row of a timeline: a thread of a process, or a stream of a GPU.

    >>> from kit.trace import Lane
    >>> Lane(process=1, thread=7, label="worker 0", group="threads")
    Lane(process=1, thread=7, label='worker 0', group='threads')
    """

    process: int | str  # pid, or the device's index for a GPU stream; some writers use names
    thread: int | str  # native thread id, or the stream's id
    label: str  # for people: "caller", "worker 0", "stream 7"
    group: str = ""  # what the lane belongs to in a comparison: the approach's name

    @property
    def asynchronous(self) -> bool:
        """Whether it is no thread, but where the asynchronous events of a category are: they may overlap."""
        return isinstance(self.thread, str) and self.thread.startswith(ASYNC)


@one_line
class Event(NamedTuple):
    """One complete event, as a row: the form in which traces are built.

    >>> from kit.trace import Event, Lane, Trace
    >>> Trace.build([Event("decode", "task", start_ns=0, duration_ns=300, lane=Lane(1, 1, "main"))])
    Trace(1 event in 1 lane)
    """

    name: str
    category: str
    start_ns: int
    duration_ns: int
    lane: Lane
    correlation: int = -1  # what ties a launch to its kernel; -1: nothing


@one_line
class Marks(NamedTuple):
    """Entries with a time but no duration: ends of flow arrows, instants, counters; columns of equal length.

    >>> from pathlib import Path
    >>> _ = Path("counted.json").write_text('''[
    ...     {"ph": "X", "name": "load", "pid": 1, "tid": 1, "ts": 0, "dur": 2},
    ...     {"ph": "C", "name": "memory", "pid": 1, "ts": 1, "args": {"bytes": 4096}}
    ... ]''')
    >>> kit.load_trace("counted.json").marks.value.tolist()
    [4096.0]
    """

    time_ns: Int64
    lane: Int32  # index into the trace's lanes; -1: of the trace as a whole
    name: Int32  # index into the trace's names
    category: Int32  # index into the trace's categories
    kind: Int32  # index into KINDS
    key: Int32  # index into the trace's keys: a flow's id, a counter's series, whose memory it is; -1: none
    value: Float64  # a counter's value, or the bytes that an instant says are allocated; NaN for others
    row: Int32 | None = None  # of its arguments in the trace's store, -1: it has none

    def of(self, rows: NDArray[Any]) -> Marks:
        """Some of these marks, selected by indices or a mask."""
        columns: list[Any] = [None if column is None else column[rows] for column in self]
        return Marks(*columns)

    def rows(self) -> Int32:
        """The row of each mark's arguments, -1 if it has none."""
        return np.full(len(self.time_ns), -1, np.int32) if self.row is None else self.row


Key = int | float | str
_COLUMNS = ("start_ns", "duration_ns", "lane", "name", "category")
_IDS = ("correlation", "external", "row")  # columns that not all traces have
ASYNC = "async: "  # how the name of a lane of asynchronous events begins
KINDS = ("s", "t", "f", "i", "C")  # flow start, step and end, instant, counter


@dataclass(frozen=True, eq=False)
class Trace:
    """Complete events in lanes on one clock. Times are integer nanoseconds; columns have shape ``(n,)``.

    Columns that few programs write are None if no event has a value.

    >>> from kit.trace import Event, Lane
    >>> worker = Lane(process=1, thread=7, label="worker 0")
    >>> trace = kit.Trace.build([Event("load", "task", 0, 300, worker), Event("decode", "task", 300, 200, worker)])
    >>> trace
    Trace(2 events in 1 lane)
    >>> trace.select(names=["decode"]).duration_ns.tolist()
    [200]
    """

    start_ns: Int64
    duration_ns: Int64  # >= 0
    lane: Int32  # index into lanes
    name: Int32  # index into names
    category: Int32  # index into categories
    lanes: tuple[Lane, ...]
    names: tuple[str, ...]
    categories: tuple[str, ...]
    correlation: Int64 | None = None  # what ties a launch to its kernel, -1: nothing
    external: Int64 | None = None  # what ties an operator to its launches ("External id"), -1: nothing
    row: Int32 | None = None  # of its arguments in the store below, -1: it has none
    arguments: Arguments | None = None  # compressed; see :meth:`args`
    marks: Marks | None = None  # in order of time
    keys: tuple[Key, ...] = ()
    anchor: tuple[int, int] | None = None  # the same instant on the trace's clock and since the Unix epoch, in ns
    notes: tuple[str, ...] = ()  # what reading it had to decide or leave out, in sentences
    about: Mapping[str, Any] = field(default_factory=dict)  # of its origin: date, command, versions, machine, ...

    @classmethod
    def build(cls, events: Iterable[Event], args: Sequence[Mapping[str, Any] | None] | None = None) -> Trace:
        """Columns from rows, sorted by start; lanes and names are numbered in order of first appearance.

        Args:
            events: in any order.
            args: for each event its arguments, which :meth:`args` returns; values that JSON lacks are kept as text.
        """
        given = list(events)
        order = sorted(range(len(given)), key=lambda i: (given[i].start_ns, -given[i].duration_ns))
        rows = [given[i] for i in order]
        arguments, row = made_of([args[i] for i in order]) if args is not None else (None, None)
        lanes, names, categories = Interner(), Interner(), Interner()
        tied = any(row.correlation != -1 for row in rows)
        return cls(
            start_ns=np.array([row.start_ns for row in rows], np.int64),
            duration_ns=np.array([row.duration_ns for row in rows], np.int64),
            lane=lanes.of(row.lane for row in rows),
            name=names.of(row.name for row in rows),
            category=categories.of(row.category for row in rows),
            lanes=tuple(lanes),
            names=tuple(names),
            categories=tuple(categories),
            correlation=np.array([row.correlation for row in rows], np.int64) if tied else None,
            row=None if arguments is None else row,
            arguments=arguments,
        )

    def events(self) -> Iterable[Event]:
        """The events as rows, in column order."""
        columns = (self.name, self.category, self.start_ns, self.duration_ns, self.lane, self.ids("correlation"))
        for name, category, start, duration, lane, tie in zip(*(column.tolist() for column in columns), strict=True):
            yield Event(self.names[name], self.categories[category], start, duration, self.lanes[lane], tie)

    @property
    def end_ns(self) -> Int64:
        """End of each event in nanoseconds, shape ``(n,)``."""
        return self.start_ns + self.duration_ns

    @property
    def used_lanes(self) -> list[int]:
        """The indices of lanes that have an event or a mark, in order; only these lanes are counted."""
        used = np.zeros(len(self.lanes) + 1, bool)  # the last one is for lane -1
        used[self.lane] = True
        if self.marks is not None:
            used[self.marks.lane] = True
        found: list[int] = np.flatnonzero(used[:-1]).tolist()
        return found

    def ids(self, column: str) -> Int64:
        """The "correlation" or "external" id, or the "row", of each event, shape ``(n,)``; -1 if it has none."""
        ids: Int64 | None = getattr(self, column)
        return np.full(len(self), -1, np.int32 if column == "row" else np.int64) if ids is None else ids

    def args(self, event: int) -> dict[str, Any]:
        """The arguments of an event (index) as its program wrote them: shapes, stack, bytes, ...; {} if it has none."""
        return self.args_of([event])[0]

    def args_of(self, events: Sequence[int] | Int64) -> list[dict[str, Any]]:
        """The same of many events, which takes less time than one by one: 100,000 of one file take about a second."""
        at = np.asarray(events, np.int64)
        ids = zip(*(self.ids(column)[at].tolist() for column in ("external", "correlation")), strict=True)
        kept = [{} for _ in at] if self.arguments is None else self.arguments.read(self.ids("row")[at])
        known = ({"External id": external, "correlation": tie} for external, tie in ids)
        return [
            args | {key: own for key, own in each.items() if own != -1} for args, each in zip(kept, known, strict=True)
        ]

    def of_category(self, *categories: str) -> NDArray[np.bool_]:
        """Which events are of any of these categories, shape ``(n,)``."""
        return np.isin(self.category, _places(self.categories, categories))

    def select(
        self,
        *,
        lanes: Iterable[int] | None = None,
        categories: Iterable[str] | None = None,
        names: Iterable[str] | None = None,
        window: tuple[int, int] | None = None,
    ) -> Trace:
        """The events that meet every given condition; the list of lanes is not changed.

        Args:
            lanes: indices of lanes.
            categories: keep events of any of these categories.
            names: keep events with any of these names.
            window: ``(start_ns, end_ns)``: keep whole events that overlap it, and instants and marks in it.
        """
        keep = np.ones(len(self), bool)
        marks = self.marks
        shown = np.ones(0 if marks is None else len(marks.time_ns), bool)
        if lanes is not None:
            lanes = list(lanes)
            keep &= np.isin(self.lane, lanes)
            shown &= True if marks is None else np.isin(marks.lane, lanes)
        if categories is not None:
            keep &= self.of_category(*categories)
        if names is not None:
            keep &= np.isin(self.name, _places(self.names, names))
        if window is not None:
            begin, end = window
            keep &= (self.start_ns < end) & ((self.end_ns > begin) | (self.start_ns >= begin))
            shown &= True if marks is None else (marks.time_ns >= begin) & (marks.time_ns < end)
        chosen = self.take(np.flatnonzero(keep))
        return chosen if marks is None else replace(chosen, marks=marks.of(shown))

    def take(self, events: Int64) -> Trace:
        """These events (indices), in this order."""
        present = {column: getattr(self, column) for column in (*_COLUMNS, *_IDS)}
        return replace(self, **{name: column[events] for name, column in present.items() if column is not None})

    def shifted(self, by_ns: int) -> Trace:
        """The same events, ``by_ns`` nanoseconds later."""
        marks, anchor = self.marks, self.anchor
        return replace(
            self,
            start_ns=self.start_ns + by_ns,
            marks=None if marks is None else marks._replace(time_ns=marks.time_ns + by_ns),
            anchor=None if anchor is None else (anchor[0] + by_ns, anchor[1]),
        )

    def to_pandas(self) -> Any:
        """A DataFrame with one row per event, in column order; the columns of text are categorical.

        Its columns are ``start_ns, duration_ns, name, category, process, thread, lane, group, correlation, external``;
        ``lane`` is the lane's label, and an id is -1 for an event without one.

        Raises:
            UnavailableError: pandas is not installed.
        """
        from kit.trace.frames import to_pandas

        return to_pandas(self)

    def __len__(self) -> int:
        return len(self.start_ns)

    def __repr__(self) -> str:
        return f"Trace({self.size})"

    @property
    def size(self) -> str:
        """The number of events and lanes as text."""
        events, lanes = len(self), len(self.used_lanes)
        return f"{events:,} event{'s' * (events != 1)} in {lanes:,} lane{'s' * (lanes != 1)}"


def stack(traces: Mapping[str, Trace]) -> Trace:
    """Several traces on one time axis, one above the other; lanes are grouped under the traces' keys.

    They are aligned at their first fork: the start of the first region, or of the trace if it has no region. The trace
    with the longest time before its fork starts at 0. If their origins differ, ``about["traces"]`` has each by its key.

    >>> from kit.trace import Event, Lane, Trace, stack
    >>> old = Trace.build([Event("load", "task", 5_000, 300, Lane(1, 1, "main"))])
    >>> new = Trace.build([Event("load", "task", 9_000, 200, Lane(1, 1, "main"))])
    >>> both = stack({"before": old, "after": new})
    >>> [(lane.group, lane.label) for lane in both.lanes], both.start_ns.tolist()
    ([('before', 'main'), ('after', 'main')], [0, 0])
    """
    parts = []
    lead = max(map(_lead_ns, traces.values()), default=0)
    for group, trace in traces.items():
        lanes = tuple(lane._replace(group=group) for lane in trace.lanes)
        start = int(trace.start_ns.min()) if len(trace) else 0
        shifted = trace.shifted(lead - _lead_ns(trace) - start)
        parts.append(with_lanes(replace(shifted, lanes=lanes), trace.used_lanes))
    trace = concatenate(parts)
    origins = {group: dict(each.about) for group, each in traces.items()}
    if any(each != trace.about for each in origins.values()):
        trace = replace(trace, about={**trace.about, "traces": origins})
    # By label within a group, numbers by their size: which worker came first is chance.
    keys = [(list(traces).index(lane.group), natural(lane.label)) for lane in trace.lanes]
    return with_lanes(trace, sorted(range(len(keys)), key=keys.__getitem__))


def _lead_ns(trace: Trace) -> int:
    """Nanoseconds from the start of a trace to its first fork."""
    forks = trace.start_ns[trace.of_category("region")]
    return int(forks.min() - trace.start_ns.min()) if len(forks) else 0


def concatenate(traces: Sequence[Trace]) -> Trace:
    """All events of several traces that use the same clock; equal lanes, names and categories become one.

    The ids of flows stay separate: an id of one trace has no meaning in another.
    """
    lanes, names, categories = Interner(), Interner(), Interner()
    keys: list[Key] = []
    arguments, before = one_store([trace.arguments for trace in traces])
    parts = [Trace.build([])]  # whose columns have the right types, where there is no other
    for trace, rows in zip(traces, before, strict=True):
        lane, name, category = lanes.of(trace.lanes), names.of(trace.names), categories.of(trace.categories)
        marks = trace.marks
        if marks is not None:
            marks = marks._replace(
                lane=np.append(lane, np.int32(-1))[marks.lane],
                name=name[marks.name],
                category=category[marks.category],
                key=_moved(marks.key, len(keys)),
                row=_moved(marks.rows(), rows),
            )
        keys += trace.keys
        columns = (lane[trace.lane], name[trace.name], category[trace.category])
        row = None if trace.row is None else _moved(trace.row, rows)
        parts.append(replace(trace, lane=columns[0], name=columns[1], category=columns[2], marks=marks, row=row))
    joined: dict[str, Any] = {column: np.concatenate([getattr(each, column) for each in parts]) for column in _COLUMNS}
    for column in _IDS:
        if any(getattr(part, column) is not None for part in parts):
            joined[column] = np.concatenate([part.ids(column) for part in parts])
    whole = Trace(
        **joined,
        lanes=tuple(lanes),
        names=tuple(names),
        categories=tuple(categories),
        arguments=arguments,
        marks=_joined_marks([part.marks for part in parts if part.marks is not None]),
        keys=tuple(keys),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        about=_in_common([trace.about for trace in traces]),
    )
    return whole.take(in_order(whole.start_ns, whole.duration_ns))


def _in_common(abouts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The entries that all have with the same value."""
    first, *others = abouts or [{}]
    return {key: value for key, value in first.items() if all(key in o and o[key] == value for o in others)}


def in_order(start_ns: Int64, duration_ns: Int64) -> Int64:
    """The order of a trace's rows: by start, of equal starts the longest first."""
    order = np.argsort(start_ns, kind="stable")
    start, duration = start_ns[order], duration_ns[order]
    if np.any((start[1:] == start[:-1]) & (duration[1:] > duration[:-1])):
        order = np.lexsort((-duration_ns, start_ns))
    return order


def natural(label: str) -> list[tuple[str, int]]:
    """A sort key that puts "worker 2" before "worker 10"."""
    return [(text, int(number or -1)) for text, number in re.findall(r"(\D*)(\d{0,18})", label)]


def with_lanes(trace: Trace, order: Sequence[int]) -> Trace:
    """Only these lanes, in this order. All events must be in them; marks of other lanes become marks of no lane."""
    rank = np.full(len(trace.lanes) + 1, -1, np.int32)  # the last one is for lane -1
    rank[list(order)] = np.arange(len(order), dtype=np.int32)
    marks = None if trace.marks is None else trace.marks._replace(lane=rank[trace.marks.lane])
    return replace(trace, lane=rank[trace.lane], lanes=tuple(trace.lanes[i] for i in order), marks=marks)


def _places(known: Sequence[str], wanted: Iterable[str]) -> list[int]:
    wanted = set(wanted)
    return [i for i, name in enumerate(known) if name in wanted]


def _moved(numbers: Int32, by: int) -> Int32:
    """Positions in a list that now has others before it; -1 stays."""
    return np.where(numbers < 0, -1, numbers + by).astype(np.int32)


def _joined_marks(parts: Sequence[Marks]) -> Marks | None:
    if not parts:
        return None
    columns = zip(*(part._replace(row=part.rows()) for part in parts), strict=True)
    joined: list[Any] = [np.concatenate(column) for column in columns]
    whole = Marks(*joined)
    return whole.of(np.argsort(whole.time_ns, kind="stable"))
