"""Capture: makes one graph of calls, from tensors to tensors, of a model as given.

``torch.fx`` captures module by module, with proxies alone or beside a run on the example inputs. Where ``torch.fx``
cannot follow the model's Python code, ``torch.export`` captures operator by operator.
"""

from __future__ import annotations

import copy
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import TraceError
from torch.utils import _pytree as pytree

from kit.errors import KitError, brief, line_of
from kit.graphs.tracing import traced, traced_beside
from kit.graphs.values import Form, form_of
from kit.inputs import Args, ByKeyword
from kit.reprs import one_line
from kit.transforms.quiet import quiet
from kit.transforms.undisturbed import undisturbed

FX = "torch.fx"
FX_FOR_SHAPES = "torch.fx for these shapes"
EXPORT = "torch.export"
WAYS = (FX, FX_FOR_SHAPES, EXPORT)


@one_line
@dataclass(frozen=True, eq=False)
class Captured:
    """A model as a graph from a flat list of tensors to a flat list of tensors."""

    way: str  # torch.fx or torch.export
    module: fx.GraphModule  # its weights and modules are the model's own
    inputs: Form  # the arguments, flattened to tensors
    outputs: Form
    by_memory_format: bool  # whether a decision may have hung on the strides of a tensor


class _Flat(nn.Module):
    """The model as a module that takes and returns flat lists of tensors."""

    def __init__(self, model: nn.Module, inputs: Form, noted: Callable[[Form], None]) -> None:
        """``noted`` is called with the form of the output, since torch.export undoes writes to attributes."""
        super().__init__()
        self.model, self.inputs, self.noted, self.training = model, inputs, noted, model.training

    def forward(self, *leaves: Any) -> list[Any]:
        found, form = form_of(self.model(*self.inputs.rebuilt(leaves)), (Tensor, fx.Proxy))
        self.noted(form)
        return found


def captured(model: nn.Module, args: Args, way: str) -> Captured:
    """The model as one graph.

    Args:
        args: example inputs, nested as the model takes them; values other than tensors are kept unchanged.
        way: one of :data:`WAYS`.

    Raises:
        KitError: this method cannot follow the model's Python code; the message says in which line.
    """
    leaves, inputs = form_of(args)
    outputs: list[Form] = []
    flat = _Flat(model, inputs, outputs.append)
    try:
        with warnings.catch_warnings(), quiet(), undisturbed(model), torch.no_grad():
            warnings.simplefilter("ignore")
            by_memory_format = way == EXPORT
            if way == EXPORT:
                module = _by_export(flat, leaves)
            elif way == FX:
                module = _by_fx(flat, traced(flat, len(leaves)))
            else:
                graph, by_memory_format = traced_beside(flat, copy.deepcopy(leaves))
                module = _by_fx(flat, graph)
    except Exception as error:
        raise KitError(f"{way} cannot follow {type(model).__name__}{_place(error)}: {_reason(error)}") from error
    for node in module.graph.nodes:
        node.meta["place"] = _in_model(node.meta.get("place", ""), model)
    return Captured(way, module, inputs, outputs[-1], by_memory_format)


def _by_fx(flat: _Flat, graph: fx.Graph) -> fx.GraphModule:
    module = fx.GraphModule(flat, graph)
    for node in module.graph.nodes:
        if isinstance(node.target, str) and node.op in ("call_module", "get_attr"):
            node.meta["place"] = node.target
        elif stack := node.meta.get("nn_module_stack"):
            node.meta["place"] = list(stack)[-1]
    return module


def _by_export(flat: _Flat, leaves: list[Tensor]) -> fx.GraphModule:
    given = tuple(x.clone() for x in leaves)
    program = torch.export.export(flat, given, strict=False).run_decompositions({})
    module = program.module(check_guards=False)
    for node in module.graph.nodes:
        stack = node.meta.get("nn_module_stack") or {}
        place = [path for path, _ in stack.values()][-1] if stack else ""
        node.meta["place"] = place.removeprefix("L['self'].")
    return _plain(module)


def _plain(module: fx.GraphModule) -> fx.GraphModule:
    """The exported module with flat arguments and outputs, as its graph has them."""
    graph = fx.Graph()
    env: dict[fx.Node, Any] = {}
    for node in module.graph.nodes:
        if node.op == "output":
            outputs, _ = pytree.tree_flatten(fx.node.map_arg(node.args[0], lambda n: env[n]))
            graph.output(outputs)
        elif node.op == "call_module" and node.target == "_guards_fn":
            continue
        else:
            env[node] = graph.node_copy(node, lambda n: env[n])
            env[node].meta = dict(node.meta)
            # Export writes a view wherever the strides that it saw allow one. Another kernel gives others, as that of
            # an attention with gradients does, and no view is written through in a graph without side effects.
            if node.target is torch.ops.aten.view.default:
                env[node].target = torch.ops.aten.reshape.default
    return fx.GraphModule(module, graph)


def _in_model(path: str, model: nn.Module) -> str:
    """The qualified name of a module in the user's model, from its name in the wrapper modules."""
    around = "model.model." if isinstance(model, ByKeyword) else "model."
    return f"{path}.".removeprefix(around).removesuffix(".")


def _place(error: Exception) -> str:
    line = line_of(error)
    return f" in {line.name}, line {line.lineno} of {line.filename}" if line else ""


def _reason(error: Exception) -> str:
    if isinstance(error, TraceError):
        return str(error)
    return brief(error).partition(" (unhinted: ")[0]  # what export adds is about its own symbols


def call_unchanged(model: nn.Module, args: Args) -> None:
    """Call the model, and check that it changes neither its attributes nor lists and dicts of its arguments.

    A graph holds only tensors and buffers, so such changes would be lost without an error.

    Raises:
        KitError: the call writes an attribute (the message names it), or changes a list or dict of the caller.
    """
    title = type(model).__name__
    before = {name: _state(module) for name, module in model.named_modules()}
    given, structure = pytree.tree_flatten(args)
    model(*args)
    for name, module in model.named_modules():
        for key, value in _state(module).items():
            if not _same(before[name].get(key), value):
                raise KitError(
                    f"{title} cannot be captured: each call writes its attribute "
                    f"{'.'.join(filter(None, (name, key)))!r}, but a graph holds only tensors and buffers. Write into "
                    "a buffer in place, or return the value from forward."
                )
    left, structure_left = pytree.tree_flatten(args)
    if structure_left != structure or any(mine is not theirs for mine, theirs in zip(left, given, strict=True)):
        raise KitError(
            f"{title} cannot be captured: each call changes a list or a dict among its arguments. Change a copy in its "
            "forward instead."
        )


def _state(module: nn.Module) -> dict[str, Any]:
    """A module's own attributes and buffers; lists and dicts are copied, since they may be changed in place."""
    own = {key: value for key, value in vars(module).items() if key not in _OF_TORCH}
    return {key: _held(value) for key, value in (own | module._parameters | module._buffers).items()}


_OF_TORCH = frozenset(vars(nn.Module()))


def _held(value: Any) -> Any:
    if isinstance(value, Mapping):
        return (type(value), tuple((key, id(x)) for key, x in value.items()))
    if isinstance(value, list | tuple | set):
        return (type(value), tuple(map(id, value)))
    return value


def _same(before: Any, after: Any) -> bool:
    if before is after:
        return True
    simple = (int, float, bool, str, tuple, type(None), torch.Size, torch.dtype)
    return isinstance(before, simple) and isinstance(after, simple) and operator.eq(before, after)
