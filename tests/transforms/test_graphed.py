"""A captured graph: what goes in and out of its buffers, what it refuses; and, on a GPU, that it gives the same."""

import gc
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from kit.equality import as_args, compare_outputs, inputs_without_effect
from kit.errors import KitError, ShapeError, UnavailableError
from kit.executors import Sequential, current
from kit.executors.cuda_streams import CudaStreams
from kit.machine.hardware import detect
from kit.models import inception_block
from kit.regions import Branches, regions
from kit.scheduling import POLICIES
from kit.transforms.graphed import Graph, Graphed, GraphedStreams
from tests.conftest import OnGpu


class Recorder(nn.Module):
    """Doubles its input, and notes what ran it; without weights, so that it is where its input is."""

    def __init__(self) -> None:
        super().__init__()
        # What is applied to a model leaves its attributes as they were: the notes are in an object of their own.
        self.noted = SimpleNamespace(calls=0, executors=[], streams=[], modes=[])
        self.stream_of = lambda: None

    def forward(self, x):
        self.noted.calls += 1
        self.noted.executors.append(current())
        self.noted.streams.append(self.stream_of())
        self.noted.modes.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled()))
        return {"doubled": 2 * x}


class FakeGraph:
    """Stands where torch.cuda.CUDAGraph would; a replay is what the test says."""

    def replay(self) -> None:
        raise NotImplementedError


@pytest.fixture
def graphs(fake_cuda, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream: fake_cuda.stream(stream))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    return fake_cuda


def captured(x: torch.Tensor, transform: Graphed) -> tuple[Recorder, Graph]:
    """A captured recorder whose replay computes what a graph would: from its buffers into its buffers."""
    model = Recorder()
    graph = transform.apply(model, as_args(x))
    graph._graph.replay = lambda: graph._outputs["doubled"].copy_(2 * graph._inputs[0])
    return model, graph


def on_gpu(*shape: int) -> OnGpu:
    return torch.randn(*shape).as_subclass(OnGpu)


@pytest.mark.parametrize("inference", [False, True])
def test_inputs_go_in_and_outputs_are_the_callers_own(graphs, inference: bool) -> None:
    with torch.inference_mode(inference):
        first, second = on_gpu(2, 3), on_gpu(2, 3)
        model, graph = captured(first, Graphed())
        one = graph(first)
        two = graph(second)
        assert torch.equal(one["doubled"], 2 * first)  # the second replay did not reach it
        assert torch.equal(two["doubled"], 2 * second)
        one["doubled"].zero_()
        assert torch.equal(graph(first)["doubled"], 2 * first)
    assert torch.equal(graph(on_gpu(2, 3) * 0)["doubled"], torch.zeros(2, 3))  # in another mode than it was captured in
    assert model.noted.calls == 4
    assert set(model.noted.modes) == {(False, False)}


def test_warm_up_and_capture_are_on_one_side_stream_which_is_left(graphs) -> None:
    model = Recorder()
    model.stream_of = graphs.current_stream
    Graphed().apply(model, as_args(on_gpu(1)))
    assert len(set(model.noted.streams)) == 1
    assert model.noted.streams[0] is not graphs.streams[0]
    assert graphs.current_stream() is graphs.streams[0]


def test_which_executor_captures(graphs) -> None:
    model, _ = captured(on_gpu(1), Graphed())
    assert set(map(type, model.noted.executors)) == {Sequential}
    model, _ = captured(on_gpu(1), GraphedStreams("wavefront", 2))
    assert {(type(each), each.policy, each.streams) for each in model.noted.executors} == {
        (CudaStreams, "wavefront", 2)
    }


@pytest.mark.parametrize("other", [(3, 3), (2, 3, 1), (2,)])
def test_other_shapes_are_refused(graphs, other: tuple[int, ...]) -> None:
    _, graph = captured(on_gpu(2, 3), Graphed())
    with pytest.raises(ShapeError, match=r"captured for \(2, 3\) float32 on cuda:0, but was given .*one shape only"):
        graph(on_gpu(*other))
    with pytest.raises(ShapeError, match="float64"):
        graph(on_gpu(2, 3).double())
    with pytest.raises(ShapeError, match="on cpu"):
        graph(torch.ones(2, 3))
    with pytest.raises(ShapeError):
        graph(on_gpu(2, 3), on_gpu(2, 3))


def test_what_cannot_be_captured_says_so_in_cudas_words(graphs) -> None:
    class Waits(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls > 3:
                raise RuntimeError("operation not permitted when stream is capturing")
            return x

    for model in (Waits(), Branches({"a": Waits()}, lambda outputs: outputs[0])):
        with pytest.raises(KitError, match=r"cannot be captured.*not permitted when stream is capturing.*\.item\(\)"):
            Graphed().apply(model, as_args(on_gpu(1)))
        assert graphs.current_stream() is graphs.streams[0]


@pytest.mark.parametrize("inputs", [torch.ones(1, 192, 35, 35), (torch.ones(1), "text"), ()])
def test_what_is_not_on_one_gpu_is_refused(inputs) -> None:
    with pytest.raises(UnavailableError, match="must be tensors on one GPU"):
        Graphed().apply(inception_block(), as_args(inputs))


def test_a_graph_has_no_regions_left(graphs) -> None:
    model = Branches({"a": nn.Identity()}, lambda outputs: outputs[0])
    assert list(regions(Graphed().apply(model, as_args(on_gpu(1))))) == []


def test_the_captured_weights_live_as_long_as_the_graph(graphs) -> None:
    class Adds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", on_gpu(3))

        def forward(self, x):
            return x + self.weight

    model = Adds()
    memory = StorageWeakRef(model.weight.untyped_storage())
    graph = Graphed().apply(model, as_args(on_gpu(3)))
    model.weight.data = on_gpu(3)
    del model
    assert not memory.expired()
    del graph
    gc.collect()
    assert memory.expired()


def test_availability_is_a_sentence() -> None:
    for transform in (Graphed, GraphedStreams):
        assert transform.unavailable_because(replace(detect(), gpus=("H200",))) is None
        assert "CUDA GPU" in transform.unavailable_because(replace(detect(), gpus=(), nvidia_device=False))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("transform", [Graphed(), *map(GraphedStreams, POLICIES), GraphedStreams("wavefront", 2)])
@pytest.mark.parametrize("batch", [1, 4])
def test_on_a_gpu_replays_give_the_eager_output(transform: Graphed, batch: int) -> None:
    model = inception_block().cuda()
    inputs = [torch.randn(batch, 192, 35, 35, device="cuda") for _ in range(5)]
    with torch.inference_mode():
        expected = [model(x) for x in inputs]
        assert inputs_without_effect(model, inputs[0]) == []
        graph = transform.apply(model, as_args(inputs[0]))
        outputs = [graph(x) for _ in range(200) for x in inputs]
        for i, want in enumerate(expected):  # a thousand comparisons one by one would copy for a minute
            assert compare_outputs(torch.stack([want] * 200), torch.stack(outputs[i::5])).equal
        with pytest.raises(ShapeError):
            graph(inputs[0][:, :, 1:])
