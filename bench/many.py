"""``python -m bench.many``: many images and clips against plain code and their bounds; to build/bench_many.json.

- Serial OpenCV of the kit against a bare loop over ``setInput`` and ``forward``: within 3%.
- The best concurrent approaches for 16 images: at least 0.85 of the bound, each image timed at one thread.
- The pipeline: at least 0.9 of ``min(1 / slowest stage, cores / sum of stages)``, each timed at one thread.
- Memory over 10,000 frames: constant.
- A cold pool: at least 95% of its wall time has a named cause.

The bounds are timed next to what they bound, in turn, since a shared machine changes speed from second to second. They
count on all cores; beside each stands the share of what the cores gave in the same rounds on work that shares nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

import kit
from kit.approaches import FunctionRunner, Workload
from kit.labs.opencv_dnn import named_share
from kit.measuring.rounds import measure
from kit.measuring.statistics import speed_up
from kit.pipeline import Pipeline, Stage
from kit.workloads import live, opencv_dnn

OUT = Path("build/bench_many.json")
IMAGES, FRAMES, ROUNDS = 16, 10_000, 20
KEY = "of the cores that were there"


def bare_loop() -> dict[str, Any]:
    """The kit's sequential approach against the loop that one would write."""
    work = opencv_dnn.make(IMAGES)
    net = cv2.dnn.readNetFromONNX(np.frombuffer(opencv_dnn.exported(), np.uint8))

    def loop() -> list[Any]:
        answers = []
        for image in work.inputs:
            net.setInput(opencv_dnn.preprocess((image,)))
            answers.append(opencv_dnn.softmax(net.forward()))
        return answers

    with work.prepare("sequential(threads=1)") as ours:
        timings = measure({"bare": FunctionRunner(loop), "kit": ours}, rounds=ROUNDS)
    ratio = speed_up(timings["bare"], timings["kit"])
    return {"name": "serial OpenCV, kit / bare loop (goal >= 0.97)", "value": ratio.estimate, "interval": ratio[1:]}


def share(name: str, goal: float, work: Workload, baseline: str, approach: str) -> dict[str, Any]:
    """An approach's rate as a share of its bound, from the tasks of the baseline in the same rounds.

    Tasks of one name are a stage, which takes one after the other; those of different names need nothing from each
    other. The second value counts on no more than what the cores gave in these rounds.
    """
    rates = kit.compare(work, approaches=[baseline, approach], rounds=ROUNDS, progress=False)
    serial, timing, core_scaling = rates[baseline].timing, rates[approach].timing, rates.core_scaling
    assert serial is not None
    assert timing is not None
    tasks: Counter[str] = Counter()
    for turn in serial.turns:
        assert turn is not None
        for (_, task), length in turn.tasks.items():  # outermost ones: the branches of a stage's network are its own
            tasks[task] += length
    longest, ratio = sum(tasks.values()) / max(tasks.values()), speed_up(serial, timing).estimate
    there = core_scaling.estimate if core_scaling else 1.0
    return {
        "name": f"{name}, share of the bound (goal >= {goal})",
        "value": ratio / min(longest, rates.cores),
        KEY: ratio / min(longest, max(1.0, there)),
        "cores": there,
    }


def threads() -> dict[str, Any]:
    """A thread per core."""
    return share("threads", 0.85, opencv_dnn.make(IMAGES), "sequential(threads=1)", "threads(threads=1)")


def processes() -> dict[str, Any]:
    """A warm process per core."""
    return share("processes", 0.85, opencv_dnn.make(IMAGES), "sequential(threads=1)", "processes(threads=1)")


def pipeline() -> dict[str, Any]:
    """A thread per stage, each at one intra-op thread."""
    return share("pipeline", 0.9, live.make(), "sequential", "pipeline")


def memory() -> dict[str, Any]:
    """Resident megabytes that 10,000 frames of 320x240 add, after the first thousand."""
    process, sizes = psutil.Process(), []

    def frames() -> Any:
        for i in range(FRAMES):
            yield np.full((240, 320, 3), i % 256, np.uint8)

    def deliver(_: Any) -> None:
        if line.statistics.done in (1000, FRAMES - 1):
            sizes.append(process.memory_info().rss / 1e6)

    line = Pipeline([Stage("grey", lambda x: x.mean(2)), Stage("mean", np.mean)], source="decode")
    line.run(frames(), deliver)
    return {"name": "MB more after 10,000 frames (goal: constant)", "value": sizes[1] - sizes[0]}


def causes() -> dict[str, Any]:
    """Where a cold pool's time went."""
    share = named_share(kit.record(opencv_dnn.make(4), approach="pool_cold", operators=False))
    return {"name": "cold pool, share with a named cause (goal >= 0.95)", "value": share}


def main() -> None:
    rows = []
    for part in (bare_loop, threads, processes, pipeline, memory, causes):
        rows.append(part())
        row = rows[-1]
        there = f"; of the {row['cores']:.2f} cores that were there {row[KEY]:.3f}" if KEY in row else ""
        print(f"{row['name']:60} {row['value']:8.3f}{there}", flush=True)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
