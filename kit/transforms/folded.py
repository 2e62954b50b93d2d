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
from kit.transforms.base import Transform, become, oddity
from kit.transforms.copying import rewritable
from kit.transforms.following import following

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True, kw_only=True)
class Folded(Transform):
    """Folds batch norm, in eval mode a scale and a shift per channel, into the convolution before it.

    Helps every network with batch norm, most if its operators are so small that their number matters. Pairs are found
    in one call of the model, whatever its code: only the batch norm may use the convolution's output. A layer that is
    called in several places is folded where both follow each other in one ``nn.Sequential`` that is called as a whole.
    Subclasses, and layers with hooks, may compute something else and are not folded.

    Source: `Fusing Convolution and Batch Norm
    <https://docs.pytorch.org/tutorials/intermediate/custom_function_conv_bn_tutorial.html>`_.
    """

    def rewrite(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        title, (model, calls, _) = type(model).__name__, rewritable(model, args)
        folded, left = _fold_in_chains(model, calls, title)
        also, others = _fold_where_they_follow(model, args)
        if not folded and not also:
            left = list(dict.fromkeys((*left, *others)))
            seen = f" Not folded: {'; '.join(left[:3])}{', and more' * (len(left) > 3)}." if left else ""
            raise KitError(
                f"{title} has no convolution whose output goes only to a batch norm, so there is nothing to fold: "
                f"leave folded out.{seen}"
            )
        return model


def _fold_in_chains(model: nn.Module, calls: Counter[nn.Module], title: str) -> tuple[bool, list[str]]:
    """Fold pairs within nn.Sequential, in place, so that layers used in several places are folded in each.

    Returns whether a pair was folded, and the pairs that were not, each with its reason.
    """
    chains = {name: each for name, each in model.named_modules() if isinstance(each, nn.Sequential)}
    by_chains: Counter[nn.Module] = Counter()  # how often each layer was called by its chains
    for each in chains.values():
        for layer in each:
            by_chains[layer] += calls[each]
    apart = {layer for layer in by_chains if calls[layer] != by_chains[layer]}
    folded, left = False, []
    for name, each in chains.items():
        for (first, conv), (second, norm) in pairwise(each._modules.items()):
            if not (isinstance(conv, _ConvNd) and isinstance(norm, _BatchNorm)):
                continue
            whys = (
                oddity(each, nn.Sequential) or ("" if calls[each] else "is not called as a whole"),
                oddity(conv, *CONVS) or ("is called by others too" if conv in apart else ""),
                oddity(norm, *NORMS) or ("is called by others too" if norm in apart else _without_statistics(norm)),
            )
            if not any(whys):
                each._modules |= {first: _fused(conv, norm), second: nn.Identity()}
                folded = True
            for key, why in zip(("", first, second), whys, strict=True):
                left += [f"{'.'.join(filter(None, (name, key))) or title!r} {why}"] if why else []
    return folded, left


def _fold_where_they_follow(model: nn.Module, args: tuple[Any, ...]) -> tuple[bool, list[str]]:
    """Fold the pairs that are seen in a call; returns the same as for chains."""
    names = {module: name for name, module in model.named_modules()}
    folded, left = False, []
    for norm, convs in following(model, args).items():
        whys = {conv: oddity(conv, *CONVS) for conv in convs} | {
            norm: oddity(norm, *NORMS) or _without_statistics(norm)
        }
        left += [f"{names[each]!r} {why}" for each, why in whys.items() if why]
        if not any(whys.values()):
            for conv in convs:
                become(conv, _fused(conv, norm))
            become(norm, nn.Identity())
            folded = True
    return folded, left


def _without_statistics(norm: nn.Module) -> str:
    return "has no running statistics" if norm.running_mean is None else ""


def _fused(conv: nn.Module, norm: nn.Module) -> nn.Module:
    """A new convolution, its weights rounded to their dtype only once, since coarse dtypes lose digits in each step."""
    fuse: Any = fuse_conv_bn_eval
    fused: nn.Module = fuse(copy.deepcopy(conv).double(), copy.deepcopy(norm).double())
    return fused.to(next(conv.parameters()).dtype)
