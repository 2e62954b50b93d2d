"""Throughput on runners whose time is known."""

import threading

import pytest
import torch
from torch import nn

from kit.approaches import parse
from kit.errors import MeasureError, ShapeError
from kit.measuring.throughput import REQUESTS, throughput


class Clock:
    """Nanoseconds that pass only where a runner says so."""

    now = 0

    def __call__(self) -> int:
        return self.now


class Server:
    """A request takes 5 ms of its clock: of each caller, one after the other, or of so many at the same time."""

    intra_op_threads, lane_threads, cold, prepare_s, inputs = 1, None, False, 0.0, ()

    def __init__(self, clock: Clock, at_a_time: int = 1) -> None:
        self.clock, self.together = clock, threading.Barrier(at_a_time)
        self.lock = threading.Lock()
        self.calls = 0
        self.modes: set[bool] = set()

    def __call__(self) -> None:
        first = self.together.wait(20) == 0  # breaks unless as many callers are here
        with self.lock:
            self.calls += 1
            self.modes.add(torch.is_inference_mode_enabled())
            self.clock.now += 5_000_000 * first

    def close(self) -> None:
        """Nothing to release."""


def test_callers_at_a_time_serve_more_unless_the_runner_serves_one_at_a_time() -> None:
    clock = Clock()
    shared, free = Server(clock), Server(clock, at_a_time=4)
    found = throughput({"shared": shared, "free": free}, concurrency=4, rounds=6, clock=clock)
    assert free.calls % (4 * REQUESTS) == 0
    assert free.modes == shared.modes == {True}
    assert found["shared"].per_second == pytest.approx(200)
    assert found["free"].per_second == pytest.approx(800)
    assert found["free"].ratio == pytest.approx((4, 4, 4))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("request")]


@pytest.mark.parametrize("concurrency", [0, -1])
def test_no_callers(concurrency: int) -> None:
    with pytest.raises(MeasureError, match=f"concurrency={concurrency}"):
        throughput({"a": Server(Clock())}, concurrency=concurrency)


@pytest.mark.parametrize("concurrency", [1.5, "2"])
def test_half_a_caller(concurrency: int) -> None:
    with pytest.raises(MeasureError, match="whole number"):
        throughput({"a": Server(Clock())}, concurrency=concurrency)


LINEAR = nn.Linear(2, 1).eval()
X = torch.ones(1, 2)


@pytest.mark.parametrize(
    ("runners", "says"),
    [
        (LINEAR, "runners is Linear: give a dict from names to runners"),
        ([LINEAR], "runners is list"),
        ({"a": LINEAR}, "a is Linear: give a dict from names to runners"),
        (X, r"runners is \(1, 2\) float32"),
    ],
)
def test_what_is_no_runner_is_named(runners: object, says: str) -> None:
    with pytest.raises(MeasureError, match=says):
        throughput(runners, concurrency=1)  # type: ignore[arg-type]


def test_inputs_come_through_the_same_door() -> None:
    with (
        parse("sequential").prepare(LINEAR, X.double()) as runner,
        pytest.raises(ShapeError, match=r"weights are torch.float32. Give x.to\(torch.float32\)"),
    ):
        throughput({"a": runner}, concurrency=1)
    for inputs in (X, {"input": X}):
        with parse("sequential").prepare(LINEAR, inputs) as runner:
            assert throughput({"a": runner}, concurrency=2, rounds=6)["a"].per_second > 0
