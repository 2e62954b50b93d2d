"""From a captured model to its graph: operators, their dependencies, and the regions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from kit.graphs.capture import Captured
from kit.graphs.effects import Effects
from kit.graphs.operators import Branch, Operator, Region
from kit.graphs.structure import Block, Fork, Knot, Structure
from kit.reprs import one_line


@one_line
@dataclass(frozen=True, eq=False)
class Found:
    """A captured model with its operators, their effects and its regions."""

    captured: Captured
    nodes: tuple[fx.Node, ...]  # its operators, in the order of the program
    effects: dict[fx.Node, Effects]
    data: tuple[frozenset[int], ...]  # for each operator, those whose results it takes
    order: tuple[frozenset[int], ...]  # and those that have to end before for another reason
    blocks: tuple[Block, ...]

    def operators(self) -> tuple[Operator, ...]:
        """The operators as data."""
        return tuple(
            Operator(
                node.name,
                self._kind(node),
                node.meta.get("place", ""),
                self.effects[node].shape,
                self.effects[node].macs,
                self.effects[node].ms,
                tuple(sorted(data)),
                tuple(sorted(order)),
            )
            for node, data, order in zip(self.nodes, self.data, self.order, strict=True)
        )

    def _kind(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return type(self.captured.module.get_submodule(str(node.target))).__name__
        if node.op == "call_method":
            return str(node.target)
        packet = getattr(node.target, "overloadpacket", node.target)
        return str(getattr(packet, "__name__", packet))

    def heavy(self, part: Sequence[Block]) -> bool:
        """Whether a part of a fork contains a convolution, a matrix product or a pooling layer."""
        return any(self.effects[self.nodes[i]].macs or "pool" in self._kind(self.nodes[i]).lower() for i in flat(part))

    def sides(self, fork: Fork) -> tuple[list[tuple[Block, ...]], list[tuple[Block, ...]]]:
        """The parts of a fork that become branches, and the other parts; fewer than two become no branch."""
        heavy: list[tuple[Block, ...]] = []
        light: list[tuple[Block, ...]] = []
        for part in fork.parts:
            (heavy if self.heavy(part) else light).append(part)
        return (heavy, light) if len(heavy) > 1 else ([], list(fork.parts))

    def regions(self, blocks: Sequence[Block]) -> tuple[Region, ...]:
        """The outermost regions of a sequence."""
        found: list[Region] = []
        for fork in (block for block in blocks if isinstance(block, Fork)):
            heavy, light = self.sides(fork)
            found += [region for part in light for region in self.regions(part)]
            if heavy:
                name, names = self.names(heavy)
                branches = (
                    Branch(each, tuple(sorted(flat(part))), self.regions(part))
                    for each, part in zip(names, heavy, strict=True)
                )
                found.append(Region(name, tuple(branches)))
        return tuple(found)

    def names(self, parts: Sequence[Sequence[Block]]) -> tuple[str, list[str]]:
        """The names of a region and its branches, from the modules that they are in."""
        places = [[self.nodes[i].meta.get("place", "").split(".") for i in sorted(flat(part))] for part in parts]
        region = _common([place for part in places for place in part])
        names: list[str] = []
        for place, part in zip(places, parts, strict=True):
            deeper = [path[len(region)] for path in place if len(path) > len(region) and path[-1]]
            own = (name for name in deeper if name not in names)  # a layer of two branches has the name of the first
            names.append(next(own, next(iter(deeper), self.nodes[min(flat(part))].name)))
        # kit.Branches hold theirs in a submodule of this name.
        return ".".join(region[:-1] if region[-1:] == ["branches"] else region), _distinct(names)

    def knots(self, blocks: Sequence[Block]) -> Iterator[tuple[int, ...]]:
        """Every part that is neither a sequence nor a fork."""
        for block in blocks:
            if isinstance(block, Knot):
                yield block.nodes
            elif isinstance(block, Fork):
                for part in block.parts:
                    yield from self.knots(part)


def found_in(captured: Captured, effects: dict[fx.Node, Effects]) -> Found:
    """The dependencies and forks of a captured model."""
    graph = captured.module.graph
    free = {node for node in graph.nodes if node.op in ("placeholder", "get_attr", "output") or is_free(node, effects)}
    nodes = tuple(node for node in graph.nodes if node not in free)
    index = {node: i for i, node in enumerate(nodes)}
    data, glue = [], []
    for node in nodes:
        data.append(frozenset(index[each] for each in node.all_input_nodes if each in index))
        behind = [each for each in node.all_input_nodes if each.op != "get_attr" and each in free]
        glue.append(frozenset(index[each] for each in _operators_behind(behind, free)) - data[-1])
    order = _order(nodes, effects, data)
    needs = {i: data[i] | order[i] for i in range(len(nodes))}
    cheap = frozenset(i for i, node in enumerate(nodes) if not effects[node].macs)
    silent = frozenset(i for i, node in enumerate(nodes) if not node.users and not effects[node].writes)
    structure = Structure(needs, dict(enumerate(glue)), cheap, silent)
    blocks = structure.blocks(range(len(nodes))) if nodes else ()
    return Found(captured, nodes, effects, tuple(data), tuple(order), blocks)


def is_free(node: fx.Node, effects: dict[fx.Node, Effects]) -> bool:
    """Whether a node only asks for what is known without computing, as ``x.size(0)``: such a node may be repeated."""
    return not effects[node].tensors and not effects[node].operators and not effects[node].writes and bool(node.users)


def is_question(node: fx.Node, effects: dict[fx.Node, Effects]) -> bool:
    """Whether a node is free, and no input, weight or output of the graph."""
    return node.op not in ("placeholder", "get_attr", "output") and is_free(node, effects)


def flat(blocks: Sequence[Block]) -> Iterator[int]:
    """All nodes in a sequence of blocks."""
    for block in blocks:
        if isinstance(block, Fork):
            for part in block.parts:
                yield from flat(part)
        elif isinstance(block, Knot):
            yield from block.nodes
        else:
            yield block


def _operators_behind(nodes: Sequence[fx.Node], free: set[fx.Node]) -> Iterator[fx.Node]:
    """The operators whose results these free nodes read."""
    for node in nodes:
        for each in node.all_input_nodes:
            if each not in free:
                yield each
            elif each.op not in ("placeholder", "get_attr"):
                yield from _operators_behind([each], free)


def _order(
    nodes: Sequence[fx.Node], effects: dict[fx.Node, Effects], data: Sequence[frozenset[int]]
) -> list[frozenset[int]]:
    """Order by memory: a reader follows earlier writers; a writer follows earlier readers and writers."""
    writer: dict[Any, int] = {}
    readers: dict[Any, list[int]] = defaultdict(list)
    written = {memory for each in effects.values() for memory in each.writes}
    order: list[frozenset[int]] = []
    for i, node in enumerate(nodes):
        found: set[int] = set()
        for memory in effects[node].reads & written:
            found |= {writer[memory]} if memory in writer else set()
            readers[memory].append(i)
        for memory in effects[node].writes:
            found |= {*readers[memory], *([writer[memory]] if memory in writer else [])}
            writer[memory], readers[memory] = i, []
        order.append(frozenset(found - {i}) - data[i])
    return order


def _common(paths: Sequence[Sequence[str]]) -> list[str]:
    """The prefix that all paths share."""
    shared: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1 or not parts[0]:
            break
        shared.append(parts[0])
    return shared


def _distinct(names: list[str]) -> list[str]:
    """Unique names: a repeated name gets a number."""
    seen: set[str] = set()
    found: list[str] = []
    for name in names:
        number, each = 1, name
        while each in seen:
            number += 1
            each = f"{name}_{number}"
        seen.add(each)
        found.append(each)
    return found
