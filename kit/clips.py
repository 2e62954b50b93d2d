"""Video in: files, generated scenes with exact motion, and optical flow.

A two-stream network looks at a clip twice: at one RGB frame (what is there) and at a stack of optical flow fields (how
it moves). This module makes both. :func:`load` decodes any video file that OpenCV can, and :func:`generate` paints a
scene whose true motion is known at every pixel, so that :func:`end_point_error` can say how good an estimated flow is.

Flow is in pixels per frame, ``(dx, dy)``, from frame t to t + 1: what is at ``(x, y)`` in frame t is at
``(x + dx, y + dy)`` in frame t + 1. OpenCV is imported where it is used.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from kit.errors import ClipError, ShapeError, UnavailableError, UnknownNameError
from kit.scenes import Float32, UInt8, paint

FLOW_METHODS = ("dis", "farneback")
DEFAULT_FPS = 25.0  # for a file that does not say
SMALLEST = 32  # pixels a side, for optical flow: on narrower pictures OpenCV's DIS can crash the process
RGB_MEAN = (0.485, 0.456, 0.406)  # ImageNet's, per channel, of RGB in [0, 1]
RGB_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames, how fast they follow each other, and where they come from."""

    frames: UInt8  # (T, H, W, 3), RGB
    fps: float  # frames per second
    source: str  # for people: a path, or "generated scene, seed 0"
    flow: Float32 | None = None  # exact motion, (T-1, H, W, 2) in pixels per frame; None where nobody knows it

    def __post_init__(self) -> None:
        frames, flow = self.frames, self.flow
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or frames.size == 0:
            found = f"{frames.dtype} {frames.shape}"
            raise ClipError(f"the frames of {self.source!r} are {found}: pass RGB as uint8 (T, H, W, 3), T at least 1.")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ClipError(f"{self.source!r} has {self.fps} frames per second: pass a number above 0, such as 25.0.")
        if flow is not None and flow.shape != (len(frames) - 1, *frames.shape[1:3], 2):
            raise ShapeError(f"frames {frames.shape} need flow (T-1, H, W, 2), not {flow.shape}.")

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        height, width = self.frames.shape[1:3]
        return f"Clip({len(self)} frames of {width}x{height} at {self.fps:g} fps from {self.source!r})"


# Files ---------------------------------------------------------------------------------------------------------------


def _cv2() -> Any:
    try:
        import cv2
    except ImportError as error:
        command = "pip install opencv-python-headless"
        raise UnavailableError(f"video files and optical flow need OpenCV ({error}): run '{command}'.") from error
    return cv2


def load(path: str | Path, *, max_frames: int | None = None) -> Clip:
    """Decode a video file, or its first ``max_frames`` frames, into memory: ``T * H * W * 3`` bytes.

    A file that ends before its header says (cut off, or a header that only estimates) gives the frames that could be
    decoded, and ``source`` says so. A file without a usable frame rate gets 25. Raises ClipError for a path with no
    video in it: missing, a folder, not decodable, or without a single frame.
    """
    cv2 = _cv2()
    if max_frames is not None and max_frames < 1:
        raise ClipError(f"max_frames={max_frames} leaves nothing of {str(path)!r}: pass 1 or more, or None for all.")
    file = _existing_file(path)
    capture = cv2.VideoCapture(str(file))
    try:
        fps, promised = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        frames: list[UInt8] = []
        while max_frames is None or len(frames) < max_frames:
            decoded, frame = capture.read()
            if not decoded:
                break
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    except cv2.error as error:
        raise ClipError(f"OpenCV cannot decode {str(path)!r}: {error}") from error
    finally:
        capture.release()
    if not frames:
        size = file.stat().st_size
        raise ClipError(
            f"no frame can be decoded from {str(path)!r} ({size:,} bytes): it is not a video, it is cut off, or its "
            "codec is missing. See whether a video player opens it; converting it to mp4 (H.264) usually helps."
        )
    expected = min(promised, max_frames or math.inf)
    cut = f" ({len(frames)} of the {promised:.0f} frames that its header promises)" if len(frames) < expected else ""
    return Clip(np.stack(frames), fps if math.isfinite(fps) and fps > 0 else DEFAULT_FPS, f"{path}{cut}")


