"""Clocks of other hosts, on a made-up network: the true offset is always within the uncertainty."""

import random

import pytest

from kit.executors.workers.clocks import DRIFT, OtherClock, Sample, on_this_clock
from kit.spans import Span


@pytest.mark.parametrize("true", [0, 5_000_000_000, -123_456_789])
def test_the_true_offset_is_within_the_uncertainty_however_unlike_the_two_ways_are(true: int) -> None:
    draw = random.Random(0)
    for _ in range(1000):
        there, work, back = (draw.choice([0, 1, draw.randrange(10**6), draw.randrange(10**9)]) for _ in range(3))
        sent = draw.randrange(10**12)
        arrived = sent + there
        answered = arrived + work
        sample = Sample.of(sent, arrived + true, answered + true, answered + back)
        assert abs(sample.offset_ns - true) <= sample.uncertainty_ns + 1  # a nanosecond of rounding
        assert sample.uncertainty_ns <= (there + back) / 2 + 1, "what the other host did meanwhile is not in doubt"


def test_equal_ways_give_the_offset_exactly() -> None:
    assert Sample.of(100, 1150, 1250, 300)[:2] == (1000, 50)


def test_the_best_of_several_is_the_quickest_exchange_until_it_is_old() -> None:
    clock = OtherClock()
    clock.add(Sample(7, 100, taken_ns=0))
    clock.add(Sample(9, 1000, taken_ns=0))
    assert clock.best(0).offset_ns == 7
    later = 10**9
    clock.add(Sample(8, 5000, taken_ns=later))
    assert clock.best(later).offset_ns == 8
    assert Sample(7, 100, taken_ns=0).at(later).uncertainty_ns == 100 + DRIFT * later


def test_spans_come_onto_this_clock_with_their_host() -> None:
    span = Span("a", "task", 1100, 1200, 12, 34, "rank 1")
    (moved,) = on_this_clock([span], "host-b", Sample(1000, 5, 0))
    assert moved == span._replace(start_ns=100, end_ns=200, process="host-b: process 12", host="host-b")
