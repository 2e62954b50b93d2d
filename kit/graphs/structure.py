"""Fork-join regions in a graph: independent parts between two nodes that every path passes.

Source of the notion: series-parallel graphs, as in Valdes, Tarjan and Lawler, *The Recognition of Series Parallel
Digraphs*, 1982. Cut points are found in one sweep: in any topological order a node is on every path from the source to
the sink exactly if no edge leads from before it to behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kit.reprs import one_line

Edges = Mapping[int, frozenset[int]]  # node -> the nodes that it needs, all of them smaller numbers


@one_line
@dataclass(frozen=True)
class Fork:
    """Independent parts of a graph; each is a sequence of nodes and forks."""

    parts: tuple[tuple[int | Fork | Knot, ...], ...]


@one_line
@dataclass(frozen=True)
class Knot:
    """Nodes that are neither a sequence nor a fork: not series-parallel."""

    nodes: tuple[int, ...]


Block = int | Fork | Knot


@one_line
@dataclass(frozen=True)
class Structure:
    """Divides a graph into sequences and forks."""

    needs: Edges  # node -> the nodes that have to come before it, over data and over order
    glue: Edges  # node -> nodes that must stay in one part with it, without a bearing on what is a cut point
    cheap: frozenset[int]  # that compute next to nothing: masks and position tables are made of them, for all layers
    silent: frozenset[int]  # that give nothing to anybody, as an assertion

    def blocks(self, nodes: Sequence[int]) -> tuple[Block, ...]:
        """The nodes, in ascending order, as a sequence of blocks."""
        found: list[Block] = []
        waiting = [list(nodes)]
        while waiting:
            part = waiting.pop()
            if len(part) == 1:
                found.append(part[0])
            elif len(parts := self._parts(part)) > 1:
                found.append(Fork(tuple(self.blocks(each) for each in parts)))
            elif len(groups := self._between_cuts(part)) > 1:
                waiting += reversed(groups)
            elif side := self._side_inputs(part):
                found += side
                waiting.append([node for node in part if node not in side])
            else:
                found.append(Knot(tuple(part)))
        return tuple(found)

    def _side_inputs(self, nodes: Sequence[int]) -> list[int]:
        """Nodes at the beginning that compute next to nothing: if no cut point divides a part, because many layers
        take one mask, the mask can come first."""
        inside, early = set(nodes), set[int]()
        for node in nodes:
            if node in self.cheap and not ((self.needs[node] | self.glue[node]) & inside) - early:
                early.add(node)
        return sorted(early) if len(early) < len(nodes) else []

    def _between_cuts(self, nodes: Sequence[int]) -> list[list[int]]:
        """The cut points, each alone, and the nodes between them."""
        place = {node: i for i, node in enumerate(nodes)}
        reach = [0] * (len(nodes) + 1)  # over position i leads the furthest edge from before it
        last = len(nodes)
        needed: set[int] = set()
        for i, node in enumerate(nodes):
            inner = [place[each] for each in self.needs[node] if each in place]
            for start in inner or [-1]:  # a node that needs nothing here hangs on the source
                reach[start + 1] = max(reach[start + 1], i)
            needed |= {nodes[start] for start in inner}
        for i, node in enumerate(nodes):
            if node not in needed and node not in self.silent:  # and one that nobody needs, on the sink
                reach[i + 1] = max(reach[i + 1], last)
        groups: list[list[int]] = []
        current: list[int] = []
        furthest = 0
        for i, node in enumerate(nodes):
            furthest = max(furthest, reach[i])
            if furthest <= i:
                groups += [current] if current else []
                groups.append([node])
                current = []
            else:
                current.append(node)
        return groups + ([current] if current else [])

    def _parts(self, nodes: Sequence[int]) -> list[list[int]]:
        """Connected components, each in ascending order, in the order of their first nodes."""
        root = {node: node for node in nodes}

        def find(node: int) -> int:
            while root[node] != node:
                root[node] = root[root[node]]
                node = root[node]
            return node

        for node in nodes:
            for other in (self.needs[node] | self.glue[node]) & root.keys():
                a, b = sorted((find(node), find(other)))
                root[b] = a
        parts: dict[int, list[int]] = {}
        for node in nodes:
            parts.setdefault(find(node), []).append(node)
        return list(parts.values())
