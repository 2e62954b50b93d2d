"""The modules of a graph as nested boxes, down to its operators, which the picture opens and closes. No Jupyter."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.reprs import one_line
from kit.text import counted
from kit.views.palette import in_order

if TYPE_CHECKING:
    from kit.graphs import Graph, Operator

AT_FIRST = 30  # boxes that a picture opens up to by itself
_CHECK = (
    "_assert"  # how the kinds of operators begin that check something and compute nothing: often outside of branches
)
FLAT = 200  # operators right in one module; of more, some that follow each other share a box


@one_line
@dataclass(frozen=True)
class Box:
    """A module, or one operator."""

    path: str  # unique: the module's qualified name, "#3" behind its third visit; an operator's has "/" before its name
    label: str  # what it is called inside the box around it
    parent: int  # index of the box around it; -1 for the model itself
    operators: tuple[int, ...]  # indices of all in it
    module: bool  # it can be opened


def boxes(graph: Graph) -> tuple[Box, ...]:
    """All boxes, each before the boxes in it; the first is the model.

    A module with only one part gets no box. A module that is left and entered again (an activation that a block uses
    twice) gets a box for each visit, so that boxes never depend on each other in a cycle.
    """
    found = [Box("", graph.name, -1, tuple(range(len(graph.operators))), True)]
    _fill(graph, found, 0, "")
    return tuple(found)


def opened_at_first(tree: Sequence[Box]) -> list[str]:
    """The paths of the boxes to open so that about ``AT_FIRST`` show: whole levels, from the outside in."""
    inside = children(tree)
    opened, shown = [""], list(inside[0])
    while True:
        level = [i for i in shown if tree[i].module]
        wider = [child for i in shown for child in (inside[i] if tree[i].module else [i])]
        if not level or len(wider) > AT_FIRST:
            return opened
        opened += [tree[i].path for i in level]
        shown = wider


def children(tree: Sequence[Box]) -> list[list[int]]:
    """For each box, the indices of the boxes directly in it."""
    inside: list[list[int]] = [[] for _ in tree]
    for i, box in enumerate(tree[1:], 1):
        inside[box.parent].append(i)
    return inside


def summary(graph: Graph) -> str:
    """What the picture shows, in one line."""
    return f"{graph.name} on {graph.inputs}: {counted(len(graph.operators), 'operator')}"


def unit(graph: Graph) -> str:
    """The unit of the widths: ``ms``, or ``MACs`` if nothing was measured."""
    return "MACs" if all(math.isnan(operator.ms) for operator in graph.operators) else "ms"


@one_line
@dataclass(frozen=True)
class Looks:
    """For each box, the branch that it is in, and the branches in it."""

    names: tuple[str, ...]  # of all branches, in the order of their looks
    around: tuple[int, ...]  # for each box the innermost branch that holds all of it, a place in ``names``; or -1
    inside: tuple[tuple[int, ...], ...]  # for each box the branches of the regions that lie in it, places in ``names``
    knotted: tuple[int, ...]  # for each box how many of its operators are in a part that is not series-parallel


def looks(graph: Graph, tree: Sequence[Box]) -> Looks:
    """The branches of all boxes, by their names, as the timeline tells branches apart."""
    regions = list(graph.all_regions())
    names = in_order(branch.name for region in regions for branch in region.branches)
    place = {name: n for n, name in enumerate(names)}
    of: list[list[tuple[int, str]]] = [[] for _ in graph.operators]  # the branches of each operator, outermost first
    inside: list[set[int]] = [set() for _ in tree]
    leaf = {box.operators[0]: at for at, box in enumerate(tree) if not box.module}
    for number, region in enumerate(regions):
        for branch in region.branches:
            for i in branch.operators:
                of[i].append((number, branch.name))
        all_of_it = {i for branch in region.branches for i in branch.operators}
        at = leaf[min(all_of_it)]
        while at >= 0:
            if all_of_it.issubset(tree[at].operators):
                inside[at] |= {place[branch.name] for branch in region.branches}
            at = tree[at].parent
    computing = [not operator.kind.startswith(_CHECK) for operator in graph.operators]
    around = [_shared([of[i] for i in box.operators if computing[i] or not box.module]) for box in tree]
    knots = {i for knot in graph.knots for i in knot}
    return Looks(
        tuple(names),
        tuple(place[name] if name else -1 for name in around),
        tuple(tuple(sorted(each)) for each in inside),
        tuple(len(knots.intersection(box.operators)) for box in tree),
    )


def _shared(of: Sequence[Sequence[tuple[int, str]]]) -> str:
    """The name of the innermost branch that contains all of these operators; empty if there is none."""
    name = ""
    for first, *others in zip(*of, strict=False):
        if any(other != first for other in others):
            break
        name = first[1]
    return name


def _fill(graph: Graph, found: list[Box], at: int, module: str) -> None:
    """Append all boxes in box ``at``, which represents ``module``."""
    visits: dict[str, int] = defaultdict(int)
    outer = found[at].path
    for name, inside in list(_parts(graph, found[at].operators, module)):
        visits[name] += 1
        below, label = _tail(graph, f"{module}.{name}" if module and name else name or module, name, inside)
        if len(inside) == 1:
            operator = graph.operators[inside[0]]
            label = _told(label, module) if label else _short(operator)
            found.append(Box(f"{outer}/{operator.name}", label, at, inside, False))
            continue
        if not name:
            label = f"operators {inside[0] + 1} to {inside[-1] + 1}"
        elif visits[name] > 1:  # the number comes after the name: at the end it could count visits of what is in it
            label = f"{name}#{visits[name]}{label.removeprefix(name)}"
        found.append(Box(f"{outer}.{label}" if outer else label, _told(label, module), at, inside, True))
        _fill(graph, found, len(found) - 1, below)


def _told(label: str, module: str) -> str:
    """A readable label: an index in a list is shown with the list's name, as ``stages.0``."""
    return f"{module.rpartition('.')[2]}.{label}" if label[:1].isdigit() and module else label