def _existing_file(path: str | Path) -> Path:
    file = Path(path).expanduser()
    if file.is_dir():
        raise ClipError(f"{str(path)!r} is a folder: pass the video file itself.")
    if not file.exists():
        if not file.parent.is_dir():
            raise ClipError(f"there is no clip {str(path)!r}: its folder does not exist. Paths start at {Path.cwd()}.")
        near = difflib.get_close_matches(file.name, [entry.name for entry in file.parent.iterdir()], n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"look into {str(file.parent)!r}."
        raise ClipError(f"there is no clip {str(path)!r}: {hint}")
    return file


def save(clip: Clip, path: str | Path) -> None:
    """Write ``clip`` as an mp4 (MPEG-4 part 2, lossy). Raises ClipError where that cannot be done whole."""
    cv2 = _cv2()
    file = Path(path).expanduser()
    height, width = clip.frames.shape[1:3]
    if file.suffix.lower() != ".mp4":
        raise ClipError(f"clips are saved as mp4, not as {file.name!r}: choose a name that ends in .mp4.")
    if not file.parent.is_dir():
        raise ClipError(f"cannot save {str(path)!r}: the folder {str(file.parent)!r} does not exist; make it first.")
    if height % 2 or width % 2:  # OpenCV would drop the last row or column without a word
        raise ClipError(f"mp4 needs an even width and height, not {width}x{height}: crop the frames by one pixel.")
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), clip.fps, (width, height))
    opened = writer.isOpened()
    for frame in clip.frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    # The writer reports nothing: neither a codec it lacks, nor a full disk. What it wrote says whether it worked.
    written = cv2.VideoCapture(str(file)).get(cv2.CAP_PROP_FRAME_COUNT) if opened else 0
    if written != len(clip):
        raise ClipError(
            f"OpenCV could not write {str(path)!r} ({written:.0f} of {len(clip)} frames): "
            "is the folder writable, the disk full, or the mp4v codec missing from this build?"
        )


def generate(frames: int = 24, height: int = 240, width: int = 320, *, seed: int = 0, fps: float = DEFAULT_FPS) -> Clip:
    """A scene of moving, turning, zooming textured shapes over a drifting background, with its exact flow.

    The same arguments give the same bits on every platform (:mod:`kit.scenes`).

    Raises:
        ClipError: no frames, a side below 32 pixels, or a negative seed.
    """
    if frames < 1 or min(height, width) < SMALLEST or seed < 0:
        asked = f"{frames} frames of {width}x{height} from seed {seed}"
        raise ClipError(f"cannot generate {asked}: pass 1 frame or more, sides from {SMALLEST} on, a seed from 0 on.")
    video, flow = paint(frames, height, width, seed)
    return Clip(video, fps, f"generated scene, seed {seed}", flow)


# Optical flow --------------------------------------------------------------------------------------------------------


def optical_flow(frames: UInt8, method: str = "dis") -> Float32:
    """Estimate the motion between consecutive frames ``(T, H, W, 3)``: ``(T-1, H, W, 2)`` in pixels per frame.

    "dis" is dense inverse search (Kroeger et al. 2016) with OpenCV's medium preset; "farneback" is polynomial expansion
    (Farnebäck 2003) with three levels of pyramid and a window of 15 pixels. Both see grey values only.
    """
    cv2 = _cv2()
    if method not in FLOW_METHODS:
        raise UnknownNameError("flow method", method, FLOW_METHODS)
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or min(frames.shape[1:3]) < SMALLEST:
        found = f"{frames.dtype} {frames.shape}"
        raise ShapeError(f"optical flow needs uint8 frames (T, H, W, 3), H and W {SMALLEST} or more, not {found}.")
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    flow = np.empty((max(0, len(grey) - 1), *frames.shape[1:3], 2), np.float32)
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    for t, (now, then) in enumerate(pairwise(grey)):
        if method == "dis":
            flow[t] = dis.calc(now, then, None)
        else:
            flow[t] = cv2.calcOpticalFlowFarneback(now, then, None, 0.5, 3, 15, 3, 5, 1.2, 0)
    return flow


