"""ResNet-50 over clips, in the two forms of the published table: Slow and I3D.

They differ in where convolutions look over time, and in a pool that halves time in I3D. Sources: Feichtenhofer, Fan,
Malik, He, *SlowFast Networks for Video Recognition*, 2019 (the Slow pathway, table 1); Carreira and Zisserman, *Quo
Vadis, Action Recognition?*, 2017, in the ResNet form of Wang et al., *Non-local Neural Networks*, 2018. Written anew,
with the kernels in time of the published configurations and random weights; the head averages over a window of frames,
so that the same network also runs by steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from kit.models.init import keep_signal
from kit.regions import Branches

BLOCKS = (3, 4, 6, 3)  # in each stage
RESIDUAL = 0.1  # what random blocks add, so that they do not make roundings as large as the output
# The kernel in time of the stem's convolution, and of the first convolution of the blocks of each stage, in turns.
OVER_TIME: dict[str, tuple[int, tuple[Sequence[int], ...]]] = {
    "slow": (1, ((1,), (1,), (3,), (3,))),
    "i3d": (5, ((3,), (3, 1), (3, 1), (1, 3))),
}


def resnet50_3d(kind: Literal["slow", "i3d"], *, window: int = 8, classes: int = 400, seed: int = 0) -> nn.Sequential:
    """A 3-D ResNet-50, in eval mode: ``(N, 3, T, H, W) -> (N, classes, T' - window + 1, 1, 1)``.

    ``T'`` is T, and half of it for I3D.

    Args:
        window: frames of features that the head averages over: 8 for clips of 8 frames; for I3D 4.
    """
    stem, stages = OVER_TIME[kind]
    layers: list[nn.Module] = [
        _unit(3, 64, (stem, 7, 7), (1, 2, 2)),
        nn.ReLU(),
        nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
    ]
    before = 64
    for stage, (count, kernels) in enumerate(zip(BLOCKS, stages, strict=True)):
        after = 256 << stage
        for i in range(count):
            stride = 2 if i == 0 and stage else 1
            layers.append(_block(before, after, kernels[i % len(kernels)], stride))
            before = after
        if kind == "i3d" and stage == 0:
            layers.append(nn.MaxPool3d((2, 1, 1), (2, 1, 1)))
    head = [nn.AdaptiveAvgPool3d((None, 1, 1)), nn.AvgPool3d((window, 1, 1), stride=1), nn.Conv3d(before, classes, 1)]
    return keep_signal(nn.Sequential(*layers, *head), seed).eval()


def _unit(
    before: int, after: int, kernel: tuple[int, int, int], stride: tuple[int, int, int], gain: float = 1.0
) -> nn.Sequential:
    padding, norm = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2), nn.BatchNorm3d(after)
    nn.init.constant_(norm.weight, gain)
    return nn.Sequential(nn.Conv3d(before, after, kernel, stride, padding, bias=False), norm)


def _block(before: int, after: int, over_time: int, stride: int) -> nn.Sequential:
    """A residual bottleneck whose first convolution looks over time, and whose second strides in space."""
    inner, strides = after // 4, (1, stride, stride)
    deep = nn.Sequential(
        _unit(before, inner, (over_time, 1, 1), (1, 1, 1)),
        nn.ReLU(),
        _unit(inner, inner, (1, 3, 3), strides),
        nn.ReLU(),
        _unit(inner, after, (1, 1, 1), (1, 1, 1), RESIDUAL),
    )
    skip = nn.Identity() if before == after else _unit(before, after, (1, 1, 1), strides)
    return nn.Sequential(Branches({"skip": skip, "deep": deep}, sum), nn.ReLU())
