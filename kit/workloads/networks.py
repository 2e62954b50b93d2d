"""One request each to a network: its model, and inputs from a clip or the generated scene of seed 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kit import clips, models
from kit.errors import ClipError, KitError

FRAMES = 8  # of the I3D; the paper has 64, which would take eight times as long


def two_stream(clip: Path | None) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The two-stream network on the middle frame ``(1, 3, 112, 112)`` and ten flow fields ``(1, 20, 112, 112)``.

    Raises:
        ClipError: the file cannot be read or has fewer than 11 frames.
    """
    frame, flow = clips.two_stream_inputs(video(clip, 11))
    return models.two_stream(), (torch.from_numpy(frame), torch.from_numpy(flow))


def two_stream_i3d(clip: Path | None) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The two-stream I3D on eight frames ``(1, 3, 8, 224, 224)`` and their flow ``(1, 2, 8, 224, 224)``.

    Raises:
        ClipError: the file cannot be read or has fewer than 9 frames.
    """
    seen = video(clip, FRAMES + 1)
    if len(seen) < FRAMES + 1:
        raise ClipError(f"two-stream-i3d needs {FRAMES + 1} frames, but {seen} has {len(seen)}: choose a longer clip.")
    return models.two_stream_i3d(), with_flow(seen, 224)


def googlenet(clip: Path | None) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """GoogLeNet on a frame ``(1, 3, 224, 224)``. Errors: as :func:`inception_v3`."""
    return models.googlenet(), (_frame(clip, 224),)


def inception_v3(clip: Path | None) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Inception v3 on a frame ``(1, 3, 299, 299)``.

    Raises:
        ClipError: the file cannot be read or has fewer than 2 frames.
    """
    return models.inception_v3(), (_frame(clip, 299),)


def inception_block(clip: Path | None) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The 35x35 block of Inception v3, four branches on one random activation ``(1, 192, 35, 35)``.

    Raises:
        KitError: a clip was given; one block in the middle of a network takes none.
    """
    if clip:
        raise KitError("inception-block takes no clip: its input is an activation. Leave --clip out.")
    activation = torch.randn(1, 192, 35, 35, generator=torch.Generator().manual_seed(0)).relu()
    return models.inception_block(), (activation,)


def video(path: Path | None, frames: int) -> clips.Clip:
    """The first frames of a file, or as many of the generated scene."""
    return clips.load(path, max_frames=frames) if path else clips.generate(frames=frames)


def with_flow(clip: clips.Clip, size: int) -> tuple[Tensor, ...]:
    """All frames but the last, ``(1, 3, T - 1, S, S)``, and the flow from each to the next, ``(1, 2, T - 1, S, S)``."""
    pairs = [clips.Clip(clip.frames[t : t + 2], clip.fps, clip.source) for t in range(len(clip) - 1)]
    moments = [clips.two_stream_inputs(pair, size=size, length=1) for pair in pairs]
    return tuple(torch.from_numpy(np.stack(stream, axis=2)) for stream in zip(*moments, strict=True))


def _frame(clip: Path | None, size: int) -> Tensor:
    frame, _flow = clips.two_stream_inputs(video(clip, 11 if clip else 2), size=size, length=1)
    return torch.from_numpy(frame)
