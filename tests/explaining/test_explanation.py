"""Why an approach is as fast as it is: factors that multiply to the ratio, and planted causes that are found."""

import json
import math
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import kit
from kit import spans
from kit.equality import Equality
from kit.errors import MeasureError, UnknownNameError
from kit.explaining.explanation import Explanation, explain, explain_all
from kit.explaining.snippets import snippet
from kit.machine.hardware import detect
from kit.measuring.breakdown import RoundBreakdown, reduce_turn
from kit.measuring.comparison import Comparison, Ratio, Row, Timing
from kit.measuring.factors import FACTORS, BranchTimes, RowBreakdown
from kit.measuring.gate import gated
from kit.measuring.rounds import measure
from kit.measuring.statistics import with_verdicts
from kit.models import inception_block
from kit.spans import Span
from kit.trace import Event, Lane, Trace
from tests.measuring.test_breakdown import turns

SAME = Equality(True, 0.0)
MS = 1_000_000


def timing(walls: Sequence[float], reduced: Sequence[RoundBreakdown | None]) -> Timing:
    lane = Lane(1, 1, "caller")
    names = sorted({name for turn in reduced if turn for _, name in turn.tasks})
    events = [Event("call", "call", 100, 90, lane), *(Event(name, "task", 110, 50, lane) for name in names)]
    return Timing(np.array(walls, float), 1, Trace.build(events), tuple(reduced))


def turn(tasks: dict[str, float], busiest: float, lanes: int, *, regions: float = 0, cpu: float = 0) -> RoundBreakdown:
    """In milliseconds; all overhead is dispatch."""
    regions = regions or busiest
    own = {(0, name): ms * MS for name, ms in tasks.items()}
    overhead = {"startup": 0.0, "transfer": 0.0, "merge": 0.0, "dispatch": (regions - busiest) * MS, "join": 0.0}
    return RoundBreakdown(regions * MS, own, busiest * MS, lanes, (cpu or sum(tasks.values())) * MS, overhead, 0.0)


def compared(base: Timing, own: Timing, solo: dict[int, Timing] | None = None, threads: int | None = 1) -> Comparison:
    first = Row("sequential", None, base, Ratio(1, 1, 1), SAME, True, paired_baseline=base, lane_threads=2)
    rows = with_verdicts([first, Row("threads", None, own, None, SAME, paired_baseline=base, lane_threads=threads)])
    return Comparison(tuple(rows), len(base.samples_ns), "", (), solo or {}, cores=2)


# The factors ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(turns(), turns()), min_size=6, max_size=8))
def test_factors_multiply_to_the_measured_ratio(rounds: list[tuple[list[Span], list[Span]]]) -> None:
    def made(side: int) -> Timing:
        walls, reduced = [], []
        for pair in rounds:
            calls = [s for s in pair[side] if s.category == "call"]
            walls.append(max(1, sum(s.end_ns - s.start_ns for s in calls)) / len(calls))
            reduced.append(reduce_turn(pair[side]))
        return timing(walls, reduced)

    base, own, alone = made(0), made(1), made(1)
    found = explain(compared(base, own, {1: alone}))
    assert found.factors is not None
    assert found.computation is not None
    assert tuple(found.factors) == FACTORS
    measured = float(np.exp(np.log(base.samples_ns / own.samples_ns).mean()))
    assert math.prod(found.factors.values()) == pytest.approx(measured, rel=1e-9)
    assert math.prod(value for _, value in found.steps()) == pytest.approx(measured, rel=1e-9)
    assert any(sum(found.parts_ms.values()) == pytest.approx(wall / 1e6) for wall in own.samples_ns)
    json.dumps(found.to_dict(), allow_nan=False)


