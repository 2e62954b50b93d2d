"""What Inception networks are made of: convolution units, the chain of stages, and the block that started it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from kit.errors import KitError, ShapeError
from kit.models.init import keep_signal
from kit.models.weights import IMAGENET_MEAN, IMAGENET_STD, put_weights, read_weights
from kit.regions import Branches, Concat

Kernel = int | tuple[int, ...]
Conv = type[nn.Conv2d] | type[nn.Conv3d]


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel: Kernel, *, conv: Conv = nn.Conv2d, **options: Any
) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU: ``(N, in_channels, [T,] H, W) -> (N, out_channels, ...)``."""
    unit = nn.Sequential()
    unit.conv = conv(in_channels, out_channels, kernel, bias=False, **options)  # type: ignore[arg-type]
    unit.bn = (nn.BatchNorm3d if issubclass(conv, nn.Conv3d) else nn.BatchNorm2d)(out_channels, eps=0.001)
    unit.relu = nn.ReLU(inplace=True)
    return unit


def same(in_channels: int, out_channels: int, kernel: Kernel, *, conv: Conv = nn.Conv2d) -> nn.Sequential:
    """:func:`conv_bn_relu` padded so that the output has the size of the input; odd kernels only."""
    padding = kernel // 2 if isinstance(kernel, int) else tuple(side // 2 for side in kernel)
    return conv_bn_relu(in_channels, out_channels, kernel, conv=conv, padding=padding)


def path(in_channels: int, *steps: tuple[int, Kernel], conv: Conv = nn.Conv2d) -> nn.Sequential:
    """Units of :func:`same` one after another, each given as its channels and its kernel."""
    widths = (in_channels, *(width for width, _ in steps))
    return nn.Sequential(*(same(widths[i], width, kernel, conv=conv) for i, (width, kernel) in enumerate(steps)))


def scaled(width: float, parts: int) -> Callable[[int], int]:
    """The published channel numbers, all multiples of ``parts``, times ``width``.

    Raises:
        KitError: a width that would leave a fraction of a channel.
    """
    if width <= 0 or width * parts % 1:
        raise KitError(f"width={width} leaves fractions of channels: give a multiple of 1/{parts}, as in width=0.125.")
    return lambda channels: int(channels * width)


class Inception(nn.Module):
    """A chain of named stages, some of them regions, with heads beside it that are used in training only.

    ``(N, in_channels, [T,] H, W) -> (N, classes)``. In training mode, where there are heads, a tuple: these scores,
    then those of each head, from the first to the last.

    Args:
        stages: name -> module, in the order in which they run; the names are the published ones.
        heads: stage -> name and module of the auxiliary head that reads its output.
        smallest: the least height and width that the stages take.
        published: the name of one of our parameters in torchvision's state dict.
    """

    factor: Tensor  # of transform_input, (1, 3, [1,] 1, 1)
    offset: Tensor

    def __init__(
        self,
        stages: Mapping[str, nn.Module],
        heads: Mapping[str, tuple[str, nn.Module]],
        *,
        in_channels: int = 3,
        dims: int = 2,
        smallest: int,
        published: Callable[[str], str] = str,
    ) -> None:
        super().__init__()
        self.in_channels, self.dims, self.smallest, self.published = in_channels, dims, smallest, published
        self.transform_input = False  # from RGB normalised by its mean and spread to [-1, 1], as the weights expect it
        mean, spread = (torch.tensor(values).view(1, 3, *[1] * dims) for values in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("factor", spread / 0.5, persistent=False)
        self.register_buffer("offset", (mean - 0.5) / 0.5, persistent=False)
        for name, module in (*stages.items(), *heads.values()):
            self.add_module(name, module)
        self._stages, self._heads = tuple(stages), {stage: name for stage, (name, _) in heads.items()}

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Scores, not yet probabilities.

        Raises:
            ShapeError: an input with another number of dimensions or channels, or too small.
        """
        self._check(x)
        if self.transform_input:
            x = x * self.factor + self.offset
        auxiliary = []
        for name in self._stages:
            x = self.get_submodule(name)(x)
            if self.training and name in self._heads:
                auxiliary.append(self.get_submodule(self._heads[name])(x))
        return (x, *auxiliary) if auxiliary else x

    def load_torchvision(self, path: str | Path) -> Self:
        """Fill in place with a state dict that torchvision published; returns the network.

        From then on the network takes RGB normalised by ImageNet's mean and spread, as :mod:`kit.clips` makes it, and
        maps it to the [-1, 1] that these weights were trained on. What a file may lack stays as it is:
        auxiliary heads, and batch norm's counters.

        Raises: as :func:`kit.models.weights.load_weights`.
        """
        own = self.state_dict()
        ours = {self.published(name): name for name in own}
        heads = tuple(f"{name}." for name in self._heads.values())
        optional = {k: x for k, x in own.items() if k.startswith(heads) or k.endswith("num_batches_tracked")}
        put_weights(self, optional | {ours.get(name, name): x for name, x in read_weights(path).items()}, path)
        self.transform_input = True
        return self

    def _check(self, x: Tensor) -> None:
        least = (3, self.smallest, self.smallest)[-self.dims :]
        small = any(side < low for side, low in zip(x.shape[2:], least, strict=False))
        if x.ndim != 2 + self.dims or x.shape[1] != self.in_channels or small:
            raise ShapeError(
                f"this Inception network takes (N, {self.in_channels}, {'T, ' * (self.dims == 3)}H, W), of which the "
                f"last {self.dims} are at least {least}, but was given {tuple(x.shape)}: crop, resize or lengthen the "
                "input."
            )


def inception_a(in_channels: int, pool_features: int, w: Callable[[int], int] = int) -> Branches:
    """The 35x35 block of Inception v3, ``w`` scaling its channels: ``(N, in_channels, H, W) -> (N, C, H, W)``."""
    branches = {
        "1x1": same(in_channels, w(64), 1),
        "5x5": path(in_channels, (w(48), 1), (w(64), 5)),
        "double 3x3": path(in_channels, (w(64), 1), (w(96), 3), (w(96), 3)),
        "pool": nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1), same(in_channels, w(pool_features), 1)),
    }
    return Branches(branches, Concat(1))  # (N, 224 + pool_features, H, W) where w is int


def inception_block(in_channels: int = 192, pool_features: int = 32, *, seed: int = 0) -> Branches:
    """The 35x35 block of Inception v3: 1x1; 1x1 -> 5x5; 1x1 -> 3x3 -> 3x3; average pool -> 1x1.

    ``(N, in_channels, H, W) -> (N, 224 + pool_features, H, W)``; in the published network ``(N, 192, 35, 35)``.

    Source: Szegedy et al., *Rethinking the Inception Architecture for Computer Vision*, 2015, figure 5.

    >>> from kit import models
    >>> block = models.inception_block(in_channels=8, pool_features=8)
    >>> list(block.branches), block(torch.rand(1, 8, 9, 9)).shape
    (['1x1', '5x5', 'double 3x3', 'pool'], torch.Size([1, 232, 9, 9]))
    """
    return keep_signal(inception_a(in_channels, pool_features), seed).eval()
