"""Which tests need packages of the lab; and CUDA without a GPU, with an account of what comes before what."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

# Tests -> a package that they import. Where it is not installed they are left out, as on a server for `make gpu`.
NEEDS = {
    "clips/*": "cv2",
    "labs/*": "plotly",
    "models/test_weights.py": "safetensors",
    "notebooks/*": "nbformat",
    "test_examples.py": "plotly",
    "site/*": "nbformat",
    "test_packaging.py": "yaml",
    "test_reprs.py": "ipywidgets",
    "tools/*": "playwright",
    "test_workflows.py": "yaml",
    "views/*": "plotly",
}
collect_ignore_glob = [tests for tests, package in NEEDS.items() if importlib.util.find_spec(package) is None]

GPU = torch.device("cuda:0")


@dataclass(eq=False)
class FakeEvent:
    """What a stream had been given when the event was recorded."""

    seen: dict[int, int]
    waited: bool = False  # whether the CPU waited for it

    def synchronize(self) -> None:
        self.waited = True


@dataclass(eq=False)
class FakeStream:
    """A queue of kernels; ``seen`` says, for each stream, up to which of its kernels this one comes after."""

    cuda_stream: int
    device: torch.device = GPU
    seen: dict[int, int] = field(default_factory=dict)

    def record_event(self) -> FakeEvent:
        return FakeEvent(dict(self.seen))

    def wait_event(self, event: FakeEvent) -> None:
        self.seen = {key: max(self.seen.get(key, 0), event.seen.get(key, 0)) for key in {*self.seen, *event.seen}}

    def wait_stream(self, other: FakeStream) -> None:
        self.wait_event(other.record_event())


class OnGpu(torch.Tensor):
    """A tensor that says it is on a GPU."""

    is_cuda = True
    made: tuple[FakeStream, int]  # the stream that made it, and the how manyth kernel there
    known_to: set[FakeStream]  # whom the allocator waits for before it hands out the memory again

    @property
    def device(self) -> torch.device:
        return GPU

    def record_stream(self, stream: Any) -> None:
        self.known_to.add(stream)


class FakeCuda:
    """One GPU. Kernels that read what is not known to be ready, or not marked for their stream, are faults."""

    def __init__(self) -> None:
        self.streams = [FakeStream(0)]
        self.faults: list[str] = []
        self._local = threading.local()

    def new_stream(self, device: Any = None) -> FakeStream:
        self.streams.append(FakeStream(len(self.streams)))
        return self.streams[-1]

    def current_stream(self, device: Any = None) -> FakeStream:
        return getattr(self._local, "stream", self.streams[0])

    @contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        before = self.current_stream()
        self._local.stream = stream
        try:
            yield
        finally:
            self._local.stream = before

    def kernel(self, *reads: OnGpu, name: str = "kernel") -> OnGpu:
        """Launch: a new tensor, made on the current stream out of those read."""
        here = self.current_stream()
        for tensor in reads:
            stream, count = tensor.made
            if here.seen.get(stream.cuda_stream, 0) < count:
                self.faults.append(f"{name} on stream {here.cuda_stream} did not wait for stream {stream.cuda_stream}")
            if stream is not here and here not in tensor.known_to:
                self.faults.append(f"{name} on stream {here.cuda_stream} reads what record_stream was not called for")
        count = here.seen[here.cuda_stream] = here.seen.get(here.cuda_stream, 0) + 1
        result = torch.ones(1).as_subclass(OnGpu)
        result.made, result.known_to = (here, count), set()
        return result


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """In place of torch.cuda."""
    fake = FakeCuda()
    for name, value in {
        "Stream": fake.new_stream,
        "current_stream": fake.current_stream,
        "stream": fake.stream,
        "current_device": lambda: 0,
        "device_count": lambda: 1,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return fake
