"""Notebook 04: its exercises, and work and span from a trace."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

import kit
from kit.labs.checks import Check
from kit.labs.inception import check_balanced, check_parallelism, region_ms, work_and_span_ms
from kit.models import describe, inception_v3
from kit.trace import Event, Lane, Trace

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
