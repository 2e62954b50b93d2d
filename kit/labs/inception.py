"""The exercises of notebook 04, and what its cells compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from kit.labs.checks import NOT_ATTEMPTED, Check, check, is_stub
from kit.models import describe
from kit.regions import regions
from kit.trace import Event, Trace


def _nested(trace: Trace) -> tuple[list[Event], list[list[int]]]:
    """Calls, regions and tasks of a trace of one lane, outer ones first, and which of them lie right within each."""
    spans = trace.select(categories=["call", "region", "task"]).events()
    events = sorted(spans, key=lambda event: (event.start_ns, -event.duration_ns))
    within: list[list[int]] = [[] for _ in events]
    around: list[int] = []
    for i, event in enumerate(events):
        while around and events[around[-1]].start_ns + events[around[-1]].duration_ns <= event.start_ns:
            around.pop()
        if around:
            within[around[-1]].append(i)
        around.append(i)
    return events, within


def region_ms(trace: Trace) -> list[dict[str, float]]:
    """Milliseconds of each branch, region by region, in the order of ``describe(model, inputs).regions``.

    Args:
        trace: one call, one branch after the other.
    """
    events, within = _nested(trace)
    return [
        {events[j].name: events[j].duration_ns / 1e6 for j in within[i]}
        for i, event in enumerate(events)
        if event.category == "region"
    ]


def work_and_span_ms(trace: Trace) -> tuple[float, float]:
    """How long a recorded call took, and how long if in each region only its longest branch counted.

    Args:
        trace: one call, one branch after the other; with the times of one thread the first is the work.
    """
    events, within = _nested(trace)
    spans = [event.duration_ns for event in events]
    for i in reversed(range(len(events))):  # inner ones come after the outer ones
        inner = [spans[j] for j in within[i]]
        counts = max(inner, default=0) if events[i].category == "region" else sum(inner)
        spans[i] += counts - sum(events[j].duration_ns for j in within[i])
    return events[0].duration_ns / 1e6, spans[0] / 1e6


@check
def check_parallelism(parallelism: Callable[[float, list[list[float]]], Any]) -> str | Check | None:
    """``parallelism(between, regions)``: work by span, of the work between regions and of each region's branches."""
    if is_stub(parallelism):
        return NOT_ATTEMPTED
    found = parallelism(2.0, [[3.0, 5.0]])
    if not isinstance(found, int | float):
        return f"it gives {found!r} and not a number: is there a return?"
    cases = [
        ((8.0, []), 1.0, "without a region the network is a chain, and a chain has parallelism 1."),
        ((0.0, [[4.0, 4.0]]), 2.0, "two branches of the same work, and nothing else, have parallelism 2."),
        ((0.0, [[1.0, 3.0]]), 4 / 3, "of a region, the longest branch is on the span: 4 by 3."),
        ((2.0, [[3.0, 5.0]]), 10 / 7, "the work between regions is on the span too: 2 + 8 by 2 + 5."),
        ((1.0, [[2.0, 2.0], [6.0, 1.0]]), 12 / 9, "regions come one after the other: their spans add up."),
    ]
    return next((hint for given, want, hint in cases if abs(parallelism(*given) - want) > 1e-9), None)


@check
def check_balanced(model: Any) -> str | None:
    """A region that maps ``(1, 64, 16, 16)`` to ``(1, 96, 16, 16)`` with a parallelism of 3."""
    if not isinstance(model, nn.Module):
        return f"give the region itself, not a {type(model).__name__}."
    if not list(regions(model)):
        return "there is no region yet: build kit.Branches({...}, merge=kit.Concat(1))."
    x = torch.zeros(1, 64, 16, 16)
    with torch.inference_mode():
        shape = tuple(model.eval()(x).shape)
    if shape != (1, 96, 16, 16):
        return (
            f"the output is {shape} and should be (1, 96, 16, 16): channels of branches add up, and padding keeps 16."
        )
    region = describe(model, x).regions[0]
    if region.parallelism < 2.99:
        longest = max(region.branches, key=lambda branch: branch.macs)
        share = longest.macs / region.macs if region.macs else 1
        return f"its parallelism is {region.parallelism:.2f}: {longest.name!r} alone has {share:.0%} of the MACs."
    return None
