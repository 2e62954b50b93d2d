"""What a run of a pipeline did: items, failures, latencies, and the throughput that its stages allow."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from kit.reprs import one_line
from kit.scheduling import Node, lower_bound
from kit.spans import clock

KEPT = 10_000  # latencies and failures that are remembered: an endless camera must not fill the memory


@one_line
class Failure(NamedTuple):
    """An item that a stage could not do."""

    item: int  # its position in the source
    error: Exception


@one_line
@dataclass(eq=False)
class StageStatistics:
    """What one stage did so far. Only its own thread writes here."""

    name: str
    items: int = 0
    failed: int = 0
    busy_ns: int = 0

    @property
    def ms(self) -> float:
        """Milliseconds an item, on average."""
        return self.busy_ns / max(1, self.items + self.failed) / 1e6


@dataclass(eq=False)
class RunStatistics:
    """What a run did so far; at its end ``read == done + dropped + failed``."""

    stages: list[StageStatistics]  # the source first
    done: int = 0
    dropped: int = 0  # of a live source: too old before the first stage was free
    failures: deque[Failure] = field(default_factory=lambda: deque(maxlen=KEPT))  # the latest of them
    latencies_ns: deque[int] = field(default_factory=lambda: deque(maxlen=KEPT))  # from read to delivered
    began_ns: int = field(default_factory=clock)
    ended_ns: int | None = None  # None while it runs

    @property
    def read(self) -> int:
        """Items that the source gave."""
        return self.stages[0].items

    @property
    def failed(self) -> int:
        """Items that a stage could not do."""
        return sum(stage.failed for stage in self.stages)

    @property
    def per_second(self) -> float:
        """Items delivered a second."""
        return self.done / max(1, (self.ended_ns or clock()) - self.began_ns) * 1e9

    @property
    def bottleneck(self) -> StageStatistics:
        """The stage that was busy longest: only work taken from it makes the pipeline faster, if there are cores."""
        return max(self.stages, key=lambda stage: stage.busy_ns)

    def latency_ms(self, percent: float) -> float:
        """The time below which ``percent`` of the items went from read to delivered; NaN before the first."""
        return float(np.percentile(list(self.latencies_ns), percent)) / 1e6 if self.latencies_ns else float("nan")

    def bound(self, cores: int) -> float:
        """The most items a second that these stages allow on so many cores, one core a stage.

        It means what it says where the stages were timed alone, as :meth:`Pipeline.in_turn` does at one thread.
        """
        nodes = [Node(cost=stage.ms / 1000) for stage in self.stages]  # each works on another item
        return 1 / lower_bound(nodes, cores)

    def __repr__(self) -> str:
        return f"RunStatistics({self.done} of {self.read} done, {self.dropped} dropped, {self.failed} failed)"
