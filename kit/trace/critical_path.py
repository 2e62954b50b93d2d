"""The critical path of a trace: the chain of events, each of which waited for the one before, that takes all its time.

It is found by going back from the event that ended last: at each point, to what ended last of all that had to end
first. So it is one path without gaps or overlap, and its pieces add up to the wall time exactly (the backward replay of
`Böhme et al., "Scalable Critical-Path Based Performance Analysis", IPDPS 2012
<https://doi.org/10.1109/IPDPS.2012.120>`_).
What comes before what:

- **A thread** runs its events in order. A moment belongs to the innermost event.
- **A kernel or copy** comes after its launch, the work before it on its stream, and what its stream waits for
  (:func:`kit.trace.streams.device_work`); the path goes to the last of these. From a launch to the start of its work is
  a launch, from the work before is waiting.
- **A call that synchronises** (``cudaDeviceSynchronize``, ``cudaStreamSynchronize``, ``cudaEventSynchronize``, and
  HIP's) waits for the work that ended last before it returned, of its stream if the recording names that. A call that
  copies, and returns after its copy has ended, waited for it.
- **A region** forks its tasks when it starts, and waits for the last of them. A task on another lane waits for the
  region's start or for the event before on its lane.
- **A span of category "wait"**, and Python's built-in ``acquire``, ``wait`` and ``run_backward``, wait for what ended
  last on another thread.
- **A span around other work**, as that of a recording, says nothing of what its thread waits for: it counts as other
  code. Where operators of other threads run beside a long piece of it, a note below the table says so.
- **A thread that was idle** went on when another thread of the process had handed over: the one whose event ended last
  meanwhile, and that did nothing since. This is an assumption: most recordings do not say who woke a thread.

Holistic Trace Analysis builds a graph of the same dependencies, without those between threads, and looks for its
longest path (`Lightweight Critical Path Analysis
<https://hta.readthedocs.io/en/latest/source/features/lightweight_critical_path_analysis.html>`_). There, waiting has no
weight; here each nanosecond has a cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from kit.reprs import one_line
from kit.text import html_table, in_columns, time_text
from kit.trace.columns import Int64, Trace, concatenate
from kit.trace.doubts import waiting_doubts
from kit.trace.metrics import sums, wall_ns
from kit.trace.tables import named, share
from kit.trace.walking import Cause, Pieces, Walk

GROUP = "critical path"
WORDS = {
    Cause.OPERATORS: "operators",
    Cause.LAUNCHES: "launches",
    Cause.KERNELS: "kernels",
    Cause.COPIES: "copies",
    Cause.CODE: "other code",
    Cause.WAITING: "waiting",
    Cause.NOTHING: "nothing recorded",
}
_TOP = 10


@one_line
class PathRow(NamedTuple):
    """All pieces of the path with one name and cause."""

    name: str  # of the events; empty where nothing is recorded
    cause: str  # of WORDS
    pieces: int
    ns: int


@one_line
@dataclass(frozen=True, eq=False)
class CriticalPath:
    """The critical path of a trace.

    >>> from kit.trace import Event, Lane, Trace, critical_path
    >>> main = Lane(1, 1, "main")
    >>> events = [Event("load", "task", 0, 300, main), Event("decode", "task", 400, 200, main)]
    >>> path = critical_path(Trace.build(events))
    >>> path.causes["other code"], path.causes["nothing recorded"]
    (500, 100)
    """

    recording: Trace  # what it is the path of
    pieces: Pieces  # in order of time: from the first start of the recording to its last end

    @property
    def causes(self) -> Mapping[str, int]:
        """Nanoseconds by cause; they add up to the wall time."""
        ns = sums(self.pieces.cause, self.pieces.end_ns - self.pieces.start_ns, len(Cause)).tolist()
        return {WORDS[cause]: ns[cause] for cause in Cause}

    @property
    def own_ns(self) -> Int64:
        """For each event of the recording, the nanoseconds of the path that are its own, shape ``(n,)``."""
        on = self.pieces.event >= 0
        lengths = (self.pieces.end_ns - self.pieces.start_ns)[on]
        return sums(self.pieces.event[on], lengths, len(self.recording))

    @property
    def rows(self) -> list[PathRow]:
        """The pieces by name and cause, the longest time first."""
        names = np.append(self.recording.name, len(self.recording.names))[self.pieces.event].astype(np.int64)
        kinds, kind = np.unique(names * len(Cause) + self.pieces.cause, return_inverse=True)
        lengths = sums(kind, self.pieces.end_ns - self.pieces.start_ns, len(kinds)).tolist()
        known = (*self.recording.names, "")
        rows = [
            PathRow(known[place // len(Cause)], WORDS[Cause(place % len(Cause))], pieces, ns)
            for place, pieces, ns in zip(kinds.tolist(), np.bincount(kind).tolist(), lengths, strict=True)
        ]
        return sorted(rows, key=lambda row: (-row.ns, row.name, row.cause))

    @property
    def trace(self) -> Trace:
        """Only the path, as a trace: its pieces in the lanes of their events, under the group "critical path".

        Pieces of waiting have the category "wait". Where nothing is recorded, there is no event.
        """
        on = np.flatnonzero(self.pieces.event >= 0)
        path = self.recording.take(self.pieces.event[on])
        categories = tuple(dict.fromkeys([*path.categories, "wait"]))
        waiting = self.pieces.cause[on] == Cause.WAITING
        used, lane = np.unique(self.pieces.lane[on], return_inverse=True)
        lanes = [self.recording.lanes[i] for i in used.tolist()]
        return replace(
            path,
            start_ns=self.pieces.start_ns[on],
            duration_ns=(self.pieces.end_ns - self.pieces.start_ns)[on],
            lane=lane.astype(np.int32),
            category=np.where(waiting, categories.index("wait"), path.category).astype(np.int32),
            categories=categories,
            lanes=tuple(each._replace(group=f"{each.group} {GROUP}".strip()) for each in lanes),
            marks=None,
        )

    def with_recording(self) -> Trace:
        """The path above the whole recording, on the same time axis: ``kit.timeline(path.with_recording())``."""
        lanes = tuple(lane if lane.group else lane._replace(group="recording") for lane in self.recording.lanes)
        return concatenate([self.trace, replace(self.recording, lanes=lanes)])

    def table(self) -> list[tuple[str, ...]]:
        """The header, then a line for each cause that takes time."""
        whole = wall_ns(self.recording)
        lines = [(cause, time_text(ns), share(ns, whole)) for cause, ns in self.causes.items() if ns]
        return [("critical path", "time", "share"), *lines, ("together", time_text(whole), share(whole, whole))]

    def top(self) -> list[tuple[str, ...]]:
        """The header, then a line for each of the names that take most of it."""
        whole, rows = wall_ns(self.recording), [row for row in self.rows if row.name][:_TOP]
        return [
            ("on the critical path", "by", "pieces", "time", "share"),
            *((named(row.name), row.cause, f"{row.pieces:,}", time_text(row.ns), share(row.ns, whole)) for row in rows),
        ]

    def notes(self) -> list[str]:
        """Whether a thread may have waited where the path has it run other code."""
        return [*waiting_doubts(self.recording, self.pieces)]

    def __str__(self) -> str:
        return "\n".join([*in_columns(self.table()), "", *in_columns(self.top()), *self.notes()])

    def _repr_html_(self) -> str:
        return html_table(self.table(), []) + html_table(self.top(), self.notes())


def critical_path(trace: Trace) -> CriticalPath:
    """The critical path of a trace, by the rules above: a few seconds for a million events.

    It holds for this recording: make an event on it shorter, and another path may be the longest. Regions of several
    callers at the same time are told apart only by their times.

    >>> from kit.trace import Event, Lane, Trace, critical_path
    >>> main = Lane(1, 1, "main")
    >>> events = [Event("load", "task", 0, 300, main), Event("decode", "task", 400, 200, main)]
    >>> path = critical_path(Trace.build(events))
    >>> [(row.name, row.cause, row.ns) for row in path.rows]
    [('load', 'other code', 300), ('decode', 'other code', 200), ('', 'nothing recorded', 100)]
    >>> kit.timeline(path.with_recording())
    Timeline(4 events in 2 lanes)
    """
    empty = np.zeros(0, np.int64)
    return CriticalPath(trace, Walk(trace).pieces() if len(trace) else Pieces(empty, empty, empty, empty, empty))
