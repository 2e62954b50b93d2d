"""Multiply-accumulates of PyTorch's operators: its own FLOP counter, and what that leaves out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import conv_flop_count, flop_registry


def macs_of(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int | None:
    """Multiply-accumulates of one call; None for an operator that is none of those that are counted."""
    if operator is _PACKED:
        return conv_flop_count(args[0].shape, args[1].shape, out.shape) // 2
    if own := _OWN.get(operator):
        return own(*args)
    count = flop_registry.get(_SAME_AS.get(operator, operator))
    return int(count(*args, **kwargs, out_val=out)) // 2 if count else None  # PyTorch counts a MAC as two


def macs_of_call(call: Callable[..., Any], *args: Any) -> int:
    """Multiply-accumulates of all operators that one call runs; on the device ``meta`` nothing is computed."""
    counts: list[int] = []

    def operator(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        counts.append(macs_of(func.overloadpacket, args, kwargs, result) or 0)
        return result

    with torch.no_grad(), each_operator(operator):
        call(*args)
    return sum(counts)


Operator = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]  # (operator, arguments, keywords) -> what it gives


@contextmanager
def each_operator(run: Operator) -> Iterator[None]:
    """Hand each operator that PyTorch dispatches to a function, which runs it.

    None comes whole in which nothing can be counted: of inference tensors all would, and of transformers the fused
    layer.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with _Dispatched(run):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Dispatched(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, operator: Operator) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operator = operator

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:
            result = func.decompose(*args, **kwargs)
        return self.operator(func, args, kwargs) if result is NotImplemented else result


def _recurrent(x: Tensor, *weights: Any) -> int:
    """Every weight matrix meets every element of every sequence once."""
    matrices = [w for w in tree_leaves(weights[:2]) if isinstance(w, Tensor) and w.ndim == 2]
    return x.numel() // x.shape[-1] * sum(w.numel() for w in matrices)


_ATEN = torch.ops.aten
_PACKED = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
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
