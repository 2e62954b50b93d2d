"""Links, scattering and replicas: times that were computed by hand, and laws that hold for all numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kit
from kit.errors import KitError
from kit.scheduling.links import LINKS, Branch, Link, arrivals, by_branch, by_request, fitted
from kit.scheduling.many_machines import ALONE, BRANCHES, QUEUES, REPLICAS, Job, plans
from kit.scheduling.replicas import Replicas, erlang_c, in_own_queues

IMAGE = 4 * 3 * 224 * 224  # bytes in float32

links = st.builds(Link, st.floats(1e6, 1e13), st.floats(0, 0.1))
sizes = st.integers(0, 10**9)
branches = st.builds(Branch, st.floats(1e-6, 10), sizes, sizes)


def test_an_image_at_one_gigabit_takes_about_five_milliseconds() -> None:
    assert Link(1e9).seconds(IMAGE) == pytest.approx(4.8e-3, rel=0.01)
    assert kit.Link is Link


@pytest.mark.parametrize("wrong", [(0.0, 0.0), (-1.0, 0.0), (math.inf, 0.0), (math.nan, 0.0), (1e9, -1.0)])
def test_a_link_that_cannot_be_is_refused(wrong: tuple[float, float]) -> None:
    with pytest.raises(KitError, match="give"):
        Link(*wrong)


def test_a_link_says_its_speed_and_latency() -> None:
    assert str(Link(1e9, 50e-6)) == "1 Gbit/s, 50 µs one way"
    assert str(Link(2.5e8)) == "250 Mbit/s, 0 µs one way"
    assert list(LINKS) == ["1 Gbit/s", "10 Gbit/s", "100 Gbit/s", "PCIe 4.0 x16", "NVLink 4"]
    assert [*LINKS.values()] == sorted(LINKS.values(), key=lambda link: link.bits_per_second)


@given(links, st.floats(1e-6, 10))
def test_at_break_even_the_transfer_takes_as_long_as_the_work(link: Link, work: float) -> None:
    most = link.most_bytes(work)
    if most:
        assert link.break_even(most / 2, most / 2) == pytest.approx(work, rel=1e-6)
    else:
        assert link.break_even(0) >= work * (1 - 1e-9)


@given(links, st.lists(branches, min_size=1, max_size=6))
def test_a_region_takes_no_less_than_its_longest_branch_and_no_less_than_any_transfer(
    link: Link, region: list[Branch]
) -> None:
    took = by_branch(link, region)
    assert took >= max(each.work for each in region)
    for each in region[1:]:
        assert took >= (each.work + link.break_even(each.sent, each.received)) * (1 - 1e-9)
    free = by_branch(Link(1e300), region)
    assert free == pytest.approx(max(each.work for each in region))
    assert took >= free * (1 - 1e-12)


@given(links, st.floats(1e-6, 10), sizes)
def test_two_equal_branches_pay_exactly_above_break_even(link: Link, work: float, size: int) -> None:
    gains = by_branch(link, [Branch(work, size, size)] * 2) < 2 * work
    transfer = link.break_even(size, size)
    assert gains == (transfer < work) or transfer == pytest.approx(work)


def test_what_one_machine_sends_leaves_one_after_the_other() -> None:
    assert arrivals(Link(8.0, 0.5), [1, 2]) == [1.5, 3.5]


@given(links, branches, st.integers(1, 1000))
def test_requests_are_limited_by_the_machines_and_by_the_link(link: Link, request: Branch, machines: int) -> None:
    rate = by_request(link, request, machines)
    alone = 1 / request.work
    assert alone <= rate <= machines * alone * (1 + 1e-9), "others never make the first machine slower"
    assert (rate - alone) * 8 * max(request.sent, request.received) <= link.bits_per_second * (1 + 1e-9)
    assert by_request(link, request, 1) == alone


@given(links, st.lists(st.integers(1, 10**8), min_size=2, max_size=6, unique=True))
def test_a_link_is_found_again_from_its_copies(link: Link, given_sizes: list[int]) -> None:
    copies = [(float(size), link.seconds(size)) for size in given_sizes]
    times = [seconds for _, seconds in copies]
    if max(times) < 1.001 * min(times):  # latency hides the speed
        return
    found = fitted(copies)
    for size, seconds in copies:
        assert found.seconds(size) == pytest.approx(seconds, rel=1e-3)


@pytest.mark.parametrize("copies", [[], [(4, 1.0)], [(4, 1.0), (4, 2.0)], [(4, 0.0), (8, 1.0)], [(4, 2.0), (8, 1.0)]])
def test_copies_that_tell_no_speed_are_refused(copies: list[tuple[float, float]]) -> None:
    with pytest.raises(KitError):
        fitted(copies)


# Replicas -------------------------------------------------------------------------------------------------------------


def test_erlangs_formula_as_in_its_tables() -> None:
    assert erlang_c(1, 0.5) == pytest.approx(0.5)
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)
    assert erlang_c(3, 2.0) == pytest.approx(4 / 9)
    assert erlang_c(2, 2.0) == 1.0


@given(st.integers(1, 60), st.floats(0.01, 0.99))
def test_the_recursion_is_the_sum_of_the_textbook(machines: int, share: float) -> None:
    a = share * machines
    top = a**machines / math.factorial(machines) / (1 - share)
    textbook = top / (sum(a**n / math.factorial(n) for n in range(machines)) + top)
    assert erlang_c(machines, a) == pytest.approx(textbook, rel=1e-9)


@given(st.integers(1, 999), st.floats(1e-4, 1), st.floats(0.01, 0.999))
def test_more_machines_wait_less_and_one_queue_waits_less_than_many(machines: int, work: float, share: float) -> None:
    rate = share * machines / work
    here, more = Replicas(machines, work, rate), Replicas(machines + 1, work, rate)
    assert 0 <= more.wait <= here.wait * (1 + 1e-9)
    assert here.response <= in_own_queues(machines, work, rate) * (1 + 1e-9)
    assert here.busy == pytest.approx(share)
    assert here.waits_longer(0) == pytest.approx(erlang_c(machines, rate * work))
    assert here.waits_longer(work) <= here.waits_longer(0)


def test_a_simulated_queue_waits_as_the_formula_says() -> None:
    random, work, machines, rate = np.random.default_rng(0), 1.0, 3, 2.4
    free, now, waited = np.zeros(machines), 0.0, []
    for gap, needs in zip(random.exponential(1 / rate, 200_000), random.exponential(work, 200_000), strict=True):
        now += gap
        first = int(free.argmin())
        begins = max(now, free[first])
        waited.append(begins - now)
        free[first] = begins + needs
    found = Replicas(machines, work, rate)
    assert np.mean(waited) == pytest.approx(found.wait, rel=0.1)
    assert np.mean(np.array(waited) > 1.0) == pytest.approx(found.waits_longer(1.0), rel=0.1)


def test_machines_that_cannot_keep_up_never_answer() -> None:
    assert math.isinf(Replicas(2, 1.0, 2.0).wait)
    assert Replicas(2, 1.0, 3.0).waits_longer(100) == 1.0
    for wrong in ((0, 1.0, 1.0), (1, 0.0, 1.0), (1, 1.0, 0.0)):
        with pytest.raises(KitError, match="give at least one"):
            Replicas(*wrong)


# Plans ----------------------------------------------------------------------------------------------------------------

JOB = Job(Branch(0.020, 1_000_000, 1000), ((Branch(0.008, 200_000, 500), Branch(0.010, 800_000, 500)),))


def test_a_plan_names_the_fewest_machines_or_what_is_in_the_way() -> None:
    link, within = Link(1e10, 25e-6), 0.04
    low = {each.name: each for each in plans(JOB, link, 10, within)}
    assert [low[name].machines for name in (ALONE, BRANCHES, QUEUES, REPLICAS)] == [1, 2, 1, 1]
    high = {each.name: each for each in plans(JOB, link, 1000, within)}
    assert high[ALONE].why_not == "cannot keep up"
    assert high[BRANCHES].why_not == "cannot keep up"
    assert 20 < (high[REPLICAS].machines or 0) < (high[QUEUES].machines or 0) <= 1000
    full = {each.name: each for each in plans(JOB, link, 10_000, within)}
    assert full[REPLICAS].why_not == "the link is full: 80 of 10 Gbit/s"
    slow = {each.name: each for each in plans(JOB, link, 10, 0.001)}
    assert slow[ALONE].why_not == "too slow"
    assert slow[REPLICAS].why_not == "too slow with 1,000 machines"


@given(st.floats(0.1, 2000), st.floats(0.021, 1.0))
def test_one_machine_less_is_too_few(rate: float, within: float) -> None:
    link = Link(1e11, 1e-5)
    there = link.break_even(JOB.whole.sent, JOB.whole.received)
    (found,) = [each for each in plans(JOB, link, rate, within) if each.name == REPLICAS]
    if found.machines is None:
        return
    assert found.response <= within
    if found.machines > 1:
        assert Replicas(found.machines - 1, JOB.whole.work, rate).response + there > within


def test_a_request_over_a_link_takes_its_regions_and_what_is_outside_of_them() -> None:
    assert JOB.outside == pytest.approx(0.002)
    assert JOB.over(Link(1e300)) == pytest.approx(0.002 + 0.010)
    assert JOB.carried() == 800_000
