"""``python -m bench.many``: many images and clips against plain code and their bounds; to build/bench_many.json.

- Serial OpenCV of the kit against a bare loop over ``setInput`` and ``forward``: within 3%.
- The best concurrent way for 16 images: at least 0.85 of the bound, each image timed at one thread.
- The pipeline: at least 0.9 of ``min(1 / slowest stage, cores / sum of stages)``, each timed at one thread.
- Memory over 10,000 frames: constant.
- A cold pool: at least 95% of its wall time has a named cause.

The bounds are timed next to what they bound, in turn, since a shared machine changes speed from second to second. They
count on all cores: the first and last row say how many there were to be had.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import torch

from bench.peers import Bare
from kit.hardware import detect
from kit.labs.opencv_dnn import bound_per_second, named_share
from kit.measure import measure, speed_up
from kit.pipeline import Pipeline, Stage
from kit.workloads import live, opencv_dnn

OUT = Path("build/bench_many.json")
IMAGES, FRAMES, ROUNDS = 16, 10_000, 20


def capacity() -> dict[str, Any]:
    """How many cores this machine gives: the gain of a hash on a thread per core, which shares no more."""
    cores = detect().cores

    def run(*_: Any) -> None:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 20_000)

    with ThreadPoolExecutor(cores) as pool:
        alone = Bare(lambda: [run() for _ in range(cores)], 1)
        timings = measure(
            {"alone": alone, "all": Bare(lambda: list(pool.map(run, range(cores))), 1)}, (), rounds=ROUNDS
        )
    gain = speed_up(timings["alone"], timings["all"]).estimate
    return {"name": f"cores that this machine gave, of {cores}", "value": gain}


def bare_loop() -> dict[str, Any]:
    """The kit's serial way against the loop that one would write."""
    work = opencv_dnn.make(IMAGES)
    net = cv2.dnn.readNetFromONNX(np.frombuffer(opencv_dnn.exported(), np.uint8))

    def loop(*images: torch.Tensor) -> list[Any]:
        answers = []
        for image in images:
            net.setInput(opencv_dnn.preprocess((image,)))
            answers.append(opencv_dnn.softmax(net.forward()))
        return answers

    with work.prepare("sequential(threads=1)") as ours:
        timings = measure({"bare": Bare(loop, 1), "kit": ours}, work.inputs, rounds=ROUNDS)
    ratio = speed_up(timings["bare"], timings["kit"])
    return {"name": "serial OpenCV, kit / bare loop (goal >= 0.97)", "value": ratio.estimate, "interval": ratio[1:]}


def concurrent(way: str) -> dict[str, Any]:
    """A way's rate as a share of the bound: the serial rate of the same rounds, times what the cores allow."""
    work, cores = opencv_dnn.make(IMAGES), detect().cores
    rates = work.compare(["sequential(threads=1)", way], rounds=ROUNDS, progress=False)
    serial, timing = rates["sequential(threads=1)"].timing, rates[way].timing
    assert serial is not None
    assert timing is not None
    tasks = [event.duration_ns / 1e6 for event in serial.trace.events() if event.category == "task"]
    most = bound_per_second(tasks, cores) / bound_per_second(tasks, 1)
    return {"name": f"{way}, share of the bound (goal >= 0.85)", "value": speed_up(serial, timing).estimate / most}


def threads() -> dict[str, Any]:
    """A thread per core."""
    return concurrent("threads(threads=1)")


def processes() -> dict[str, Any]:
    """A warm process per core."""
    return concurrent("processes(threads=1)")


def pipeline() -> dict[str, Any]:
    """Pairs of runs: one frame after the other for the bound, then the pipeline."""
    shares = []
    cores, before = detect().cores, torch.get_num_threads()
    with live.make().prepare("sequential") as alone, live.make().prepare("pipeline") as piped:
        torch.set_num_threads(1)
        for _ in range(ROUNDS):
            for runner in (alone, piped):
                runner()
            shares.append(piped.figures.per_second / alone.figures.bound(cores))
        torch.set_num_threads(before)
    return {"name": "pipeline, share of the bound (goal >= 0.9)", "value": float(np.median(shares))}


def memory() -> dict[str, Any]:
    """Resident megabytes that 10,000 frames of 320x240 add, after the first thousand."""
    process, sizes = psutil.Process(), []

    def frames() -> Any:
        for i in range(FRAMES):
            yield np.full((240, 320, 3), i % 256, np.uint8)

    def deliver(_: Any) -> None:
        if line.figures.done in (1000, FRAMES - 1):
            sizes.append(process.memory_info().rss / 1e6)

    line = Pipeline([Stage("grey", lambda x: x.mean(2)), Stage("mean", np.mean)], source="decode")
    line.run(frames(), deliver)
    return {"name": "MB more after 10,000 frames (goal: constant)", "value": sizes[1] - sizes[0]}


def causes() -> dict[str, Any]:
    """Where a cold pool's time went."""
    share = named_share(opencv_dnn.make(4).record("pool_cold"))
    return {"name": "cold pool, share with a named cause (goal >= 0.95)", "value": share}


def main() -> None:
    rows = []
    for part in (capacity, bare_loop, threads, processes, pipeline, memory, causes, capacity):
        rows.append(part())
        print(f"{rows[-1]['name']:60} {rows[-1]['value']:8.3f}", flush=True)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
