"""Small task graphs for property tests, and the best schedule of each by trying all of them."""

import itertools

from hypothesis import strategies as st

from kit.scheduling import Node, Placement, makespan


@st.composite
def graphs(draw: st.DrawFn, size: int = 9) -> list[Node]:
    """Any small graph, not chains alone."""
    costs = draw(st.lists(st.integers(0, 9), max_size=size))
    before = [draw(st.sets(st.integers(0, i - 1), max_size=3)) if i else set() for i in range(len(costs))]
    return [Node(i % 3, cost, tuple(sorted(after))) for i, (cost, after) in enumerate(zip(costs, before, strict=True))]


def best(nodes: list[Node], lanes: int) -> float:
    """The shortest makespan of all schedules."""
    orders = [
        order
        for order in itertools.permutations(range(len(nodes)))
        if all(order.index(before) < order.index(i) for i in order for before in nodes[i].after)
    ]
    places = list(itertools.product(range(lanes), repeat=len(nodes)))
    return min(makespan(nodes, [Placement(i, place[i]) for i in order]) for order in orders for place in places)
