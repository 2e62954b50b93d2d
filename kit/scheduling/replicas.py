"""How long requests wait for one of several machines, and how many machines are needed. Pure functions, no torch.

Requests come at random (as a Poisson process), each takes one machine for a time that varies (exponentially) around
``work``, and waits in one common queue while all machines are busy: M/M/c in Kendall's notation. The chance that a
request waits is Erlang's C formula, and its mean wait follows from it (Erlang, 1917; Kleinrock, *Queueing Systems*,
volume 1, 1975, section 3.5)::

    a = rate * work                           offered load, in machines
    B(0) = 1, B(n) = a B(n-1) / (n + a B(n-1))        Erlang's B, by recursion
    C = B(c) / (1 - (a/c) (1 - B(c)))                 a request waits
    W = C * work / (c - a)                            its mean wait
    P(wait > t) = C * exp(-(c - a) t / work)

A network takes nearly the same time for each request. Then waits are shorter, about half as long with equal times
(Allen and Cunneen's approximation: W times the mean of the squared coefficients of variation of arrivals and of work,
here 1 and 0). So these formulas are on the safe side. They do not hold for requests that come in bursts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from kit.errors import KitError
from kit.reprs import one_line


def erlang_c(machines: int, load: float) -> float:
    """The chance, 0 to 1, that a request waits; 1 where the load is as much as the machines can do, or more.

    Args:
        machines: >= 1.
        load: requests per second times seconds of work, >= 0.
    """
    if load >= machines:
        return 1.0
    blocked = 1.0
    for n in range(1, machines + 1):
        blocked = load * blocked / (n + load * blocked)
    return blocked / (1 - load / machines * (1 - blocked))


@one_line
@dataclass(frozen=True)
class Replicas:
    """So many equal machines behind one queue.

    Raises:
        KitError: fewer than one machine, or a time or rate that is not above 0.
    """

    machines: int
    work: float  # mean seconds of a request on one machine
    rate: float  # mean requests per second

    def __post_init__(self) -> None:
        if self.machines < 1 or not 0 < self.work < math.inf or not 0 < self.rate < math.inf:
            raise KitError(f"{self}: give at least one machine, and a work and a rate above 0.")

    @property
    def busy(self) -> float:
        """The share of the time in which a machine works: from 1 on, the queue grows without end."""
        return self.rate * self.work / self.machines

    @property
    def wait(self) -> float:
        """Mean seconds in the queue; infinite where the machines cannot keep up."""
        load = self.rate * self.work
        if load >= self.machines:
            return math.inf
        return erlang_c(self.machines, load) * self.work / (self.machines - load)

    @property
    def response(self) -> float:
        """Mean seconds from the arrival of a request to its result."""
        return self.wait + self.work

    def waits_longer(self, seconds: float) -> float:
        """The chance, 0 to 1, that a request waits longer than this."""
        load = self.rate * self.work
        if load >= self.machines:
            return 1.0
        return erlang_c(self.machines, load) * math.exp(-(self.machines - load) * seconds / self.work)


def in_own_queues(machines: int, work: float, rate: float) -> float:
    """Mean seconds to a result if each machine has its own queue, and requests are dealt out at random: M/M/1 each."""
    return Replicas(1, work, rate / machines).response
