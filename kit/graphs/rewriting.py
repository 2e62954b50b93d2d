"""Rewrites a captured model as a module whose regions are :class:`kit.Branches`."""

from __future__ import annotations

import keyword
import operator
import re
from collections import OrderedDict
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from kit.graphs.branched import Branched, class_named, shared_memory
from kit.graphs.found import Found, flat, is_question
from kit.graphs.structure import Block, Fork, Knot
from kit.graphs.tracing import fetched
from kit.inputs import ByKeyword
from kit.regions import Branches, Concat
from kit.reprs import one_line


@one_line
class Part(NamedTuple):
    """Some blocks of the graph as a separate module."""

    module: nn.Module
    inputs: list[fx.Node]  # of the whole graph, in the order of its arguments


def rewritten(found: Found, model: nn.Module, given: Sequence[Tensor]) -> Branched:
    """The model with its regions in ``kit.Branches``; the arguments are those of :func:`wrapped`."""
    graph = found.captured.module.graph
    output = next(node for node in graph.nodes if node.op == "output")
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    return wrapped(found, _Assembly(found).part(found.blocks, list(output.args[0]), placeholders).module, model, given)


def wrapped(found: Found, body: nn.Module, model: nn.Module, given: Sequence[Tensor]) -> Branched:
    """A module that computes a captured graph, to be called, saved and loaded as the model as given.

    Args:
        body: takes the graph's tensors, and gives a list of its outputs.
        model: the captured model, or :class:`ByKeyword` around it; its class gives the name of the new class.
        given: the example tensors that it was captured with.
    """
    captured = found.captured
    names = model.names if isinstance(model, ByKeyword) else ()
    model = model.model if isinstance(model, ByKeyword) else model
    own = {id(x) for x in (*model.parameters(), *model.buffers())}
    state = {key: x for key, x in model.state_dict(keep_vars=True).items() if id(x) in own}
    branched = class_named(type(model).__name__)(body, captured.inputs, captured.outputs, given, state)
    branched.names = names
    if captured.by_memory_format:
        branched.strides = [x.stride() for x in given]
    written = {memory for each in found.effects.values() for memory in each.writes}
    placeholders = (node for node in captured.module.graph.nodes if node.op == "placeholder")
    if any(found.effects[node].reads & written for node in placeholders):
        branched.shared = shared_memory(given)
    theirs, kept = set(model.modules()), {id(x) for x in state.values()}
    for module in branched.modules():
        if module not in theirs:
            module.training = model.training
            # Constants of the graph are no state of the model.
            module._non_persistent_buffers_set |= {key for key, x in module._buffers.items() if id(x) not in kept}
    return branched


