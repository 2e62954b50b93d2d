"""Sibling 1x1 convolutions on one input, as a single wider one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kit.errors import KitError
from kit.regions import Branches, some_regions
from kit.transforms.base import Transform, arguments_of, exchange, rewritable

Conv = nn.Conv2d | nn.Conv3d


@dataclass(frozen=True, kw_only=True)
class Merged(Transform):
    """Sibling branches that begin with a 1x1 convolution of the same input share one, whose output is split.

    An average-pool branch joins in: without its bias a 1x1 convolution commutes with average pooling, so it goes first
    and the pool works on fewer channels. Bias and batch norm stay behind the pool. A branch that begins otherwise, with
    a max pool or a larger kernel, keeps the input itself. Helps where the heads are too small to fill the cores or the
    GPU one at a time. Does not help where the split parts, no longer contiguous for batches above 1, cost more to read.

    Exact algebra; heads are found where branches are written as ``nn.Sequential``.
    """

    def apply(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        model = rewritable(model)
        found = some_regions(model)
        given = arguments_of(model, found, args)
        changed = False
        for name, region in reversed(found.items()):  # inner regions first
            heads = [_head(branch) for branch in region.branches.values()]
            if len(given.get(name, ())) == 1 and sum(head is not None for head in heads) > 1:
                model, changed = exchange(model, name, _SharedHead(region, heads)), True
        if not changed:
            raise KitError(
                f"no region of {type(model).__name__} has two branches that begin with a 1x1 convolution of the same "
                "input, so there is nothing to merge: write such branches as nn.Sequential, or leave merged out."
            )
        return model.eval()  # the new modules in it too


class _Head(NamedTuple):
    """A branch's 1x1 convolution, and the layers that it still has to do."""

    conv: Conv
    bias: Tensor | None  # for the shared convolution; behind a pool it is no longer part of it
    tail: Sequence[nn.Module]


class _SharedHead(nn.Module):
    """One convolution, then the region of what is left of the branches."""

    def __init__(self, region: Branches, heads: Sequence[_Head | None]) -> None:
        super().__init__()
        merged = [head for head in heads if head is not None]
        self.takes = [head is not None for head in heads]  # which branches begin with a part of the shared output
        self.widths = [head.conv.out_channels for head in merged]
        first = merged[0].conv
        weight = torch.cat([head.conv.weight for head in merged])
        self.head = type(first)(first.in_channels, sum(self.widths), 1, device=weight.device, dtype=weight.dtype)
        self.head.weight = nn.Parameter(weight.detach(), requires_grad=False)
        biases = [weight.new_zeros(head.conv.out_channels) if head.bias is None else head.bias for head in merged]
        self.head.bias = nn.Parameter(torch.cat(biases).detach(), requires_grad=False)
        if all(head.bias is None for head in merged):
            self.head.bias = None
        tails = {
            name: branch if head is None else nn.Sequential(*head.tail)
            for (name, branch), head in zip(region.branches.items(), heads, strict=True)
        }
        self.tails = Branches(tails, region.merge)

    def forward(self, x: Tensor) -> Any:
        return self.tails(*self.parts(self.head(x), x))

    def parts(self, shared: Tensor, x: Tensor) -> list[Tensor]:
        """What each branch begins with: its part of the head's output, or the input."""
        parts = iter(torch.split(shared, self.widths, 1))
        return [next(parts) if takes else x for takes in self.takes]


class _Bias(nn.Module):
    """What a convolution adds to each channel, where it cannot do so itself."""

    def __init__(self, bias: Tensor, dims: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias.detach().reshape(-1, *[1] * dims), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


def _head(branch: nn.Module) -> _Head | None:
    layers = _layers(branch)
    pool = layers.pop(0) if layers and _is_same_average(layers[0]) else None
    if not layers or not _is_1x1(layers[0]):
        return None
    conv, rest = layers[0], layers[1:]
    if pool is None:
        return _Head(conv, conv.bias, rest)
    bias = [] if conv.bias is None else [_Bias(conv.bias, conv.weight.ndim - 2)]
    return _Head(conv, None, [pool, *bias, *rest])


def _layers(module: nn.Module) -> list[Any]:
    """The modules that a chain runs one after the other, inner chains laid out flat."""
    return [layer for child in module for layer in _layers(child)] if type(module) is nn.Sequential else [module]


def _is_1x1(layer: nn.Module) -> bool:
    return (
        isinstance(layer, Conv)
        and {*layer.kernel_size, *layer.stride, layer.groups} == {1}
        and set(layer.padding) == {0}
    )


def _is_same_average(layer: nn.Module) -> bool:
    """An average pool that keeps the size: its windows step by one and are padded by half."""
    if not isinstance(layer, nn.AvgPool2d | nn.AvgPool3d):
        return False
    kernel, stride, padding = (
        size if isinstance(size, tuple) else (size,) for size in (layer.kernel_size, layer.stride, layer.padding)
    )
    return set(stride) == {1} and [size // 2 for size in kernel] == list(padding) and all(size % 2 for size in kernel)
