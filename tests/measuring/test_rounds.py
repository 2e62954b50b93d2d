"""Measuring, on a clock that the runners themselves move: every number here is exact."""

import html
import math
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kit import spans
from kit.equality import Equality
from kit.errors import MeasureError, UnknownNameError
from kit.measuring.budget import Budget
from kit.measuring.comparison import Comparison, Ratio, Row, Timing
from kit.measuring.rounds import Reference, RunnerFailed, measure
from kit.measuring.statistics import (
    MIN_ROUNDS,
    least_rounds,
    mean_interval,
    median_interval,
    minimum_detectable_effect,
    speed_up,
    with_verdicts,
)
from kit.trace import Trace

MS = 1_000_000


@dataclass
class Clock:
    """A clock that stands still unless a runner moves it."""

    now: int = 0
    round: int = 0  # what measure says is done

    def __call__(self) -> int:
        return self.now

    def progress(self, done: int) -> None:
        self.round = done


@dataclass
class Fake:
    """A runner that takes as long as it is told to, and notes who called it when."""

    clock: Clock
    duration: Callable[[int], int]  # round -> nanoseconds
    name: str = ""
    log: list[str] = field(default_factory=list)
    intra_op_threads: int = 1
    cold: bool = False
    calls: int = 0
    inputs: tuple[Any, ...] = ()
    lane_threads: int | None = None
    prepare_s: float = 0.0

    def __call__(self) -> None:
        with spans.span(f"{self.name} {self.calls}", "task"):
            self.clock.now += self.duration(self.clock.round)
        self.calls += 1
        self.log.append(self.name)

    def close(self) -> None:
        """Nothing to release."""


def run(
    rounds: int = 10, seed: int = 0, clock: Clock | None = None, **durations: Callable[[int], int]
) -> tuple[dict[str, Timing], list[str]]:
    clock, log = clock or Clock(), []
    runners = {name: Fake(clock, duration, name, log) for name, duration in durations.items()}
    return measure(runners, rounds=rounds, seed=seed, clock=clock, progress=clock.progress), log


def timing(*samples: float) -> Timing:
    return Timing(np.array(samples, float), 1, Trace.build([]))


def test_scatter_is_the_ratio_of_the_quartiles() -> None:
    assert timing(7, 7, 7, 7).quartile_ratio == 1
    assert timing(2, 4, 6, 8, 10).quartile_ratio == 2


# Rounds ---------------------------------------------------------------------------------------------------------------


def test_medians_are_exact() -> None:
    timings, _ = run(a=lambda i: 10 * MS, b=lambda i: (3 + i) * MS, rounds=7)
    assert timings["a"].median_ms == 10
    assert timings["b"].samples_ns.tolist() == [(3 + i) * MS for i in range(7)]
    assert timings["b"].median_ms == 6


def test_ratios_are_paired_within_rounds() -> None:
    """On a machine whose speed drifts tenfold, the ratio of two runners is still exact."""
    timings, _ = run(a=lambda i: (i + 1) * 10 * MS, b=lambda i: (i + 1) * 4 * MS)
    assert speed_up(timings["a"], timings["b"]) == Ratio(2.5, 2.5, 2.5)
    assert speed_up(timings["b"], timings["a"]).estimate == 0.4


def test_the_interval_comes_from_order_statistics() -> None:
    """Of ten rounds, the second smallest to the second largest ratio: 1 - 2 * 11 / 1024 = 97.9%."""
    order = [5, 2, 9, 0, 7, 1, 8, 3, 6, 4]
    timings, _ = run(a=lambda i: (10 + order[min(i, 9)]) * MS, b=lambda i: 10 * MS)
    assert speed_up(timings["a"], timings["b"]) == pytest.approx((1.45, 1.1, 1.8))


def test_every_round_gives_every_runner_one_turn_with_an_untimed_call_before() -> None:
    _, log = run(a=lambda i: 2 * MS, b=lambda i: 3 * MS, c=lambda i: 4 * MS, rounds=8)
    assert log[:15] == list("aaaaabbbbbccccc")  # warm-up, and counting how many calls make a turn
    rounds = [log[at : at + 6] for at in range(15, len(log), 6)]
    assert len(rounds) == 8
    for turns in rounds:
        assert turns[::2] == turns[1::2]  # untimed, timed
        assert sorted(turns[::2]) == ["a", "b", "c"]


