"""The walk along the critical path: from the last end of a trace back to its first start. Plain lists, no numpy inside.

The rules are in :mod:`kit.trace.critical_path`.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kit.reprs import one_line
from kit.trace.categories import DEVICE, Role, is_work, roles
from kit.trace.columns import Int64, Trace
from kit.trace.lanes import ordered_by
from kit.trace.streams import NEVER, device_work


class Cause(IntEnum):
    """What a piece of the path is spent on."""

    OPERATORS = 0  # of the framework
    LAUNCHES = 1  # calls into CUDA, HIP ..., and from a launch to the start of its work
    KERNELS = 2
    COPIES = 3  # and fills of a device's memory
    CODE = 4  # other recorded events: the kit's spans, Python functions
    WAITING = 5  # for what had ended already: until a waiting call returns, a task starts, the next kernel starts
    NOTHING = 6  # nothing is recorded


@one_line
class Pieces(NamedTuple):
    """The path as columns, in order of time, without gaps and overlap."""

    event: Int64  # index into the trace; -1 where nothing is recorded
    lane: Int64
    start_ns: Int64
    end_ns: Int64
    cause: Int64


_CAUSE = {
    Role.KERNEL: Cause.KERNELS,
    Role.MEMORY: Cause.COPIES,
    Role.RUNTIME: Cause.LAUNCHES,
    Role.OPERATOR: Cause.OPERATORS,
    Role.OTHER: Cause.CODE,
}
_SYNCHRONIZE = re.compile(r"(cuda|cu|hip)(Device|Ctx|Stream|Event)Synchronize")
_COPY_CALL = re.compile(r"(cuda|cu|hip)Memcpy")
# As torch.profiler names what is not written in Python, and as VizTracer does.
_PYTHON_WAIT = re.compile(r"<built-in method (acquire|wait|run_backward|select|poll) of .*|_thread\.R?[lL]ock\.acquire")


class _Blocks(IntEnum):
    """What the innermost event of a thread may wait for."""

    NOTHING = 0
    DEVICE = 1  # the work of a device that ended last
    COPY = 2  # the copy that it launched
    THREADS = 3  # what ended last on any other thread
    TASKS = 4  # the last of the tasks that began within it


class Walk:
    """All that the walk looks up. A place is the number of an event in the order of lanes, then of starts."""

    def __init__(self, trace: Trace) -> None:
        self.first_ns, self.last_ns = int(trace.start_ns.min()), int(trace.end_ns.max())
        work = np.flatnonzero(is_work(trace))
        self.event = work[ordered_by(trace.lane[work], trace.take(work))]
        role, lane = roles(trace)[self.event], trace.lane[self.event].astype(np.int64)
        bounds = np.searchsorted(lane, np.arange(len(trace.lanes) + 1)).tolist()
        self.first, self.until = bounds[:-1], bounds[1:]
        start, end = trace.start_ns[self.event], trace.end_ns[self.event]
        self.start, self.end, self.lane = start.tolist(), end.tolist(), lane.tolist()
        self.outer = _outer(self.lane, self.end)
        self.cause = [int(_CAUSE[Role(each)]) for each in range(Role.OTHER + 1)]
        self.role = role.tolist()
        self.process = [(each.group, each.process) for each in trace.lanes]
        blocks, tasks, region, waits = _blocking(trace, self.event, role)
        self.blocks = blocks.tolist()
        on_device = np.isin(role, DEVICE)
        lasting = end > start
        self.on_device = on_device.tolist()
        self.by_end = {
            _Blocks.DEVICE: self._sorted(on_device & lasting, end, lane),
            _Blocks.THREADS: self._sorted(~on_device & lasting & ~waits, end, lane),
            _Blocks.TASKS: self._sorted(tasks & lasting, end, lane),
        }
        self.is_task = tasks.tolist()
        regions = np.flatnonzero(region)
        self.regions: list[int] = regions[np.argsort(start[regions], kind="stable")].tolist()
        self.region_starts = [self.start[each] for each in self.regions]
        self._devices(trace)

    def _sorted(self, which: NDArray[np.bool_], end: Int64, lane: Int64) -> tuple[list[int], list[int]]:
        """The places of these events by end, and the ends."""
        places = np.flatnonzero(which)
        places = places[np.lexsort((lane[places], end[places]))]
        return places.tolist(), end[places].tolist()

    def _devices(self, trace: Trace) -> None:
        place_of = np.full(len(trace) + 1, -1, np.int64)  # the last one is for event -1
        place_of[self.event] = np.arange(len(self.event))
        work = device_work(trace)
        at = place_of[work.event].tolist()
        self.launch = dict(zip(at, place_of[work.launch].tolist(), strict=True))
        self.released = dict(zip(at, place_of[work.released_by].tolist(), strict=True))
        self.copy_of = {launch: place for place, launch in self.launch.items() if launch >= 0}  # the last one
        # Kineto tells a wait a second time, in the lane of the stream that was waited for.
        self.stream_of: dict[int, int] = {}
        told = np.flatnonzero(trace.of_category("cuda_sync"))
        streams = dict(zip(trace.ids("correlation")[told].tolist(), trace.lane[told].tolist(), strict=True))
        busy = set(work.lane.tolist())
        tie = trace.ids("correlation")[self.event] if streams else np.zeros(0, np.int64)
        for place in np.flatnonzero((tie > 0) & (np.array(self.blocks[: len(tie)], np.int64) == _Blocks.DEVICE)):
            stream = streams.get(int(tie[place]), -1)
            if stream in busy:
                self.stream_of[int(place)] = stream

    def pieces(self) -> Pieces:
        """Follow the path back from the event that ended last."""
        found: list[tuple[int, int, int, int, int]] = []
        if not len(self.event):
            return _columns([(-1, 0, self.first_ns, self.last_ns, Cause.NOTHING)], self.event)
        end = max(self.end)
        lane = min(self.lane[place] for place, ends in enumerate(self.end) if ends == end)
        found.append((-1, lane, end, self.last_ns, Cause.NOTHING))
        now, here = end, self._before(lane, end)
        seen = {lane}  # the lanes at this time: no step leads back to one of them
        while True:
            place, reach = here, NEVER
            while place >= 0 and self.end[place] < now:
                reach, place = self.end[place], self.outer[place]
            if place >= 0:
                begin = max(self.start[place], reach)
                cause = self.cause[self.role[place]]
                to = self._waited_for(place, begin, now, seen) if self.blocks[place] else -1
                if to >= 0:
                    begin, cause = self.end[to], Cause.WAITING
                elif self.blocks[place] == _Blocks.THREADS:
                    cause = Cause.WAITING
                found.append((place, lane, begin, now, cause))
            else:
                to, begin, cause, of = self._before_gap(lane, here, reach, now, seen)
                found.append((of, self.lane[of] if of >= 0 else lane, begin, now, cause))
                if begin == self.first_ns and to < 0 and reach == NEVER:
                    break
            if begin < now:
                seen = {lane}
            now = begin
            if to >= 0:
                lane = self.lane[to]
                seen.add(lane)
                here = self._before(lane, now)
            else:
                while here >= self.first[lane] and self.start[here] >= now:
                    here -= 1
                if here < self.first[lane]:
                    here = -1
        return _columns(found, self.event)

    def _before(self, lane: int, now: int) -> int:
        """The place of the lane's last event that started before now, or -1."""
        place = bisect_left(self.start, now, self.first[lane], self.until[lane]) - 1
        return place if place >= self.first[lane] else -1

    def _waited_for(self, place: int, begin: int, now: int, seen: set[int]) -> int:
        """What the innermost event of a thread waited for, if that ended in ``(begin, now]``; else -1."""
        blocks, lane = self.blocks[place], self.lane[place]
        if blocks == _Blocks.COPY:
            copy = self.copy_of.get(place, -1)
            return copy if copy >= 0 and begin < self.end[copy] <= now and self.lane[copy] not in seen else -1
        stream = self.stream_of.get(place, -1)
        places, ends = self.by_end[_Blocks(blocks)]
        for i in range(bisect_right(ends, now) - 1, -1, -1):
            if ends[i] <= begin:
                return -1
            to = places[i]
            if (
                self.lane[to] != lane
                and self.lane[to] not in seen
                and (stream < 0 or self.lane[to] == stream)
                and (blocks != _Blocks.TASKS or self.start[to] >= self.start[place])
            ):
                return to
        return -1

    def _before_gap(self, lane: int, here: int, reach: int, now: int, seen: set[int]) -> tuple[int, int, int, int]:
        """What came before an event that began on an idle lane: where to go on, since when, the cause, and whose."""
        after = here + 1 if here >= 0 else self.first[lane]
        if self.on_device[after]:
            launch, released = self.launch[after], self.released[after]
            if released >= 0 and self.end[released] > reach and self.lane[released] not in seen:
                return released, self.end[released], Cause.WAITING, after
            if launch >= 0 and reach < self.start[launch] <= now and self.lane[launch] not in seen:
                return launch, self.start[launch], Cause.LAUNCHES, launch
            if reach != NEVER:
                return -1, reach, Cause.WAITING, after
        elif self.is_task[after] and (region := self._region(after)) >= 0 and self.lane[region] not in seen:
            if self.start[region] >= reach:
                return region, self.start[region], Cause.WAITING, after
            return -1, reach, Cause.WAITING, after
        to = self._handed_over(lane, reach, now, seen)
        if to >= 0:
            return to, self.end[to], Cause.NOTHING, -1
        return -1, self.first_ns if reach == NEVER else reach, Cause.NOTHING, -1

    def _region(self, task: int) -> int:
        """The place of the region of another lane around a task, the last to begin; -1: none."""
        for i in range(bisect_right(self.region_starts, self.start[task]) - 1, -1, -1):
            region = self.regions[i]
            if self.end[region] >= self.end[task] and self.lane[region] != self.lane[task]:
                return region
        return -1

    def _handed_over(self, lane: int, reach: int, now: int, seen: set[int]) -> int:
        """What ended last in ``(reach, now]`` on another thread of the process that was idle since; -1: nothing.

        Where the lane had no event before, and no thread did this: whatever ended last.
        """
        places, ends = self.by_end[_Blocks.THREADS]
        for i in range(bisect_right(ends, now) - 1, -1, -1):
            to = places[i]
            if ends[i] <= reach:
                break
            if self.lane[to] not in seen and self.process[self.lane[to]] == self.process[lane] and self._idle(to, now):
                return to
        if reach != NEVER:
            return -1
        last = -1
        for places, ends in (self.by_end[_Blocks.THREADS], self.by_end[_Blocks.DEVICE]):
            before = (places[i] for i in range(bisect_right(ends, now) - 1, -1, -1))
            to = next((each for each in before if self.lane[each] not in seen), -1)
            last = to if last < 0 or (to >= 0 and self.end[to] > self.end[last]) else last
        return last

    def _idle(self, place: int, now: int) -> bool:
        """Whether nothing runs on the lane of an event from its end until now."""
        last, reach = self._before(self.lane[place], now), NEVER
        while last >= 0 and self.end[last] <= now:
            reach, last = self.end[last], self.outer[last]
        return last < 0 and reach == self.end[place]


