"""``python -m bench``: print what the kit costs over plain code, and write it to ``build/bench.json``.

Both sides of a row are runners of one measurement, with interleaved rounds, and the ratio is the median of its paired
ratios. Spans are written meanwhile, as always while measuring: the kit's own, and on both sides the call's, of two or
three microseconds. The first row compares plain code with itself: what differs there is this machine's noise.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench import peers, traces
from kit.approaches import FunctionRunner, Runner, parse
from kit.executors import Executor, Sequential, Task
from kit.executors.processes import Processes
from kit.executors.threads import Threads
from kit.machine.hardware import detect
from kit.measuring.comparison import Ratio
from kit.measuring.rounds import measure
from kit.measuring.statistics import MIN_ROUNDS, speed_up
from kit.models import toy_two_stream
from kit.workloads import workload

ROUNDS = 100
TASKS = 4  # of an empty region
OUT = Path("build/bench.json")


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


def against(name: str, ours: Runner, peer: Runner, unit: str = "ms") -> Result:
    timings = measure({"ours": ours, "peer": peer}, rounds=ROUNDS)
    scale = {"ms": 1, "us": 1000}[unit]
    medians = [timings[side].median_ms * scale for side in ("ours", "peer")]
    return Result(name, *medians, speed_up(timings["ours"], timings["peer"]), unit)


def two_stream() -> list[Result]:
    work = workload("two-stream")
    spatial, temporal = work.model.streams.branches.values()
    merge = work.model.streams.merge
    frame, flow = work.inputs

    def loop() -> Any:
        return merge([spatial(frame), temporal(flow)])

    bare, same = (FunctionRunner(loop, intra_op_threads=detect().cores) for _ in range(2))
    with work.prepare("sequential") as runner:
        return [
            against("bare loop vs itself, two-stream", same, bare),
            against("sequential vs bare loop, two-stream", runner, bare),
        ]


def empty_regions() -> list[Result]:
    def nothing() -> None:
        pass

    tasks = [Task(f"task {i}", nothing) for i in range(TASKS)]

    def row(name: str, executor: Executor, by_hand: Callable[[], Any]) -> Result:
        name = f"{name}, {TASKS} empty tasks"
        return against(name, FunctionRunner(lambda: executor.run(tasks)), FunctionRunner(by_hand), "us")

    with Threads(2) as threads, ThreadPoolExecutor(2) as pool:

        def pooled() -> list[None]:
            futures = [pool.submit(nothing) for _ in range(TASKS)]
            return [future.result() for future in futures]

        return [
            row("sequential vs list comprehension", Sequential(), lambda: [nothing() for _ in range(TASKS)]),
            row("threads vs ThreadPoolExecutor", threads, pooled),
        ]


def round_trips() -> list[Result]:
    """One megabyte to a worker and back, which does nothing with it."""
    x = torch.randn(2**18)
    task = Task("there and back", peers.identity, (x,))
    with Processes(1) as processes, peers.SharedEcho(x) as by_hand, peers.PoolEcho(x) as pool:
        ours = FunctionRunner(lambda: processes.run([task]))
        return [
            against("processes vs worker by hand, 1 MB round trip", ours, by_hand, "us"),
            against("processes vs Pool.map, 1 MB round trip", ours, pool, "us"),
        ]


def approaches(model: nn.Module, inputs: tuple[Any, ...]) -> list[tuple[str, float, Ratio]]:
    """The approaches to run two streams: median ms and speed-up over sequential, the cold one by itself."""
    cores, streams = detect().cores, model.streams
    arguments = (streams.branches, streams.merge, inputs, max(1, cores // 2), cores)
    with ExitStack() as stack:
        runners: dict[str, Any] = {
            name: stack.enter_context(parse(name).prepare(model, inputs))
            for name in ("sequential", "threads", "processes")
        }
        runners["warm workers, Queue"] = stack.enter_context(peers.Queues(*arguments))
        runners["warm Pool.map"] = stack.enter_context(peers.Pool(*arguments))
        timings = measure(runners, rounds=ROUNDS)
        rows = [(name, timing.median_ms, speed_up(timings["sequential"], timing)) for name, timing in timings.items()]
        pair = {
            "sequential": runners["sequential"],
            "cold": stack.enter_context(parse("processes_cold").prepare(model, inputs)),
        }
        few = measure(pair, rounds=MIN_ROUNDS)
        return [*rows, ("processes_cold", few["cold"].median_ms, speed_up(few["sequential"], few["cold"]))]


def main() -> None:
    results = [*two_stream(), *empty_regions(), *round_trips()]
    print(f"{'':50} {'ours':>9} {'peer':>9}      ours / peer [95%]")
    for row in results:
        print(f"{row.name:50} {row.ours:9.2f} {row.peer:9.2f} {row.unit}   {row.ratio}")
    real, toy = workload("two-stream"), toy_two_stream()
    tables = {
        "toy two-stream, 25x25": approaches(toy, (torch.randn(1, 3, 25, 25), torch.randn(1, 2, 25, 25))),
        "two-stream, 112x112": approaches(real.model, real.inputs),
    }
    for name, rows in tables.items():
        print(f"\n{name:36} {'median':>13}   speed-up over sequential [95%]")
        for approach, median, ratio in rows:
            print(f"{approach:36} {median:10.3f} ms   {ratio}")
    OUT.parent.mkdir(exist_ok=True)
    plain = {
        name: [{"name": approach, "median_ms": median, "ratio": ratio._asdict()} for approach, median, ratio in rows]
        for name, rows in tables.items()
    }
    OUT.write_text(
        json.dumps({"rows": [row.to_dict() for row in results], "approaches": plain, "traces": traces.rows()}, indent=2)
        + "\n"
    )


if __name__ == "__main__":
    main()
