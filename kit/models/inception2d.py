"""Inception v1 (GoogLeNet) and v3, complete, with torchvision's names and numbers of parameters."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from kit.models.inception import Conv, Inception, conv_bn_relu, inception_a, path, same, scaled
from kit.models.init import keep_signal
from kit.regions import Branches, Concat

# Inception v1 ---------------------------------------------------------------------------------------------------------

V1_BLOCKS = {  # name: 1x1, 3x3 with its reduction first, "5x5" likewise, pool -> the output of the block
    "3a": (64, 96, 128, 16, 32, 32),  # (N, 256, 28, 28)
    "3b": (128, 128, 192, 32, 96, 64),  # (N, 480, 28, 28)
    "4a": (192, 96, 208, 16, 48, 64),  # (N, 512, 14, 14)
    "4b": (160, 112, 224, 24, 64, 64),  # (N, 512, 14, 14)
    "4c": (128, 128, 256, 24, 64, 64),  # (N, 512, 14, 14)
    "4d": (112, 144, 288, 32, 64, 64),  # (N, 528, 14, 14)
    "4e": (256, 160, 320, 32, 128, 128),  # (N, 832, 14, 14)
    "5a": (256, 160, 320, 32, 128, 128),  # (N, 832, 7, 7)
    "5b": (384, 192, 384, 48, 128, 128),  # (N, 1024, 7, 7)
}


def inception_v1_block(
    in_channels: int,
    one: int,
    three_reduced: int,
    three: int,
    five_reduced: int,
    five: int,
    pool: int,
    *,
    conv: Conv = nn.Conv2d,
) -> Branches:
    """1x1; 1x1 -> 3x3; 1x1 -> "5x5", which is 3x3 in the published weights; 3x3 max pool -> 1x1.

    ``(N, in_channels, [T,] H, W) -> (N, one + three + five + pool, [T,] H, W)``. With ``nn.Conv3d`` kernels are cubes.
    """
    max_pool = nn.MaxPool3d if issubclass(conv, nn.Conv3d) else nn.MaxPool2d
    branches = {
        "1x1": same(in_channels, one, 1, conv=conv),
        "3x3": path(in_channels, (three_reduced, 1), (three, 3), conv=conv),
        "5x5": path(in_channels, (five_reduced, 1), (five, 3), conv=conv),
        "pool": nn.Sequential(max_pool(3, stride=1, padding=1), same(in_channels, pool, 1, conv=conv)),
    }
    return Branches(branches, Concat(1))


def inception_v1(in_channels: int, classes: int, width: float, *, conv: Conv = nn.Conv2d) -> dict[str, nn.Module]:
    """The stages of Inception v1; with ``nn.Conv3d`` or a subclass of it, those of an I3D stream."""
    w, in_3d = scaled(width, 8), issubclass(conv, nn.Conv3d)

    def pool(kernel: int, *, time: bool = True) -> nn.Module:
        if in_3d:
            return nn.MaxPool3d((kernel if time else 1, kernel, kernel), (2 if time else 1, 2, 2), ceil_mode=True)
        return nn.MaxPool2d(kernel, 2, ceil_mode=True)

    stages: dict[str, nn.Module] = {  # shapes: of 224x224 pixels; in 3-D of T frames as well
        "conv1": conv_bn_relu(in_channels, w(64), 7, conv=conv, stride=2, padding=3),  # (N, 64, [T/2,] 112, 112)
        "maxpool1": pool(3, time=False),  # (N, 64, [T/2,] 56, 56)
        "conv2": same(w(64), w(64), 1, conv=conv),
        "conv3": same(w(64), w(192), 3, conv=conv),
        "maxpool2": pool(3, time=False),  # (N, 192, [T/2,] 28, 28)
    }
    channels = w(192)
    for name, published in V1_BLOCKS.items():
        if name in ("4a", "5a"):
            stages[f"maxpool{int(name[0]) - 1}"] = pool(3 if name == "4a" else 2)  # [T/4,] 14, 14; [T/8,] 7, 7
        stages[f"inception{name}"] = inception_v1_block(channels, *map(w, published), conv=conv)
        channels = sum(w(published[i]) for i in (0, 2, 4, 5))
    stages["avgpool"] = (nn.AdaptiveAvgPool3d if in_3d else nn.AdaptiveAvgPool2d)(1)
    return stages | {"flatten": nn.Flatten(), "dropout": nn.Dropout(0.2), "fc": nn.Linear(channels, classes)}


def _v1_head(in_channels: int, classes: int, w: Callable[[int], int]) -> nn.Sequential:
    layers = {
        "pool": nn.AdaptiveAvgPool2d(4),
        "conv": same(in_channels, w(128), 1),  # (N, 128, 4, 4)
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(16 * w(128), w(1024)),
        "relu": nn.ReLU(inplace=True),
        "dropout": nn.Dropout(0.7),
        "fc2": nn.Linear(w(1024), classes),
    }
    return nn.Sequential(OrderedDict(layers))


def _published_v1(name: str) -> str:
    """``inception3a.branches.3x3.0.conv.weight`` -> ``inception3a.branch2.0.conv.weight``."""
    order = ("1x1", "3x3", "5x5", "pool")
    return re.sub(r"\.branches\.(\w+)", lambda match: f".branch{order.index(match[1]) + 1}", name)


def googlenet(classes: int = 1000, *, width: float = 1, seed: int = 0) -> Inception:
    """GoogLeNet with batch norm, in eval mode: ``(N, 3, H, W) -> (N, classes)``, published for H = W = 224.

    Source: Szegedy et al., *Going Deeper with Convolutions*, 2014, arXiv 1409.4842. As in torchvision the branch named
    5x5 is 3x3, and two auxiliary heads are there for training.

    >>> from kit import models
    >>> models.googlenet(classes=10, width=1 / 8)(torch.rand(1, 3, 64, 64)).shape
    torch.Size([1, 10])

    Args:
        width: scales every channel number; a multiple of 1/8.

    Raises:
        KitError: a width that leaves fractions of channels.
    """
    w, stages = scaled(width, 8), inception_v1(3, classes, width)
    heads = {
        "inception4a": ("aux1", _v1_head(w(512), classes, w)),
        "inception4d": ("aux2", _v1_head(w(528), classes, w)),
    }
    return keep_signal(Inception(stages, heads, smallest=32, published=_published_v1), seed).eval()


# Inception v3 ---------------------------------------------------------------------------------------------------------


def _b(in_channels: int, w: Callable[[int], int]) -> Branches:
    """From 35x35 to 17x17: ``(N, in_channels, 35, 35) -> (N, 480 + in_channels, 17, 17)``."""
    branches = {
        "3x3": conv_bn_relu(in_channels, w(384), 3, stride=2),
        "double 3x3": path(in_channels, (w(64), 1), (w(96), 3)).append(conv_bn_relu(w(96), w(96), 3, stride=2)),
        "pool": nn.MaxPool2d(3, stride=2),
    }
    return Branches(branches, Concat(1))


def _c(in_channels: int, middle: int, w: Callable[[int], int]) -> Branches:
    """At 17x17, with each 7x7 convolution in two halves: ``(N, in_channels, 17, 17) -> (N, 768, 17, 17)``."""
    m, out = w(middle), w(192)
    branches = {
        "1x1": same(in_channels, out, 1),
        "7x7": path(in_channels, (m, 1), (m, (1, 7)), (out, (7, 1))),
        "double 7x7": path(in_channels, (m, 1), (m, (7, 1)), (m, (1, 7)), (m, (7, 1)), (out, (1, 7))),
        "pool": nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1), same(in_channels, out, 1)),
    }
    return Branches(branches, Concat(1))


def _d(in_channels: int, w: Callable[[int], int]) -> Branches:
    """From 17x17 to 8x8: ``(N, in_channels, 17, 17) -> (N, 512 + in_channels, 8, 8)``."""
    m = w(192)
    branches = {
        "3x3": path(in_channels, (m, 1)).append(conv_bn_relu(m, w(320), 3, stride=2)),
        "7x7 3x3": path(in_channels, (m, 1), (m, (1, 7)), (m, (7, 1))).append(conv_bn_relu(m, m, 3, stride=2)),
        "pool": nn.MaxPool2d(3, stride=2),
    }
    return Branches(branches, Concat(1))


def _e(in_channels: int, w: Callable[[int], int]) -> Branches:
    """At 8x8, where two branches split again, into 1x3 beside 3x1: ``(N, in_channels, 8, 8) -> (N, 2048, 8, 8)``."""

    def split() -> Branches:
        return Branches({"1x3": same(w(384), w(384), (1, 3)), "3x1": same(w(384), w(384), (3, 1))}, Concat(1))

    branches = {
        "1x1": same(in_channels, w(320), 1),
        "3x3": path(in_channels, (w(384), 1)).append(split()),
        "double 3x3": path(in_channels, (w(448), 1), (w(384), 3)).append(split()),
        "pool": nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1), same(in_channels, w(192), 1)),
    }
    return Branches(branches, Concat(1))


def _v3_head(in_channels: int, classes: int, w: Callable[[int], int]) -> nn.Sequential:
    layers = {
        "pool": nn.AvgPool2d(5, stride=3),  # (N, 768, 5, 5)
        "conv0": same(in_channels, w(128), 1),
        "conv1": conv_bn_relu(w(128), w(768), 5),  # (N, 768, 1, 1)
        "average": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "fc": nn.Linear(w(768), classes),
    }
    return nn.Sequential(OrderedDict(layers))


def _published_v3(name: str) -> str:
    """``Mixed_7b.branches.3x3.1.branches.1x3.conv.weight`` -> ``Mixed_7b.branch3x3_2a.conv.weight``."""
    match = re.fullmatch(r"(\w+)\.branches\.([^.]+)(?:\.(\d))?(?:\.branches\.(1x3|3x1))?\.(\D.*)", name)
    if not match:
        return name
    stage, branch, place, half, rest = match.groups()
    others = {"double 3x3": "3x3dbl", "double 7x7": "7x7dbl", "7x7 3x3": "7x7x3", "pool": "_pool"}
    number = f"_{int(place) + 1}" if place and branch != "pool" else ""
    letter = {"1x3": "a", "3x1": "b"}.get(half, "")
    return f"{stage}.branch{others.get(branch, branch)}{number}{letter}.{rest}"


def inception_v3(classes: int = 1000, *, width: float = 1, seed: int = 0) -> Inception:
    """Inception v3 in eval mode: ``(N, 3, H, W) -> (N, classes)``, H and W 75 or more, published for 299.

    Source: Szegedy et al., *Rethinking the Inception Architecture for Computer Vision*, 2015, arXiv 1512.00567. In
    training mode the auxiliary head wants H and W of 299 or near.

    >>> from kit import models
    >>> models.inception_v3(classes=10, width=1 / 16)(torch.rand(1, 3, 75, 75)).shape
    torch.Size([1, 10])

    Args:
        width: scales every channel number; a multiple of 1/16.

    Raises:
        KitError: a width that leaves fractions of channels.
    """
    w = scaled(width, 16)
    stages = {  # shapes: of 299x299 pixels
        "Conv2d_1a_3x3": conv_bn_relu(3, w(32), 3, stride=2),  # (N, 32, 149, 149)
        "Conv2d_2a_3x3": conv_bn_relu(w(32), w(32), 3),  # (N, 32, 147, 147)
        "Conv2d_2b_3x3": same(w(32), w(64), 3),  # (N, 64, 147, 147)
        "maxpool1": nn.MaxPool2d(3, stride=2),  # (N, 64, 73, 73)
        "Conv2d_3b_1x1": same(w(64), w(80), 1),  # (N, 80, 73, 73)
        "Conv2d_4a_3x3": conv_bn_relu(w(80), w(192), 3),  # (N, 192, 71, 71)
        "maxpool2": nn.MaxPool2d(3, stride=2),  # (N, 192, 35, 35)
        "Mixed_5b": inception_a(w(192), 32, w),  # (N, 256, 35, 35)
        "Mixed_5c": inception_a(w(256), 64, w),  # (N, 288, 35, 35)
        "Mixed_5d": inception_a(w(288), 64, w),  # (N, 288, 35, 35)
        "Mixed_6a": _b(w(288), w),  # (N, 768, 17, 17)
        "Mixed_6b": _c(w(768), 128, w),  # (N, 768, 17, 17)
        "Mixed_6c": _c(w(768), 160, w),  # (N, 768, 17, 17)
        "Mixed_6d": _c(w(768), 160, w),  # (N, 768, 17, 17)
        "Mixed_6e": _c(w(768), 192, w),  # (N, 768, 17, 17)
        "Mixed_7a": _d(w(768), w),  # (N, 1280, 8, 8)
        "Mixed_7b": _e(w(1280), w),  # (N, 2048, 8, 8)
        "Mixed_7c": _e(w(2048), w),  # (N, 2048, 8, 8)
        "avgpool": nn.AdaptiveAvgPool2d(1),
        "dropout": nn.Dropout(0.5),
        "flatten": nn.Flatten(),  # (N, 2048)
        "fc": nn.Linear(w(2048), classes),
    }
    heads = {"Mixed_6e": ("AuxLogits", _v3_head(w(768), classes, w))}
    return keep_signal(Inception(stages, heads, smallest=75, published=_published_v3), seed).eval()
