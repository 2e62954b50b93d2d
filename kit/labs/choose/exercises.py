"""The exercises of notebook 11."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kit.labs.checks import check, first_wrong
from kit.scheduling import POLICIES, Node
from kit.scheduling import makespan as makespan_of


@check
def check_costliest(costliest: Callable[[Mapping[str, float]], str | None]) -> str | None:
    """``costliest(factors)``: the name of the factor that costs most, lanes apart."""
    factors = {"lanes": 2.0, "computation efficiency": 0.9, "load balance": 0.6, "scheduling efficiency": 0.8}
    if costliest(factors) is None:
        return "it gives None: is there a return?"
    if not isinstance(costliest(factors), str):
        return f"it gives {costliest(factors)!r}, a {type(costliest(factors)).__name__}: give the factor's name."
    if costliest(factors) != "load balance":
        return f"it says {costliest(factors)!r}: the factor furthest below 1 costs most, which is 'load balance' here."
    if costliest({"lanes": 0.1, "scheduling efficiency": 0.5}) != "scheduling efficiency":
        return "lanes is the ideal and no cost: leave it out of the names, even where its number is the smallest."
    return None


@check
def check_makespan(makespan: Callable[[Sequence[float], int], float | None]) -> str | None:
    """``makespan(branches, lanes)``: when the last of these branches ends, each taken in order by a free lane."""
    late = "in this order the 4 ms begin only after 1 ms: the call ends after 5 ms. Give each to the lane free first."
    alone = "on one lane branches run one after the other: 1 ms and 2 ms end after 3 ms."
    beside = "while one lane has the 4 ms, the other does both others: the call ends after 4 ms."
    cases = []
    for costs, lanes, hint in (([1.0, 2.0], 1, alone), ([4.0, 1.0, 1.0], 2, beside), ([1.0, 1.0, 4.0], 2, late)):
        nodes = [Node(cost=ms) for ms in costs]
        cases.append(((costs, lanes), makespan_of(nodes, POLICIES["in_order"](nodes, lanes)), hint))
    return first_wrong(makespan, cases)