def _blocking(
    trace: Trace, event: Int64, role: NDArray[np.int8]
) -> tuple[NDArray[np.int8], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """What each of these events may wait for; which are tasks, which are regions, which wait for threads."""
    calls = [
        _Blocks.DEVICE if _SYNCHRONIZE.match(name) else _Blocks.COPY if _COPY_CALL.match(name) else _Blocks.NOTHING
        for name in trace.names
    ]
    python = np.array([bool(_PYTHON_WAIT.fullmatch(name)) for name in trace.names], bool)
    name = trace.name[event]
    tasks, regions, waits = (trace.of_category(each)[event] for each in ("task", "region", "wait"))
    waits = waits | (python[name] & (role == Role.OTHER))
    blocks = np.where(role == Role.RUNTIME, np.array(calls, np.int8)[name], _Blocks.NOTHING).astype(np.int8)
    blocks[regions], blocks[waits] = _Blocks.TASKS, _Blocks.THREADS
    return blocks, tasks, regions, waits


def _outer(lane: list[int], end: list[int]) -> list[int]:
    """The place of the last event before each one, on its lane, that ends later; -1: none."""
    found, around, here = [], list[int](), -1
    for place, ends in enumerate(end):
        if lane[place] != here:
            around, here = [], lane[place]
        while around and end[around[-1]] <= ends:
            around.pop()
        found.append(around[-1] if around else -1)
        around.append(place)
    return found


def _columns(found: list[tuple[int, int, int, int, int]], event: Int64) -> Pieces:
    """Pieces in order of time, those without a length left out; neighbours of the same event are one."""
    rows = np.array(found[::-1], np.int64)
    rows = rows[rows[:, 3] > rows[:, 2]]
    same = np.all(rows[1:, [0, 1, 4]] == rows[:-1, [0, 1, 4]], axis=1)
    first = np.flatnonzero(np.append(True, ~same)[: len(rows)])
    last = np.append(first[1:] - 1, len(rows) - 1)[: len(first)]
    place, lane, start, _, cause = rows[first].T
    return Pieces(np.append(event, -1)[place], lane, start, rows[last, 3], cause)
