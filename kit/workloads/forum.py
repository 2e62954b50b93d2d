"""The forum's experiment as it was, with a forked pool: run in a process of its own that has no threads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from kit.equality import compare_outputs
from kit.errors import WorkerError
from kit.machine import load
from kit.measuring.comparison import Comparison
from kit.measuring.samples import of_samples
from kit.progress import progress_bar
from kit.reprs import one_line
from kit.workloads.opencv_dnn import exported, pictures

PROGRAM = Path(__file__).with_name("forked_pool.py")
IMAGES = 4
TIMEOUT_S = 240.0
ONE_THREAD = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)  # NumPy starts no others


@one_line
class Forked(NamedTuple):
    """What was measured with a forked pool of four; each comparison has rows ``loop`` and ``pool``."""

    images: Comparison  # four images; the row ``batch`` is all four in one call of the network
    sleeps: Comparison  # four sleeps of 10 ms
    long: Comparison  # four times a sleep of ``seconds`` and an inference
    inference: Comparison  # one inference of those
    seconds: float
    threads: int  # of the process that forked: 1, or a fork would be unsafe


def forked(
    rounds: int, long_rounds: int = 6, seconds: float = 1.0, *, progress: bool = True, platform: str = sys.platform
) -> Forked | str:
    """Measure with a pool that is forked inside the timing; on another system than Linux a sentence that says why not.

    Args:
        rounds: of the images and of the sleeps of 10 ms.
        long_rounds: of the sleeps of ``seconds`` before each inference.

    Raises:
        UnavailableError: onnx and onnxscript are not installed.
        WorkerError: the program failed, or took longer than four minutes.
    """
    if platform != "linux":
        return (
            f"Not measured on this system ({platform}): forking a process may fail there, so it is run on Linux only."
        )
    before = load.Usage.now()
    with tempfile.TemporaryDirectory(prefix="kit-forum-") as folder:
        (Path(folder) / "classifier.onnx").write_bytes(exported())
        np.save(Path(folder) / "images.npy", np.stack([image.numpy() for image in pictures(IMAGES)]))
        numbers = map(str, (rounds, long_rounds, seconds))
        # -P: the folder of the program holds modules whose names are those of other packages
        found = _run([sys.executable, "-P", str(PROGRAM), folder, *numbers], rounds + long_rounds, progress)
    return _comparisons(found, seconds, load.taken(before, load.Usage.now()))


def _run(command: list[str], rounds: int, progress: bool) -> dict[str, Any]:
    """The last line of a program's output, as JSON; whatever ends this, no process of the program stays."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryFile("w+") as errors:
        program = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": path},
            start_new_session=True,  # its children too end with the group
        )
        timer = threading.Timer(TIMEOUT_S, _kill_group, (program.pid,))
        timer.start()
        last = "{}"
        try:
            assert program.stdout is not None
            with progress_bar(rounds, progress) as advance, program.stdout as lines:
                for line in lines:
                    last = line
                    advance(1)
            if program.wait():
                errors.seek(0)
                said = (errors.read().strip().splitlines() or ["it printed nothing"])[-1]
                raise WorkerError(f"the program with the forked pool ended with {program.returncode}: {said}")
        finally:
            timer.cancel()
            _kill_group(program.pid)
            program.wait()
    told: dict[str, Any] = json.loads(last)
    return told


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _comparisons(found: Mapping[str, Any], seconds: float, taken: load.Taken | None) -> Forked:
    samples, scores = found["samples_ns"], {name: torch.tensor(each) for name, each in found["scores"].items()}
    equal = {name: compare_outputs(scores["loop"], each) for name, each in scores.items()}

    def of(kind: str, what: str, names: tuple[str, ...] = ("loop", "pool")) -> Comparison:
        return of_samples({name: samples[f"{kind} {name}"] for name in names}, what, taken=taken, equal=equal)

    return Forked(
        of("images", f"{IMAGES} images of 640x480", ("loop", "pool", "batch")),
        of("sleeps", f"{IMAGES} sleeps of 10 ms"),
        of("long", f"{IMAGES} times a sleep of {seconds:g} s and an inference"),
        of_samples(found["inference_ns"], "one inference", taken=taken),
        seconds,
        found["threads"],
    )
