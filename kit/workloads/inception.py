"""A frame of a clip through whole Inception networks."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from kit import clips
from kit.models import googlenet, inception_v3


def make_googlenet(clip: Path | None) -> tuple[nn.Module, tuple[Tensor]]:
    """GoogLeNet, and its input ``(1, 3, 224, 224)``. Arguments and errors: as :func:`make_v3`."""
    return googlenet(), (_frame(clip, 224),)


def make_v3(clip: Path | None) -> tuple[nn.Module, tuple[Tensor]]:
    """Inception v3, and its input ``(1, 3, 299, 299)``.

    Args:
        clip: a video file, or None for the generated scene of seed 0.

    Raises:
        ClipError: the file cannot be read or has fewer than 2 frames.
    """
    return inception_v3(), (_frame(clip, 299),)


def _frame(clip: Path | None, size: int) -> Tensor:
    frames = clips.load(clip, max_frames=11) if clip else clips.generate(frames=2)
    frame, _flow = clips.two_stream_inputs(frames, size=size, length=1)
    return torch.from_numpy(frame)
