"""Statistics of a pipeline's run: items, failures, latencies, and the throughput that its stages allow."""

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
    """An item on which a stage raised.

    >>> from kit.pipeline import Pipeline, Stage
    >>> run = Pipeline([Stage("invert", lambda x: 1 / x)], on_error="skip").run([1, 0, 2], lambda result: None)
    >>> run.failures[0].item, type(run.failures[0].error).__name__
    (1, 'TaskError')
    """

    item: int  # its position in the source
    error: Exception


@one_line
@dataclass(eq=False)
class StageStatistics:
    """Statistics of one stage so far. Only the stage's own thread writes here.

    >>> from kit.pipeline import Pipeline, Stage
    >>> run = Pipeline([Stage("double", lambda x: 2 * x)]).run([1, 2, 3], lambda result: None)
    >>> [(stage.name, stage.items) for stage in run.stages]  # the source first
    [('source', 3), ('double', 3)]
    """

    name: str
    items: int = 0
    failed: int = 0
    busy_ns: int = 0

    @property
    def ms(self) -> float:
        """Milliseconds per item, on average."""
        return self.busy_ns / max(1, self.items + self.failed) / 1e6


@dataclass(eq=False)
class RunStatistics:
    """Statistics of a run so far; at its end ``read == done + dropped + failed``.

    >>> from kit.pipeline import Pipeline, Stage
    >>> run = Pipeline([Stage("double", lambda x: 2 * x)]).run([1, 2, 3], lambda result: None)
    >>> run.done, run.failed, run.per_second > 0, run.latency_ms(95) > 0
    (3, 0, True, True)
    """

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
        """Items on which a stage raised."""
        return sum(stage.failed for stage in self.stages)

    @property
    def per_second(self) -> float:
        """Items delivered per second."""
        return self.done / max(1, (self.ended_ns or clock()) - self.began_ns) * 1e9

    @property
    def bottleneck(self) -> StageStatistics:
        """The stage that was busy longest: only less work in it can make the pipeline faster."""
        return max(self.stages, key=lambda stage: stage.busy_ns)

    def latency_ms(self, percent: float) -> float:
        """A percentile of the time from read to delivered, in ms; NaN before the first item is delivered."""
        return float(np.percentile(list(self.latencies_ns), percent)) / 1e6 if self.latencies_ns else float("nan")

    def bound(self, cores: int) -> float:
        """The most items per second that these stages allow on ``cores`` cores, with one core per stage.

        It is a bound only if the stages were timed alone, as :meth:`Pipeline.in_turn` does on one thread.
        """
        nodes = [Node(cost=stage.ms / 1000) for stage in self.stages]  # each works on another item
        return 1 / lower_bound(nodes, cores)

    def __repr__(self) -> str:
        return f"RunStatistics({self.done} of {self.read} done, {self.dropped} dropped, {self.failed} failed)"
