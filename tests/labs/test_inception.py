"""Notebook 04: its exercises, tables and sentences."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from torch import nn

import kit
from kit import labs
from kit.equality import Equality
from kit.graphs import Branch, Graph, Operator, Region
from kit.labs.checks import Check
from kit.labs.inception import (
    affordable,
    approaches_table,
    check_balanced,
    check_parallelism,
    fastest,
    one_at_a_time,
    settled,
)
from kit.measuring.comparison import Comparison, Row, Timing
from kit.measuring.statistics import speed_up
from kit.trace import Trace
from kit.trace.kernels import Kernel, Use


def block(name: str, *costs: tuple[str, int, float], at: int = 0) -> tuple[Region, list[Operator]]:
    """A region whose branches are one operator each, (branch, MACs, ms); they take what operator ``at - 1`` gives."""
    before = (at - 1,) if at else ()
    operators = [Operator(f"{name}_{each}", "Conv2d", name, "1", macs, ms, before, ()) for each, macs, ms in costs]
    branches = tuple(Branch(each, (at + i,)) for i, (each, _, _) in enumerate(costs))
    return Region(name, branches), operators


def one_block(*costs: tuple[str, int, float], cores: int = 2) -> Graph:
    region, operators = block("Block", *costs)
    return Graph("Net", "x", "torch.fx", 0.1, tuple(operators), (region,), (), cores, 0.05)


UNEQUAL = one_block(("1x1", 1_000_000, 1.0), ("3x3", 6_000_000, 5.0), ("pool", 0, 2.0))


def test_the_tables_of_a_block() -> None:
    text = labs.inception.branches_table(UNEQUAL)
    assert "| 3x3 | 6 | 5 ms |" in text
    assert "| all of them | 7 | 8 ms |" in text
    assert "longest one, `3x3`: 86% of all MACs" in text
    assert "**1.17**, although it has 3 of them" in text
    (row,) = [line for line in labs.inception.regions_table(UNEQUAL).splitlines() if line.startswith("| Block")]
    assert row == "| Block | 1x1, 3x3, pool | 7 | 6 | 1.17 | 2.00 |"


def test_the_tables_of_a_network() -> None:
    first, stem = (
        block("A", ("a", 4_000_000, 1.0), ("b", 4_000_000, 3.0), at=1),
        Operator("stem", "Conv2d", "", "1", 2_000_000, 1.0, (), ()),
    )
    graph = Graph("Net", "x", "torch.fx", 0.1, (stem, *first[1]), (first[0],), (), 2, 0.05)
    told = labs.inception.network_told(graph)
    assert "**parallelism 1.67**. Even the best region, A, has only 2.00; and 20% of the work" in told
    assert labs.inception.how_parallel(graph) == "1.3 to 2 times"
    assert labs.inception.how_parallel(UNEQUAL) == "less than 1.3 times"
    table = labs.inception.networks_table({"one": graph, "other": UNEQUAL})
    assert "| one | 10.00 M | 1.67 | 1.50 | 1 |" in table
    assert "by MACs is the **one**" in table
    both = labs.inception.macs_and_ms(graph)
    assert "| A | 2.00 | 1.33 | a | b |" in both
    assert "work is 5 ms, span 4 ms and parallelism **1.25**" in both
    assert "`a` do 4.0 GMACs a second, those named `b` 1.3" in both


@pytest.mark.parametrize(
    ("ms", "says"),
    [
        ((9, 8, 5), ["**1.60x [1.60, 1.60]**", "**100%** of that speed", "threads: **faster** (1.80x"]),
        ((4, 8, 8), ["**62%** of that speed", "**2.00x [2.00, 2.00]**", "threads: **slower** (0.50x"]),
        ((9, 8, 2), ["**2.50 times that speed, which cannot be**"]),
    ],
)
def test_what_threads_reached(ms: tuple[float, float, float], says: list[str]) -> None:
    lead, one, threads = ms
    text = labs.inception.side_told(compared(sequential=lead, one=one, threads_1=threads), UNEQUAL)
    assert "its span is 5 ms: parallelism 1.60. With a branch on each of 2 cores" in text
    assert [each for each in says if each not in text] == []
    assert "on each of 1 core it cannot take less than **8 ms**" in labs.inception.side_told(
        compared(sequential=8, one=8, threads_1=8), replace(UNEQUAL, cores=1)
    )


def test_the_network_is_set_against_its_block() -> None:
    chain, one = compared(sequential=8, threads=4), compared(sequential=8, threads=9)
    text = labs.inception.network_against_block(chain, one, "a net", UNEQUAL)
    assert "On a net, whose parallelism is 1.17 by MACs:" in text
    assert "- threads: **faster** (2.00x [2.00, 2.00]); on the block slower (0.89x [0.89, 0.89])" in text


def test_what_is_said_of_a_gpu_and_of_branches_by_themselves() -> None:
    assert labs.inception.gpu_told("there is no GPU", {}, None) == "not run here: there is no GPU"
    streams = compared(sequential=8, graphed=4, graphed_streams=2)
    told = labs.inception.gpu_told(None, {"cuda_streams": 0.5}, streams)
    assert "cuda_streams **50%**" in told
    assert "without: **faster** (2.00x" in told
    for share, says in ((0.0, "**false**"), (0.3, "**true in part**")):
        text = labs.inception.by_themselves(share, told, "a net", UNEQUAL, UNEQUAL)
        assert f"on this CPU: {says}. Two branches of a net overlapped for {share:.0%}" in text
        assert "2 cores with a branch each allow the block 1.60" in text


def test_other_networks_are_narrow_in_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIT_FAST", "1")
    found = labs.inception.other_networks(UNEQUAL)
    assert [len(list(graph.all_regions())) for graph in found.values()] == [9, 1, 19]


def timing(ms: float) -> Timing:
    return Timing(np.full(12, ms * 1e6), 1, Trace.build([]))


def compared(*, equal: bool = True, prepare_s: float = 0.0, **ms: float) -> Comparison:
    """Approaches with the same time in every round; ``one`` and ``threads_1`` have an intra-op thread."""
    lead = next(iter(ms.values()))
    rows = [
        Row(
            {"one": "sequential(threads=1)", "threads_1": "threads(threads=1)"}.get(name, name),
            timing=timing(each),
            ratio=speed_up(timing(lead), timing(each)),
            equality=Equality(equal or name == "sequential", 0.0),
            baseline=name == "sequential",
            prepare_s=0.0 if name == "sequential" else prepare_s,
        )
        for name, each in ms.items()
    ]
    if "onnxruntime" not in ms:
        rows.append(Row("onnxruntime", "it is not\ninstalled | at all."))
    return Comparison(tuple(rows), 6, "", ("something else was using the cores.",))


def test_the_fastest_is_one_that_was_found_faster() -> None:
    comparison = compared(sequential=8, threads=4, merged=5, onnxruntime=2)
    assert [row and row.name for row in (fastest(comparison), fastest(comparison, peer=False))] == [
        "onnxruntime",
        "threads",
    ]
    assert fastest(compared(sequential=8, threads=8)) is None
    assert fastest(compared(equal=False, sequential=8, threads=4)) is None


def test_which_approaches_leave_branches_one_after_the_other() -> None:
    calm = ["sequential", "sequential(threads=1)", "folded + merged", "compiled", "onnxruntime"]
    assert [name for name in [*calm, "threads", "folded + threads", "processes"] if one_at_a_time(name)] == calm


def test_the_table_says_when_preparing_is_earned_back() -> None:
    _head, _rule, lead, quick, slow, peer, _, caveat = approaches_table(
        compared(prepare_s=3.0, sequential=8, merged=4, folded=9)
    ).splitlines()
    assert lead == "| sequential | 8 ms | 1 | baseline | 0.0 s |  |"
    assert quick == "| merged | 4 ms | 2.00x [2.00, 2.00] | faster | 3.0 s | 750 calls |"
    assert slow.endswith("| slower | 3.0 s |  |")
    assert peer == "| onnxruntime | | | not available: it is not installed &#124; at all. | | |"
    assert caveat == "- &#9888; something else was using the cores."


@pytest.mark.parametrize(
    ("side", "others", "says"),
    [
        ((9, 4), {"merged": 4, "threads": 5}, ["faster** (2.00x", "did waste", "order: merged (2.00x", "**merged**"]),
        ((4, 4), {"merged": 8}, ["faster** (2.00x", "thread for everything: **no", "splitting the operators, not"]),
        (
            (9, 16),
            {"merged": 5, "threads": 4},
            ["slower** (0.50x", "did not waste", "order: merged (1.60x", "**threads**"],
        ),
        ((9, 8), {"merged": 8}, ["no difference found** (1.00x", "was not found.", "Nothing of the kit's", "None of"]),
        ((9, 8), {"merged": 4, "onnxruntime": 2}, ["**merged**", "against merged: **faster** (2.00x"]),
        ((9, 8), {"merged": 9, "onnxruntime": 9}, ["Nothing of the kit's", "against sequential: **slower** (0.89x"]),
        ((9, 8), {"merged": 9, "onnxruntime": 4}, ["Nothing of the kit's", "against sequential: **faster** (2.00x"]),
        ((9, 8), {"merged": 4}, ["did not take part: it is not"]),
    ],
)
def test_the_claim_is_settled_by_what_was_measured(
    side: tuple[float, float], others: dict[str, float], says: list[str]
) -> None:
    one, threads = side
    text = settled(compared(sequential=8, one=one, threads_1=threads), compared(sequential=8, **others))
    assert [each for each in says if each not in text] == []


def test_where_threads_ran_on_other_kernels_the_fair_comparison_is_named() -> None:
    one, other = ({Kernel("convolution", "conv2d", name): Use(4, 0.5)} for name in ("oneDNN", "thnn_conv2d"))
    side = compared(sequential=8, one=9, threads_1=5)
    side = replace(side, rows=tuple(replace(row, kernels=one if row.baseline else other) for row in side.rows))
    text = settled(side, compared(sequential=8, merged=4))
    assert "conv2d ran as oneDNN in sequential and as thnn_conv2d in threads(threads=1)" in text
    assert "Against one thread for everything, the kernels are the same." in text
    assert "ran as" not in settled(compared(sequential=8, one=9, threads_1=5), compared(sequential=8, merged=4))


def test_a_whole_network_only_where_it_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labs.inception, "inception_v3", lambda width=1: nn.Identity())
    monkeypatch.delenv("KIT_FAST", raising=False)
    assert [affordable(limit)[2].shape[-1] for limit in (1e9, 0)] == [299, 139]
    monkeypatch.setenv("KIT_FAST", "1")
    assert "a quarter of its channels" in affordable(1e9)[0]


def stub(between: float, regions: list[list[float]]) -> float: ...


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda b, r: (b + sum(map(sum, r))) / (b + sum(map(max, r))), None),
        (lambda b, r: (b + sum(map(sum, r))) / (b + max(map(max, r), default=0)), "spans add up"),
        (lambda b, r: sum(map(sum, r)) / sum(map(max, r)) if r else 1.0, "on the span too"),
        (lambda b, r: len(r[0]) if r else 1.0, "4 by 3"),
        (lambda b, r: 1.0, "have parallelism 2"),
        (lambda b, r: [b, None][1], "is there a return"),
        (lambda b, r: sum(map(sum, r)) / sum(map(max, r)), "it divides by zero: with nothing in regions"),
    ],
)
def test_the_parallelism_exercise(answer: Callable[..., float], says: str | None) -> None:
    found: Check = check_parallelism(answer)
    assert found.state == ("hint" if says else "passed")
    assert (says or "") in found.message
    assert check_parallelism(stub).state == check_parallelism(None).state == "not attempted yet"


def conv(out: int, kernel: int = 3) -> nn.Module:
    return nn.Conv2d(64, out, kernel, padding=kernel // 2)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (kit.Branches({"a": conv(32), "b": conv(32), "c": conv(32)}, kit.Concat(1)), None),
        (kit.Branches({"a": conv(32, 1), "b": conv(32), "c": conv(32)}, kit.Concat(1)), "is 2.11: 'b' alone has 47%"),
        (kit.Branches({"a": conv(32), "b": conv(32)}, kit.Concat(1)), r"(1, 64, 16, 16) and should be"),
        (
            kit.Branches({"a": conv(96)}, kit.Concat(1)),
            "no region yet: build kit.Branches({...}, merge=kit.Concat(1)) with three",
        ),
        (conv(96), "no region"),
        (3, "not a int"),
    ],
)
def test_the_balance_exercise(model: object, says: str | None) -> None:
    found: Check = check_balanced(model)
    assert found.state == ("hint" if says else "passed")
    assert (says or "") in found.message
    assert check_balanced(...).state == "not attempted yet"
