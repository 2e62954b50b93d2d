"""A clip: frames, how fast they follow each other, and what is known about them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kit.clips.scenes import Float32, UInt8
from kit.errors import ClipError, ShapeError, UnavailableError

DEFAULT_FPS = 25.0  # for pictures and files that do not say
SMALLEST = 32  # pixels a side, for optical flow: on narrower pictures OpenCV's DIS can crash the process


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames, how fast they follow each other, and where they come from.

    >>> frames = np.zeros((11, 64, 64, 3), np.uint8)
    >>> kit.Clip(frames, fps=25.0, source="a black square")
    Clip(11 frames of 64x64 at 25 fps from 'a black square')
    """

    frames: UInt8  # (T, H, W, 3), RGB
    fps: float  # frames per second
    source: str  # for people: a path, or "generated scene, seed 0"
    flow: Float32 | None = None  # exact motion, (T-1, H, W, 2) in pixels per frame; None where nobody knows it
    labels: Mapping[str, str] | None = None  # as {"texture": "dots", "motion": "left"}; None where nobody knows them

    def __post_init__(self) -> None:
        frames, flow = self.frames, self.flow
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or frames.size == 0:
            found = f"{frames.dtype} {frames.shape}"
            raise ClipError(
                f"the frames of {self.source!r} are {found}: give RGB as uint8 (T, H, W, 3), with T at least 1."
            )
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ClipError(f"{self.source!r} has {self.fps} frames per second: pass a number above 0, such as 25.0.")
        if flow is not None and flow.shape != (len(frames) - 1, *frames.shape[1:3], 2):
            raise ShapeError(f"frames {frames.shape} need flow (T-1, H, W, 2), not {flow.shape}.")

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        height, width = self.frames.shape[1:3]
        return f"Clip({len(self)} frames of {width}x{height} at {self.fps:g} fps from {self.source!r})"

    def fit(self, height: int, width: int) -> Clip:
        """The same clip in another size: resized until it covers it, then cut to the middle. Its exact flow is lost."""
        return replace(self, frames=np.stack([fit(frame, height, width) for frame in self.frames]), flow=None)


def fit(frame: UInt8, height: int, width: int) -> UInt8:
    """A picture ``(H, W, 3)`` resized until it just covers ``height`` x ``width``, and cut to its middle."""
    if min(height, width) < 1:
        raise ClipError(f"a picture cannot be resized to {width}x{height}: give a height and a width of 1 or more.")
    cv2 = opencv()
    scale = max(height / frame.shape[0], width / frame.shape[1])
    new = max(width, round(frame.shape[1] * scale)), max(height, round(frame.shape[0] * scale))
    x, y = (new[0] - width) // 2, (new[1] - height) // 2
    resized: UInt8 = cv2.resize(frame, new, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return resized[y : y + height, x : x + width]


def opencv() -> Any:
    """The module cv2."""
    try:
        import cv2
    except ImportError as error:
        command = "pip install opencv-python-headless"
        raise UnavailableError(f"video files and optical flow need OpenCV ({error}): run '{command}'.") from error
    return cv2
