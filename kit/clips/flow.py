"""Optical flow: estimated, compared with the truth, and stacked for a network."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from kit.clips.clip import SMALLEST, Clip, fit, opencv
from kit.clips.scenes import Float32, UInt8
from kit.errors import ClipError, ShapeError, UnknownNameError

FLOW_METHODS = ("dis", "farneback")
RGB_MEAN = (0.485, 0.456, 0.406)  # ImageNet's, per channel, of RGB in [0, 1]
RGB_STD = (0.229, 0.224, 0.225)


def optical_flow(frames: UInt8, method: str = "dis") -> Float32:
    """Estimate the motion between consecutive frames ``(T, H, W, 3)``: ``(T-1, H, W, 2)`` in pixels per frame.

    "dis" is dense inverse search (Kroeger et al. 2016) with OpenCV's medium preset; "farneback" is polynomial expansion
    (Farnebäck 2003) with three levels of pyramid and a window of 15 pixels. Both see grey values only.

    >>> from kit import clips
    >>> clips.optical_flow(clips.generate(frames=3, height=64, width=96).frames, method="farneback").shape
    (2, 64, 96, 2)
    """
    cv2 = opencv()
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

    >>> from kit import clips
    >>> clip = clips.generate(frames=3, height=64, width=64)
    >>> clips.end_point_error(clips.optical_flow(clip.frames), clip.flow, margin=8) < 1  # pixels
    True
    """
    if flow.shape != truth.shape or flow.ndim < 3 or flow.shape[-1] != 2:
        raise ShapeError(f"both flows must have the same shape (..., H, W, 2), not {flow.shape} and {truth.shape}.")
    height, width = flow.shape[-3:-1]
    if flow.size == 0 or not 0 <= 2 * margin < min(height, width):
        raise ShapeError(f"a margin of {margin} leaves no pixel of flow {flow.shape}: pass a smaller one, 0 or more.")
    inner = (..., slice(margin, height - margin), slice(margin, width - margin), slice(None))
    return float(np.linalg.norm(flow[inner] - truth[inner], axis=-1).mean(dtype=np.float64))


def flow_stack(flow: Float32, start: int = 0, length: int = 10, clip: float = 20.0) -> Float32:
    """``length`` flow fields from ``start`` on as channels dx1, dy1, dx2, dy2, ...: ``(2 * length, H, W)`` in [-1, 1].

    The input of a temporal stream (Simonyan & Zisserman 2014, optical flow stacking), without the paper's subtraction
    of the mean. Motion beyond ``clip`` pixels per frame counts as ``clip``, which becomes 1.

    >>> from kit import clips
    >>> clips.flow_stack(clips.generate(frames=11, height=64, width=64).flow, length=10).shape
    (20, 64, 64)
    """
    if flow.ndim != 4 or flow.shape[3] != 2:
        raise ShapeError(f"a flow stack is made from flow (T-1, H, W, 2), not {flow.shape}.")
    if length < 1 or start < 0 or not clip > 0:
        raise ClipError(
            f"start={start}, length={length}, clip={clip} give no stack: pass start >= 0, the others above 0."
        )
    what = f"a stack of {length} flow fields" + f" from frame {start} on" * (start > 0)
    _check_length(what, start + length + 1, len(flow) + 1)
    fields = flow[start : start + length]  # (L, H, W, 2)
    stack = fields.transpose(0, 3, 1, 2).reshape(2 * length, *flow.shape[1:3])
    return np.ascontiguousarray(np.clip(stack / np.float32(clip), -1, 1), np.float32)


def _check_length(what: str, needs: int, has: int) -> None:
    if has < needs:
        raise ClipError(f"{what} needs {needs} frames, but there are {has}: choose a longer clip or a smaller length.")


def two_stream_inputs(
    clip: Clip, *, size: int = 112, length: int = 10, flow_method: str = "dis"
) -> tuple[Float32, Float32]:
    """What a two-stream network sees of the middle of a clip: RGB ``(1, 3, S, S)`` and flow ``(1, 2 * length, S, S)``.

    The flow is estimated on the frames of :func:`middle`, so that its pixels are those of the input. RGB is the middle
    one of them, as :func:`rgb_input` makes it; the flow is as in :func:`flow_stack`. Both are float32.

    >>> from kit import clips
    >>> frame, flow = clips.two_stream_inputs(clips.generate(frames=11, height=64, width=64), size=48)
    >>> frame.shape, flow.shape
    ((1, 3, 48, 48), (1, 20, 48, 48))
    """
    frames = middle(clip, size, length)
    stack = flow_stack(optical_flow(frames, flow_method), length=length)
    return rgb_input(frames[length // 2]), stack[None]


def middle(clip: Clip, size: int, length: int) -> UInt8:
    """The ``length`` + 1 frames in the middle of a clip, as squares ``(length + 1, S, S, 3)`` from their middle.

    >>> from kit import clips
    >>> clips.middle(clips.generate(frames=24, height=64, width=96), size=48, length=10).shape
    (11, 48, 48, 3)
    """
    if length < 1 or size < SMALLEST:
        raise ClipError(
            f"size={size}, length={length} give no input: pass a size of {SMALLEST} or more and a length above 0."
        )
    _check_length(f"{clip}: a stack of {length} flow fields", length + 1, len(clip))
    start = (len(clip) - length - 1) // 2
    return np.stack([fit(frame, size, size) for frame in clip.frames[start : start + length + 1]])


def rgb_input(frame: UInt8) -> Float32:
    """One frame ``(H, W, 3)`` as ``(1, 3, H, W)``, scaled to [0, 1] and normalised by RGB_MEAN and RGB_STD.

    >>> from kit import clips
    >>> clips.rgb_input(np.zeros((64, 96, 3), np.uint8)).shape
    (1, 3, 64, 96)
    """
    rgb = (frame / np.float32(255) - np.array(RGB_MEAN, np.float32)) / np.array(RGB_STD, np.float32)
    return np.ascontiguousarray(rgb.transpose(2, 0, 1)[None])
