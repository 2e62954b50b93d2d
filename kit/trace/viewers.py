"""Where a saved trace puts its events and flows, so that other programs show all of them.

Perfetto drops events of a thread that overlap without nesting, or that are too deep, and it takes only some numbers as
ids (`its importer <https://github.com/google/perfetto/tree/main/src/trace_processor/importers/json>`_).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any, TypeGuard

import numpy as np

from kit.trace.columns import KINDS, Int32, Marks, Trace
from kit.trace.lanes import pack
from kit.trace.links import around

_DEEPEST = 255  # levels that every version of Perfetto shows
_HEX = re.compile(r"(?:0x)?[0-9a-fA-F]{1,16}")
ProcessThread = tuple[int, int]


def parts_of(trace: Trace) -> Int32:
    """The part of its lane that each event is written to: in each of them, events nest, and not too deep.

    Asynchronous events may overlap in one part: they are told apart by their ids.
    """
    packing = pack(trace)
    level = packing.depth + _at_one_moment(trace, packing.sublane)
    parts: Int32 = packing.sublane + level // _DEEPEST * (packing.sublane.max(initial=0) + 1)
    parts[np.array([lane.asynchronous for lane in trace.lanes], bool)[trace.lane]] = 0
    return parts


def _at_one_moment(trace: Trace, sublane: Int32) -> Int32:
    """For each event without length, how many of them come before it at its moment: to Perfetto, they nest."""
    instants = np.flatnonzero(trace.duration_ns == 0)
    columns = [column[instants] for column in (trace.start_ns, sublane, trace.lane)]
    order = np.lexsort(columns)
    first = np.append(True, np.any([np.diff(column[order]) != 0 for column in columns], axis=0))[: len(instants)]
    at = np.arange(len(instants))
    before = np.zeros(len(trace), np.int32)
    before[instants[order]] = at - np.maximum.accumulate(np.where(first, at, 0))
    return before


def places_of(trace: Trace, part: Int32) -> dict[tuple[int, int], ProcessThread]:
    """The pid and tid of each lane and of its parts: the lane's own, if they are free and numbers that Perfetto takes.

    It takes unsigned numbers of 32 bits. A tid of 0 is for it the thread with the number of the process.
    """
    fresh = _unused(key for lane in trace.lanes for key in (lane.process, lane.thread))
    pids: dict[int | str, int] = {}
    for lane in trace.lanes:
        if lane.process not in pids:
            pids[lane.process] = lane.process if _fits(lane.process) else next(fresh)
    parts = {(lane, 0) for lane in range(len(trace.lanes))} | set(zip(trace.lane.tolist(), part.tolist(), strict=True))
    taken: set[ProcessThread] = set()
    places: dict[tuple[int, int], ProcessThread] = {}
    for index, number in sorted(parts, key=lambda both: (both[1], both[0])):  # the lanes themselves before their parts
        pid, tid = pids[trace.lanes[index].process], trace.lanes[index].thread
        place = (pid, tid) if _fits(tid) and (tid or not pid) else None
        if number or place is None or place in taken:
            place = (pid, next(fresh))
        taken.add(place)
        places[index, number] = place
    return places


def parts_of_marks(trace: Trace, marks: Marks, part: Int32) -> Int32:
    """The part of its lane that each mark is written to: an end of a flow must be where its event is."""
    parts = np.zeros(len(marks.time_ns), np.int32)
    if part.any():
        event = around(trace, marks)
        flows = np.flatnonzero((event >= 0) & (marks.kind < KINDS.index("i")))
        parts[flows] = part[event[flows]]
    return parts


def flow_ids(trace: Trace, marks: Marks) -> dict[int, int | str]:
    """The id of each flow, by its key: its own if it is a number to Perfetto, which reads text as hexadecimal.

    A flow whose number another one has, as in a comparison of two traces, gets a new one.
    """
    keys = np.unique(marks.key[marks.kind < KINDS.index("i")]).tolist()
    numbers = [_as_number(trace.keys[key]) for key in keys]
    fresh, ids, taken = _unused(numbers), dict[int, int | str](), set[int]()
    for key, number in zip(keys, numbers, strict=True):
        own = trace.keys[key]
        if number is None or number in taken:
            ids[key] = next(fresh)
        else:
            ids[key] = own if isinstance(own, str) else number if _fits(number, 63) else hex(number)
            taken.add(number)
    return ids


def _fits(key: Any, bits: int = 32) -> TypeGuard[int]:
    return type(key) is int and 0 <= key < 2**bits


def _unused(keys: Iterable[Any]) -> Iterator[int]:
    """Numbers that are none of these."""
    used = set(keys)
    return (number for number in count(1) if number not in used)


def _as_number(key: Any) -> int | None:
    if isinstance(key, str) and _HEX.fullmatch(key):
        return int(key, 16)
    return key if _fits(key, 64) else None
