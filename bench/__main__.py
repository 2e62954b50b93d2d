"""``python -m bench``: print what the kit costs over plain code, and write it to ``build/bench.json``.

Both sides of a row are runners of one measurement, with interleaved rounds, and the ratio is the median of its paired
ratios. Spans are written meanwhile, as always while measuring: the kit's own, and on both sides the call's, of two or
three microseconds. The first row compares plain code with itself: what differs there is this machine's noise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.approaches import parse
from kit.executors import Executor, Sequential, Task, Threads
from kit.hardware import detect
from kit.measure import Ratio, Runs, measure, speed_up
from kit.workloads import workload

ROUNDS = 100
TASKS = 4  # of an empty region
OUT = Path("build/bench.json")


@dataclass(frozen=True)
class Bare:
    """Plain code, called as a runner is."""

    call: Callable[..., Any]
    intra_op_threads: int

    def __call__(self, *args: Any) -> Any:
        return self.call(*args)


@dataclass(frozen=True)
class Result:
    """A row: smaller is better, and below a ratio of 1 the kit is the faster."""

    name: str
    ours: float  # median, in unit
    peer: float
    ratio: Ratio  # ours / peer
    unit: str

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "ratio": self.ratio.estimate}


def against(name: str, ours: Runs, peer: Runs, inputs: Sequence[Any] = (), unit: str = "ms") -> Result:
    timings = measure({"ours": ours, "peer": peer}, tuple(inputs), rounds=ROUNDS)
    scale = {"ms": 1, "us": 1000}[unit]
    medians = [timings[side].median_ms * scale for side in ("ours", "peer")]
    return Result(name, *medians, speed_up(timings["ours"], timings["peer"]), unit)


def two_stream() -> list[Result]:
    work = workload("two-stream")
    spatial, temporal = work.model.streams.branches.values()
    merge = work.model.streams.merge
    by_hand = Bare(lambda frame, flow: merge([spatial(frame), temporal(flow)]), detect().cores)
    with parse("sequential").prepare(work.model) as runner:
        return [
            against("bare loop vs itself, two-stream", Bare(by_hand.call, detect().cores), by_hand, work.inputs),
            against("sequential vs bare loop, two-stream", runner, by_hand, work.inputs),
        ]


def empty_regions() -> list[Result]:
    def nothing() -> None:
        pass

    tasks = [Task(f"task {i}", nothing) for i in range(TASKS)]

    def row(name: str, executor: Executor, by_hand: Callable[[], Any]) -> Result:
        name = f"{name}, {TASKS} empty tasks"
        return against(name, Bare(lambda: executor.run(tasks), 1), Bare(by_hand, 1), unit="us")

    with Threads(2) as threads, ThreadPoolExecutor(2) as pool:

        def pooled() -> list[None]:
            futures = [pool.submit(nothing) for _ in range(TASKS)]
            return [future.result() for future in futures]

        return [
            row("sequential vs list comprehension", Sequential(), lambda: [nothing() for _ in range(TASKS)]),
            row("threads vs ThreadPoolExecutor", threads, pooled),
        ]


def main() -> None:
    results = [*two_stream(), *empty_regions()]
    print(f"{'':50} {'ours':>9} {'peer':>9}      ours / peer [95%]")
    for row in results:
        print(f"{row.name:50} {row.ours:9.2f} {row.peer:9.2f} {row.unit}   {row.ratio}")
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps([row.to_dict() for row in results], indent=2) + "\n")


if __name__ == "__main__":
    main()
