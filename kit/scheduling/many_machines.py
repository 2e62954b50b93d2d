"""When to leave one machine: four arrangements of the same requests, by arithmetic. Pure functions, no torch.

Costs are measured and come from outside; everything here is computed from them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kit.reprs import one_line
from kit.scheduling.links import Branch, Link, by_branch
from kit.scheduling.replicas import Replicas, in_own_queues

MOST = 1000  # machines
ALONE, BRANCHES, QUEUES, REPLICAS = "one machine", "a branch each", "a queue each", "replicas behind one queue"


@one_line
class Job(NamedTuple):
    """A network, as one machine runs it."""

    whole: Branch  # a request: seconds on one machine, bytes of its inputs and outputs
    regions: tuple[tuple[Branch, ...], ...]  # its branches, region by region: each waits for the one before

    @property
    def outside(self) -> float:
        """Seconds that are in no branch."""
        return self.whole.work - sum(each.work for region in self.regions for each in region)

    def over(self, link: Link) -> float:
        """Seconds of a request whose branches each have a machine of their own."""
        return max(0.0, self.outside) + sum(by_branch(link, region) for region in self.regions)

    def carried(self) -> int:
        """Bytes of a request that leave the first machine, if each branch has a machine of its own."""
        return sum(each.sent for region in self.regions for each in region[1:])


@one_line
class Plan(NamedTuple):
    """One arrangement at one rate."""

    name: str
    machines: int | None  # the fewest that do it; None: none of up to ``most`` do
    response: float  # mean seconds from arrival to result; infinite: it cannot keep up
    why_not: str = ""  # what is in the way


def plans(job: Job, link: Link, rate: float, within: float, most: int = MOST) -> list[Plan]:
    """How each arrangement serves ``rate`` requests per second, each within ``within`` seconds on average.

    - *one machine*: M/M/1.
    - *a branch each*: as many machines as the widest region has branches; together they serve one request at a time.
    - *a queue each*: every machine serves whole requests, which are dealt out at random.
    - *replicas behind one queue*: every machine serves whole requests and takes the next one when it is free: M/M/c.

    Requests arrive at one machine with one link, which sends them on: it carries at most its bits per second.
    """
    work, there = job.whole.work, link.break_even(job.whole.sent, job.whole.received)
    size = max(job.whole.sent, job.whole.received)
    together = job.over(link)
    return [
        _fewest(ALONE, lambda n: Replicas(1, work, rate).response, [1], within, ""),
        _fewest(
            BRANCHES,
            lambda n: Replicas(1, together, rate).response,
            [max((len(region) for region in job.regions), default=1)],
            within,
            _full(link, rate, job.carried()),
        ),
        _fewest(
            QUEUES, lambda n: in_own_queues(n, work, rate) + there, range(1, most + 1), within, _full(link, rate, size)
        ),
        _fewest(
            REPLICAS,
            lambda n: Replicas(n, work, rate).response + there,
            range(1, most + 1),
            within,
            _full(link, rate, size),
        ),
    ]


def _full(link: Link, rate: float, size: int) -> str:
    """Why a link cannot carry so many requests; empty if it can."""
    needed = 8 * size * rate
    if needed < link.bits_per_second:
        return ""
    of, most = (f"{float(f'{bits / 1e9:.3g}'):,g}" for bits in (needed, link.bits_per_second))
    return f"the link is full: {of} of {most} Gbit/s"


def _fewest(name: str, response: Callable[[int], float], counts: Sequence[int], within: float, full: str) -> Plan:
    """The least number of machines; each more makes the response no longer."""
    if full:
        return Plan(name, None, math.inf, full)
    best = response(counts[-1])
    if best > within:
        alone = len(counts) == 1
        why = "cannot keep up" if math.isinf(best) else "too slow"
        return Plan(name, None, best, why if alone else f"{why} with {counts[-1]:,} machines")
    low, high = 0, len(counts) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if response(counts[middle]) <= within else (middle + 1, high)
    return Plan(name, counts[low], response(counts[low]))