class _Assembly:
    """Builds modules from blocks."""

    def __init__(self, found: Found) -> None:
        self.found = found
        self.nodes, self.effects, self.root = found.nodes, found.effects, found.captured.module
        self.place = {node: i for i, node in enumerate(self.root.graph.nodes)}

    def part(self, blocks: Sequence[Block], outputs: Sequence[Any], inputs: Sequence[fx.Node] | None = None) -> Part:
        """A module that computes these blocks.

        Args:
            outputs: nodes whose values the module returns, as a list; without ``inputs``, a single value is no list.
            inputs: nodes of the module's arguments, in order; by default those that the blocks need from outside.
        """
        inside = {self.nodes[i] for i in flat(blocks)}
        whole = inputs is not None
        inputs = self._needed(inside) if inputs is None else list(inputs)
        if not whole and (straight := self._chain(blocks, outputs, inputs)) is not None:
            return Part(straight, list(inputs))
        graph = fx.Graph()
        env = {node: graph.placeholder(node.name) for node in inputs}
        modules: dict[str, Any] = {}

        def value(node: Any) -> fx.Node:
            if node not in env:  # a weight, or a question that is asked again here
                env[node] = graph.node_copy(node, value)
                self._take(node, modules)
            return env[node]

        waiting: list[Block | _Region] = list(blocks)
        while waiting:
            block = waiting.pop(0)
            if isinstance(block, Fork):
                # Light parts need nothing of their siblings: they come first, and the region is what is left.
                heavy, light = self.found.sides(block)
                waiting[:0] = [*chain.from_iterable(light), *([_Region(tuple(heavy))] if heavy else [])]
            elif isinstance(block, _Region):
                follows = waiting[0] if waiting and isinstance(waiting[0], int) else None
                if self._region(block, follows, graph, env, modules, value):
                    waiting.pop(0)
            elif isinstance(block, Knot):
                for i in block.nodes:
                    value(self.nodes[i])
            elif (run := self._run([block, *waiting])) is not None:
                layers, last = run
                del waiting[: len(layers) - 1]
                target = _unused(self._title_of(block), modules)
                modules[target] = _sequential(layers)
                env[last] = graph.call_module(target, (value(self.nodes[block].args[0]),))
            else:
                value(self.nodes[block])
        results = [value(each) if isinstance(each, fx.Node) else each for each in outputs]
        graph.output(results if whole or len(results) != 1 else results[0])
        return Part(fx.GraphModule(modules, graph), list(inputs))

    def _region(
        self,
        region: _Region,
        follows: int | None,
        graph: fx.Graph,
        env: dict[fx.Node, fx.Node],
        modules: Any,
        value: Any,
    ) -> bool:
        """Add a call of the region to a graph; returns whether its merge also computes the node that follows."""
        name, names = self.found.names(region.parts)
        sides = [{self.nodes[i] for i in flat(part)} for part in region.parts]
        wanted = [self._wanted(side) for side in sides]
        parts = [self.part(part, want) for part, want in zip(region.parts, wanted, strict=True)]
        inputs = sorted({node for part in parts for node in part.inputs}, key=self.place.__getitem__)
        merge: Any = list
        join = self.nodes[follows] if follows is not None else None
        if join is not None and (dim := _concatenates(join, wanted)) is not None:
            merge = Concat(dim)
        titles = [_title(each, i) for i, each in enumerate(names)]
        branches = dict(zip(titles, (part.module for part in parts), strict=True))
        takes = {
            title: tuple(inputs.index(node) for node in part.inputs) for title, part in zip(titles, parts, strict=True)
        }
        alone = len(inputs) == 1 and set(takes.values()) == {(0,)}
        target = _unused(re.sub(r"\W", "_", name) or "region", modules)
        modules[target] = Branches(branches, merge, None if alone else takes)
        result = graph.call_module(target, tuple(value(node) for node in inputs))
        if join is not None and merge is not list:
            env[join] = result
            return True
        for i, want in enumerate(wanted):
            if want:
                each = graph.call_function(operator.getitem, (result, i))
            for k, node in enumerate(want):
                env[node] = each if len(want) == 1 else graph.call_function(operator.getitem, (each, k))
        return False

    def _wanted(self, side: set[fx.Node]) -> list[fx.Node]:
        """The nodes of a branch whose values are used outside of it."""
        outside = [
            node for node in side if any(user not in side and not self._asks_for(user, side) for user in node.users)
        ]
        return sorted(outside, key=self.place.__getitem__)

    def _asks_for(self, node: fx.Node, side: set[fx.Node]) -> bool:
        """Whether a node only asks for what is known, and only nodes of the branch use it."""
        return is_question(node, self.effects) and all(
            user in side or self._asks_for(user, side) for user in node.users
        )

    def _needed(self, inside: set[fx.Node]) -> list[fx.Node]:
        """The nodes outside that these nodes need, in program order."""
        found: set[fx.Node] = set()
        waiting = list(inside)
        while waiting:
            for each in waiting.pop().all_input_nodes:
                if each in inside or each.op == "get_attr":
                    continue
                if is_question(each, self.effects):
                    waiting.append(each)
                else:
                    found.add(each)
        return sorted(found, key=self.place.__getitem__)

    def _take(self, node: fx.Node, modules: dict[str, Any]) -> None:
        if node.op == "call_module":
            modules[str(node.target)] = self.root.get_submodule(str(node.target))
        elif node.op == "get_attr":
            modules[str(node.target)] = fetched(self.root, str(node.target))

    def _chain(
        self, blocks: Sequence[Block], outputs: Sequence[fx.Node], inputs: Sequence[fx.Node]
    ) -> nn.Sequential | None:
        """The blocks as ``nn.Sequential`` if they are a chain of layers, which transforms can see; else None."""
        if len(inputs) != 1 or not blocks or not all(isinstance(block, int) for block in blocks):
            return None
        layers = self._layers(inputs[0], blocks)
        whole = len(layers) == len(blocks) and list(outputs) == [self.nodes[max(flat(blocks))]]
        return _sequential(layers) if whole else None

    def _run(self, blocks: Sequence[Block | _Region]) -> tuple[list[tuple[str, nn.Module]], fx.Node] | None:
        """The chain of layers at the beginning of these blocks, and its last node; None if it has fewer than two."""
        ints: list[int] = []
        for block in blocks:
            if not isinstance(block, int) or (ints and list(self.nodes[ints[-1]].users) != [self.nodes[block]]):
                break
            ints.append(block)
        first = self.nodes[ints[0]].args
        if not first or not isinstance(first[0], fx.Node):
            return None
        layers = self._layers(first[0], ints)
        return (layers, self.nodes[ints[len(layers) - 1]]) if len(layers) > 1 else None

    def _layers(self, before: fx.Node, blocks: Sequence[Any]) -> list[tuple[str, nn.Module]]:
        """Names and modules of the first of these nodes, as long as each is a layer that takes the output before it."""
        layers: list[tuple[str, nn.Module]] = []
        for i in blocks:
            node = self.nodes[i]
            layer = self._layer(node)
            if layer is None or not node.args or node.args[0] is not before:
                break
            layers.append((str(node.target).rpartition(".")[2] if node.op == "call_module" else node.name, layer))
            before = node
        return layers

    def _layer(self, node: fx.Node) -> nn.Module | None:
        """A node as a layer of one input, or None."""
        if node.op == "call_module" and len(node.args) == 1 and not node.kwargs:
            return self.root.get_submodule(str(node.target))
        others = (*node.args[1:], *node.kwargs.values())
        if node.target in _AS_LAYERS and not any(isinstance(each, fx.Node) for each in others):
            layer: nn.Module = _AS_LAYERS[node.target](*node.args[1:], **node.kwargs)
            return layer
        return None

    def _title_of(self, i: int) -> str:
        place = str(self.nodes[i].meta.get("place", ""))
        return re.sub(r"\W", "_", place.rpartition(".")[0] or place) or self.nodes[i].name


