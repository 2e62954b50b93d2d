"""``python -m bench.statistics``: are verdicts right? Written to ``build/statistics.json``, with the load meanwhile.

- A/A: whole tables of one workload against itself. A row that is called faster or slower is a false alarm.
- Power: a slow-down of 5%, planted as 5% more of the same work, is to be found; where it is not, the table's "smallest
  difference" is to be larger than it.
- Agreement with ``torch.utils.benchmark.Timer``, turn by turn.
- Planted causes: each is to be named by the factor that costs most, or by what contention waits for.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.benchmark import Timer

import kit
from kit.approaches import FunctionRunner, Runner
from kit.equality import Equality
from kit.explaining.explanation import Explanation
from kit.machine import load
from kit.measuring.comparison import Row
from kit.measuring.rounds import ROUNDS, measure
from kit.measuring.statistics import with_verdicts

OUT = Path("build/statistics.json")
SAME = Equality(True, 0.0)
SLOWER = 0.05  # the planted slow-down


def product(times: int, x: torch.Tensor) -> torch.Tensor:
    """Multiply a square matrix by itself so many times."""
    y = x
    for _ in range(times):
        y = x @ y
    return y


@cache
def matrix(size: int = 96) -> torch.Tensor:
    return torch.eye(size) + 0.001 * torch.randn(size, size, generator=torch.Generator().manual_seed(0))


def repeated(times: int, size: int = 96) -> FunctionRunner:
    """The product as a runner, at one thread."""
    return FunctionRunner(partial(product, times, matrix(size)))


def table(runners: Sequence[Runner], rounds: int, seed: int) -> list[Row]:
    """The first is the baseline."""
    timings = measure({str(i): runner for i, runner in enumerate(runners)}, rounds=rounds, seed=seed)
    base = timings["0"]
    rows = [
        Row(name, timing=timing, equality=SAME, baseline=name == "0", paired_baseline=base)
        for name, timing in timings.items()
    ]
    return with_verdicts(rows)[1:]


def false_alarms(tables: int, rows: int = 12, rounds: int = ROUNDS) -> dict[str, Any]:
    found = [table([repeated(4)] * (rows + 1), rounds, seed) for seed in range(tables)]
    verdicts = [[row.verdict for row in each] for each in found]
    alarms = [any(verdict != "no difference found" for verdict in each) for each in verdicts]
    medians = [row.timing.median_ms for each in found for row in each if row.timing]
    return {
        "tables": tables,
        "rows": rows,
        "rounds": rounds,
        "median_us": 1000 * float(np.median(medians)),
        "tables_with_a_false_alarm": sum(alarms),
        "share": sum(alarms) / tables,
    }


def power(comparisons: int, rounds: int = 60) -> dict[str, Any]:
    pair = [repeated(100), repeated(round(100 * (1 + SLOWER)))]
    found = [table(pair, rounds, seed)[0] for seed in range(comparisons)]
    slower = [row.verdict == "slower" for row in found]
    true = [
        row.verdict == "slower"
        or (row.minimum_detectable_effect is not None and row.minimum_detectable_effect >= SLOWER)
        for row in found
    ]
    return {
        "comparisons": comparisons,
        "rounds": rounds,
        "planted": SLOWER,
        "found": sum(slower) / comparisons,
        "called_faster": sum(row.verdict == "faster" for row in found),
        "median_minimum_detectable_effect": float(
            np.median([row.minimum_detectable_effect for row in found if row.minimum_detectable_effect is not None])
        ),
        "minimum_detectable_effect_true": sum(true) / comparisons,
    }


def agreement(repeats: int = 10) -> list[dict[str, Any]]:
    """The kit's turns over Timer's of as many calls, in turn; a workload each from 50 microseconds to 200 milliseconds.

    On a loaded machine only the fastest turns of both say anything: others are as long as whoever took the core.
    """
    rows = []
    for size, times in ((96, 3), (96, 10), (96, 50), (192, 40), (384, 20), (512, 70)):
        work = repeated(times, size)
        timer = Timer("work()", globals={"work": work}, num_threads=1)
        ours, theirs = [], []
        for seed in range(repeats):
            timing = measure({"kit": work}, rounds=6, seed=seed)["kit"]
            with torch.inference_mode():
                theirs += [timer.timeit(timing.calls).mean * 1e9 for _ in timing.samples_ns]
            ours += list(timing.samples_ns)
        ratios = {name: float(of(ours) / of(theirs)) for name, of in (("median", np.median), ("fastest", np.min))}
        rows.append({"fastest_ms": min(ours) / 1e6, "kit / Timer": ratios})
    return rows


class Loop(nn.Module):
    """Pure Python, which holds the GIL."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = 0
        for i in range(200_000):
            total += i % 7
        return x + total


class Chain(nn.Module):
    """Products of matrices, which let go of it."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return product(self.times, x)


class First(nn.Module):
    """Reads next to nothing of what it is given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten()[:1] + 0


def planted() -> list[dict[str, Any]]:
    """Real causes, and what the explanation of ``threads`` or ``processes`` blames."""

    def blamed(model: nn.Module, x: Any, approach: str) -> Explanation:
        return kit.explain(kit.compare(model.eval(), x, ["sequential(threads=1)", approach], rounds=30, progress=False))

    def most(parts: dict[str, float]) -> str:
        return max(parts, key=parts.__getitem__, default="not separated")

    def worst(found: Explanation) -> str:
        return min((value, name) for name, value in found.steps() if name not in ("lanes", "1 / baseline efficiency"))[
            1
        ]

    pair = kit.Branches({"a": Chain(300), "b": Chain(300)}, kit.Mean())
    uneven = kit.Branches({"a": Chain(100), "b": Chain(500)}, kit.Mean())
    loops = kit.Branches({"a": Loop(), "b": Loop()}, kit.Mean())
    copied = kit.Branches({"a": First(), "b": First()}, kit.Mean())
    workers = "workers=2, threads=1"
    found = blamed(uneven, matrix(), f"threads({workers})")
    rows = [{"planted": "imbalance", "expected": "load balance", "blamed": worst(found)}]
    found = blamed(loops, matrix(), f"threads({workers})")
    rows.append({"planted": "GIL", "expected": "waiting for the GIL or a lock", "blamed": most(found.waiting_ms)})
    found = blamed(copied, torch.rand(16_000_000), f"processes({workers})")
    rows.append({"planted": "copy", "expected": "transfer", "blamed": most(found.overhead_ms)})
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        found = blamed(pair, matrix(), f"threads({workers})")
    finally:
        for process in busy:
            process.kill()
            process.wait()
    rows.append({"planted": "busy neighbours", "expected": "waiting for a core", "blamed": most(found.waiting_ms)})
    return rows


def main(arguments: Sequence[str]) -> None:
    tables, comparisons = (int(word) for word in (*arguments, *("200", "50")[len(arguments) :]))
    parts: dict[str, Callable[[], Any]] = {
        "planted": planted,
        "agreement": agreement,
        "power": lambda: power(comparisons),
        "false_alarms": lambda: false_alarms(tables),
    }
    results: dict[str, Any] = {}
    for name, part in parts.items():
        before, start = load.Usage.now(), time.monotonic()
        results[name] = {"result": part(), "seconds": time.monotonic() - start}
        results[name]["load"] = load.caveats(before, load.Usage.now())
        print(name, json.dumps(results[name], indent=2), flush=True)
        OUT.parent.mkdir(exist_ok=True)
        OUT.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
