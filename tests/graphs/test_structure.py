"""Cut points, parts and knots of small graphs, and of random ones against brute force."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.graphs.found import flat
from kit.graphs.structure import Block, Fork, Knot, Structure

NONE: frozenset[int] = frozenset()


def blocks(
    count: int, needs: dict[int, set[int]], cheap: frozenset[int] = NONE, silent: frozenset[int] = NONE
) -> tuple[Block, ...]:
    every = {i: frozenset(needs.get(i, ())) for i in range(count)}
    none = {i: frozenset[int]() for i in range(count)}
    return Structure(every, none, cheap, silent).blocks(range(count))


@pytest.mark.parametrize(
    ("count", "needs", "found"),
    [
        (3, {1: {0}, 2: {1}}, (0, 1, 2)),
        (4, {1: {0}, 2: {0}, 3: {1, 2}}, (0, Fork(((1,), (2,))), 3)),
        (2, {}, (Fork(((0,), (1,))),)),  # two inputs, two outputs
        (3, {2: {0, 1}}, (Fork(((0,), (1,))), 2)),  # two towers
        (3, {1: {0}, 2: {0}}, (0, Fork(((1,), (2,))))),  # two heads
        (3, {1: {0}, 2: {0, 1}}, (0, 1, 2)),  # a residual has nothing beside it
        # Nested: the second part forks again.
        (
            7,
            {1: {0}, 2: {0}, 3: {2}, 4: {2}, 5: {3, 4}, 6: {1, 5}},
            (0, Fork(((1,), (2, Fork(((3,), (4,))), 5))), 6),
        ),
        # An exchange between two streams: neither a sequence nor a fork.
        (6, {1: {0}, 2: {0}, 3: {1, 2}, 4: {1, 2}, 5: {3, 4}}, (0, Knot((1, 2, 3, 4)), 5)),
    ],
)
def test_blocks(count: int, needs: dict[int, set[int]], found: tuple[Block, ...]) -> None:
    assert blocks(count, needs) == found


def test_a_mask_that_all_layers_take_glues_nothing() -> None:
    # 0 is the mask, 1 the input; a layer is q, k, their product with the mask, and the sum with what it began with.
    needs = {2: {1}, 3: {1}, 4: {0, 2, 3}, 5: {4, 1}, 6: {5}, 7: {5}, 8: {0, 6, 7}, 9: {8, 5}}
    last = (4, 5, Fork(((6,), (7,))), 8, 9)
    assert blocks(10, needs)[-5:] == last
    # Two streams take it too, and exchange what they have: what it bridges can still be told apart.
    needs = {1: {0}, 2: {0}, 3: {1, 0}, 4: {1, 2}, 5: {2, 3}, 6: {4, 5}}
    assert blocks(7, needs, cheap=frozenset({0}))[0] == 0


def test_an_assertion_hides_no_cut_point() -> None:
    needs = {1: {0}, 2: {0}, 3: {2}}
    assert blocks(4, needs, silent=frozenset({1})) != blocks(4, needs)
    assert blocks(4, needs, silent=frozenset({1}))[0] == 0


@st.composite
def graphs(draw: st.DrawFn) -> dict[int, set[int]]:
    count = draw(st.integers(1, 12))
    return {i: draw(st.sets(st.integers(0, i - 1), max_size=3)) if i else set() for i in range(count)}


@settings(max_examples=300, deadline=None)
@given(graphs())
def test_every_node_once_after_what_it_needs_and_nothing_between_siblings(needs: dict[int, set[int]]) -> None:
    found = blocks(len(needs), needs)
    assert sorted(flat(found)) == list(range(len(needs)))
    seen: set[int] = set()

    def walk(sequence: tuple[Block, ...], seen: set[int]) -> None:
        for block in sequence:
            if isinstance(block, Fork):
                parts = [set(flat(part)) for part in block.parts]
                assert len(parts) > 1
                for mine, part in zip(parts, block.parts, strict=True):
                    outside = set().union(*(needs[i] for i in mine)) - mine
                    assert outside <= seen, "a branch needs something of a sibling, or of what comes later"
                    walk(part, set(seen))
                seen |= set().union(*parts)
            else:
                for i in block.nodes if isinstance(block, Knot) else (block,):
                    assert needs[i] <= seen
                    seen.add(i)

    walk(found, seen)


@settings(max_examples=200, deadline=None)
@given(graphs())
def test_what_is_on_every_path_is_a_block_by_itself(needs: dict[int, set[int]]) -> None:
    count = len(needs)
    users = {i: [j for j in needs if i in needs[j]] for i in needs}

    def reached(start: list[int], without: int, edges: dict[int, list[int]]) -> set[int]:
        waiting, seen = [i for i in start if i != without], set[int]()
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting += [each for each in edges[node] if each != without]
        return seen

    sources, sinks = [i for i in needs if not needs[i]], {i for i in needs if not users[i]}
    cuts = [i for i in range(count) if not reached(sources, i, users) & sinks]
    found = blocks(count, needs)
    assert set(cuts) <= {block for block in found if isinstance(block, int)}
    for first, second in pairwise(cuts):
        inner = [block for block in found if first < min(flat([block])) < second]
        assert sorted(flat(inner)) == list(range(first + 1, second))
