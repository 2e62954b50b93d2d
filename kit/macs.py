"""Multiply-accumulates of PyTorch's operators: its own FLOP counter, and what that leaves out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


def macs_of(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int | None:
    """Multiply-accumulates of one call; None for an operator that is none of those that are counted."""
    if own := _OWN.get(operator):
        return own(*args)
    count = flop_registry.get(_SAME_AS.get(operator, operator))
    return int(count(*args, **kwargs, out_val=out)) // 2 if count else None  # PyTorch counts a MAC as two


def _recurrent(x: Tensor, *weights: Any) -> int:
    """Every weight matrix meets every element of every sequence once."""
    matrices = [w for w in tree_leaves(weights[:2]) if isinstance(w, Tensor) and w.ndim == 2]
    return x.numel() // x.shape[-1] * sum(w.numel() for w in matrices)


_ATEN = torch.ops.aten
_SAME_AS = {_ATEN._scaled_dot_product_flash_attention_for_cpu: _ATEN._scaled_dot_product_flash_attention}
_OWN: dict[Any, Callable[..., int]] = {  # what PyTorch's own counter leaves out
    _ATEN.mv: lambda matrix, vector: matrix.numel(),
    _ATEN.addmv: lambda x, matrix, *others: matrix.numel(),
    _ATEN.dot: lambda x, y: x.numel(),
    _ATEN.addbmm: lambda x, a, b, *others: a.numel() * b.shape[-1],
    _ATEN._trilinear: lambda x, weight, *others: x.numel() // x.shape[-1] * weight.numel(),  # nn.Bilinear
    _ATEN.mkldnn_rnn_layer: _recurrent,
    _ATEN._cudnn_rnn: _recurrent,
}
