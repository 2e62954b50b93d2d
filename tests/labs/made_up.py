"""Comparisons that nobody measured: calm, busy, with one core, with a row missing; judged as measured ones are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from kit.equality import Equality
from kit.machine.load import Taken
from kit.measuring.breakdown import RoundBreakdown
from kit.measuring.comparison import Comparison, Ratio, Row, Timing
from kit.measuring.gate import gated
from kit.measuring.statistics import with_verdicts
from kit.trace import Event, Lane, Trace

MS = 1_000_000


def made_up(
    ms: Mapping[str, float | str],
    *,
    rounds: int = 20,
    scatter: float = 0.01,
    cores: int = 2,
    branches: tuple[str, ...] = ("a", "b"),
    wrong: tuple[str, ...] = (),
    others: float = 0.0,
    unit: str = "call",
    items: int = 1,
) -> Comparison:
    """A comparison with these medians; the first row is the baseline.

    The branches share a call's time equally: on threads and processes side by side, else one after the other.

    Args:
        ms: approach -> the median of its rounds, or the reason why it is not available.
        scatter: standard deviation of the rounds' logarithms.
        wrong: approaches that give another output.
        others: share of the machine's CPU time that other programs took.
    """
    random = np.random.default_rng(0)
    timings = {
        name: _timing(each * MS * np.exp(random.normal(0, scatter, rounds)), _lanes(name, cores), branches)
        for name, each in ms.items()
        if not isinstance(each, str)
    }
    lead = next(iter(timings.values()))
    rows = [
        Row(name, each)
        if isinstance(each, str)
        else Row(
            name, None, timings[name], None, Equality(name not in wrong, 0.0), paired_baseline=lead, lane_threads=1
        )
        for name, each in ms.items()
    ]
    rows[0] = replace(rows[0], baseline=True, ratio=Ratio(1, 1, 1))
    taken = Taken(others, 0.0)
    found = Comparison(tuple(with_verdicts(rows)), rounds, "x", cores=cores, taken=taken, unit=unit, items=items)
    return gated(found)


def busy(ms: Mapping[str, float | str], **changes: int) -> Comparison:
    """The same while other programs took half of the machine."""
    return made_up(ms, others=0.5, cores=changes.get("cores", 2), rounds=changes.get("rounds", 20))


def _lanes(name: str, cores: int) -> int:
    aside = name.startswith(("threads", "processes")) and "workers=1," not in name
    return min(2, cores) if aside else 1


def _timing(samples_ns: np.ndarray, lanes: int, branches: tuple[str, ...]) -> Timing:  # type: ignore[type-arg]
    turns, wall = [], float(np.median(samples_ns))
    for each in samples_ns:
        task = each * 0.9 * lanes / len(branches)
        own = {(0, name): task for name in branches}
        busiest = task * -(-len(branches) // lanes)
        overhead = dict.fromkeys(("startup", "transfer", "merge", "dispatch", "join"), 0.0)
        overlap = busiest if lanes > 1 else 0.0
        turns.append(RoundBreakdown(busiest, own, busiest, lanes, task * len(branches), overhead, overlap=overlap))
    length, ends, events = round(wall * 0.9 * lanes / len(branches)), [0] * lanes, []
    for i, name in enumerate(branches):
        lane = i % lanes
        events.append(Event(name, "task", ends[lane], length, Lane(1, lane + 1, f"lane {lane}")))
        ends[lane] += length
    events.append(Event("call", "call", 0, round(wall), Lane(1, 1, "lane 0")))
    return Timing(samples_ns, 1, Trace.build(events), tuple(turns))


def span(name: str, category: str, start: int, end: int, lane: str) -> Event:
    """A span from one millisecond to another, on a lane of one process."""
    return Event(name, category, start * MS, (end - start) * MS, Lane(1, lane, lane))


# A cold call of two processes: branches 5 to 11 and 8 to 12 ms.
COLD_CALL = Trace.build(
    [
        span("call", "call", 0, 20, "caller"),
        span("start", "startup", 0, 2, "caller"),
        span("start", "startup", 2, 3, "caller"),
        span("spawn", "startup", 1, 5, "process 0"),
        span("a", "task", 5, 11, "process 0"),
        span("b", "task", 8, 12, "process 1"),
    ]
)
