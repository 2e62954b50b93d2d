"""The gate: among neighbours nothing wrong is concluded, and on a quiet machine nothing is lost."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from kit.equality import Equality
from kit.machine.load import Taken
from kit.measuring import gate
from kit.measuring.breakdown import RoundBreakdown
from kit.measuring.comparison import Comparison, Ratio, Row, Timing
from kit.measuring.gate import doubt, gated, over
from kit.measuring.statistics import with_verdicts
from kit.trace import Trace
from tests.measuring.machines import Machine, Network, measured, truth

NETWORKS = {
    "toy": Network((3, 3), 0.01),
    "four small": Network((2, 2, 2, 2), 0.03),
    "a block": Network((1, 2, 3, 1), 0.9),
    "two streams": Network((8, 8), 2.0),
    "large": Network((5, 10, 15, 5), 4.0),
}
CALM = {"two cores": Machine(2), "eight cores": Machine(8), "hyper-threads": Machine(2, speed=0.65)}
BUSY = {
    "one neighbour": Machine(2, 1),
    "two neighbours": Machine(2, 2),
    "two on eight cores": Machine(8, 2),
    "four on eight cores": Machine(8, 4),
    "one for half the time": Machine(2, 1, 0.5),
    "two for a third of the time": Machine(2, 2, 0.3),
    "two for most of the time": Machine(2, 2, 0.6),
    "half a core": Machine(2, quota=0.5),
}
TABLES = 20  # of each network


def tables(machine: Machine) -> list[tuple[Comparison, dict[str, str]]]:
    """What was measured, and what is true."""
    return [
        (measured(machine, network, 20, seed), true)
        for network in NETWORKS.values()
        for true in [truth(machine, network)]
        for seed in range(TABLES)
    ]


def wrong(rows: Comparison, true: dict[str, str], verdict: Callable[[Row], str]) -> bool:
    return any(verdict(row) in ("faster", "slower") and verdict(row) != true[row.name] for row in rows.rows[1:])


@pytest.mark.parametrize("name", BUSY)
def test_among_neighbours_wrong_verdicts_are_rare(name: str) -> None:
    found = tables(BUSY[name])
    assert sum(wrong(rows, true, lambda row: row.verdict) for rows, true in found) <= 0.02 * len(found)


@pytest.mark.parametrize("name", ["one neighbour", "two neighbours"])
def test_without_the_gate_they_are_not(name: str) -> None:
    found = tables(BUSY[name])
    ungated = [wrong(rows, true, lambda row: row.ratio.verdict if row.ratio else "") for rows, true in found]
    assert sum(ungated) > 0.2 * len(found)


@pytest.mark.parametrize("name", CALM)
def test_on_a_quiet_machine_no_verdict_is_lost(name: str) -> None:
    for rows, true in tables(CALM[name]):
        assert [row.doubt for row in rows.rows] == [None] * len(rows.rows)
        assert not wrong(rows, true, lambda row: row.verdict)


def timing(*ms: float, turns: tuple[RoundBreakdown | None, ...] = ()) -> Timing:
    return Timing(np.array(ms) * 1e6, 1, Trace.build([]), turns)


def turn(work_ms: float, overlap_ms: float, lanes: int = 2) -> RoundBreakdown:
    """Two tasks of the same length, this long in all, that ran at the same time for so long."""
    half, ns = work_ms / 2, 1e6
    busiest = half if lanes > 1 else work_ms
    tasks = {(0, name): half * ns for name in "ab"}
    return RoundBreakdown((work_ms - overlap_ms) * ns, tasks, busiest * ns, lanes, None, {}, None, overlap_ms * ns)


def table(own: Timing, base: Timing, taken: Taken | None = None, **others: object) -> Comparison:
    same = Equality(True, 0.0)
    ratio = Ratio(*[base.median_ms / own.median_ms] * 3)
    rows = (
        Row("sequential", None, base, Ratio(1, 1, 1), same, True),
        Row("threads", None, own, ratio, same, paired_baseline=base, lane_threads=1),
    )
    return Comparison(rows, len(base.samples_ns), "x", cores=2, taken=taken, **others)  # type: ignore[arg-type]


ROUNDS = [8.0, 8.1, 8.2, 8.0, 8.1, 8.2, 8.0, 8.1]


def test_each_doubt_says_what_was_seen() -> None:
    half = timing(*(ms / 2 for ms in ROUNDS))
    calm, busy = Taken(0.1, 0.0), Taken(0.2, 0.1)
    base = timing(*ROUNDS)
    assert gated(table(half, base, calm))["threads"].verdict == "faster"
    row = gated(table(half, base, busy))["threads"]
    assert row.verdict == "not decided"
    assert row.summary == (
        "not decided: machine busy: other programs took 20% of the machine's CPU time during the rounds, and the host "
        "of this virtual machine took 10%"
    )
    whole = table(half, base, busy._replace(counted=8), core_scaling=Ratio(1.95, 1.9, 2))
    assert doubt(whole, whole["threads"]) is None, "the counters of a host, whose other cores are busy"
    for own in (2, 0):  # those of our own two cores, or nobody knows of which
        seeming = replace(whole, taken=busy._replace(counted=own))
        assert "other programs took 20%" in str(doubt(seeming, seeming["threads"])), "neighbours that slow all alike"
    some = replace(whole, core_scaling=Ratio(1.5, 1.4, 1.6))
    assert "other programs took 20%" in str(doubt(some, some["threads"])), "not all of our cores were there"
    scattered = table(timing(1, 1, 4, 4, 1, 4, 1, 4), base)
    assert doubt(scattered, scattered["threads"]) == (
        "machine busy: timings of threads vary a lot: the upper quartile is 4.0 times the lower"
    )


def test_a_scatter_whose_cause_was_started_on_purpose_is_no_doubt() -> None:
    scattered = table(timing(1, 1, 4, 4, 1, 4, 1, 4), timing(*ROUNDS))
    assert gated(scattered)["threads"].verdict == "not decided"
    assert gated(scattered, scatter=math.inf)["threads"].doubt is None
    busy = replace(scattered, taken=Taken(0.5, 0.0))
    assert "other programs took 50%" in str(gated(busy, scatter=math.inf)["threads"].doubt)


def test_a_gain_that_the_cores_cannot_give_is_none() -> None:
    base = timing(*ROUNDS, turns=(turn(7.9, 0, 1),) * 8)
    for factor, says in ((1.9, None), (17.0, "exceeds what 2 lanes on 2 cores can give, 2.00x")):
        own = timing(*(ms / factor for ms in ROUNDS), turns=(turn(7.9 / factor * 1.8, 7.9 / factor * 0.8),) * 8)
        found = doubt(rows := table(own, base), rows["threads"])
        assert (found is None) if says is None else (says in str(found))


def test_a_gain_without_overlap_is_none() -> None:
    base = timing(*ROUNDS, turns=(turn(7.9, 0, 1),) * 8)
    for overlap, factor, doubted in ((0.0, 1.6, True), (2.0, 1.6, False), (0.0, 1.2, False)):
        own = timing(*(ms / factor for ms in ROUNDS), turns=(turn(4.0, overlap),) * 8)
        found = doubt(rows := table(own, base), rows["threads"])
        assert ("its branches did not run at the same time" in str(found)) is doubted
    other = replace(rows, rows=(rows.rows[0], replace(rows.rows[1], rewritten=True)))
    assert doubt(other, other["threads"]) is None


def test_too_few_rounds_say_how_many_it_takes_and_show_no_interval() -> None:
    rows = table(timing(*(ms / 2 for ms in ROUNDS)), timing(*ROUNDS))
    several = [*rows.rows, *(replace(rows.rows[1], name=name) for name in "bcd")]
    few = gated(replace(rows, rows=tuple(with_verdicts(several))))["threads"]
    assert (few.verdict, few.ratio_text) == ("not decided", "2.00x")
    assert few.summary == "not decided: it needs 9 rounds or more"


def test_over_another_baseline_intervals_hold_for_the_table() -> None:
    found = measured(CALM["two cores"], NETWORKS["a block"], 20, 1)
    again = over(found, "threads")
    assert again.baseline.name == "threads"
    assert [row.name for row in again.rows[1:]] == ["sequential", "sequential(threads=1)"]
    ratio, back = found["threads"].ratio, again["sequential"].ratio
    assert ratio is not None
    assert back is not None
    assert back.estimate == pytest.approx(1 / ratio.estimate, rel=0.01)
    assert back.low == pytest.approx(1 / ratio.high, rel=0.02)
    assert {found["threads"].verdict, again["sequential"].verdict} == {"faster", "slower"}
    twice = gate.over(again, "sequential")["threads"]
    assert twice.ratio == pytest.approx(ratio, rel=0.01)
    assert twice.verdict == found["threads"].verdict
