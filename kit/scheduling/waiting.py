"""Where lanes have to wait for each other, and where they know already that the other one is done."""

from __future__ import annotations

from collections.abc import Sequence

from kit.errors import KitError


def waits(lanes: Sequence[Sequence[int]], after: Sequence[Sequence[int]]) -> dict[int, tuple[int, ...]]:
    """For each node that has to wait, the nodes of other lanes that its lane waits for just before it.

    A lane that has waited for a node knows that all nodes before it on that lane have ended, and all that those waited
    for. It does not wait for them again.

    Source: vector clocks, as in Mattern, *Virtual Time and Global States of Distributed Systems*, 1988.

    Args:
        lanes: for each lane, its nodes in the order in which it runs them.
        after: for each node, the nodes that have to end before; what is on no lane has ended before all of this.

    Raises:
        KitError: the lanes would wait for each other in a circle.
    """
    place = {node: (lane, k) for lane, nodes in enumerate(lanes) for k, node in enumerate(nodes)}
    others = {
        node: [each for each in after[node] if each in place and place[each][0] != lane]
        for node, (lane, _) in place.items()
    }
    clocks = [[-1] * len(lanes) for _ in lanes]  # for each lane, how far it knows every lane to be
    ended: dict[int, list[int]] = {}  # node -> what its lane knew when it ended
    found: dict[int, tuple[int, ...]] = {}
    todo = [list(reversed(nodes)) for nodes in lanes]
    while any(todo):
        ready = [lane for lane, nodes in enumerate(todo) if nodes and all(j in ended for j in others[nodes[-1]])]
        if not ready:
            raise KitError("these lanes wait for each other in a circle, so none of them could go on.")
        for lane in ready:
            node, clock = todo[lane].pop(), clocks[lane]
            for other in sorted(others[node], key=lambda j: -sum(ended[j])):  # first who knows most
                if clock[place[other][0]] < place[other][1]:
                    found[node] = (*found.get(node, ()), other)
                    clock[:] = map(max, clock, ended[other])
            clock[lane] = place[node][1]
            ended[node] = list(clock)
    return found