def example(**changes: Any) -> Comparison:
    """Branches of 2 and 6 ms: on two cores each 1.5 and 4 ms one by one; 2 and 6 alone on a thread; 2.5 and 7.5 beside
    each other."""
    base = timing([6 * MS] * 6, [turn({"a": 1.5, "b": 4}, 5.5, 1)] * 6)
    alone = timing([8.5 * MS] * 6, [turn({"a": 2, "b": 6}, 8, 1)] * 6)
    own = timing([9 * MS] * 6, [turn({"a": 2.5, "b": 7.5}, 7.5, 2, regions=8.5, cpu=9)] * 6)
    return compared(base, own, {1: alone, 2: base}, **changes)


def test_each_factor_of_an_example_by_hand() -> None:
    found = explain(example())
    assert found.factors == pytest.approx(
        {
            "1 / baseline efficiency": 6 / 5.5,
            "lanes": 2,
            "computation efficiency": 5.5 / 10,
            "load balance": 5 / 7.5,
            "scheduling efficiency": 7.5 / 9,
        }
    )
    assert found.computation == pytest.approx({"thread efficiency": 5.5 / 8, "contention efficiency": 8 / 10})
    assert found.waiting_ms == pytest.approx({"CPU time (memory, caches)": 1, "waiting for the GIL or a lock": 1})
    assert found.parts_ms == pytest.approx({"regions": 8.5, "serial rest": 0.5})
    assert {kind: ms for kind, ms in found.overhead_ms.items() if ms} == {"dispatch": 1, "serial rest": 0.5}
    assert found.verdict == "slower"


@pytest.mark.parametrize(("gain", "said"), [(Ratio(1.2, 1.1, 1.3), True), (Ratio(1.9, 1.8, 2.0), False), (None, False)])
def test_cores_that_are_not_whole_are_named_beside_contention(gain: Ratio | None, said: bool) -> None:
    notes = explain(replace(example(), core_scaling=gain)).notes
    assert any("a contention efficiency of x 0.60" in note for note in notes) == said


def test_bounds_of_an_example_by_hand() -> None:
    bounds = explain(example()).bounds
    assert bounds is not None
    assert (bounds.work_ms, bounds.span_ms, bounds.serial_ms) == (8, 6, 0.5)
    assert (bounds.least_ms, bounds.speed_up, bounds.share) == pytest.approx((6.5, 6 / 6.5, 6.5 / 9))
    assert bounds.amdahl == pytest.approx(1 / (0.5 / 8.5 + 8 / 8.5 / 2))  # over one lane, whose branches take 8 ms


def test_what_if_moves_branches_and_says_how_far_off_it_was() -> None:
    found = explain(example())
    here = found.what_if(2)
    # Of what was measured it is right: the longest, as long as it takes beside the other, and the overhead.
    assert here.ms == pytest.approx(6 * 1.25 + 1.5) == pytest.approx(9)
    assert here.errors["threads"] == pytest.approx(0)
    assert found.what_if(1).ms == found.what_if(2, merged=[("a", "b")]).ms == pytest.approx(8 + 1.5)
    assert found.what_if(7).speed_up == pytest.approx(6 / 9)
    with pytest.raises(MeasureError, match="0 lanes"):
        found.what_if(0)


def test_predictions_take_the_longest_branch_first_and_slow_down_whatever_runs_beside_another() -> None:
    """Four branches on two lanes, which the threads began with the longest: 8 ms beside 4 + 3 + 1 ms, half as slow."""
    alone = {"a": 1.0, "b": 3.0, "c": 4.0, "d": 8.0}
    base = timing([16 * MS] * 6, [turn(alone, 16, 1)] * 6)
    beside = {name: 1.5 * ms for name, ms in alone.items()}
    found = explain(compared(base, timing([13 * MS] * 6, [turn(beside, 12, 2)] * 6), {1: base}))
    assert found.what_if(2).ms == pytest.approx(13)
    assert found.what_if(4).ms == pytest.approx(13)  # the longest one still
    assert found.what_if(1).ms == pytest.approx(17)
    assert found.what_if(2, merged=["abc"]).ms == pytest.approx(13)
    without = explain(compared(base, timing([13 * MS] * 6, [turn(beside, 12, 2)] * 6)))  # nothing is known alone
    assert without.what_if(2).ms == pytest.approx(13)


