"""Machines that are only simulated: what rounds give on them, beside what is true of them when nobody else is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from kit.equality import Equality
from kit.machine.load import Taken
from kit.measuring.comparison import SMALLEST_EFFECT, Comparison, Ratio, Row, Timing
from kit.measuring.gate import gated
from kit.measuring.statistics import speed_up, with_verdicts
from kit.trace import Trace

SLICE_MS = 3.0  # for which the scheduler of the operating system gives a core to somebody else
HAND_OVER_MS = 0.06
BARRIER_MS = 0.004  # per operator on several threads


@dataclass(frozen=True)
class Machine:
    """Cores, and who else is on them."""

    cores: int
    neighbours: int = 0  # busy threads of other programs
    present: float = 1.0  # share of the rounds in which they are there, in one piece
    speed: float = 1.0  # of all cores together over what as many whole ones do: hyper-threads
    quota: float | None = None  # of cores, in periods of 100 ms: a container

    def delay(self, threads: int, ms: float, neighbours: int, random: np.random.Generator) -> float:
        """How much longer than alone something takes that keeps so many threads busy for so long."""
        slow = 1 / self.speed if threads > self.cores / 2 else 1.0
        slow *= max(1.0, (threads + neighbours) / self.cores)
        if self.quota is not None:
            slow *= max(1.0, threads / self.quota)
            ms += 50.0 * (random.random() < ms * slow / 100.0)
        return ms * slow

    def operators(self, count: int, ms: float, threads: int, neighbours: int, random: np.random.Generator) -> float:
        """So many operators one after the other, each split over threads that wait for each other at its end."""
        alone = ms / threads + BARRIER_MS * (threads > 1)
        took = count * self.delay(threads, alone, neighbours, random)
        if threads > 1 and threads + neighbours > self.cores:
            # A thread that has lost its core lets all others spin until it has one again.
            lost = min(1.0, alone / SLICE_MS + 0.15)
            took += SLICE_MS * random.binomial(count, min(1.0, lost * neighbours / self.cores))
        return took * float(random.lognormal(0, 0.02))


@dataclass(frozen=True)
class Network:
    """Branches of equal operators."""

    branches: tuple[int, ...]  # operators of each
    ms: float  # of an operator, on one thread

    def calls(self, machine: Machine) -> dict[str, Callable[[int, np.random.Generator], float]]:
        """Approach -> the milliseconds of a call, among so many neighbours."""
        lanes = min(machine.cores, len(self.branches))

        def side_by_side(neighbours: int, random: np.random.Generator) -> float:
            ends = [0.0] * lanes
            for count in sorted(self.branches, reverse=True):
                ends[ends.index(min(ends))] += count * self.ms
            took = machine.delay(lanes, max(ends), neighbours, random) * float(random.lognormal(0, 0.02))
            late = SLICE_MS * (random.random() < 0.2 * neighbours / machine.cores)  # a lane wakes up late
            return took + HAND_OVER_MS + late

        count = sum(self.branches)
        return {
            "sequential": lambda n, random: machine.operators(count, self.ms, machine.cores, n, random),
            "sequential(threads=1)": lambda n, random: machine.operators(count, self.ms, 1, n, random),
            "threads": side_by_side,
        }


def measured(machine: Machine, network: Network, rounds: int, seed: int) -> Comparison:
    """A comparison of all approaches on this machine."""
    random = np.random.default_rng(seed)
    calls = network.calls(machine)
    there = round(machine.present * rounds)
    first = int(random.integers(0, rounds - there + 1))
    neighbours = [machine.neighbours * (first <= i < first + there) for i in range(rounds)]
    samples = {name: np.array([call(n, random) * 1e6 for n in neighbours]) for name, call in calls.items()}
    timings = {name: Timing(each, 1, Trace.build([])) for name, each in samples.items()}
    lead = timings["sequential"]
    rows = [Row(name, None, each, None, Equality(True, 0.0), paired_baseline=lead) for name, each in timings.items()]
    rows[0] = replace(rows[0], baseline=True, ratio=Ratio(1, 1, 1))
    one, both = (
        Timing(np.array([machine.delay(threads, 2.0, n, random) for n in neighbours]), 1, Trace.build([]))
        for threads in (1, machine.cores)
    )
    scaling = Ratio(*(machine.cores * each for each in speed_up(one, both)))
    # Each round's share by its length: whoever waits at a barrier spins, and is busy too.
    lengths = np.sum([*samples.values()], axis=0)
    shares = [n / max(machine.cores, n + 0.75 * machine.cores) for n in neighbours]
    taken = Taken(float(np.average(shares, weights=lengths)), 0.0)
    return gated(
        Comparison(tuple(with_verdicts(rows)), rounds, "x", cores=machine.cores, core_scaling=scaling, taken=taken)
    )


def truth(machine: Machine, network: Network) -> dict[str, str]:
    """Approach -> the verdict of very many rounds, with nobody else on the machine."""
    random = np.random.default_rng(0)
    calls = network.calls(replace(machine, neighbours=0))
    medians = {name: float(np.median([call(0, random) for _ in range(2001)])) for name, call in calls.items()}
    ratios = {name: medians["sequential"] / each for name, each in medians.items()}
    return {
        name: "faster" if ratio > 1 + SMALLEST_EFFECT else "slower" if ratio < 1 - SMALLEST_EFFECT else "equal"
        for name, ratio in ratios.items()
    }
