"""One turn of a measurement: its spans, reduced to the few numbers that explain a speed-up."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from kit.reprs import one_line
from kit.spans import Span

OVERHEAD = ("startup", "transfer", "merge", "dispatch", "join")  # what a region does beside its busiest lane's tasks

Interval = tuple[int, int]


@one_line
class RoundBreakdown(NamedTuple):
    """Where the time of one turn's calls went, and what they carried: mean nanoseconds and bytes per call."""

    regions: float  # inside regions; the rest of the call is serial
    tasks: dict[tuple[int, str], float]  # (position of its region in the call, branch) -> how long it ran
    busiest: float  # the busiest lane of each region, summed
    lanes: int  # the most lanes that the tasks of one region ran on
    cpu: float | None  # CPU time of the tasks' own threads; None: not known of every task
    overhead: dict[str, float]  # of OVERHEAD -> regions outside their busiest lane's tasks; sums to regions - busiest
    queued: float | None = None  # how long the lanes' threads could have run but had no core; None: not known
    overlap: float | None = None  # how long two tasks or more ran at the same time; None: not known
    sent: float | None = None  # bytes of tensors that other processes were given; None: no task left this process
    received: float | None = None  # bytes of tensors that they gave back

    @property
    def work(self) -> float:
        """Time of all tasks, summed; nanoseconds per call."""
        return sum(self.tasks.values())


def reduce_turn(
    spans: Sequence[Span], queued_ns: int | None = None, carried: tuple[int, int] = (0, 0)
) -> RoundBreakdown | None:
    """Reduce the spans of one turn's calls to their breakdown; None if the spans contain no task.

    Only outermost regions and tasks count: what runs inside a task counts as that task's time. A call without a region
    counts as one region.

    Args:
        queued_ns: how long the lanes' threads waited for a core during the turn, in nanoseconds; None: not known.
        carried: bytes of tensors that went to other processes during the turn, and that came back.
    """
    calls = sorted(span for span in spans if span.category == "call")
    regions, tasks, others = _outermost(spans, calls[0])
    regions = regions or calls
    starts = [region.start_ns for region in regions]
    inside: list[list[Span]] = [[] for _ in regions]
    for task in tasks:
        i = bisect_right(starts, task.start_ns) - 1
        if i >= 0 and task.start_ns < regions[i].end_ns:
            inside[i].append(task)
    if not any(inside):
        return None
    durations: dict[tuple[int, str], float] = {}
    overhead = dict.fromkeys(OVERHEAD, 0.0)
    busiest, lanes, position, call = 0, 0, 0, 0
    for region, own in zip(regions, inside, strict=True):
        if call < len(calls) and region.start_ns >= calls[call].start_ns:
            position, call = 0, bisect_right(calls, region.start_ns, key=lambda each: each.start_ns)
        busy: dict[tuple[int | str, int], list[Span]] = {}
        for task in own:
            durations[position, task.name] = durations.get((position, task.name), 0) + task.end_ns - task.start_ns
            busy.setdefault((task.process, task.thread), []).append(task)
        position += 1
        lane = max(busy.values(), key=_length, default=[])
        busiest += _length(lane)
        lanes = max(lanes, len(busy))
        for kind, length in _beside(region, lane, others).items():
            overhead[kind] += length
    n = len(calls)
    known = all(task.cpu_ns is not None for task in tasks)
    return RoundBreakdown(
        regions=_length(regions) / n,
        tasks={key: total / n for key, total in durations.items()},
        busiest=busiest / n,
        lanes=lanes,
        cpu=sum(task.cpu_ns or 0 for own in inside for task in own) / n if known else None,
        overhead={kind: length / n for kind, length in overhead.items()},
        queued=None if queued_ns is None else queued_ns / n,
        overlap=sum(map(_overlap, inside)) / n,
        sent=carried[0] / n if any(carried) else None,
        received=carried[1] / n if any(carried) else None,
    )


def _outermost(spans: Sequence[Span], call: Span) -> tuple[list[Span], list[Span], dict[str, list[Interval]]]:
    """The calling thread's regions, all threads' tasks that lie in no other task, and other spans as intervals."""
    regions: list[Span] = []
    tasks: list[Span] = []
    others: dict[str, list[Interval]] = {kind: [] for kind in OVERHEAD[:3]}
    until: dict[tuple[int | str, int], int] = {}  # lane -> end of its last task or region
    for span in sorted(spans, key=lambda span: (span.start_ns, -span.end_ns, span.category)):
        lane = (span.process, span.thread)
        if span.category in others:
            others[span.category].append((span.start_ns, span.end_ns))
        elif span.category == "region" and lane == (call.process, call.thread):
            if span.start_ns >= max(until.get(lane, 0), regions[-1].end_ns if regions else 0):
                regions.append(span)
        elif span.category == "task" and span.start_ns >= until.get(lane, 0):
            tasks.append(span)
            until[lane] = span.end_ns
    return regions, tasks, others


def _beside(region: Span, lane: Sequence[Span], others: dict[str, list[Interval]]) -> dict[str, int]:
    """A region's time in which its busiest lane ran no task, by kind; without a span of a kind, by position."""
    gaps = [(region.start_ns, region.end_ns)]
    for task in lane:
        gaps = _without(gaps, (task.start_ns, task.end_ns))
    found = {}
    for kind, intervals in others.items():
        rest = gaps
        before = bisect_right(intervals, region.start_ns, key=lambda each: each[0]) - 1
        for interval in intervals[max(0, before) :]:
            if interval[0] >= region.end_ns:
                break
            rest = _without(rest, interval)
        found[kind] = _total(gaps) - _total(rest)
        gaps = rest
    last = lane[-1].end_ns if lane else region.end_ns
    found["join"] = _total([gap for gap in gaps if gap[0] >= last])
    found["dispatch"] = _total(gaps) - found["join"]
    return found


def _overlap(tasks: Sequence[Span]) -> int:
    """How long at least two of these tasks ran at the same time, in nanoseconds."""
    marks = sorted(mark for task in tasks for mark in ((task.start_ns, 1), (task.end_ns, -1)))
    total = running = before = 0
    for at, step in marks:
        total += (at - before) * (running > 1)
        running, before = running + step, at
    return total


def _without(gaps: list[Interval], taken: Interval) -> list[Interval]:
    start, end = taken
    pieces = [piece for low, high in gaps for piece in ((low, min(high, start)), (max(low, end), high))]
    return [(low, high) for low, high in pieces if low < high]


def _total(intervals: Sequence[Interval]) -> int:
    return sum(high - low for low, high in intervals)


def _length(spans: Sequence[Span]) -> int:
    return sum(span.end_ns - span.start_ns for span in spans)
