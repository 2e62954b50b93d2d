"""The exercises of notebook 06."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kit.labs.checks import check, first_wrong
from kit.scheduling.links import Link


@check
def check_seconds(seconds: Callable[[int, float, float], Any]) -> str | None:
    """``seconds(size, gbit_s, latency_us)``: how long so many bytes take in one direction."""
    cases: list[tuple[tuple[Any, ...], float, str]] = [
        ((0, 1.0, 50.0), 50e-6, "0 bytes take the latency: 50 µs are 50e-6 seconds."),
        ((125_000_000, 1.0, 0.0), 1.0, "a byte has 8 bits: 125 million bytes take 1 second at 1 Gbit/s."),
        ((602_112, 10.0, 25.0), Link(1e10, 25e-6).seconds(602_112), "add the latency to the time of the bits."),
    ]
    return first_wrong(seconds, cases)


@check
def check_machines(machines: Callable[[float, float], Any]) -> str | None:
    """``machines(rate, work_ms)``: the fewest machines with which the queue does not grow without end."""
    cases: list[tuple[tuple[Any, ...], float, str]] = [
        ((90.0, 25.0), 3, "90 requests a second of 25 ms are 2.25 seconds of work in each second: 3 machines."),
        ((10.0, 20.0), 1, "0.2 seconds of work in each second need one machine, and no machine is a part of one."),
        ((80.0, 25.0), 3, "exactly 2 machines' work: requests come at random, so 2 machines never catch up. Take 3."),
    ]
    return first_wrong(machines, cases)
