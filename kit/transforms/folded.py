"""Batch norm folded into the convolution before it."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kit.errors import KitError
from kit.transforms.base import Transform, oddity
from kit.transforms.copying import rewritable

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True, kw_only=True)
class Folded(Transform):
    """Batch norm in eval mode is a scale and a shift per channel: the convolution before it can do both.

    Helps wherever there is batch norm, most where operators are so small that their number counts. A network without
    batch norm has nothing to fold. Pairs are found where they follow each other in one ``nn.Sequential`` that is called
    as a whole. Subclasses, and layers with hooks, may compute something else: they stay as they are.

    Source: `Fusing Convolution and Batch Norm
    <https://docs.pytorch.org/tutorials/intermediate/custom_function_conv_bn_tutorial.html>`_.
    """

    def rewrite(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        title, (model, calls, _) = type(model).__name__, rewritable(model, args)
        chains = {name: each for name, each in model.named_modules() if isinstance(each, nn.Sequential)}
        within: Counter[nn.Module] = Counter()  # how often each layer is run by such chains
        for each in chains.values():
            within.update({layer: calls[each] for layer in each if not oddity(each, nn.Sequential)})
        folded, left = False, []
        for name, each in chains.items():
            for i, (conv, norm) in enumerate(pairwise(each)):
                if isinstance(conv, _ConvNd) and isinstance(norm, _BatchNorm):
                    if why := _why_not(each, conv, norm, calls, within):
                        left.append(f"{'.'.join(filter(None, (name, str(i))))!r}: {why}")
                    else:
                        each[i], each[i + 1], folded = _fused(conv, norm), nn.Identity(), True
        if not folded:
            raise KitError(
                f"{title} has no convolution that a batch norm follows in one nn.Sequential, so there is nothing to "
                f"fold: write the units as nn.Sequential(conv, norm, ...), or leave folded out.{_seen(left)}"
            )
        return model


def _why_not(
    chain: nn.Sequential, conv: nn.Module, norm: _BatchNorm, calls: Counter[nn.Module], within: Counter[nn.Module]
) -> str:
    """Why a pair is left as it is, or nothing."""
    odd = oddity(chain, nn.Sequential) or oddity(conv, *CONVS) or oddity(norm, *NORMS)
    if odd:
        return odd
    if norm.running_mean is None:
        return "the norm has no running statistics"
    if not calls[chain]:
        return "the nn.Sequential is not called as a whole"
    return "the layers run outside of it too" if any(calls[each] != within[each] for each in (conv, norm)) else ""


def _seen(left: list[str]) -> str:
    return f" Pairs that may be something else: {'; '.join(left[:3])}{', ...' * (len(left) > 3)}." if left else ""


def _fused(conv: nn.Module, norm: nn.Module) -> nn.Module:
    """A new convolution, its weights rounded to their type once: coarse types lose digits in each step of the sum."""
    fuse: Any = fuse_conv_bn_eval
    fused: nn.Module = fuse(copy.deepcopy(conv).double(), copy.deepcopy(norm).double())
    return fused.to(next(conv.parameters()).dtype)
