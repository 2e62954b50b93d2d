"""Frames in, labels out: the two-stream network on a file or a camera, as a pipeline and one frame after the other."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kit import clips
from kit.approaches import Calls, FunctionRunner, Workload
from kit.clips.clip import fit, opencv
from kit.clips.scenes import Float32, UInt8
from kit.data_files import data_file
from kit.errors import UnavailableError
from kit.models.two_stream import TRAINED_SIZE, TwoStream, trained_two_stream
from kit.pipeline import Pipeline, RunStatistics, Stage
from kit.reprs import one_line
from kit.workloads.opencv_threads import match_opencv_threads
from kit.workloads.recognition import LENGTH, Guess, guesses

CLIP = data_file("clips/shapes.mp4")


@one_line
class Sight(NamedTuple):
    """A frame in the pipeline: each stage adds its result."""

    frame: UInt8  # (H, W, 3), RGB
    flow: Float32  # (S, S, 2) pixels per frame, from the frame before
    rgb: Float32  # (1, 3, S, S)
    stack: Float32  # (1, 20, S, S)
    scores: Tensor | None = None  # (1, 45)
    texture: Guess | None = None
    motion: Guess | None = None


@one_line
class Flow:
    """Frames one by one; each becomes what the network sees. Before there are ten fields, the oldest stands for more.

    The first frame has no motion.
    """

    def __init__(self, size: int = TRAINED_SIZE) -> None:
        self.size = size
        self.last: UInt8 | None = None
        self.fields: deque[Float32] = deque(maxlen=LENGTH)

    def __call__(self, frame: UInt8) -> Sight:
        match_opencv_threads()
        small = fit(frame, self.size, self.size)
        field = clips.optical_flow(np.stack([small if self.last is None else self.last, small]))[0]
        self.last = small
        self.fields.extend([field] * (1 if self.fields else LENGTH))
        return Sight(frame, field, clips.rgb_input(small), clips.flow_stack(np.stack(self.fields))[None])


def score(network: TwoStream, sight: Sight) -> Sight:
    """Both streams and their fusion."""
    with torch.inference_mode():
        return sight._replace(scores=network(torch.from_numpy(sight.rgb), torch.from_numpy(sight.stack)))


def label(sight: Sight) -> Sight:
    """The likeliest texture and motion."""
    assert sight.scores is not None
    texture, motion = (likeliest[0] for likeliest in guesses(sight.scores).values())
    return sight._replace(texture=texture, motion=motion)


def pipeline(model: TwoStream, *, capacity: int = 2, live: bool = False) -> Pipeline:
    """Decode -> flow -> two-stream -> label, a thread each."""
    stages = [Stage("flow", Flow()), Stage("two-stream", partial(score, model)), Stage("label", label)]
    return Pipeline(stages, source="decode", capacity=capacity, live=live)


def frames(path: str | Path, most: int | None = None) -> Iterator[UInt8]:
    """The frames ``(H, W, 3)`` of a file or folder, one in memory at a time. Raises ClipError as it is read."""
    with closing(clips.stream(path, 1)) as pieces:  # type: ignore[type-var]  # a generator: it lets go of the file
        yield from (piece.frames[0] for piece in islice(pieces, most))


def paced(source: Iterator[UInt8], fps: float) -> Iterator[UInt8]:
    """A clip as a camera would give it: each frame at its time."""
    start = time.monotonic()
    with closing(source):  # type: ignore[type-var]  # a generator: it lets go of the file
        for i, frame in enumerate(source):
            time.sleep(max(0.0, start + i / fps - time.monotonic()))
            yield frame


def camera(index: int = 0, *, instead: str | Path | None = None) -> Iterator[UInt8]:
    """The frames ``(H, W, 3)`` of a camera, until whoever reads them closes this.

    Args:
        index: of the camera, as the system counts them.
        instead: a clip to read where there is no such camera; without it, that is an error.

    Raises:
        UnavailableError: there is no such camera, or it may not be opened.
    """
    cv2 = opencv()
    logs = cv2.utils.logging
    before = logs.setLogLevel(logs.LOG_LEVEL_SILENT)  # it logs to stderr what the error below says better
    capture = cv2.VideoCapture(index)
    logs.setLogLevel(before)
    if capture.isOpened():
        return _captured(capture, index)
    capture.release()
    if instead is None:
        raise UnavailableError(
            f"camera {index} cannot be opened: connect one, let this user read it (on Linux: the group video; in a "
            "container: --device /dev/video0), or give instead='clip.mp4' to read a clip."
        )
    return frames(instead)


def _captured(capture: Any, index: int) -> Iterator[UInt8]:
    cv2 = opencv()
    try:
        while True:
            arrived, frame = capture.read()
            if not arrived:
                raise UnavailableError(f"camera {index} gives no more frames: is it still connected?")
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


class FromFile(FunctionRunner):
    """A whole clip through the stages, as a runner; its output is the scores of all frames, ``(T, 45)``.

    Args:
        side_by_side: a thread for each stage; otherwise one frame goes through all stages before the next.
        threads: intra-op threads of the caller and of each stage.
    """

    def __init__(self, side_by_side: bool, path: Path, items: int, threads: int = 1, capacity: int = 2) -> None:
        super().__init__(self._play, intra_op_threads=threads, lane_threads=threads)
        self.side_by_side, self.path, self.items, self.capacity = side_by_side, path, items, capacity
        self.model = trained_two_stream()
        self.statistics: RunStatistics | None = None  # of the last call

    def _play(self) -> Tensor:
        scores: list[Tensor] = []
        line = pipeline(self.model, capacity=self.capacity)
        play = line.run if self.side_by_side else line.in_turn
        self.statistics = play(frames(self.path, self.items), lambda sight: scores.append(sight.scores))
        return torch.cat(scores)


def make(items: int | None = None, clip: Path = CLIP) -> Workload:
    """The frames of a clip: ``sequential``, at one thread as the stages have it, and ``pipeline``.

    Raises:
        ClipError: the clip cannot be read.
    """
    shapes = [frame.shape for frame in frames(clip, items)]

    def sequential(*, threads: int = 1) -> FromFile:
        """One frame after the other through all stages."""
        return FromFile(False, clip, len(shapes), threads)

    def piped(*, capacity: int = 2) -> FromFile:
        """A thread for each stage, with queues of ``capacity`` frames between them."""
        return FromFile(True, clip, len(shapes), capacity=capacity)

    height, width, _ = shapes[0]
    return Workload(
        "pipeline",
        None,
        (),
        len(shapes),
        "frames",
        f"{len(shapes)} frames of {width}x{height} from {clip.name}",
        {"sequential": Calls(sequential), "pipeline": Calls(piped)},
    )