def test_a_bound_is_of_medians_and_has_an_interval() -> None:
    """One round of 9 is fast, one slow: neither is the bound."""
    times = [3.0, *[5.9, 6.0, 6.1] * 2, 6.0, 60.0]
    alone = timing([2 * ms * MS for ms in times], [turn({"a": ms, "b": ms}, 2 * ms, 1) for ms in times])
    base = timing([12.5 * MS] * 9, [turn({"a": 6.0, "b": 6.0}, 12, 1)] * 9)
    own = timing([7 * MS] * 9, [turn({"a": 6.4, "b": 6.4}, 6.4, 2)] * 9)
    found = explain(compared(base, own, {1: alone}))
    assert found.bounds is not None
    assert (found.bounds.work_ms, found.bounds.span_ms) == (12, 6)
    assert found.bounds.least_ms == pytest.approx(6.5)
    assert (found.bounds.least_low_ms, found.bounds.least_high_ms) == pytest.approx((6.4, 6.6))
    assert "at best 6.5 ms [6.4 ms, 6.6 ms]" in str(found)
    assert "93% reached" in str(found)


def test_what_is_beyond_the_median_bound_and_was_once_reached_is_no_success_of_more_than_everything() -> None:
    alone = timing([12 * MS] * 9, [turn({"a": ms, "b": ms}, 2 * ms, 1) for ms in [5.0] * 2 + [6.0] * 7])
    base = timing([12 * MS] * 9, [turn({"a": 6.0, "b": 6.0}, 12, 1)] * 9)
    found = explain(compared(base, timing([5.99 * MS] * 9, [turn({"a": 5.9, "b": 5.9}, 5.9, 2)] * 9), {1: alone}))
    assert found.bounds is not None
    assert found.bounds.share > 1
    assert "%" not in found.reached
    assert found.reached.startswith("as fast as the bound")


def test_every_factor_has_an_interval_over_the_rounds() -> None:
    found = explain(example())
    assert found.intervals.keys() == {*FACTORS[1:], "thread efficiency", "contention efficiency"}
    assert found.intervals["load balance"] == pytest.approx((5 / 7.5, 5 / 7.5))
    walls = [9.0, 9.0, 9.0, 10.0, 10.0, 10.0]
    own = timing([ms * MS for ms in walls], [turn({"a": 2.5, "b": 7.5}, 7.5, 2)] * 6)
    found = explain(compared(own, own))
    low, high = found.intervals["scheduling efficiency"]
    logs = np.log(7.5 / np.array(walls))
    assert found.factors is not None
    assert found.factors["scheduling efficiency"] == pytest.approx(math.sqrt(low * high))  # never outside of it
    half = 2.5706 * logs.std(ddof=1) / math.sqrt(6)  # Student's t of 5 degrees of freedom, from a table
    assert math.log(high / low) / 2 == pytest.approx(half, rel=0.02)


def test_an_explanation_is_plain_data_from_which_it_can_be_made_again() -> None:
    found = explain(example())
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain.keys() == {each.name for each in fields(found)}
    assert plain["intervals"]["load balance"] == pytest.approx([5 / 7.5] * 2)
    times = BranchTimes(**plain["branch_times"])
    assert times == found.branch_times
    assert times.call_ms(2) == found.what_if(2).ms
    assert pickle.loads(pickle.dumps(found)).what_if(2) == found.what_if(2)


