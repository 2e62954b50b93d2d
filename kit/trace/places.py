"""The lanes of a trace file, their order and their names."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

from kit.trace.categories import DEVICE, role_of
from kit.trace.columns import Int32, Interner, Lane, natural

_DEVICE = re.compile(r"(/device:)?(gpu|xpu|npu|mlu|hpu|tpu|mtia|gcu|musa)(?![a-z])", re.IGNORECASE)
NOWHERE = ("", None)  # the pid and tid of what is of all processes


class Place(NamedTuple):
    """Metadata of a process, or of one of its threads."""

    name: str = ""
    labels: str = ""
    order: int = 0
    lane: Lane | None = None  # the kit's own field: the lane that a tid was written for

    @property
    def is_device(self) -> bool:
        """Whether the metadata of a process says that it represents a GPU or another device."""
        return bool(_DEVICE.match(self.labels) or _DEVICE.match(self.name))


class Kind(NamedTuple):
    """The fields that many rows have in common."""

    ph: str
    pid: int | str
    tid: int | str | None  # None: of the process, or of all
    name: str | None
    cat: str | None


def lanes_of(
    kinds: list[Kind], used: list[int], metadata: dict[tuple[int | str, int | str | None], Place]
) -> tuple[tuple[Lane, ...], Int32, list[int]]:
    """The lanes in order, the lane of each kind of row (-1: no single lane), and the lanes of devices."""
    work = {category for category in {kind.cat for kind in kinds} if role_of(category or "") in DEVICE}
    streams = {(kind.pid, kind.tid) for kind in kinds if kind.cat in work and kind.ph in "XBE"}
    devices = {pid for pid, _ in streams}
    places: dict[tuple[int | str, int | str | None], None] = {(kinds[i].pid, kinds[i].tid): None for i in used}
    places.pop(NOWHERE, None)
    named = {pid for pid, _ in places if pid not in devices and metadata.get((pid, None), Place()).name}
    found: list[tuple[Any, tuple[Any, Any], Lane]] = []
    for pid, tid in places:
        process, thread = metadata.get((pid, None), Place()), metadata.get((pid, tid), Place())
        label = thread.name or ("counters" if tid is None else tid if isinstance(tid, str) else f"thread {tid}")
        if (pid, tid) in streams:
            label = f"GPU {pid} stream {str(tid).removeprefix('stream ')}"
        elif pid in devices:
            label = f"GPU {pid} {label}"
        elif len(named) > 1 and pid in named:
            label = f"{process.name} {pid}: {label}"
        order = (process.order, pid in devices, _by_size(pid), thread.order, tid is None, tid != pid, _by_size(tid))
        if thread.lane is not None:  # as it was saved: in the order that it had
            order = (thread.order, False, _by_size(0), 0, False, False, _by_size(tid))
        lane = thread.lane or Lane(pid, "counters" if tid is None else tid, label)
        found.append((order, (pid, tid), lane))
    numbers = Interner()
    rank: dict[Any, int] = {place: numbers[lane] for _, place, lane in sorted(found, key=lambda each: each[0])}
    lanes = np.array([rank.get((kind.pid, kind.tid), -1) for kind in kinds], np.int32)
    said = {pid for (pid, tid), place in metadata.items() if tid is None and place.is_device}
    return tuple(numbers), lanes, [rank[place] for place in places if place in streams or place[0] in said]


def _by_size(key: int | str | None) -> tuple[bool, int, list[tuple[str, int]], str]:
    """Sorts numbers by their size, and before names."""
    if isinstance(key, int):
        return False, key, [], ""
    return True, 0, natural(key or ""), key or ""
