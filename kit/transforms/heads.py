"""Which branches begin with a 1x1 convolution, and the rest of each branch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, fx, nn

from kit.regions import Branches
from kit.reprs import one_line
from kit.transforms.base import oddity


@one_line
class Head(NamedTuple):
    """The 1x1 convolution of a branch, and the branch's other layers."""

    conv: nn.Conv2d | nn.Conv3d
    bias: Tensor | None  # for the shared convolution; behind a pool it is no longer part of it
    tail: Sequence[nn.Module]


class Bias(nn.Module):
    """Adds a bias to each channel after a layer, in place of the convolution's own bias."""

    def __init__(self, bias: Tensor, dims: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias.detach().reshape(-1, *[1] * dims), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


def head_of(branch: nn.Module) -> Head | None:
    """The 1x1 convolution that a branch begins with, before or after an average pool that keeps the size; else None."""
    layers = _layers(branch)
    pool = layers.pop(0) if layers and _is_same_average(layers[0]) else None
    if not layers or not _is_1x1(layers[0]):
        return None
    conv, rest = layers[0], layers[1:]
    if pool is None:
        return Head(conv, conv.bias, rest)
    bias = [] if conv.bias is None else [Bias(conv.bias, conv.weight.ndim - 2)]
    return Head(conv, None, [pool, *bias, *rest])


def _layers(module: Any) -> list[Any]:
    """The modules that a chain runs one after the other, with inner chains flattened.

    For a captured graph: the layers at its beginning, and the rest of the graph as one module.
    """
    if isinstance(module, fx.GraphModule):
        return _first_and_rest(module)
    return [module] if oddity(module, nn.Sequential) else [layer for child in module for layer in _layers(child)]


def _first_and_rest(module: fx.GraphModule) -> list[Any]:
    given = [node for node in module.graph.nodes if node.op == "placeholder"]
    first = next(iter(given[0].users), None) if len(given) == 1 and len(given[0].users) == 1 else None
    if first is None or first.op != "call_module" or first.kwargs or oddity(module, type(module)):
        return [module]
    graph = fx.Graph()
    env = {first: graph.placeholder(first.name)}
    for node in module.graph.nodes:
        if node not in (first, given[0]):
            env[node] = graph.node_copy(node, env.__getitem__)
    return [*_layers(module.get_submodule(str(first.target))), fx.GraphModule(module, graph)]


def unseen(branch: nn.Module) -> str:
    """Why it is not known whether a branch begins with a 1x1 convolution; empty if it is known."""
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
