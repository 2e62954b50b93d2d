"""What it costs to send bytes over a link, and how much work must be saved by it. Pure functions, no torch.

A transfer takes ``latency + 8 * bytes / bits_per_second``: a fixed cost, and a cost for each byte (Hockney, *The
communication challenge for MPP*, Parallel Computing 20, 1994; also called the alpha-beta model). Left out are headers
(about 5% of Ethernet with TCP and frames of 1,500 bytes), packing, and other programs on the same link.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kit.errors import KitError
from kit.reprs import one_line


@one_line
@dataclass(frozen=True)
class Link:
    """A link between two devices or machines, with both directions at the same time, each at this speed.

    >>> kit.Link(1e9, 50e-6).seconds(4 * 3 * 224 * 224)  # a float32 image at 1 Gbit/s: 4.8 ms and the latency
    0.004866896

    Raises:
        KitError: a speed that is not above 0, or a latency below 0.
    """

    bits_per_second: float  # of one direction, > 0; from 1e8 (old Ethernet) to 1e13 (links between GPUs)
    latency: float = 0.0  # seconds, one way, >= 0: until the first bit arrives

    def __post_init__(self) -> None:
        if not 0 < self.bits_per_second < math.inf:
            raise KitError(f"bits_per_second is {self.bits_per_second!r}: give a number above 0, as 1e9 for 1 Gbit/s.")
        if not 0 <= self.latency < math.inf:
            raise KitError(f"latency is {self.latency!r}: give seconds, 0 or more.")

    def __str__(self) -> str:
        speed, unit = self.bits_per_second / 1e9, "Gbit/s"
        if speed < 1:
            speed, unit = 1e3 * speed, "Mbit/s"
        return f"{float(f'{speed:.3g}'):,g} {unit}, {float(f'{1e6 * self.latency:.3g}'):,g} µs one way"

    def seconds(self, size: float) -> float:
        """How long so many bytes take in one direction: seconds."""
        return self.latency + 8 * size / self.bits_per_second

    def break_even(self, sent: float, received: float = 0.0) -> float:
        """The least work, in seconds, that must be saved here so that sending it away pays.

        Args:
            sent: bytes of its inputs.
            received: bytes of its outputs.
        """
        return self.seconds(sent) + self.seconds(received)

    def most_bytes(self, work: float) -> float:
        """The most bytes, there and back together, at which sending away ``work`` seconds pays; 0: it never does."""
        return max(0.0, (work - 2 * self.latency) * self.bits_per_second / 8)


# Speeds are those of the standards and data sheets. Latencies are assumptions of the usual size, of a small message
# between two programs: measure yours (half the time of `ping`; a copy of 4 bytes to a GPU).
LINKS = {
    "1 Gbit/s": Link(1e9, 50e-6),  # IEEE 802.3ab
    "10 Gbit/s": Link(1e10, 25e-6),  # IEEE 802.3ae
    "100 Gbit/s": Link(1e11, 10e-6),  # IEEE 802.3ba
    "PCIe 4.0 x16": Link(16e9 * 16 * 128 / 130, 8e-6),  # PCI-SIG: 16 GT/s a lane, 128b/130b
    "NVLink 4": Link(450e9 * 8, 8e-6),  # NVIDIA H100 data sheet: 900 GB/s, both directions together
}


@one_line
class Branch(NamedTuple):
    """One branch of a region, or a whole request."""

    work: float  # seconds on one machine
    sent: int  # bytes of its inputs
    received: int  # bytes of its outputs


def arrivals(link: Link, sizes: Iterable[float]) -> list[float]:
    """When each of several messages has arrived, in seconds: one machine sends them one after the other."""
    found, before = [], 0.0
    for size in sizes:
        before += size
        found.append(link.seconds(before))
    return found


def by_branch(link: Link, branches: Sequence[Branch]) -> float:
    """Seconds of a region whose first branch stays here, and each other one has a machine of its own.

    The inputs leave one after the other. That outputs may come back at the same time, and wait for each other, is left
    out: the true time is no shorter.
    """
    here, *others = branches
    there = arrivals(link, (each.sent for each in others))
    ends = [at + each.work + link.seconds(each.received) for at, each in zip(there, others, strict=True)]
    return max([here.work, *ends])


def by_request(link: Link, request: Branch, machines: int) -> float:
    """Requests per second, at most, of ``machines`` that each compute whole requests.

    The first machine has the requests, computes some of them, and sends the others over one link. They are sent ahead,
    so latency does not count; in each direction the link carries one after the other.
    """
    carried = 8 * max(request.sent, request.received)
    others = (machines - 1) / request.work
    return 1 / request.work + min(others, link.bits_per_second / carried if carried else math.inf)


def fitted(copies: Sequence[tuple[float, float]]) -> Link:
    """The link that comes closest to measured copies: (bytes, seconds of one way) each, of two sizes or more.

    Least squares of relative errors: a small message counts as much as a large one, although its time is short.

    Raises:
        KitError: all have one size, a time is not above 0, or larger messages did not take longer.
    """
    if len({size for size, _ in copies}) < 2 or min(seconds for _, seconds in copies) <= 0:
        raise KitError("a link is fitted to copies of at least two sizes, each of which took time.")
    # Minimise the sum over (latency + slope * size - t)^2 / t^2.
    weights = [1 / seconds**2 for _, seconds in copies]
    total = sum(weights)
    mean_size = sum(w * size for w, (size, _) in zip(weights, copies, strict=True)) / total
    mean_time = sum(w * seconds for w, (_, seconds) in zip(weights, copies, strict=True)) / total
    spread = sum(w * (size - mean_size) ** 2 for w, (size, _) in zip(weights, copies, strict=True))
    both = sum(w * (size - mean_size) * (t - mean_time) for w, (size, t) in zip(weights, copies, strict=True))
    slope = both / spread
    if slope <= 0:
        raise KitError("larger messages did not take longer: these copies tell no speed.")
    return Link(8 / slope, max(0.0, mean_time - slope * mean_size))
