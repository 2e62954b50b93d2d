"""Sibling 1x1 convolutions on one input, as a single wider one."""

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
    """Sibling branches that begin with a 1x1 convolution of the same input share one, whose output is split.

    An average-pool branch joins in: without its bias a 1x1 convolution commutes with average pooling, so it goes first
    and the pool works on fewer channels. Bias and batch norm stay behind the pool. A branch that begins otherwise, with
    a max pool or a larger kernel, keeps the input itself. Helps where the heads are too small to fill the cores or the
    GPU one at a time. Does not help where the split parts, no longer contiguous for batches above 1, cost more to read.

    Exact algebra; heads are found where branches are written as ``nn.Sequential``, and in branches that were found in a
    captured model.
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
        seen = f"merged cannot look into {parts}. As far as it sees, " if left_out else ""
        raise KitError(
            f"{seen}no region of {title} has two branches that begin with a 1x1 convolution of the same input (with "
            "stride 1, no padding, one group), so there is nothing to merge: write such branches as nn.Sequential of "
            "torch's own layers, or leave merged out."
        )


class _SharedHead(nn.Module):
    """One convolution, then the region of what is left of the branches.

    That region has the parts of the convolution's output for its first inputs, and those of this one behind them.
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
    """Branches that take one and the same input, where these are several.

    ``inputs`` are those of the region's call, None where there was none: it then counts as a call with one.
    """
    taken = region.takes or region.taken(1 if inputs is None else len(inputs))
    found: dict[int, list[str]] = defaultdict(list)
    for name, indices in taken.items():
        if len(indices) == 1:
            found[indices[0]].append(name)
    return [names for names in found.values() if len(names) > 1]
