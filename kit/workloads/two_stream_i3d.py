"""A clip through the two-stream I3D: eight frames, and the motion from each to the next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kit import clips
from kit.errors import ClipError
from kit.models import two_stream_i3d

FRAMES = 8  # the paper has 64, which would take eight times as long


def make(clip: Path | None) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """The model, and its inputs ``(1, 3, 8, 224, 224)`` and ``(1, 2, 8, 224, 224)``.

    Args:
        clip: a video file, or None for the generated scene of seed 0.

    Raises:
        ClipError: the file cannot be read or has fewer than 9 frames.
    """
    video = clips.load(clip, max_frames=FRAMES + 1) if clip else clips.generate(frames=FRAMES + 1)
    if len(video) < FRAMES + 1:
        raise ClipError(f"two-stream-i3d needs {FRAMES + 1} frames, {video} has {len(video)}: choose a longer clip.")
    pairs = [clips.Clip(video.frames[t : t + 2], video.fps, video.source) for t in range(FRAMES)]
    seen = [clips.two_stream_inputs(pair, size=224, length=1) for pair in pairs]  # frame t, and its flow to t + 1
    rgb, flow = (torch.from_numpy(np.stack(moments, axis=2)) for moments in zip(*seen, strict=True))
    return two_stream_i3d(), (rgb, flow)
