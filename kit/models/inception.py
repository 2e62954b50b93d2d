"""Inception blocks (Szegedy et al., 2015): four branches on one input, concatenated."""

from __future__ import annotations

from typing import Any

from torch import nn

from kit.models.init import keep_signal
from kit.regions import Branches, Concat


def conv_bn_relu(in_channels: int, out_channels: int, kernel: int, **options: Any) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU: ``(N, in_channels, H, W) -> (N, out_channels, H', W')``."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, bias=False, **options),
        nn.BatchNorm2d(out_channels, eps=0.001),
        nn.ReLU(inplace=True),
    )


def inception_block(in_channels: int = 192, pool_features: int = 32, *, seed: int = 0) -> Branches:
    """The 35x35 block of Inception v3: 1x1; 1x1 -> 5x5; 1x1 -> 3x3 -> 3x3; average pool -> 1x1.

    ``(N, in_channels, H, W) -> (N, 224 + pool_features, H, W)``; in the published network ``(N, 192, 35, 35)``.

    Source: Szegedy et al., *Rethinking the Inception Architecture for Computer Vision*, 2015, figure 5.
    """
    branches = {
        "1x1": conv_bn_relu(in_channels, 64, 1),
        "5x5": nn.Sequential(conv_bn_relu(in_channels, 48, 1), conv_bn_relu(48, 64, 5, padding=2)),
        "double 3x3": nn.Sequential(
            conv_bn_relu(in_channels, 64, 1), conv_bn_relu(64, 96, 3, padding=1), conv_bn_relu(96, 96, 3, padding=1)
        ),
        "pool": nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1), conv_bn_relu(in_channels, pool_features, 1)),
    }
    return keep_signal(Branches(branches, Concat(1)), seed).eval()
