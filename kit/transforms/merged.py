"""Merges 1x1 convolutions of the same input into one wider convolution."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from kit.errors import KitError
from kit.regions import Branches, some_regions
from kit.transforms.base import Transform, become, oddity
from kit.transforms.copying import rewritable
from kit.transforms.heads import Head, head_of, unseen


@dataclass(frozen=True, kw_only=True)
class Merged(Transform):
    """Branches that begin with a 1x1 convolution of the same input share one wider convolution; its output is split.

    This includes average-pool branches: a 1x1 convolution without bias commutes with average pooling, so it runs first
    and the pool works on fewer channels. Bias and batch norm stay after the pool. A branch that begins with another
    layer, such as a max pool or a larger kernel, gets the input itself. Helps when the single 1x1 convolutions are too
    small to fill the cores or the GPU. Does not help when reading the split parts, which are not contiguous for batches
    above 1, costs more.

    The rewrite is exact apart from rounding. It finds 1x1 convolutions in branches written as ``nn.Sequential``, and in
    branches of a captured model.
    """

    wants_regions: ClassVar[bool] = True

    def rewrite(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        title, (model, _, given) = type(model).__name__, rewritable(model, args)
        changed, left_out = False, []
        for name, region in reversed(some_regions(model).items()):  # inner regions first
            sharing, count = _sharing(region, given.get(region)), len(given.get(region, ()))
            odd = oddity(region, Branches) or ("" if region in given else "is not called on these inputs")
            left_out += [f"the region {name or title!r} ({odd})"] if odd and sharing else []
            for names in () if odd else sharing:
                branches = {key: region.branches[key] for key in names}
                left_out += [f"branch {key!r} ({why})" for key, each in branches.items() if (why := unseen(each))]
                heads = {key: head for key, each in branches.items() if (head := head_of(each)) is not None}
                if len(heads) > 1:
                    shared = _SharedHead(region, heads, count)
                    become(region, shared)
                    region, count, changed = shared.tails, len(heads) + count, True
        if changed:
            return model.eval()  # the new modules in it too
        parts = f"{', '.join(left_out[:3])}{' and more' * (len(left_out) > 3)}"
        seen = f"merged cannot look into {parts}. As far as it can see, " if left_out else ""
        raise KitError(
            f"{seen}no region of {title} has two branches that begin with a 1x1 convolution of the same input (with "
            "stride 1, no padding, one group), so there is nothing to merge: write such branches as nn.Sequential of "
            "torch's own layers, or leave merged out."
        )


class _SharedHead(nn.Module):
    """One convolution, then a region with the rest of each branch.

    That region's inputs are the parts of the convolution's output, followed by the inputs of this module.
    """

    def __init__(self, region: Branches, heads: Mapping[str, Head], count: int) -> None:
        """``heads`` are of branches that take the same input, one of ``count``."""
        super().__init__()
        merged = list(heads.values())
        taken = region.taken(count)
        (self.index,) = taken[next(iter(heads))]
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
            name: nn.Sequential(*heads[name].tail) if name in heads else branch
            for name, branch in region.branches.items()
        }
        takes = {name: tuple(len(heads) + i for i in indices) for name, indices in taken.items()}
        self.tails = Branches(tails, region.merge, takes | {name: (i,) for i, name in enumerate(heads)})

    def forward(self, *inputs: Any) -> Any:
        shared = self.head(inputs[self.index])
        return self.tails(*torch.split(shared, self.widths, 1 - self.head.weight.ndim), *inputs)  # with a batch or not


def _sharing(region: Branches, inputs: tuple[Any, ...] | None) -> list[list[str]]:
    """Groups of two or more branches that take the same single input.

    ``inputs`` are those of the region's call; None if there was no call, which counts as a call with one input.
    """
    taken = region.takes or region.taken(1 if inputs is None else len(inputs))
    found: dict[int, list[str]] = defaultdict(list)
    for name, indices in taken.items():
        if len(indices) == 1:
            found[indices[0]].append(name)
    return [names for names in found.values() if len(names) > 1]
