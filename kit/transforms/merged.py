"""Sibling 1x1 convolutions on one input, as a single wider one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kit.errors import KitError
from kit.regions import Branches, some_regions
from kit.transforms.base import Transform, become, oddity
from kit.transforms.copying import rewritable

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

    def rewrite(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        title, (model, _, given) = type(model).__name__, rewritable(model, args)
        changed, unseen = False, []
        for name, region in reversed(some_regions(model).items()):  # inner regions first
            if len(given.get(region, (None,))) != 1:
                continue
            if odd := oddity(region, Branches) or ("" if region in given else "is not called on these inputs"):
                unseen.append(f"the region {name or title!r} ({odd})")
                continue
            unseen += [f"branch {key!r} ({odd})" for key, each in region.branches.items() if (odd := _unseen(each))]
            heads = [_head(branch) for branch in region.branches.values()]
            if sum(head is not None for head in heads) > 1:
                become(region, _SharedHead(region, heads))
                changed = True
        if changed:
            return model.eval()  # the new modules in it too
        parts = f"{', '.join(unseen[:3])}{' and more' * (len(unseen) > 3)}"
        seen = f"merged cannot look into {parts}. As far as it sees, " if unseen else ""
        raise KitError(
            f"{seen}no region of {title} has two branches that begin with a 1x1 convolution of the same input (with "
            "stride 1, no padding, one group), so there is nothing to merge: write such branches as nn.Sequential of "
            "torch's own layers, or leave merged out."
        )


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
        parts = iter(torch.split(shared, self.widths, 1 - self.head.weight.ndim))  # inputs may have no batch
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


def _layers(module: Any) -> list[Any]:
    """The modules that a chain runs one after the other, inner chains laid out flat."""
    return [module] if oddity(module, nn.Sequential) else [layer for child in module for layer in _layers(child)]


def _unseen(branch: nn.Module) -> str:
    """What a branch begins with, where that cannot be seen to be another layer than a 1x1 convolution; else nothing."""
    first = next((layer for layer in _layers(branch) if not _is_same_average(layer)), None)
    if first is None or type(first) is Branches:
        return ""
    layer = type(first) is nn.Sequential or not any(first.children())
    plain = type(first).__module__.startswith("torch.nn.modules") and layer
    return oddity(first, type(first)) if plain else f"begins with a {type(first).__name__}"


def _is_1x1(layer: Any) -> bool:
    return (
        not oddity(layer, nn.Conv2d, nn.Conv3d)
        and {*layer.kernel_size, *layer.stride, layer.groups} == {1}
        and layer.padding in ("same", "valid", (0,) * len(layer.kernel_size))
    )


def _is_same_average(layer: Any) -> bool:
    """An average pool that keeps the size: its windows step by one and are padded by half."""
    if oddity(layer, nn.AvgPool2d, nn.AvgPool3d):
        return False
    dims = 2 if type(layer) is nn.AvgPool2d else 3
    kernel, stride, padding = (
        [size] * dims if isinstance(size, int) else [*size] for size in (layer.kernel_size, layer.stride, layer.padding)
    )
    return set(stride) == {1} and [side // 2 for side in kernel] == padding and all(side % 2 for side in kernel)