class _Region(NamedTuple):
    """The parts of a fork that become branches."""

    parts: tuple[tuple[Block, ...], ...]


# Functions that do what a layer does, with its arguments in the same order: transforms know layers.
_AS_LAYERS: dict[Any, Any] = {functional.relu: nn.ReLU, torch.relu: nn.ReLU, functional.avg_pool2d: nn.AvgPool2d}


def _sequential(layers: Sequence[tuple[str, nn.Module]]) -> nn.Sequential:
    named: OrderedDict[str, nn.Module] = OrderedDict()
    for name, layer in layers:
        named[_title(name, len(named), named)] = layer
    return nn.Sequential(named)


def _concatenates(join: fx.Node, wanted: Sequence[Sequence[fx.Node]]) -> int | None:
    """The dimension along which a node concatenates exactly the branches' single outputs, in order; else None."""
    if any(len(want) != 1 or list(want[0].users) != [join] for want in wanted):
        return None
    if join.target not in (torch.cat, torch.concat, torch.concatenate, torch.ops.aten.cat.default) or not join.args:
        return None
    if not isinstance(join.args[0], list | tuple) or list(join.args[0]) != [want[0] for want in wanted]:
        return None
    dim = join.args[1] if len(join.args) > 1 else join.kwargs.get("dim", 0)
    return dim if isinstance(dim, int) and not join.kwargs.keys() - {"dim"} else None


def _title(name: str, number: int, taken: Any = ()) -> str:
    """A name that PyTorch allows for a submodule, similar to ``name``."""
    title = re.sub(r"\W", "_", name) or f"branch_{number}"
    if title in taken or hasattr(nn.Sequential, title) or hasattr(nn.ModuleDict, title) or keyword.iskeyword(title):
        title = f"{title}_{number}"
    return title


def _unused(name: str, modules: dict[str, Any]) -> str:
    # A GraphModule has attributes of its own, and holds other modules of the model below their first names.
    taken = {key.partition(".")[0] for key in modules}
    number, title = 1, name
    while title in taken or hasattr(fx.GraphModule, title):
        number += 1
        title = f"{name}_{number}"
    return title
