"""X3D: a network over clips that is small in channels and deep, of depthwise 3-D convolutions.

Source: Feichtenhofer, *X3D: Expanding Architectures for Efficient Video Recognition*, 2020, tables 1 and 4; written
anew, with random weights. Two things are as in the continual version of Hedegaard and Iosifidis (2022), so that the
same network runs on clips and by steps: squeeze-and-excitation looks at one frame at a time, and the head averages over
a window of frames.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from torch import nn

from kit.models.init import keep_signal
from kit.regions import Branches, Product
from kit.reprs import one_line


@one_line
class Size(NamedTuple):
    """One of the published sizes."""

    frames: int  # of a clip
    side: int  # pixels of its square frames
    depth: float  # factor of the number of blocks in a stage
    channels: tuple[int, int, int, int]  # of the four stages


SIZES = {
    "S": Size(13, 160, 2.2, (24, 48, 96, 192)),
    "M": Size(16, 224, 2.2, (24, 48, 96, 192)),
    "L": Size(16, 312, 5.0, (24, 48, 96, 192)),
}
BLOCKS = (1, 2, 5, 3)  # in each stage, before the factor of depth
WIDER, SQUEEZED = 2.25, 1 / 16  # channels inside a block, and inside its squeeze-and-excitation
RESIDUAL = 0.1  # what random blocks add, so that 26 of them do not make roundings as large as the output


def x3d(
    size: Literal["S", "M", "L"] | Size = "M", *, window: int | None = None, classes: int = 400, seed: int = 0
) -> nn.Sequential:
    """An X3D network, in eval mode: ``(N, 3, T, side, side) -> (N, classes, T - window + 1, 1, 1)``.

    Args:
        size: one of the published ones, or another.
        window: frames that the head averages over; None for those of the published clip.
    """
    frames, _, depth, channels = size if isinstance(size, Size) else SIZES[size]
    stem, stages = channels[0], []
    for count, before, after in zip(BLOCKS, (stem, *channels), channels, strict=False):
        repeats = math.ceil(depth * count)
        stages += [_block(before if i == 0 else after, after, 2 if i == 0 else 1, i % 2 == 0) for i in range(repeats)]
    inner = int(WIDER * channels[-1])
    net = nn.Sequential(
        nn.Conv3d(3, stem, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False),
        _norm(nn.Conv3d(stem, stem, (5, 1, 1), padding=(2, 0, 0), groups=stem, bias=False)),
        nn.ReLU(),
        *stages,
        _norm(nn.Conv3d(channels[-1], inner, 1, bias=False)),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d((None, 1, 1)),
        nn.AvgPool3d((window or frames, 1, 1), stride=1),
        nn.Conv3d(inner, 2048, 1, bias=False),
        nn.ReLU(),
        nn.Conv3d(2048, classes, 1),
    )
    return keep_signal(net, seed).eval()


def _norm(conv: nn.Conv3d, gain: float = 1.0) -> nn.Sequential:
    norm = nn.BatchNorm3d(conv.out_channels)
    nn.init.constant_(norm.weight, gain)
    return nn.Sequential(conv, norm)


def _block(before: int, after: int, stride: int, excites: bool) -> nn.Sequential:
    """A residual bottleneck, wide inside, whose depthwise convolution strides in space."""
    inner = int(WIDER * after)
    middle = nn.Conv3d(inner, inner, 3, (1, stride, stride), 1, groups=inner, bias=False)
    deep = nn.Sequential(
        _norm(nn.Conv3d(before, inner, 1, bias=False)),
        nn.ReLU(),
        _norm(middle),
        _excitation(inner) if excites else nn.Identity(),
        nn.SiLU(),
        _norm(nn.Conv3d(inner, after, 1, bias=False), RESIDUAL),
    )
    plain = before == after and stride == 1
    skip = nn.Identity() if plain else _norm(nn.Conv3d(before, after, 1, (1, stride, stride), bias=False))
    return nn.Sequential(Branches({"skip": skip, "deep": deep}, sum), nn.ReLU())


def _excitation(channels: int) -> Branches:
    """Squeeze-and-excitation: each channel of a frame is scaled by a factor that depends on all channels' means."""
    squeezed = max(8, 8 * round(channels * SQUEEZED / 8))
    factors = nn.Sequential(
        nn.AdaptiveAvgPool3d((None, 1, 1)),
        nn.Conv3d(channels, squeezed, 1),
        nn.ReLU(),
        nn.Conv3d(squeezed, channels, 1),
        nn.Sigmoid(),
    )
    return Branches({"factors": factors, "frame": nn.Identity()}, Product())
