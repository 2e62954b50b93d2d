"""Throughput on runners whose time is known."""

import threading
import time

import pytest
import torch
from torch import nn

from kit.approaches import parse
from kit.errors import MeasureError, ShapeError
from kit.serving import REQUESTS, throughput


class Sleeper:
    intra_op_threads = 1
    cold = False

    def __init__(self, seconds: float, *, one_at_a_time: bool = False) -> None:
        self.seconds = seconds
        self.lock = threading.Lock() if one_at_a_time else None
        self.calls, self.most, self.now = 0, 0, 0
        self.modes: set[bool] = set()

    def __call__(self, x: torch.Tensor) -> None:
        self.calls += 1
        self.now += 1
        self.most = max(self.most, self.now)
        self.modes.add(torch.is_inference_mode_enabled())
        if self.lock is None:
            time.sleep(self.seconds)
        else:
            with self.lock:
                time.sleep(self.seconds)
        self.now -= 1


def test_callers_at_a_time_serve_more_unless_the_runner_serves_one_at_a_time() -> None:
    shared, free = Sleeper(0.005, one_at_a_time=True), Sleeper(0.005)
    found = throughput({"shared": shared, "free": free}, torch.ones(1), concurrency=4, rounds=6)
    assert free.most == shared.most == 4
    assert free.calls % (4 * REQUESTS) == 0
    assert free.modes == {True}
    assert found["shared"].per_second <= 200
    assert found["free"].ratio.estimate == pytest.approx(found["free"].per_second / found["shared"].per_second, rel=0.5)
    assert found["free"].ratio.low > 1  # of four sleeps at a time, against one
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("request")]


@pytest.mark.parametrize("concurrency", [0, -1])
def test_no_callers(concurrency: int) -> None:
    with pytest.raises(MeasureError, match=f"{concurrency} callers"):
        throughput({"a": Sleeper(0)}, torch.ones(1), concurrency=concurrency)


@pytest.mark.parametrize("concurrency", [1.5, "2"])
def test_half_a_caller(concurrency: int) -> None:
    with pytest.raises(MeasureError, match="whole number"):
        throughput({"a": Sleeper(0)}, torch.ones(1), concurrency=concurrency)


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
        throughput(runners, X, concurrency=1)  # type: ignore[arg-type]


def test_inputs_come_through_the_same_door() -> None:
    with parse("sequential").prepare(LINEAR, X) as runner:
        with pytest.raises(ShapeError, match=r"weights are torch.float32. Give x.to\(torch.float32\)"):
            throughput({"a": runner}, X.double(), concurrency=1)
        assert throughput({"a": runner}, X, concurrency=1, rounds=6)["a"].per_second > 0
    with parse("sequential").prepare(LINEAR, {"input": X}) as runner:
        assert throughput({"a": runner}, {"input": X}, concurrency=2, rounds=6)["a"].per_second > 0
        with pytest.raises(ShapeError, match="prepared for input, and is given x"):
            throughput({"a": runner}, {"x": X}, concurrency=1)
