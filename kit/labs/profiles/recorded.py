"""What notebook 10 records: first calls, the profiler itself, threads, processes, requests, tasks that wait."""

from __future__ import annotations

import asyncio
import statistics
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kit import spans
from kit.approaches import Workload
from kit.approaches.names import parse
from kit.data_files import data_file
from kit.labs.speed import size
from kit.machine import load
from kit.models import inception_block
from kit.recorder import record_fresh, recording
from kit.regions import Branches, Concat
from kit.reprs import one_line
from kit.trace import Trace, load_trace
from kit.trace.categories import Role, having

CALLS = 10  # of the network, within one profile
REQUESTS = 20  # of which one is larger
ALONE, PROFILED, DEEP = "alone", "profiled", "profiled_with_shapes_and_stacks"
RECORDED = "h200-inception-v3-sequential"


def block() -> tuple[nn.Module, Tensor]:
    """An Inception block of small operators, and its input, ``(1, 64, 17, 17)``."""
    torch.manual_seed(0)
    return inception_block(64), torch.rand(1, 64, 17, 17)


@one_line
class First(NamedTuple):
    """Five calls in a new process, several times."""

    traces: list[Trace]
    taken: load.Taken | None  # by other programs, meanwhile

    @property
    def ratios(self) -> list[float]:
        """How many times as long the first call took as the median of those after it, for each process."""
        found = []
        for trace in self.traces:
            took = {event.name: event.duration_ns for event in trace.events() if event.category == "part"}
            found.append(took.pop("call 1") / statistics.median(took.values()))
        return found


def first_calls() -> First:
    """Five calls of the block in each of some new processes: spans only, since a profiler starts slowly too."""
    usage = load.Usage.now()
    traces = [record_fresh(_five_calls) for _ in range(size(3, 2))]
    return First(traces, load.taken(usage, load.Usage.now()))


def _five_calls() -> Trace:
    model, x = block()
    with recording("five calls", operators=False) as found, torch.inference_mode():
        for i in range(1, 6):
            with spans.span(f"call {i}"):
                model(x)
    return found.trace


def profiler_cost(model: nn.Module, x: Tensor) -> Workload:
    """The same calls without a profiler, under torch.profiler, and with the shapes and call stacks that it can keep."""

    def calls() -> Any:
        with torch.inference_mode():
            return [model(x) for _ in range(CALLS)][-1]

    def under(**options: Any) -> Any:
        with torch.profiler.profile(**options):
            return calls()

    deep = partial(under, record_shapes=True, with_stack=True)
    own: Any = {ALONE: calls, PROFILED: under, DEEP: deep}
    return Workload("calls of an Inception block", None, (), items=CALLS, unit="calls", approaches=own)


@one_line
class Seen(NamedTuple):
    """How many of the operators that ran a recording shows."""

    ran: int
    plain: int  # torch.profiler as it is, in the thread that calls
    every: int  # kit.recording


def threads_seen() -> Seen:
    """The convolutions of two branches on two threads, in two recordings of one call each."""
    branches = {name: nn.Conv2d(8, 8, 3, padding=1) for name in ("left", "right")}
    model, x = Branches(branches, merge=Concat(1)).eval(), torch.rand(1, 8, 16, 16)
    with parse("threads(workers=2)").prepare(model, x) as runner, torch.inference_mode():
        runner()
        with torch.profiler.profile() as profiler:
            runner()
        with recording() as found:
            runner()
    plain = sum(event.name == "aten::convolution" for event in profiler.events() or ())
    return Seen(2, plain, count(found.trace, "aten::convolution"))


def children_seen() -> Seen:
    """How often items were stacked to batches by a DataLoader: with worker processes, and without."""
    found = []
    for options in ({"num_workers": 2, "multiprocessing_context": "spawn"}, {"num_workers": 0}):
        loader: Any = DataLoader([*torch.rand(8, 64)], batch_size=4, **options)  # type: ignore[arg-type]
        with recording() as recorded:
            batches = [*loader]
        found.append(count(recorded.trace, "aten::stack"))
    return Seen(len(batches), *found)


def on_a_gpu() -> Trace:
    """A call of Inception v3 on an NVIDIA H200: a recording of another machine."""
    return load_trace(data_file(f"traces/{RECORDED}.json.gz"))


def requests() -> Trace:
    """Twenty requests one after the other, a span each; one of them has a larger picture."""
    model, x = block()
    large = torch.rand(1, 64, 17 * 8, 17 * 8)
    with recording("twenty requests", operators=False) as found, torch.inference_mode():
        for i in range(REQUESTS):
            with spans.span("request"):
                model(large if i == REQUESTS - 3 else x)
    return found.trace


async def waiting_together() -> Trace:
    """Three tasks of asyncio that wait at the same time, in one thread: their spans overlap and do not nest."""

    async def fetch(seconds: float) -> None:
        with spans.span("fetch"):
            await asyncio.sleep(seconds)

    with recording("three tasks", operators=False) as found:
        await asyncio.gather(*[fetch(seconds) for seconds in (0.02, 0.03, 0.04)])
    return found.trace


def mine(path: str | Path = "") -> Trace:
    """A trace of the learner's own; without a path, the recording that comes with the kit.

    Raises: as :func:`kit.load_trace`.
    """
    return load_trace(path) if str(path) else on_a_gpu()


def operators(trace: Trace) -> int:
    """How many operators a trace has."""
    return len(having(trace, Role.OPERATOR))


def count(trace: Trace, name: str) -> int:
    """How many events of a trace have this name."""
    return sum(trace.names[i] == name for i in trace.name.tolist())
