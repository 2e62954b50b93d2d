"""Notebook 04: its exercises, and work and span from a trace."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import kit
from kit import labs
from kit.equality import Equality
from kit.labs.checks import Check
from kit.labs.inception import (
    affordable,
    approaches_table,
    check_balanced,
    check_parallelism,
    fastest,
    one_at_a_time,
    region_ms,
    settled,
    work_and_span_ms,
)
from kit.labs.threads import versus
from kit.measuring.comparison import Comparison, Row, Timing
from kit.measuring.statistics import speed_up
from kit.models import describe, inception_v3
from kit.trace import Event, Lane, Trace
from kit.trace.kernels import Kernel, Use

LANE = Lane(1, 1, "caller")


def made(*rows: tuple[str, str, int, int]) -> Trace:
    """A trace of one lane from (category, name, start ms, end ms)."""
    return Trace.build(
        [Event(name, category, start * 10**6, (end - start) * 10**6, LANE) for category, name, start, end in rows]
    )


def test_work_and_span_of_a_region_within_a_branch() -> None:
    trace = made(
        ("call", "call", 0, 40),
        ("region", "region", 5, 36),
        ("task", "a", 5, 15),
        ("task", "b", 15, 35),
        ("region", "region", 20, 34),
        ("task", "c", 20, 26),
        ("task", "d", 26, 33),
        ("merge", "merge", 33, 34),
    )
    assert region_ms(trace) == [{"a": 10, "b": 20}, {"c": 6, "d": 7}]
    # b without c is 14, the longest; around the tasks of the outer region are 10, and its own merge.
    assert work_and_span_ms(trace) == (40, 40 - 10 - 6)


def test_a_trace_has_the_regions_of_the_description() -> None:
    model, x = inception_v3(10, width=0.125), torch.zeros(1, 3, 75, 75)
    trace = kit.record(model, x, "sequential(threads=1)", operators=False)
    described = describe(model, x)
    names = [[branch.name for branch in region.branches] for region in described.regions]
    assert [list(times) for times in region_ms(trace)] == names
    work, span = work_and_span_ms(trace)
    assert 0 < span < work


def timing(ms: float) -> Timing:
    return Timing(np.full(6, ms * 1e6), 1, Trace.build([]))


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


def test_another_baseline_gives_another_ratio_and_verdict() -> None:
    comparison = compared(sequential=8, threads=4, merged=2)
    row = versus(comparison, "threads", "merged")
    assert row.ratio is not None
    assert (row.ratio.estimate, row.verdict) == (0.5, "slower")
    assert versus(comparison, "sequential", "merged").verdict == "slower"  # no longer the baseline
    assert versus(comparison, "merged", "merged").verdict == "no difference found"
    assert versus(comparison, "onnxruntime", "merged").verdict == "not available"


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
        (lambda b, r: sum(map(sum, r)) / sum(map(max, r)), "ZeroDivisionError"),
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
        (kit.Branches({"a": conv(96)}, kit.Concat(1)), "'a' alone has 100%"),
        (conv(96), "no region"),
        (3, "not a int"),
    ],
)
def test_the_balance_exercise(model: object, says: str | None) -> None:
    found: Check = check_balanced(model)
    assert found.state == ("hint" if says else "passed")
    assert (says or "") in found.message
    assert check_balanced(...).state == "not attempted yet"
