"""Batch norm folded into the convolution before it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kit.errors import KitError
from kit.transforms.base import Transform, rewritable


@dataclass(frozen=True, kw_only=True)
class Folded(Transform):
    """Batch norm in eval mode is a scale and a shift per channel: the convolution before it can do both.

    Helps wherever there is batch norm, most where operators are so small that their number counts. A network without
    batch norm has nothing to fold. Pairs are found where they follow each other in one ``nn.Sequential``.

    Source: `Fusing Convolution and Batch Norm
    <https://docs.pytorch.org/tutorials/intermediate/custom_function_conv_bn_tutorial.html>`_.
    """

    def apply(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        model = rewritable(model)
        chains = [module for module in model.modules() if type(module) is nn.Sequential]
        pairs = [(chain, i) for chain in chains for i in range(len(chain) - 1) if _foldable(chain[i], chain[i + 1])]
        for chain, i in pairs:
            chain[i], chain[i + 1] = _fused(chain[i], chain[i + 1]), nn.Identity()
        if not pairs:
            raise KitError(
                f"{type(model).__name__} has no convolution that a batch norm follows in one nn.Sequential, so there "
                "is nothing to fold: write the units as nn.Sequential(conv, norm, ...), or leave folded out."
            )
        return model


def _fused(conv: nn.Module, norm: nn.Module) -> nn.Module:
    """A new convolution, its weights rounded to their type once: coarse types lose digits in each step of the sum."""
    fuse: Any = fuse_conv_bn_eval
    fused: nn.Module = fuse(copy.deepcopy(conv).double(), copy.deepcopy(norm).double())
    return fused.to(next(conv.parameters()).dtype)


def _foldable(conv: nn.Module, norm: nn.Module) -> bool:
    if not isinstance(conv, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return False
    return isinstance(norm, _BatchNorm) and norm.running_mean is not None