def end_point_error(flow: Float32, truth: Float32, *, margin: int = 0) -> float:
    """The mean distance between two flows ``(..., H, W, 2)``, in pixels (Baker et al. 2011).

    ``margin`` pixels at each border are left out: what moves out of the picture there cannot be followed.
    """
    if flow.shape != truth.shape or flow.ndim < 3 or flow.shape[-1] != 2:
        raise ShapeError(f"two flows of one shape (..., H, W, 2) are compared, not {flow.shape} and {truth.shape}.")
    height, width = flow.shape[-3:-1]
    if flow.size == 0 or not 0 <= 2 * margin < min(height, width):
        raise ShapeError(f"a margin of {margin} leaves no pixel of flow {flow.shape}: pass a smaller one, 0 or more.")
    inner = (..., slice(margin, height - margin), slice(margin, width - margin), slice(None))
    return float(np.linalg.norm(flow[inner] - truth[inner], axis=-1).mean(dtype=np.float64))


def flow_stack(flow: Float32, start: int = 0, length: int = 10, clip: float = 20.0) -> Float32:
    """``length`` flow fields from ``start`` on as channels dx1, dy1, dx2, dy2, ...: ``(2 * length, H, W)`` in [-1, 1].

    The input of a temporal stream (Simonyan & Zisserman 2014, optical flow stacking), without the paper's subtraction
    of the mean. Motion beyond ``clip`` pixels per frame counts as ``clip``, which becomes 1.
    """
    if flow.ndim != 4 or flow.shape[3] != 2:
        raise ShapeError(f"a flow stack is cut from flow (T-1, H, W, 2), not {flow.shape}.")
    if length < 1 or start < 0 or not clip > 0:
        raise ClipError(
            f"start={start}, length={length}, clip={clip} give no stack: pass start >= 0, the others above 0."
        )
    if start + length > len(flow):
        raise _too_short(
            f"a stack of {length} flow fields" + f" from frame {start} on" * (start > 0),
            start + length + 1,
            len(flow) + 1,
        )
    fields = flow[start : start + length]  # (L, H, W, 2)
    stack = fields.transpose(0, 3, 1, 2).reshape(2 * length, *flow.shape[1:3])
    return np.ascontiguousarray(np.clip(stack / np.float32(clip), -1, 1), np.float32)


def _too_short(what: str, needs: int, has: int) -> ClipError:
    return ClipError(f"{what} needs {needs} frames, has {has}: choose a longer clip or a smaller length.")


def two_stream_inputs(
    clip: Clip, *, size: int = 112, length: int = 10, flow_method: str = "dis"
) -> tuple[Float32, Float32]:
    """What a two-stream network sees of the middle of a clip: RGB ``(1, 3, S, S)`` and flow ``(1, 2 * length, S, S)``.

    ``length`` + 1 frames are resized (shorter side to ``size``) and cut to the square in their middle; the flow is
    estimated on those, so that its pixels are those of the input. RGB is the middle frame of the stack, scaled to
    [0, 1] and normalised by RGB_MEAN and RGB_STD; the flow is as in :func:`flow_stack`. Both are float32.
    """
    if length < 1 or size < SMALLEST:
        raise ClipError(
            f"size={size}, length={length} give no input: pass a size of {SMALLEST} or more and a length above 0."
        )
    if len(clip) < length + 1:
        raise _too_short(f"{clip}: a stack of {length} flow fields", length + 1, len(clip))
    start = (len(clip) - length - 1) // 2
    frames = _square(clip.frames[start : start + length + 1], size)
    rgb = (frames[length // 2] / np.float32(255) - np.array(RGB_MEAN, np.float32)) / np.array(
        RGB_STD, np.float32
    )  # (S, S, 3)
    stack = flow_stack(optical_flow(frames, flow_method), length=length)
    return np.ascontiguousarray(rgb.transpose(2, 0, 1)[None]), stack[None]


def _square(frames: UInt8, size: int) -> UInt8:
    """Frames (T, H, W, 3) with the shorter side resized to ``size``, cut to the middle: (T, S, S, 3)."""
    cv2 = _cv2()
    height, width = frames.shape[1:3]
    scale = size / min(height, width)
    new = max(size, round(width * scale)), max(size, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    x, y = (new[0] - size) // 2, (new[1] - size) // 2
    return np.stack([cv2.resize(frame, new, interpolation=how)[y : y + size, x : x + size] for frame in frames])
