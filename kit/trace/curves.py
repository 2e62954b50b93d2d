"""What has a value over time: counters, and the allocated memory that torch.profiler tells with ``profile_memory``."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kit.reprs import one_line
from kit.trace.columns import KINDS, Float64, Int64, Marks, Trace

_INSTANT, _COUNTER = KINDS.index("i"), KINDS.index("C")


@one_line
class Curve(NamedTuple):
    """A step function: ``value[i]`` holds from ``time_ns[i]`` until ``time_ns[i + 1]``."""

    label: str  # "memory: used", "allocated on GPU 0"
    group: str  # that its lane belongs to
    time_ns: Int64  # ascending
    value: Float64
    in_bytes: bool

    def thinned(self, limit: int) -> Curve:
        """At most ``limit`` points (4 or more), with the lowest and the highest value of each part of the time."""
        n = len(self.time_ns)
        if n <= limit:
            return self
        first = np.unique(np.linspace(0, n, max(1, limit // 4), endpoint=False).astype(np.int64))
        order = np.lexsort((self.value, np.repeat(first, np.diff(first, append=n))))
        last = np.append(first[1:], n) - 1
        kept = np.unique(np.concatenate([first, last, order[first], order[last]]))
        return self._replace(time_ns=self.time_ns[kept], value=self.value[kept])


def curves(trace: Trace) -> list[Curve]:
    """Every counter's series, then the memory of each device, in order of first appearance."""
    marks = trace.marks
    if marks is None:
        return []
    found: dict[tuple[object, ...], Curve] = {}
    several = len({trace.lanes[i].process for i in np.unique(marks.lane[marks.kind == _COUNTER]).tolist()}) > 1
    for kind in (_COUNTER, _INSTANT):
        chosen = np.flatnonzero((marks.kind == kind) & ~np.isnan(marks.value) & (marks.key >= 0))
        if not len(chosen):
            continue
        parts = np.stack([marks.lane, marks.name, marks.key], axis=1)[chosen]
        different, which = np.unique(parts, axis=0, return_inverse=True)
        order = np.argsort(which.ravel(), kind="stable")  # by series, and each in order of time, as the marks are
        bounds = np.searchsorted(which.ravel()[order], np.arange(len(different) + 1))
        for (place, name, key), at in zip(different.tolist(), np.split(chosen[order], bounds[1:-1]), strict=True):
            lane = trace.lanes[place] if place >= 0 else None
            series, group = str(trace.keys[key]), lane.group if lane else ""
            label = trace.names[name] if series in ("value", trace.names[name]) else f"{trace.names[name]}: {series}"
            label += f" ({lane.process})" if several and lane else ""
            who: tuple[object, ...] = (place, name, key)
            if kind == _INSTANT:  # all threads tell of the same memory
                label, who = f"allocated on {series}", (lane.process if lane else "", group, key)
            in_bytes = kind == _INSTANT or "bytes" in label.lower()
            curve = Curve(label, group, marks.time_ns[at], marks.value[at], in_bytes)
            found[kind, who] = _together(found[kind, who], curve) if (kind, who) in found else curve
    return list(found.values())


def _together(one: Curve, other: Curve) -> Curve:
    time, value = np.append(one.time_ns, other.time_ns), np.append(one.value, other.value)
    order = np.argsort(time, kind="stable")
    return one._replace(time_ns=time[order], value=value[order])


def instants(trace: Trace) -> Marks | None:
    """The instants that say nothing but their name; those of memory are in a curve."""
    marks = trace.marks
    return None if marks is None else marks.of(np.flatnonzero((marks.kind == _INSTANT) & np.isnan(marks.value)))
