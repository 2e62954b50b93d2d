"""A clip through the two-stream network: its middle frame, and a stack of ten flow fields."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from kit import clips
from kit.models import two_stream


def make(clip: Path | None) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """The model, and its inputs ``(1, 3, 112, 112)`` and ``(1, 20, 112, 112)``.

    Args:
        clip: a video file, or None for the generated scene of seed 0.

    Raises:
        ClipError: the file cannot be read or has fewer than 11 frames.
    """
    frames = clips.load(clip, max_frames=11) if clip else clips.generate(frames=11)
    frame, flow = clips.two_stream_inputs(frames)
    return two_stream(), (torch.from_numpy(frame), torch.from_numpy(flow))