def test_where_the_time_of_a_row_went_is_worked_out_once_for_all_explanations(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    class Counted(RowBreakdown):
        def __init__(self, comparison: Comparison, row: Row) -> None:
            made.append(row.name)
            super().__init__(comparison, row)

    monkeypatch.setattr("kit.explaining.explanation.RowBreakdown", Counted)
    rows = example().rows
    found = explain_all(replace(example(), rows=(*rows, *(replace(rows[1], name=f"threads {i}") for i in range(4)))))
    assert [each.approach for each in found] == made == ["sequential", "threads", *(f"threads {i}" for i in range(4))]
    assert str(found[1]) == str(explain(example(), "threads"))


def test_what_was_not_measured_is_not_separated() -> None:
    without = explain(replace(example(), branches_alone={}))
    assert (without.computation, without.waiting_ms, without.bounds) == (None, {}, None)
    assert "not separated" in str(without)
    assert explain(example(threads=None)).bounds is None
    own = example().rows[1].timing
    assert own is not None
    blind = replace(own, turns=tuple(t and t._replace(cpu=None) for t in own.turns))
    found = explain(replace(example(), rows=(example().rows[0], replace(example().rows[1], timing=blind))))
    assert found.waiting_ms == {}


def test_on_a_gpu_tasks_are_launches() -> None:
    found = explain(replace(example(), device="cuda"))
    assert found.bounds is None
    assert found.factors is not None
    assert "a task only launches kernels" in found.notes[0]
    said = " ".join(advice.text for advice in found.advice)
    assert "kit.trace.launch_bound" in said
    assert "one per branch" not in said, "cores of the host do not make a GPU faster"
    assert "says nothing about a GPU" not in said


def test_an_approach_without_tasks_and_one_that_is_missing() -> None:
    rows = example().rows
    whole = replace(rows[1], name="compiled", timing=timing([MS] * 6, [None] * 6), rewritten=True)
    absent = Row("streams", "there is no GPU")
    comparison = replace(example(), rows=(*rows, whole, absent))
    assert explain(comparison, "compiled").factors is None
    assert "it runs a rewritten model, so its speed-up cannot be divided" in str(explain(comparison, "compiled"))
    pool = replace(comparison, rows=(*rows, replace(whole, name="pool", rewritten=False)))
    assert "no task of this approach was recorded" in str(explain(pool, "pool"))
    assert "there is no GPU" in str(explain(comparison, "streams"))
    with pytest.raises(MeasureError, match="cannot predict compiled"):
        explain(comparison, "compiled").what_if(2)
    with pytest.raises(UnknownNameError, match="streams"):
        explain(comparison, "stream")
    for name in ("compiled", "streams"):
        json.dumps(explain(comparison, name).to_dict(), allow_nan=False)


def test_advice_has_numbers_and_evidence() -> None:
    found = explain(example())
    latency, throughput, change = found.advice
    assert latency.text.startswith("For one request at a time keep sequential, 6 ms a call")
    assert throughput.text.startswith("For many requests run several at the same time, each on one thread")
    assert (
        "8.5 ms on one core, so 2 cores (if none slows another down) can serve 235 to 235 a second; sequential, "
        in throughput.text
    )
    said = "load balance, x 0.67 [0.67, 0.67]: the other lanes wait for the longest branch, b."
    assert f"The factor that costs threads most is {said}" in change.text
    assert (change.approach, change.event, change.start_ns, change.duration_ns) == ("threads", "b", 10, 50)
    assert repr(found) == "Explanation(threads over sequential)"


def test_which_serves_many_requests_is_open_where_the_rates_overlap() -> None:
    base = timing([5 * MS] * 6, [turn({"a": 1.5, "b": 3}, 4.5, 1)] * 6)
    walls = [8.0, 9.0, 10.0, 10.5, 11.0, 12.0]  # of one core, so 4 to 6 ms of two
    alone = timing([ms * MS for ms in walls], [turn({"a": ms / 4, "b": ms / 2}, ms * 0.75, 1) for ms in walls])
    throughput = explain(compared(base, example().rows[1].timing or base, {1: alone})).advice[1]
    assert throughput.text.startswith("For many requests these rounds cannot decide: ")
    assert "so 2 cores (if none slows another down) can serve 167 to 250 a second; " in throughput.text
    assert "with one request at a time, serves 200 to 200" in throughput.text


def test_cores_that_slow_each_other_down_serve_fewer_requests() -> None:
    alone = replace(example(), core_scaling=Ratio(1.5, 1.4, 2.3))  # more than one a core is a scatter of the clock
    throughput = explain(alone).advice[1].text
    assert "independent work ran 1.50x [1.40, 2.30] as fast on them as on one" in throughput
    assert "can serve 165 to 235 a second" in throughput  # 1.4 to 2 times 1 / 8.5 ms
    slower = replace(example(), core_scaling=Ratio(1.2, 1.1, 1.3))
    throughput = explain(slower).advice[1].text
    assert throughput.startswith("For many requests use sequential: "), "167 a second, against 129 to 153"


def test_a_lane_that_starts_late_is_told_from_a_long_branch() -> None:
    """Four equal branches, of which one lane took three: no branch is too long, they were not shared out well."""
    branches = {"a": 2.0, "b": 2.0, "c": 2.0, "d": 2.0}
    base = timing([8 * MS] * 6, [turn(branches, 8, 1)] * 6)
    own = timing([6 * MS] * 6, [turn(branches, 6, 2)] * 6)
    text = explain(compared(base, own, {1: base})).advice[-1].text
    assert "the other lanes wait for the busiest one: 6 ms of branches, 4 ms if shared out well." in text


def test_more_lanes_than_cores_are_told_and_no_splitting_is_advised() -> None:
    """A pipeline's stages on fewer cores: work taken from the longest leaves the cores as full as they were."""
    stages = {"decode": 1.0, "flow": 4.0, "network": 6.0, "label": 1.0}
    base = timing([12 * MS] * 6, [turn(stages, 12, 1)] * 6)
    own = timing([6 * MS] * 6, [turn(stages, 6, 4)] * 6)
    found = explain(compared(base, own, {1: base}))
    assert "wait for the longest branch, network; 4 lanes share 2 cores, 2x at most." in found.advice[-1].text
    assert "split" not in found.advice[-1].text
    assert found.bounds is not None
    assert found.bounds.share == pytest.approx(1)  # the larger of 6 ms, the longest, and 12 ms / 2 cores


def test_where_rounds_scatter_the_factors_say_of_which_mean_they_are() -> None:
    base = timing([12 * MS] * 7, [turn({"a": 12.0}, 12, 1)] * 7)
    walls = [12.0] * 4 + [1.0] * 3
    own = timing([ms * MS for ms in walls], [turn({"a": ms}, ms, 1) for ms in walls])
    said = "the factors multiply to the geometric mean, 2.90x"
    assert said in str(explain(compared(base, own)))
    assert "geometric" not in str(explain(compared(base, base)))


# Gains, and results beyond their limits -------------------------------------------------------------------------------


def side_by_side(base: float, alone: float, own: float, *, wall: float, serial: float = 0.5) -> Comparison:
    """Two equal branches, in milliseconds each: on all cores, alone on a thread, on two lanes in a call of ``wall``."""
    both = [timing([(2 * ms + serial) * MS] * 6, [turn({"a": ms, "b": ms}, 2 * ms, 1)] * 6) for ms in (base, alone)]
    lanes = timing([wall * MS] * 6, [turn({"a": own, "b": own}, own, 2)] * 6)
    return compared(both[0], lanes, {1: both[1]})


def test_a_factor_above_one_is_a_gain_and_no_loss() -> None:
    found = explain(side_by_side(7, 6, 6.5, wall=7.5))
    assert found.excess is None
    assert found.computation == pytest.approx({"thread efficiency": 7 / 6, "contention efficiency": 6 / 6.5})
    assert "thread efficiency, x 1.17, is a gain: branches alone are faster with a lane's" in str(found)
    assert "The factor that costs threads most is scheduling efficiency, x 0.87 [0.87, 0.87]" in found.advice[-1].text
    assert "lost" not in str(found) + json.dumps(found.to_dict())


def test_where_intervals_overlap_it_is_not_decided_which_factor_costs_most() -> None:
    base = timing([12 * MS] * 8, [turn({"a": 6.0, "b": 6.0}, 12, 1)] * 8)
    alone = timing([12 * MS] * 8, [turn({"a": 6.0, "b": 6.0}, 12, 1)] * 8)
    slow = [(5.0, 10.0), (9.0, 6.0), (8.0, 8.5), (4.0, 10.0), (9.0, 5.0), (7.0, 7.5), (6.0, 9.0), (5.0, 8.0)]
    own = timing([(max(each) + 1) * MS for each in slow], [turn({"a": a, "b": b}, max(a, b), 2) for a, b in slow])
    text = explain(compared(base, own, {1: alone})).advice[-1].text
    assert "The factor that costs threads most may be contention efficiency, x 0.82 [0.78, 0.87]: " in text
    also = "load balance, x 0.83 [0.75, 0.91]."
    assert f"These rounds do not decide it: it may also be {also}" in text


@pytest.mark.parametrize(("base", "smallest"), [(5.999, "thread efficiency"), (6.001, "contention efficiency")])
def test_where_nothing_is_below_one_nothing_is_said_to_cost(base: float, smallest: str) -> None:
    text = explain(side_by_side(base, 6, 6, wall=6, serial=0)).advice[-1].text
    assert f"No factor costs threads speed: the smallest is {smallest}, x 1.00 [1.00, 1.00]." in text
    assert "What costs" not in text


def test_branches_that_are_faster_beside_each_other_have_no_contention() -> None:
    found = explain(side_by_side(9, 10, 9, wall=10.6))
    assert "contention efficiency, x 1.11, is a gain" in str(found)
    assert "side by side, against alone: CPU time (memory, caches) -2 ms" in str(found)
    assert not any("contention," in each.text for each in found.advice)


@pytest.mark.parametrize(
    ("base", "alone", "own", "wall", "said"),
    [
        (30.25, 5, 9, 10, "6.10x exceeds what 2 lanes on 2 cores can give, 2.00x, by a factor of 3.05"),
        (
            7.5,
            9,
            6,
            6.3,
            "2.46x exceeds the bound of threads from its branches' times alone, 1.63x, by a factor of 1.5",
        ),
    ],
)
def test_a_result_beyond_its_limits_is_not_explained_as_if_it_were_within(
    base: float, alone: float, own: float, wall: float, said: str
) -> None:
    found = explain(side_by_side(base, alone, own, wall=wall))
    assert found.excess is not None
    assert said in str(found)
    assert "at least one of these measurements was disturbed, so nothing is concluded" in str(found)
    assert found.advice == ()
    assert found.snippet is None
    assert "is a gain" not in str(found)
    assert "% reached" not in str(found)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["excess"]["speed_up"] / plain["excess"]["limit"] == pytest.approx(found.excess.factor)


def test_rounds_of_one_lane_that_were_disturbed_show_in_amdahls_limit() -> None:
    """The fastest round allows the result, but the usual ones would be more than two lanes can give."""
    comparison = side_by_side(6, 6, 6, wall=6.5)
    slow = timing(
        [12.5 * MS] + [20.5 * MS] * 5, [turn({"a": 6, "b": 6}, 12, 1)] + [turn({"a": 10, "b": 10}, 20, 1)] * 5
    )
    found = explain(replace(comparison, branches_alone={1: slow}))
    assert "the bound of threads from its branches' times alone" not in str(found)
    assert "3.15x exceeds Amdahl's limit over one lane for threads, 1.95x" in str(found)


def test_one_lane_that_is_a_little_faster_than_one_lane_is_no_disturbed_measurement() -> None:
    """As a worker on a slightly faster core than the caller's: 1.05x is within what any two rounds differ by."""
    base = timing([21 * MS] * 6, [turn({"a": 10.0, "b": 10.0}, 20, 1)] * 6)
    own = timing([20 * MS] * 6, [turn({"a": 9.5, "b": 9.5}, 19, 1)] * 6)
    alone = timing(
        [19 * MS] + [21 * MS] * 5, [turn({"a": 9.0, "b": 9.0}, 18, 1)] + [turn({"a": 10.0, "b": 10.0}, 20, 1)] * 5
    )
    assert explain(compared(base, own, {1: alone})).excess is None


def test_no_advice_is_drawn_from_another_row_that_is_beyond_its_limits() -> None:
    good = example().rows[1]
    disturbed = side_by_side(30.25, 5, 9, wall=10)
    comparison = gated(replace(disturbed, rows=(*disturbed.rows, replace(good, name="processes"))))
    found = explain(comparison, "processes")
    assert found.excess is None
    assert found.advice == ()
    assert any(
        note.startswith("no advice: threads is not decided: machine busy: 6.10x exceeds") for note in found.notes
    )


def test_branches_that_wait_need_no_core_each() -> None:
    """Four naps at once on two cores are four times as fast, and that is no more than possible."""
    naps = dict.fromkeys("abcd", 10.0)
    base = timing([40 * MS] * 6, [turn(naps, 40, 1, cpu=0.1)] * 6)
    own = timing([10 * MS] * 6, [turn(naps, 10, 4, cpu=0.1)] * 6)
    found = explain(compared(base, own, {1: base}))
    assert found.excess is None
    assert found.bounds is not None
    assert found.bounds.share == pytest.approx(1)
    busy = timing([40 * MS] * 6, [turn(naps, 40, 1)] * 6)
    assert explain(compared(busy, own, {1: busy})).excess is not None


def test_tasks_without_a_length_explain_nothing() -> None:
    base = timing([MS] * 6, [turn({"a": 1.0}, 1, 1)] * 6)
    own = timing([MS] * 6, [turn({"a": 0.0}, 0, 1)] * 6)
    assert explain(compared(base, own), "threads").factors is None


@pytest.mark.parametrize("approach", ["sequential", "threads"])
def test_the_snippet_runs_without_the_kit(approach: str) -> None:
    branches, x = [nn.Linear(4, 3), nn.Linear(4, 2)], torch.rand(1, 4)
    names: dict[str, Any] = {}
    before = torch.get_num_threads()
    exec(snippet(approach, 2, before) or "", names)
    with torch.inference_mode():
        expected = torch.cat([branch(x) for branch in branches], 1)
    assert torch.equal(names["run"](branches, lambda outputs: torch.cat(outputs, 1), (x, x)), expected)
    assert "kit" not in (snippet(approach, 2, 1) or "")
    if "pool" in names:
        names["pool"].shutdown()


# Planted causes -------------------------------------------------------------------------------------------------------


class Clock:
    """Stands still unless a runner moves it."""

    now = 0

    def __call__(self) -> int:
        return self.now


@dataclass
class Planted:
    """A runner that writes the spans of a call as an executor would, on lanes of its own, and moves the clock."""

    clock: Clock
    tasks: tuple[tuple[float, int], ...]  # milliseconds and lane of each
    before: tuple[tuple[str, float], ...] = ()  # kind and milliseconds of what comes before any task
    after: float = 0  # milliseconds after the last task
    cpu: float = 1  # share of a task's time that its thread had a core
    intra_op_threads: int = 1
    cold: bool = False
    inputs: tuple[Any, ...] = ()

    def __call__(self) -> None:
        log, process = spans.current(), os.getpid()
        with spans.span("region", "region"):
            for kind, ms in self.before:
                if log is not None:
                    log.write(kind, kind, self.clock.now, self.clock.now + round(ms * MS))
                self.clock.now += round(ms * MS)
            ends: dict[int, int] = {}
            for i, (ms, lane) in enumerate(self.tasks):
                start = ends.get(lane, self.clock.now)
                ends[lane] = start + round(ms * MS)
                if log is not None:
                    cpu = round(self.cpu * ms * MS)
                    log.spans.append(
                        Span(f"task {i}", "task", start, ends[lane], process, -lane, f"w {lane}", cpu_ns=cpu)
                    )
            self.clock.now = max(ends.values()) + round(self.after * MS)


ALONE = ((20, 0), (60, 0))
BESIDE = ((20, 1), (60, 2))


def explained(monkeypatch: pytest.MonkeyPatch, queued: bool = False, **own: Any) -> Explanation:
    """Tasks of 20 and 60 ms one by one, against what is planted."""
    clock = Clock()
    monkeypatch.setattr("kit.spans.clock", clock)
    # Off their cores, threads beside each other are in the queue for one, if at all.
    monkeypatch.setattr("kit.measuring.rounds.queued_ns", lambda lanes: clock.now if queued and len(lanes) > 1 else 0)
    runners = {"base": Planted(clock, ALONE), "own": Planted(clock, **{"tasks": BESIDE} | own)}
    timings = measure(runners, rounds=8, clock=clock)
    return explain(compared(timings["base"], timings["own"], {1: timings["base"]}))


def losses(found: Explanation) -> dict[str, float]:
    """Every factor that is not 1."""
    apart = ("lanes", "1 / baseline efficiency")
    return {name: round(value, 6) for name, value in found.steps() if name not in apart and abs(value - 1) > 1e-9}


def found_in(parts: dict[str, float]) -> dict[str, float]:
    return {name: round(ms, 6) for name, ms in parts.items() if abs(ms) > 1e-9}


def test_imbalance_by_a_known_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    found = explained(monkeypatch)
    assert losses(found) == {"load balance": round(40 / 60, 6)}
    assert found_in(found.overhead_ms) == {}
    assert "x 0.67 [0.67, 0.67]: the other lanes wait for the longest branch, task 1" in found.advice[-1].text


@pytest.mark.parametrize(("kind", "named"), [("wait", "dispatch"), ("transfer", "transfer"), ("startup", "startup")])
def test_overhead_by_its_kind(monkeypatch: pytest.MonkeyPatch, kind: str, named: str) -> None:
    """Waiting before the tasks, a forced copy, an import."""
    found = explained(monkeypatch, before=((kind, 140),))
    assert losses(found) == {"load balance": round(40 / 60, 6), "scheduling efficiency": 0.3}
    assert found_in(found.overhead_ms) == {named: 140}
    said = f"scheduling efficiency, x 0.30 [0.30, 0.30]: time outside the branches, mostly {named} (140 ms)"
    assert said in found.advice[-1].text


def test_waiting_for_the_last_is_join(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found_in(explained(monkeypatch, after=7).overhead_ms) == {"join": 7}


def test_a_lock_is_contention_that_has_neither_core_nor_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two branches of pure Python: each takes twice as long, half of it off its core."""
    found = explained(monkeypatch, tasks=((40, 1), (120, 2)), cpu=0.5)
    assert losses(found) == {"contention efficiency": 0.5, "load balance": round(80 / 120, 6)}
    assert found_in(found.waiting_ms) == {"waiting for the GIL or a lock": 80}
    assert "branches slow each other down, mostly by waiting for the GIL" in found.advice[-1].text


def test_too_many_threads_are_contention_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    found = explained(monkeypatch, queued=True, tasks=((40, 1), (120, 2)), cpu=0.5)
    assert found_in(found.waiting_ms) == {"waiting for a core": 80}


def test_slow_memory_is_contention_on_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    found = explained(monkeypatch, tasks=((40, 1), (120, 2)))
    assert found_in(found.waiting_ms) == {"CPU time (memory, caches)": 80}


def test_regions_and_the_rest_of_a_real_comparison_add_up() -> None:
    block = inception_block(16)
    comparison = kit.compare(block, torch.rand(1, 16, 17, 17), ["sequential", "threads"], rounds=6, progress=False)
    found = kit.explain(comparison)
    own = comparison["threads"].timing
    assert own is not None
    assert found.factors is not None
    assert sum(found.parts_ms.values()) * 1e6 in (pytest.approx(each) for each in own.samples_ns)  # a round as it was
    assert sum(found.overhead_ms.values()) <= sum(found.parts_ms.values())
    assert set(comparison.branches_alone) == {1, detect().cores}
    undecided = comparison["threads"].verdict == "not decided"  # on a busy machine nothing is concluded
    assert len(found.advice) == (0 if undecided else 3)
