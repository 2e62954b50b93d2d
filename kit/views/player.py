"""A clip to play: each frame beside the motion to the next frame."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets
import numpy as np
from numpy.typing import NDArray

from kit.errors import ShapeError
from kit.views.pictures import clip_figure, flow_picture, flow_wheel, jpeg
from kit.views.still import Still

_FRAME_MS = 150  # slow enough to see one frame after the other, and for a remote kernel to send it
_GAP = 8  # pixels between the pictures


def clip_player(frames: NDArray[np.uint8], flow: NDArray[np.float32]) -> Player:
    """A clip that plays in the notebook: the frame at the left, its motion to the next frame, and the colour wheel.

    >>> from kit import clips
    >>> clip = clips.generate(frames=5, height=64, width=64)
    >>> kit.clip_player(clip.frames, clip.flow)
    Player(5 frames)

    Args:
        frames: ``(T, H, W, 3)`` uint8 RGB.
        flow: ``(T - 1, H, W, 2)`` float32, pixels per frame.

    Raises:
        ShapeError: the shapes of frames and flow do not fit together.
    """
    return Player(frames, flow)


class Player(Still):
    """Play, stop, or drag the slider. Viewers without widgets show a few of its frames as a still picture."""

    def __init__(self, frames: NDArray[np.uint8], flow: NDArray[np.float32]) -> None:
        if len(flow) < 1 or flow.shape != (len(frames) - 1, *frames.shape[1:3], 2):
            raise ShapeError(f"frames {frames.shape} need a flow of (T - 1, H, W, 2), not {flow.shape}.")
        self._frames, self._flow = frames, flow
        self._reach = float(np.percentile(np.linalg.norm(flow, axis=-1), 99)) or 1.0
        last, height = len(flow) - 1, frames.shape[1]
        wheel = flow_wheel(min(160, height))
        self._key = np.full((height, wheel.shape[1], 3), 255, np.uint8)
        self._key[: len(wheel)] = wheel
        play = widgets.Play(max=last, interval=_FRAME_MS, description="play the clip", repeat=True)
        self.slider = widgets.IntSlider(max=last, description="frame")
        self._picture = widgets.Image(format="jpeg", layout={"max_width": "100%"})
        self._caption = widgets.HTML()
        self._link: Any = widgets.jslink((play, "value"), (self.slider, "value"))
        super().__init__(self._picture, self._caption, widgets.HBox([play, self.slider]))
        self.slider.observe(self._show, "value")
        self._show()

    def still(self) -> str:
        """Four frames of the clip with their motion, as an SVG picture."""
        return clip_figure(self._frames, self._flow).still()

    @property
    def caption(self) -> str:
        """A text about the frame that is shown."""
        now = self.slider.value
        return (
            f"Frame {now}, and the motion from it to frame {now + 1}. The hue is the direction; white is no motion; "
            f"the rim of the wheel is {self._reach:.1f} pixels per frame."
        )

    def _show(self, change: object = None) -> None:
        now = self.slider.value
        gap = np.full((self._frames.shape[1], _GAP, 3), 255, np.uint8)
        motion = flow_picture(self._flow[now], self._reach)
        self._picture.value = jpeg(np.hstack([self._frames[now], gap, motion, gap, self._key]), 88)
        self._caption.value = self.caption

    def __repr__(self) -> str:
        return f"Player({len(self._frames)} frames)"
