"""OpenVINO: silent on the network, callable from several threads, and refusing what it would leave out."""

import ctypes
import gc
import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kit.approaches import parse
from kit.equality import compare_outputs
from kit.errors import KitError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino is not installed"
)  # importorskip would import it, and so report that

X = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def test_it_reports_to_nobody(tmp_path: Path) -> None:
    """Imported as usual, it writes who is to be counted into the home folder, and sends that from a fork."""
    code = """
import multiprocessing, os, socket, sys, torch
from kit.approaches import parse
def never(*args):
    os._exit(1)
multiprocessing.Process.start = socket.socket.connect = socket.getaddrinfo = os.fork = never
x = torch.ones(1, 4)
with parse("openvino").prepare(torch.nn.Linear(4, 4).eval(), x) as runner:
    runner()
assert not sys.modules["openvino_telemetry"]
"""
    inherited = {key: value for key, value in os.environ.items() if key not in ("CI", "TF_BUILD", "JENKINS_URL")}
    environment = inherited | {
        "HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }  # those are never counted
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert not (tmp_path / "intel").exists()


@pytest.mark.parametrize("hint", ["latency", "throughput"])
def test_several_threads_may_call_it_at_once(hint: str) -> None:
    net = nn.Sequential(nn.Conv2d(4, 64, 3), nn.ReLU(), nn.Conv2d(64, 4, 3)).eval()
    inputs = [X + i for i in range(32)]
    with parse(f"openvino(hint={hint})").prepare(net, X) as runner, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(runner.run, inputs))
    with torch.inference_mode():
        assert all(compare_outputs(net(x), output).equal for x, output in zip(inputs, found, strict=True))


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="asks Linux which cores a thread may use")
def test_the_caller_may_use_the_same_cores_as_before() -> None:
    """While it computes, it binds threads to cores."""
    before = os.sched_getaffinity(0)
    with parse("openvino(threads=1)").prepare(nn.Conv2d(4, 4, 3).eval(), X) as runner:
        runner()
        assert os.sched_getaffinity(0) == before
    assert os.sched_getaffinity(0) == before


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y: Tensor = self.conv(x)
        return y


class Overwrites(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2) + 1


class Twice(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = x + 1
        return y, y


class Spectrum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x).abs()


class Large(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0 + 2**40


@pytest.mark.parametrize(
    ("model", "x", "says"),
    [
        (Counts(), X, r"each call of Counts writes into 'calls': write into a tensor that its forward makes"),
        (Overwrites(), X, r"each call of Overwrites writes into 'x'"),
        (Twice(), X, r"Twice returns the same tensor twice: return a clone\.$"),
        (Spectrum(), X, r"openvino failed on Spectrum with .*No conversion rule .*aten\._fft_r2c"),
        (Large(), torch.arange(4), "OpenVino changes the output of Large"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_it_would_leave_out_or_get_wrong_is_refused(model: nn.Module, x: Tensor, says: str) -> None:
    given = x.clone()
    with pytest.raises(KitError, match=says):
        parse("openvino").prepare(model.eval(), given)
    assert torch.equal(given, x)


def test_the_same_tensor_may_be_absent_twice() -> None:
    class Absent(nn.Module):
        def forward(self, x: Tensor) -> tuple[None, Tensor, None]:
            return None, x + 1, None

    with parse("openvino").prepare(Absent(), X) as runner:
        first, found, last = runner()
    assert first is last is None
    assert torch.equal(found, X + 1)


class SignalStack(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have another structure")
def test_signals_are_handled_on_the_stack_of_before() -> None:
    """OpenVINO's own is freed when it ends, and the next signal would end the process."""

    def here() -> tuple[int | None, int, int]:
        found = SignalStack()
        assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found)) == 0
        return found.start, found.flags, found.size

    before = here()
    with parse("openvino").prepare(nn.Linear(4, 4).eval(), torch.rand(1, 4)) as runner:
        runner()
        assert here() == before
    gc.collect()
    assert here() == before
