"""The exercises of notebook 10."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kit.labs.checks import check, first_wrong


@check
def check_self_time(heaviest: Callable[[list[tuple[str, int, int]]], Any]) -> str | None:
    """``heaviest(events)``: the name with the largest self time, of ``(name, start, end)`` nested on one thread."""
    cases = [
        ([("forward", 0, 100), ("conv", 10, 90)], "conv", "forward contains conv: only 20 of its 100 are its own."),
        (
            [("forward", 0, 100), ("conv", 0, 30), ("conv", 40, 60), ("relu", 60, 90)],
            "conv",
            "a name may occur twice: add its self times up (conv has 30 + 20, relu 30, forward 20).",
        ),
        (
            [("forward", 0, 100), ("conv2d", 0, 60), ("convolution", 5, 10)],
            "conv2d",
            "take from an event only what lies directly inside it: conv2d keeps 55, forward 40.",
        ),
    ]
    for events, want, hint in cases:
        if (found := heaviest(list(events))) != want:
            return f"for {events} it gives {found!r}: {hint}"
    return None


@check
def check_gpu_share(share: Callable[[list[tuple[int, int]], int], Any]) -> str | None:
    """``share(kernels, wall)``: for which share of the wall time any of these ``(start, end)`` kernels runs."""
    cases: list[tuple[tuple[Any, ...], float, str]] = [
        (([(0, 25), (50, 75)], 100), 0.5, "two kernels of 25 in 100 are 0.5."),
        (
            ([(0, 50), (25, 75)], 100),
            0.75,
            "kernels of two streams overlap: from 25 to 50 both run, which counts once.",
        ),
        (([(0, 90), (10, 20)], 100), 0.9, "a kernel may lie within another one: the end is the largest end so far."),
        (([(60, 80), (0, 20)], 100), 0.4, "the kernels of several streams are in no order: sort them."),
    ]
    return first_wrong(share, cases)
