"""Operators of an exported graph as the layers that they were: transforms and executors know layers."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn

_CONVS: dict[Any, type[nn.Module]] = {
    torch.ops.aten.conv1d.default: nn.Conv1d,
    torch.ops.aten.conv2d.default: nn.Conv2d,
    torch.ops.aten.conv3d.default: nn.Conv3d,
}
_NORMS: dict[int, type[nn.Module]] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_NORM = torch.ops.aten._native_batch_norm_legit_no_training.default


def with_layers(module: fx.GraphModule) -> fx.GraphModule:
    """The same graph, in which convolutions and batch norms with weights of the model are modules that hold these.

    They are new modules, since hooks of the model's own are part of the graph already. What takes a weight that is
    computed stays as it is.
    """
    graph = module.graph
    for node in list(graph.nodes):
        layer, last = _convolution(module, node), node
        if layer is None and (layer := _norm(module, node)) is not None:
            (last,) = node.users  # the output proper, of three
        if layer is not None:
            with graph.inserting_before(last):
                call = graph.call_module(_placed(module, layer.eval(), node), (node.args[0],))
            call.meta = dict(node.meta)
            last.replace_all_uses_with(call)
            for each in dict.fromkeys((last, node)):
                graph.erase_node(each)
    for node in [each for each in graph.nodes if each.op == "get_attr" and not each.users]:
        graph.erase_node(node)
    return fx.GraphModule(module, graph)


def _convolution(module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    if node.target not in _CONVS:
        return None
    _, weight, bias, *options = _arguments(node)
    tensors = [_held(module, each) for each in (weight, bias) if each is not None]
    if not all(isinstance(each, nn.Parameter) for each in tensors):
        return None
    stride, padding, dilation, groups = options
    _, inputs, *kernel = tensors[0].shape
    kind: Any = _CONVS[node.target]
    layer: nn.Module = kind(
        inputs * groups,
        len(tensors[0]),
        tuple(kernel),
        *(tuple(each) if len(each) == len(kernel) else each[0] for each in (stride, padding, dilation)),
        groups,
        bias is not None,
        device="meta",
    )
    for name, each in zip(("weight", "bias"), tensors, strict=False):
        setattr(layer, name, each)
    return layer


def _norm(module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    if node.target != _NORM or any(user.target is not operator.getitem or user.args[1] != 0 for user in node.users):
        return None
    given, weight, bias, *statistics, momentum, eps = _arguments(node)
    affine = [each for each in (weight, bias) if each is not None]
    weights, (mean, variance) = ([_held(module, each) for each in some] for some in (affine, statistics))
    dims = given.meta["val"].dim() if "val" in given.meta else 0
    # Which only training counts, but without it the module would not load what the model as given saves.
    tracked = None if mean is None else _held(module, statistics[0], "num_batches_tracked")
    if len(node.users) != 1 or dims not in _NORMS or len(weights) == 1 or variance is None or tracked is None:
        return None
    if not all(isinstance(each, nn.Parameter) for each in weights):
        return None
    kind: Any = _NORMS[dims]
    layer: nn.Module = kind(len(mean), eps, momentum, bool(weights), device="meta")
    named = ("running_mean", "running_var", "num_batches_tracked", "weight", "bias")
    for name, each in zip(named, (mean, variance, tracked, *weights), strict=False):
        setattr(layer, name, each)
    return layer


def _placed(module: fx.GraphModule, layer: nn.Module, node: fx.Node) -> str:
    """Put a layer where the model has one with these weights, if nothing else is there; returns its name."""
    weight = next((each for each in node.args[1:] if isinstance(each, fx.Node)), node)
    name = str(weight.target).rpartition(".")[0]
    there = module.get_submodule(name)
    if repr(there) == repr(layer) and _tensors(there) == _tensors(layer):  # called once more
        return name
    own = {key for key, _ in _tensors(there)}
    if (
        not name
        or any(there.children())
        or not own <= {key for key, _ in _tensors(layer)}
        or type(there) is type(layer)
    ):
        name = f"layer_{node.name}"
    module.add_submodule(name, layer)
    return name


def _tensors(module: nn.Module) -> set[tuple[str, int]]:
    """Names of parameters and buffers, and which they are."""
    return {(key, id(x)) for key, x in (*module.named_parameters(), *module.named_buffers())}


def _arguments(node: fx.Node) -> list[Any]:
    """All arguments of an operator, those by default too."""
    schema: Any = node.target
    named = [argument.name for argument in schema._schema.arguments]
    given = dict(zip(named, node.args, strict=False)) | node.kwargs
    return [given.get(each.name, each.default_value) for each in schema._schema.arguments]


def _held(module: fx.GraphModule, node: Any, beside: str = "") -> Any:
    """The tensor that the model holds, or another of this name beside it; None if there is none, or it is computed."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    owner, _, name = str(node.target).rpartition(".")
    return getattr(module.get_submodule(owner), beside or name, None)
