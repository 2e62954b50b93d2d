"""Throughput on runners whose time is known."""

import threading
import time

import pytest
import torch

from kit.errors import MeasureError
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