def test_the_untimed_call_is_untimed() -> None:
    """The first call after a switch is ten times slower, and no sample shows it."""
    clock, last = Clock(), []

    def taking(name: str) -> Callable[[int], int]:
        def duration(_: int) -> int:
            slow = last[-1:] != [name]
            last.append(name)
            return (30 if slow else 3) * MS

        return duration

    runners = {name: Fake(clock, taking(name)) for name in "ab"}
    timings = measure(runners, rounds=20, clock=clock)
    assert set(timings["a"].samples_ns) == set(timings["b"].samples_ns) == {3 * MS}


def test_a_cold_runner_is_never_called_without_being_timed() -> None:
    clock, log = Clock(), []
    runners = {
        "cold": Fake(clock, lambda i: (100 + i) * MS, "cold", log, cold=True),
        "quick and cold": Fake(clock, lambda i: MS // 10, "quick and cold", log, cold=True),
        "warm": Fake(clock, lambda i: 2 * MS, "warm", log),
    }
    timings = measure(runners, rounds=6, clock=clock, progress=clock.progress)
    assert (log.count("cold"), log.count("quick and cold"), log.count("warm")) == (6, 6, 5 + 2 * 6)
    assert timings["cold"].samples_ns.tolist() == [(100 + i) * MS for i in range(6)]
    assert {name: timing.calls for name, timing in timings.items()} == {"cold": 1, "quick and cold": 1, "warm": 1}


def test_the_order_of_turns_is_random_and_repeats_with_its_seed() -> None:
    def order(seed: int) -> list[str]:
        return run(a=lambda i: 2 * MS, b=lambda i: 2 * MS, rounds=20, seed=seed)[1]

    assert order(1) == order(1)
    assert order(1) != order(2)
    firsts = order(1)[10::4]
    assert set(firsts) == {"a", "b"}


def test_a_turn_repeats_short_calls_until_two_milliseconds_are_full() -> None:
    timings, _ = run(short=lambda i: 100_000, long=lambda i: 50 * MS, instant=lambda i: 0)
    assert {name: timing.calls for name, timing in timings.items()} == {"short": 20, "long": 1, "instant": 1000}
    assert timings["short"].median_ms == 0.1


def test_two_copies_of_one_runner_do_not_differ() -> None:
    noise = random.Random(0)
    timings, _ = run(a=lambda i: noise.randint(9 * MS, 11 * MS), b=lambda i: noise.randint(9 * MS, 11 * MS), rounds=30)
    ratio = speed_up(timings["a"], timings["b"])
    assert ratio.low < 1 < ratio.high
    assert Row("b", timing=timings["b"], ratio=ratio, equality=SAME).verdict == "no difference found"


def test_each_turn_has_its_thread_count_and_the_callers_comes_back() -> None:
    seen: dict[str, set[int]] = {"one": set(), "three": set()}
    clock = Clock()
    runners = {
        "one": Fake(clock, lambda i: seen["one"].add(torch.get_num_threads()) or MS, intra_op_threads=1),
        "three": Fake(clock, lambda i: seen["three"].add(torch.get_num_threads()) or MS, intra_op_threads=3),
    }
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        measure(runners, clock=clock)
        assert seen == {"one": {1}, "three": {3}}
        assert torch.get_num_threads() == 2
        fresh: list[int] = []
        thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert fresh == [2]  # threads that are started later inherit it too
    finally:
        torch.set_num_threads(before)


def test_after_an_error_the_callers_thread_count_and_mode_come_back() -> None:
    clock, before = Clock(), torch.get_num_threads()

    def fails_in_round_3(i: int) -> int:
        assert torch.is_inference_mode_enabled()
        return MS // (3 - i)

    runners = {"b": Fake(clock, lambda i: MS), "a": Fake(clock, fails_in_round_3, intra_op_threads=7)}
    with pytest.raises(RunnerFailed, match="a failed while it was measured: ZeroDivisionError") as failed:
        measure(runners, clock=clock, progress=clock.progress)
    assert failed.value.key == "a"
    assert failed.value.error is failed.value.__cause__
    assert torch.get_num_threads() == before
    assert not torch.is_inference_mode_enabled()


def test_references_have_a_turn_in_every_round_and_a_key_of_their_own() -> None:
    clock, log = Clock(), []
    alone = Reference("branches alone", 1)
    runners = {"a": Fake(clock, lambda i: 2 * MS, "a", log)}
    timings = measure(runners, references={alone: Fake(clock, lambda i: 5 * MS, "alone", log)}, rounds=6, clock=clock)
    assert {key: timing.median_ms for key, timing in timings.items()} == {"a": 2, alone: 5}
    assert log[-4:].count("alone") == 2


def test_a_call_on_a_gpu_lasts_until_the_gpu_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnGpu(torch.Tensor):
        """A tensor that says it is on a GPU."""

        is_cuda = True

    clock = Clock()

    def wait(device: torch.device) -> None:
        clock.now += 9 * MS

    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.setattr("torch.cuda.synchronize", wait)
    inputs = torch.ones(1).as_subclass(OnGpu)
    timings = measure({"launches": Fake(clock, lambda i: 1 * MS, inputs=(inputs, inputs))}, clock=clock)
    assert timings["launches"].median_ms == 10


@pytest.mark.parametrize("rounds", [-1, 0, 1, 5])
def test_too_few_rounds(rounds: int) -> None:
    with pytest.raises(MeasureError, match=f"{rounds} rounds cannot give a 95% interval.*at least 6"):
        run(a=lambda i: MS, rounds=rounds)


def test_no_runners() -> None:
    with pytest.raises(MeasureError, match="nothing to measure"):
        measure({})


# Warming up, and when to stop -----------------------------------------------------------------------------------------


def test_warming_up_goes_on_while_calls_get_faster() -> None:
    """Each call takes 10% less than the one before, for ten calls: warm when three were no faster."""
    clock, log = Clock(), []
    runner = Fake(clock, lambda i: round(9 * MS * 0.9 ** min(len(log), 10)), "a", log)
    timings = measure({"a": runner}, rounds=6, clock=clock)
    assert len(set(timings["a"].samples_ns)) == 1
    assert len(log) - 2 * 6 == 14  # the 11th call is the first of the fastest, and three follow it


@pytest.mark.parametrize(("ms", "calls"), [(400, 4), (2000, 2)])
def test_warming_up_ends_after_a_second(ms: int, calls: int) -> None:
    clock, log = Clock(), []
    measure({"a": Fake(clock, lambda i: ms * MS - len(log) * ms * MS // 5, "a", log)}, rounds=6, clock=clock)
    assert len(log) - 2 * 6 == calls


def stopped(clock: Clock | None = None, **options: Any) -> int:
    """Rounds of two runners of 10 ms, one of which scatters by 10%."""
    clock, noise = clock or Clock(), random.Random(0)
    runners = {
        "a": Fake(clock, lambda i: 10 * MS),
        "b": Fake(clock, lambda i: noise.randint(95, 105) * MS // 10),
    }
    return len(measure(runners, clock=clock, **options)["a"].samples_ns)


def test_rounds_end_when_they_are_enough() -> None:
    asked: list[int] = []

    def enough(done: int) -> bool:
        asked.append(done)
        return done == 9

    assert stopped(rounds=1000, enough=enough) == 9
    assert asked == [6, 7, 8, 9]


@pytest.mark.parametrize(
    ("seconds", "least", "rounds"),
    [
        (1, 6, 22),  # 0.1 s of warming up, then 40 ms a round
        (60, 6, 30),  # all of them
        (0.36, 6, 6),
        (0.4, 10, 10),  # what a verdict needs takes up to 1.4 times the budget: 0.56 s
        (0.4, 20, 10),
        (0.1, 20, 6),  # the least in any case
    ],
)
def test_a_budget_ends_the_rounds(seconds: float, least: int, rounds: int) -> None:
    clock = Clock()
    assert stopped(clock, rounds=30, enough=Budget(seconds, clock).enough(least)) == rounds


def test_a_width_ends_the_rounds_whatever_the_verdict() -> None:
    assert stopped(rounds=500, width=1.0) == MIN_ROUNDS
    wide, narrow = stopped(rounds=500, width=0.06), stopped(rounds=500, width=0.03)
    assert MIN_ROUNDS < wide < narrow < 500
    assert stopped(rounds=7, width=0.0001) == 7


def test_percentiles_are_of_single_calls_and_need_enough_of_them() -> None:
    calls = Timing(np.ones(1), 100, Trace.build([]), (), np.arange(1, 101) * float(MS))
    assert (calls.percentile_ms(50), calls.percentile_ms(95)) == (50.5, pytest.approx(95.05))
    assert calls.percentile_ms(99) is not None
    few = Timing(np.ones(1), 19, Trace.build([]), (), np.ones(19))
    assert (few.percentile_ms(50), few.percentile_ms(95)) == (1e-6, None)


# Tables ---------------------------------------------------------------------------------------------------------------


def rows(*ratios: list[float]) -> list[Row]:
    """A baseline, and a row for each list of ratios."""
    base = timing(*[1.0] * len(ratios[0]))
    others = [
        Row(str(i), None, timing(*(1 / np.array(each))), None, SAME, paired_baseline=base)
        for i, each in enumerate(ratios)
    ]
    return with_verdicts([Row("base", None, base, Ratio(1, 1, 1), SAME, True, paired_baseline=base), *others])


CLEAR = [1.5, 1.6, 1.7, 1.8, 1.9, 2.0, 2.1, 2.2, 2.3, 2.4, 2.5, 2.6]
EQUAL = [0.96, 0.97, 0.98, 0.99, 1.0, 1.0, 1.0, 1.0, 1.01, 1.02, 1.03, 1.04]
NEARLY = [0.9, *CLEAR[1:]]  # one round of twelve on the other side: 2 * 13 / 4096 = 0.63%


def verdicts(*ratios: list[float]) -> list[str]:
    return [row.verdict for row in rows(*ratios)[1:]]


def test_holm_takes_the_clearest_first() -> None:
    nothing = "no difference found"
    assert verdicts(NEARLY, EQUAL) == ["faster", nothing]  # 0.63% < 1.56% / 2
    assert verdicts(NEARLY, EQUAL, EQUAL) == [nothing] * 3  # 0.63% > 1.56% / 3
    assert verdicts(CLEAR, NEARLY, EQUAL) == ["faster", "faster", nothing]  # the clear one makes room
    assert verdicts([1 / r for r in CLEAR], CLEAR) == ["slower", "faster"]


@given(st.lists(st.lists(st.floats(0.5, 2), min_size=10, max_size=10), min_size=1, max_size=8))
def test_verdicts_are_holms_on_exact_sign_tests(ratios: list[list[float]]) -> None:
    found = verdicts(*ratios)
    p = []
    for each in ratios:
        base_over_own = 1 / (1 / np.array(each))
        most = max((base_over_own > 1.01).sum(), (base_over_own < 0.99).sum())
        p.append(2 * sum(math.comb(10, k) for k in range(most, 11)) / 1024)
    expected, left = ["no difference found"] * len(p), len(p)
    error = 0.05 if left == 1 else 1 / 64
    for i in sorted(range(len(p)), key=p.__getitem__):
        if p[i] > error / left:
            break
        expected[i], left = "faster" if np.median(ratios[i]) > 1 else "slower", left - 1
    assert found == expected


@pytest.mark.parametrize("scatter", [0.05, 0.5])
def test_a_table_of_equals_hardly_ever_shows_a_difference(scatter: float) -> None:
    draw, nothing = np.random.default_rng(0), ["no difference found"] * 12
    alarms = 0
    for _ in range(300):
        base, *others = draw.lognormal(0, scatter, (13, 12))  # all rows share the baseline's luck
        alarms += verdicts(*(list(base / other) for other in others)) != nothing
    assert alarms / 300 <= 0.02


def test_too_few_rounds_for_so_many_rows_say_so() -> None:
    first = rows(CLEAR[:6], EQUAL[:6])[1]
    assert first.ratio == pytest.approx((1.75, 1.5, 2.0))
    assert first.verdict == "not decided"
    assert first.summary == "not decided: it needs 8 rounds or more"
    assert verdicts(CLEAR[:6]) == ["faster"]
    assert [least_rounds(n) for n in (0, 1, 2, 3, 4, 12)] == [6, 6, 8, 9, 9, 11]


@pytest.mark.parametrize("n", range(1, 13))
def test_least_rounds_are_just_enough(n: int) -> None:
    enough = least_rounds(n)
    assert verdicts(*[[2.0] * enough] * n) == ["faster"] * n
    if enough > MIN_ROUNDS:
        assert verdicts(*[[2.0] * (enough - 1)] * n) == ["not decided"] * n


def test_a_difference_that_was_not_found_is_told_with_its_size() -> None:
    row = rows(EQUAL[1:11])[1]
    assert row.minimum_detectable_effect == pytest.approx(1.01 / 0.97 - 1)  # the furthest of ten rounds decides
    assert row.summary == "no difference found: 4.1% or more would have been detected"
    assert Row(
        "a", timing=timing(1), ratio=Ratio(1, 0.1, 10), equality=SAME, minimum_detectable_effect=9.0
    ).summary.endswith("a factor of 10.0 or more would have been detected")


@pytest.mark.parametrize("n", [10, 20, 60])
def test_the_smallest_difference_is_found_in_nine_of_ten_new_tables(n: int) -> None:
    draw = np.random.default_rng(n)
    hits = claims = 0
    for _ in range(40):
        pilot = np.sort(draw.lognormal(0, 0.05, n))
        size = minimum_detectable_effect(pilot, median_interval(n)[0])
        again = draw.lognormal(0, 0.05, (50, n)) / (1 + size)
        hits += sum(rows(list(each))[1].verdict == "slower" for each in again)
        claims += len(again)
    assert hits / claims >= 0.9


# The trace of a timing ------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that the spans go by too."""
    fake = Clock()
    monkeypatch.setattr(spans, "clock", fake)
    return fake


def test_the_trace_is_one_call_of_the_round_nearest_the_median(clock: Clock) -> None:
    durations = [9, 4, 8, 5, 6, 7, 30]  # median 7: round 5
    timings, _ = run(a=lambda i: durations[min(i, 6)] * MS, rounds=7, clock=clock)
    # Five calls warm up, two a round: round 5's are numbers 15 (untimed) and 16.
    assert {(event.name, event.category) for event in timings["a"].trace.events()} == {
        ("call", "call"),
        ("a 16", "task"),
    }


def test_the_call_that_is_drawn_is_near_the_median_itself(clock: Clock) -> None:
    """Not only its round: here the round nearest the median ends with a call that a neighbour disturbed."""
    calls = iter(range(1000))
    warm_up = 5  # of half a millisecond, so that a turn has four calls, and one that is not timed

    def duration(done: int) -> int:
        nth = next(calls) - warm_up
        last = nth >= 0 and nth % 5 == 4
        if done == 2:  # 0.5 ms on average, the median of the rounds, and the last call takes four times that
            return 2_000_000 if last else 0
        return [450_000, 460_000, 0, 510_000, 520_000, 530_000, 480_000][min(done, 6)]

    timings, _ = run(a=duration, rounds=7, clock=clock)
    timing = timings["a"]
    drawn = timing.trace.select(categories=["call"]).duration_ns.tolist()
    assert (timing.calls, timing.median_ms) == (4, 0.5)
    assert drawn == [510_000]


def test_of_a_turn_with_many_calls_the_trace_is_the_last() -> None:
    timings, _ = run(a=lambda i: MS // 2, rounds=6)
    assert timings["a"].calls == 4
    names = [event.name for event in timings["a"].trace.events()]
    assert names[0] == "call"
    assert len(names) == 2
    assert int(names[1].removeprefix("a ")) % 5 == 4  # after 5 calls of warm-up, a round is 1 untimed + 4: 6..9, 11..14
    (lane,) = timings["a"].trace.lanes
    assert lane.label == "caller"


# The interval ---------------------------------------------------------------------------------------------------------


def coverage(n: int, low: int, high: int) -> Fraction:
    """Probability that the median lies between the sorted values low and high: low + 1 to high values are below it."""
    return Fraction(sum(math.comb(n, below) for below in range(low + 1, high + 1)), 2**n)


@pytest.mark.parametrize("n", [*range(MIN_ROUNDS, 41), 100, 1001])
def test_the_interval_is_the_narrowest_that_covers_95_percent(n: int) -> None:
    low, high = median_interval(n)
    assert low + high == n - 1
    assert coverage(n, low, high) >= Fraction(95, 100)
    assert low + 1 >= high - 1 or coverage(n, low + 1, high - 1) < Fraction(95, 100)


@pytest.mark.parametrize(
    ("n", "interval"), [(6, (0, 5)), (8, (0, 7)), (9, (1, 7)), (10, (1, 8)), (15, (3, 11)), (20, (5, 14))]
)
def test_intervals_as_tables_print_them(n: int, interval: tuple[int, int]) -> None:
    assert median_interval(n) == interval


@pytest.mark.parametrize("n", [0, 1, 5])
def test_too_few_for_an_interval(n: int) -> None:
    with pytest.raises(MeasureError, match=f"{n} rounds cannot give a 95% interval"):
        median_interval(n)


def test_another_confidence() -> None:
    assert median_interval(5, 0.9) == (0, 4)
    assert median_interval(10, 0.99) == (0, 9)


@pytest.mark.parametrize("n", [6, 10, 25])
def test_simulated_coverage(n: int) -> None:
    """Of skewed ratios with median 1, as timings are, at least 95% of intervals hold the 1."""
    ratios = np.sort(np.random.default_rng(0).lognormal(0, 0.5, (20_000, n)), axis=1)
    low, high = median_interval(n)
    hits = float(((ratios[:, low] <= 1) & (ratios[:, high] >= 1)).mean())
    assert hits == pytest.approx(float(coverage(n, low, high)), abs=0.005)


# The comparison as data -----------------------------------------------------------------------------------------------

SAME = Equality(True, 1e-7)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (Row("a", timing=timing(1), ratio=Ratio(1, 1, 1), equality=Equality(True, 0.0), baseline=True), "baseline"),
        (Row("a", reason="no GPU"), "not available"),
        (Row("a", timing=timing(1), ratio=Ratio(2, 1.5, 3), equality=SAME), "faster"),
        (Row("a", timing=timing(1), ratio=Ratio(0.5, 0.4, 0.6), equality=SAME), "slower"),
        (Row("a", timing=timing(1), ratio=Ratio(2, 0.9, 3), equality=SAME), "no difference found"),
        (Row("a", timing=timing(1), ratio=Ratio(1.2, 1.009, 1.3), equality=SAME), "no difference found"),
        (Row("a", timing=timing(1), ratio=Ratio(0.9, 0.8, 0.995), equality=SAME), "no difference found"),
        (Row("a", timing=timing(1), ratio=Ratio(9, 8, 10), equality=Equality(False, 3.0)), "wrong output"),
    ],
)
def test_verdicts(row: Row, verdict: str) -> None:
    assert row.verdict == verdict


COMPARISON = Comparison(
    (
        Row("sequential", timing=timing(4e6), ratio=Ratio(1, 1, 1), equality=Equality(True, 0.0), baseline=True),
        Row("threads<2>", timing=timing(2e6), ratio=Ratio(2, 1.5, 2.5), equality=SAME),
        Row("wrong", timing=timing(1e6), ratio=Ratio(4, 4, 4), equality=Equality(False, 3.0)),
        Row("streams", reason="there is no GPU & no driver"),
    ),
    rounds=1,
    inputs="(1, 3) float32 on cpu",
    caveats=("input <0> is deaf",),
)


def test_the_table_says_it_all() -> None:
    head, *rows = COMPARISON.table()
    assert head[2] == "speed-up over sequential [95%]"
    assert rows == [
        ("sequential", "4 ms", "1", "-", "baseline"),
        ("threads<2>", "2 ms", "2.00x [1.50, 2.50]", "yes, within 1e-07", "faster"),
        ("wrong", "1 ms", "4.00x [4.00, 4.00]", "NO, off by 3", "wrong output"),
        ("streams", "-", "-", "-", "not available: there is no GPU & no driver"),
    ]


def test_str_is_the_table_in_columns() -> None:
    lines = str(COMPARISON).splitlines()
    assert lines[-1] == "! input <0> is deaf"
    at = lines[0].index("verdict")
    assert [line[at:] for line in lines[1:4]] == ["baseline", "faster", "wrong output"]


def test_html_escapes_what_it_shows() -> None:
    page = COMPARISON._repr_html_()
    assert "threads&lt;2&gt;" in page
    assert "threads<2>" not in page
    assert "input &lt;0&gt; is deaf" in page
    assert html.escape("(1, 3) float32 on cpu") in page
    assert page.count("<tr>") == 5


def test_repr_has_no_times() -> None:
    assert repr(COMPARISON) == "Comparison(sequential, threads<2>, wrong, streams; 1 rounds)"


def test_json_keeps_the_contract() -> None:
    plain = COMPARISON.to_dict()
    rows = plain["approaches"]
    keys = {"name", "available", "reason", "median_ms", "ratio", "equal", "max_abs_error", "latency_ms"}
    keys |= {"minimum_detectable_effect", "prepare_s"}
    assert all(set(row) == keys | {"verdict"} for row in rows)
    assert rows[1] == {
        "name": "threads<2>",
        "available": True,
        "reason": None,
        "median_ms": 2.0,
        "latency_ms": {"p50": None, "p95": None, "p99": None},
        "minimum_detectable_effect": None,
        "prepare_s": 0.0,
        "ratio": {"estimate": 2, "low": 1.5, "high": 2.5},
        "equal": True,
        "max_abs_error": 1e-7,
        "verdict": "faster",
    }
    assert (rows[2]["equal"], rows[2]["max_abs_error"]) == (False, 3.0)
    assert rows[3] == dict.fromkeys(keys) | {
        "name": "streams",
        "available": False,
        "prepare_s": 0.0,
        "reason": "there is no GPU & no driver",
        "verdict": "not available",
    }


def test_rows_by_name_and_traces_of_what_ran() -> None:
    assert COMPARISON["wrong"].verdict == "wrong output"
    assert list(COMPARISON.traces) == ["sequential", "threads<2>", "wrong"]
    with pytest.raises(UnknownNameError, match=r"no row 'thread': did you mean .threads<2>.\? Known: sequential, "):
        COMPARISON["thread"]


def test_items_and_their_unit_make_it_a_comparison_of_rates() -> None:
    rates = replace(COMPARISON, items=8, unit="images")
    assert not rates.latency
    assert rates.per_second("threads<2>") == 8 / 0.002
    assert math.isnan(rates.per_second("streams"))
    assert [line[1] for line in rates.table()] == ["images/s", "2,000", "4,000", "8,000", "-"]
    assert rates.value_text(rates["wrong"]) == "8,000 images/s"
    assert COMPARISON.value_text(COMPARISON["wrong"]) == "1 ms a call"
    plain = rates.to_dict()
    assert (plain["items"], plain["unit"]) == (8, "images")
    assert [row["per_second"] for row in plain["approaches"]] == [2000, 4000, 8000, None]
    assert not any("latency_ms" in row for row in plain["approaches"])
    assert repr(rates) == repr(COMPARISON)


def test_the_interval_of_a_geometric_mean_holds_it_in_19_of_20_samples() -> None:
    random, held = np.random.default_rng(0), 0
    for _ in range(1000):
        low, high = mean_interval(np.exp(random.normal(0.3, 0.2, 10)))
        held += math.log(low) <= 0.3 <= math.log(high)
    assert 930 <= held <= 970
    assert mean_interval(np.array([2.0])) == pytest.approx((2.0, 2.0))
