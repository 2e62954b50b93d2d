"""The forum's experiment as it was: four images in a loop, and in a pool that is forked inside the timing.

A program, run by :func:`kit.workloads.forum.forked` as ``python forked_pool.py FOLDER ROUNDS LONG_ROUNDS SECONDS``.
A fork copies one thread and every lock, also the locks that other threads hold: where there are other threads, the new
process may wait for ever. So this program imports no PyTorch, and has one thread whenever it forks.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kit.clips import bgr_blob
from kit.clips.clip import opencv
from kit.reprs import one_line

Images = NDArray[np.uint8]  # (N, H, W, 3), BGR
WORKERS = 4
_net: Any = None  # read before the fork, so that every worker has a copy


@one_line
class Item(NamedTuple):
    """What a worker gets."""

    image: Images | None  # (H, W, 3); None: only sleep
    sleep_s: float = 0.0


def do(item: Item) -> tuple[list[float], int]:
    """Sleep, then classify: the scores, and how long that took without the sleep, in nanoseconds."""
    time.sleep(item.sleep_s)
    start = time.perf_counter_ns()
    scores = [] if item.image is None else classify(_net, [item.image])[0]
    return scores, time.perf_counter_ns() - start


def classify(net: Any, images: Sequence[Images]) -> list[list[float]]:
    """The scores of images ``(H, W, 3)``, in one call of the network."""
    net.setInput(bgr_blob(images))
    scores: list[list[float]] = net.forward().tolist()
    return scores


def in_a_loop(items: Sequence[Item]) -> tuple[int, list[Any]]:
    """Nanoseconds, and what came out."""
    start = time.perf_counter_ns()
    done = [do(item) for item in items]
    return time.perf_counter_ns() - start, done


def in_a_pool(context: Any, items: Sequence[Item]) -> tuple[int, list[Any]]:
    """The same in a pool of four processes, made and ended inside the timing."""
    start = time.perf_counter_ns()
    with context.Pool(WORKERS, opencv().setNumThreads, (cores(),)) as pool:
        done = pool.map(do, items)
    return time.perf_counter_ns() - start, done


def cores() -> int:
    """Cores that this process may use: OpenCV's threads in the loop, and in every worker, as in the forum."""
    return len(os.sched_getaffinity(0))


def serve_loops(connection: Any, file: str) -> None:
    """A process for everything that needs no pool: OpenCV starts its threads here, and nothing is forked from here."""
    cv2 = opencv()
    cv2.setNumThreads(cores())
    batched = cv2.dnn.readNetFromONNX(file)
    while (request := connection.recv()) is not None:
        items, as_batch = request
        if not as_batch:
            connection.send(in_a_loop(items))
            continue
        start = time.perf_counter_ns()
        scores = classify(batched, [item.image for item in items])
        connection.send((time.perf_counter_ns() - start, [(each, 0) for each in scores]))


def measure(
    runs: dict[str, Callable[[], tuple[int, list[Any]]]], rounds: int, warm: bool = True
) -> dict[str, list[tuple[int, list[Any]]]]:
    """All of them in random order in each round; a line on stdout after each round."""
    found: dict[str, list[tuple[int, list[Any]]]] = {name: [] for name in runs}
    for run in runs.values() if warm else ():
        run()
    for _ in range(rounds):
        for name in random.sample(list(runs), len(runs)):
            found[name].append(runs[name]())
        sys.stdout.write("round\n")
        sys.stdout.flush()
    return found


def main(folder: Path, rounds: int, long_rounds: int, seconds: float) -> None:
    """Measure everything, and write one line of JSON.

    Args:
        folder: holds ``images.npy`` and ``classifier.onnx``.
        rounds: of the images and of the sleeps of 10 ms.
        long_rounds: of the sleeps of ``seconds`` before each image.
    """
    global _net
    cv2 = opencv()
    file, images = str(folder / "classifier.onnx"), np.load(folder / "images.npy")
    cv2.setNumThreads(1)  # so that reading and the first call start no thread
    _net = cv2.dnn.readNetFromONNX(file)
    classify(_net, images[:1])
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    loops = context.Process(target=serve_loops, args=(theirs, file), daemon=True)
    loops.start()

    def ask(items: Sequence[Item], as_batch: bool = False) -> tuple[int, list[Any]]:
        ours.send((items, as_batch))
        answer: tuple[int, list[Any]] = ours.recv()
        return answer

    photographs, sleeps = [Item(image) for image in images], [Item(None, 0.01)] * len(images)
    late = [Item(image, seconds) for image in images]
    found = measure(
        {
            "images loop": lambda: ask(photographs),
            "images pool": lambda: in_a_pool(context, photographs),
            "images batch": lambda: ask(photographs, as_batch=True),
            "sleeps loop": lambda: ask(sleeps),
            "sleeps pool": lambda: in_a_pool(context, sleeps),
        },
        rounds,
    )
    found |= measure(
        {"long loop": lambda: ask(late), "long pool": lambda: in_a_pool(context, late)}, long_rounds, warm=False
    )
    threads = len(list(Path("/proc/self/task").iterdir()))
    ours.send(None)
    loops.join()
    told = {
        "threads": threads,
        "samples_ns": {name: [took for took, _ in each] for name, each in found.items()},
        "inference_ns": {
            name: [float(np.mean([took for _, took in done])) for _, done in found[f"long {name}"]]
            for name in ("loop", "pool")
        },
        "scores": {name: [scores for scores, _ in found[f"images {name}"][0][1]] for name in ("loop", "pool", "batch")},
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
