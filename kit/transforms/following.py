"""Which layer follows which convolution, observed in a call, whatever the model's code."""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakTensorKeyDictionary

from kit.executors import Sequential, use


def following(
    model: nn.Module, args: tuple[Any, ...], kind: type[nn.Module] = _BatchNorm
) -> dict[nn.Module, list[nn.Module]]:
    """Layer of a kind -> the convolutions before it, if it uses only their outputs and nothing else uses these.

    The model is called once on copies of these inputs, so only what happens for these inputs is known.
    """
    watch = _Watch(kind)
    with ExitStack() as stack:
        stack.callback(register_module_forward_pre_hook(watch.before).remove)
        stack.callback(register_module_forward_hook(watch.after).remove)
        stack.enter_context(use(Sequential()))
        with watch:
            outputs = model(*pytree.tree_map_only(Tensor, torch.clone, args))
    watch.take(outputs, None)
    takers: dict[nn.Module, set[nn.Module | None]] = defaultdict(set)
    for each in watch.calls:
        takers[each.conv] |= each.takers or {None}
    return {
        layer: [conv for conv in convs if conv is not None]
        for layer, convs in watch.layers.items()
        if None not in convs and all(takers[conv] == {layer} for conv in convs if conv is not None)
    }


class _Call(NamedTuple):
    """One call of a convolution."""

    conv: nn.Module
    takers: set[nn.Module | None]  # of what it gave: layers of the kind, None for whatever else


class _Watch(TorchFunctionMode):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.kind = kind
        self.calls: list[_Call] = []
        self.given: Any = WeakTensorKeyDictionary()  # what a convolution gave, as long as it lives -> the call
        self.layers: dict[nn.Module, dict[nn.Module | None, None]] = defaultdict(dict)  # layer -> what it took
        self.inside: list[nn.Module] = []  # layers of the kind that run now

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, self.kind):
            call = self.given.get(args[0]) if args else None
            self.layers[module][call and call.conv] = None
            self.take(args, module)
            self.inside.append(module)

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, self.kind):
            self.inside.pop()
            if args and output is args[0]:  # changed in place: who uses it from now on uses what this layer gave
                self.given.pop(output, None)
        elif isinstance(module, _ConvNd) and isinstance(output, Tensor):
            self.calls.append(_Call(module, set()))
            self.given[output] = self.calls[-1]

    def take(self, value: Any, taker: nn.Module | None) -> None:
        for leaf in pytree.tree_leaves(value):
            if isinstance(leaf, Tensor) and leaf in self.given:
                self.given[leaf].takers.add(taker)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.inside:
            self.take((args, kwargs), None)
        return func(*args, **(kwargs or {}))