def _short(operator: Operator) -> str:
    """The operator's name without that of its module before it: "features_conv_cat_3" in "features.conv" is "cat_3"."""
    prefix = operator.module.replace(".", "_") + "_"
    return operator.name.removeprefix(prefix) if len(operator.name) > len(prefix) else operator.name


def _tail(graph: Graph, here: str, text: str, inside: Sequence[int]) -> tuple[str, str]:
    """Go down as long as a module contains only one module; returns the last one's name and label."""
    while text:
        below = {_below(graph.operators[i].module, here) for i in inside}
        if len(below) != 1 or "" in below:
            break
        (name,) = below
        here, text = f"{here}.{name}", f"{text}.{name}"
    return here, text


def _below(module: str, outer: str) -> str:
    """The name of the module directly under ``outer`` that contains ``module``; empty if they are the same."""
    return (module[len(outer) + 1 :] if outer else module).partition(".")[0]


def _parts(graph: Graph, operators: Sequence[int], outer: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The direct parts of a module in program order, as (name, operators); its own operators have no name."""
    groups: dict[tuple[str, int], list[int]] = {}
    names = [_below(graph.operators[i].module, outer) for i in operators]
    own = names.count("")
    together = 1 if own <= FLAT else math.isqrt(own)
    count = 0
    for i, name in zip(operators, names, strict=True):
        groups.setdefault((name, -1 if name else count // together), []).append(i)
        count += not name
    circular = _in_circles(graph, groups)
    runs: list[tuple[str, tuple[int, ...]]] = []
    place = {i: n for n, i in enumerate(operators)}
    for key, inside in groups.items():
        first = 0
        for n in range(1, len(inside) + 1):
            if n == len(inside) or (key in circular and place[inside[n]] != place[inside[n - 1]] + 1):
                runs.append((key[0], tuple(inside[first:n])))
                first = n
    yield from sorted(runs, key=lambda run: run[1][0])


def _in_circles(graph: Graph, groups: dict[tuple[str, int], list[int]]) -> set[tuple[str, int]]:
    """The groups that depend on each other in a cycle, and the groups between two cycles."""
    group = {i: key for key, inside in groups.items() for i in inside}
    before: dict[tuple[str, int], set[tuple[str, int]]] = {key: set() for key in groups}
    for i, key in group.items():
        operator = graph.operators[i]
        before[key] |= {group[j] for j in (*operator.data, *operator.order) if group.get(j, key) != key}
    after: dict[tuple[str, int], set[tuple[str, int]]] = {key: set() for key in groups}
    for key, sources in before.items():
        for source in sources:
            after[source].add(key)
    left = set(groups)
    for come, go in ((before, after), (after, before)):  # strip what nothing leads to, then what leads to nothing
        ready = [key for key in left if not come[key] & left]
        while ready:
            key = ready.pop()
            left.discard(key)
            ready += [other for other in go[key] & left if not come[other] & left]
    return left
