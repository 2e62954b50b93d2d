"""``kit.simulate``: approaches on a simulated GPU, as traces; and how far off the model is for what was recorded."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import kit
from bench.simulation import busy_share, one_stream
from kit.errors import KitError, UnknownNameError
from kit.simulating import (
    APPROACHES,
    DEFAULT,
    Copy,
    Gpu,
    Launch,
    LaunchGraph,
    Operation,
    Record,
    Synchronize,
    Wait,
    Work,
    breadth_first,
    operations_of,
    program,
    recorded_operations,
    simulate,
)
from kit.trace import Trace, check_launches, gpu_busy_ns, load_trace, overlap_ns, save_trace, sum_ns, wall_ns
from kit.trace.metrics import launch_delays, on_gpu

ROOT = Path(__file__).parents[2]
RECORDED = sorted((ROOT / "data" / "traces").glob("h200-*-sequential.json.gz"))
PUBLIC = next((each / "shared" / "traces" for each in ROOT.parents if (each / "shared" / "traces").is_dir()), None)
ONE_STREAM = ["h100_bert_small", "h100_vit", "h100_qwen_0_5b", "rtx2080ti_resnet_pageable"]


def block(branches: int = 4, long: int = 2, ns: int = 10_000, blocks: int = 40) -> list[Operation]:
    """A kernel, branches of ``long`` kernels each, and their merge; two kernels of 40 blocks do not fill a GPU."""
    found = [Operation(Launch("stem", blocks, ns, share=1.0))]
    ends = []
    for branch in range(branches):
        before = 0
        for i in range(long):
            found.append(Operation(Launch(f"b{branch} {i}", blocks, ns, share=1.0), branch, (before,)))
            before = len(found) - 1
        ends.append(before)
    return [*found, Operation(Launch("merge", blocks, ns, share=1.0), after=tuple(ends))]


@pytest.mark.parametrize("approach", APPROACHES)
@pytest.mark.parametrize("streams", [None, 1, 2])
def test_no_kernel_begins_before_what_it_needs_has_ended(approach: str, streams: int | None) -> None:
    # A second region behind the first; every kernel reads what those before it write.
    first = block()
    second = [
        each._replace(after=tuple(i + len(first) for i in each.after) or (len(first) - 1,)) for each in block(3, 3)
    ]
    operations = [
        each._replace(
            kernel=each.kernel._replace(name=f"k{i}", reads=tuple(f"out {j}" for j in each.after), writes=(f"out {i}",))
        )
        for i, each in enumerate([*first, *second])
    ]
    for order in (operations, breadth_first(operations)):
        trace = simulate(order, approach, streams=streams)
        assert trace.about["races"] == []
        when = {event.name: event for event in trace.events() if event.category == "kernel"}
        assert len(when) == len(operations)
        for each in order:
            for j in each.after:
                before, after = when[order[j].kernel.name], when[each.kernel.name]
                assert before.start_ns + before.duration_ns <= after.start_ns
        check_launches(trace)


def test_without_its_events_a_program_of_streams_has_races() -> None:
    operations = block()
    kernels = [
        each.kernel._replace(reads=tuple(f"{j}" for j in each.after), writes=(f"{i}",))
        for i, each in enumerate(operations)
    ]
    ordered = program([o._replace(kernel=k) for o, k in zip(operations, kernels, strict=True)], "cuda_streams", Gpu())
    assert simulate(ordered).about["races"] == []
    unordered = {thread: [c for c in calls if not isinstance(c, Wait)] for thread, calls in ordered.items()}
    assert len(simulate(unordered).about["races"]) >= 8


def test_what_each_approach_is_for() -> None:
    launch_bound, long = block(ns=2_000), block(ns=2_000_000)
    wall = lambda operations, name, **more: wall_ns(simulate(operations, name, **more))  # noqa: E731
    one = wall(launch_bound, "sequential")
    assert wall(launch_bound, "cuda_streams") >= one  # launches cost as much, and events are added
    assert wall(launch_bound, "graphed") < 0.5 * one
    assert wall(launch_bound, "graphed_streams") < wall(launch_bound, "graphed")
    assert wall(launch_bound, "cuda_streams_threads", gpu=Gpu(gil_share=0.0)) < one
    assert wall(launch_bound, "cuda_streams_threads", gpu=Gpu(gil_share=1.0)) >= one
    assert wall(long, "cuda_streams") < 0.7 * wall(long, "sequential")
    full = block(ns=2_000_000, blocks=132)
    assert wall(full, "cuda_streams") > 0.98 * wall(full, "sequential")
    assert overlap_ns(on_gpu(simulate(long, "sequential"))) == 0
    assert wall(long, "cuda_streams", streams=1) > 1.5 * wall(long, "cuda_streams")


def test_the_trace_is_like_a_recording_and_says_that_it_is_none(tmp_path: Path) -> None:
    trace = simulate(block(), "cuda_streams_threads")
    labels = {lane.label for lane in trace.lanes}
    assert {"caller", "worker 0", "worker 3", f"GPU 0 stream {DEFAULT}", "GPU 0 stream 8"} <= labels
    assert {lane.group for lane in trace.lanes} == {"cuda_streams_threads"}
    assert set(trace.categories) == {"cpu_op", "cuda_runtime", "kernel"}
    assert len(launch_delays(trace).launch) == len(block())
    assert launch_delays(trace).delay_ns.min() >= Gpu().start_ns
    save_trace(trace, tmp_path / "simulated.json.gz")
    again = load_trace(tmp_path / "simulated.json.gz")
    assert again.about["simulated"] is True
    assert again.about["gpu"]["sms"] == 132
    graph = simulate(block(), "graphed")
    assert len(set(graph.ids("correlation")[graph.of_category("kernel")].tolist())) == 1  # one launch
    copied = simulate([Copy(1000), Copy(1000, "host", pinned=False), Synchronize()])
    assert {"Memcpy HtoD (Pinned -> Device)", "Memcpy DtoH (Device -> Pageable)"} <= set(copied.names)


def test_streams_beyond_the_pool_are_the_first_ones_again() -> None:
    trace = simulate(block(branches=40, long=1), "cuda_streams")
    assert len({lane.thread for lane in trace.lanes if lane.process == 0}) == 1 + 32


def test_what_cannot_be_simulated_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'cuda_streams'"):
        simulate(block(), "cuda_stream")
    with pytest.raises(KitError, match="without an approach"):
        simulate([Work(1)], "graphed")
    with pytest.raises(KitError, match="no call to simulate"):
        simulate([])
    with pytest.raises(KitError, match="at least 1 stream"):
        simulate(block(), "cuda_streams", streams=0)
    with pytest.raises(KitError, match="those that come before it"):
        simulate([Operation(Launch("a", 1, 1), after=(0,))])
    with pytest.raises(KitError, match="cannot be simulated"):
        simulate([1, 2])  # type: ignore[list-item]
    with pytest.raises(KitError, match="no kernel whose launch was recorded"):
        simulate(Trace.build([]))
    with pytest.raises(KitError, match="from 0 to 1"):
        recorded_operations(load_trace(RECORDED[0]), Gpu(), fills=2.0)


# The kernels of a model -----------------------------------------------------------------------------------------------


class Two(nn.Module):
    """Two branches: convolutions of known sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1)
        self.left, self.right = nn.Conv2d(64, 32, 1), nn.Conv2d(64, 64, 3, padding=1)
        self.head = nn.Linear(96, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.cat([self.left(x), self.right(x)], 1)
        return self.head(x.mean((2, 3)).flatten(1))


@pytest.fixture(scope="module")
def graph() -> kit.graphs.Graph:  # type: ignore[name-defined]
    return kit.graph(Two().eval(), torch.rand(1, 3, 32, 32))


def test_the_kernels_of_a_model_by_the_roofline(graph) -> None:
    gpu = Gpu(flops=1e12, bytes_per_s=1e12, kernel_ns=10, sms=4)
    found = {each.kernel.name.removeprefix("model_"): each for each in operations_of(graph, gpu)}

    def gpu_ns(kernel: Launch) -> float:
        """If its blocks had all SMs to themselves, and nothing of them were left over."""
        return kernel.blocks * kernel.block_ns * kernel.share / gpu.sms

    right, relu, mean, head = (found[name].kernel for name in ("right", "relu", "mean", "head"))
    assert right.blocks == 64 * 32 * 32 // 4096  # one tile of 64 x 64 outputs for each
    assert gpu_ns(right) == pytest.approx(2 * 64 * 64 * 9 * 32 * 32 / 1e3, rel=0.01)  # FLOPs at 1e12 a second
    assert relu.blocks == 64 * 32 * 32 // 512
    assert gpu_ns(relu) == pytest.approx(4 * 2 * 64 * 32 * 32 / 1e3, rel=0.01)  # bytes that it reads and writes
    assert mean.blocks == 96 * 32 * 32 // 512  # a reduction, by what it reads
    assert gpu_ns(head) == pytest.approx(4 * (96 + 960 + 10) / 1e3, rel=0.05)  # its input, its weights, its output
    assert "flatten" not in found
    assert {found["left"].branch, found["right"].branch} == {0, 1}
    assert found["relu"].branch == -1


def test_a_model_under_each_approach(graph) -> None:
    traces = {name: kit.simulate(graph, name) for name in APPROACHES}
    counts = {name: len(on_gpu(trace)) for name, trace in traces.items()}
    assert len(set(counts.values())) == 1
    assert wall_ns(traces["graphed"]) < wall_ns(traces["sequential"])
    assert len({lane.thread for lane in traces["cuda_streams"].lanes if lane.process == 0}) == 3


def test_times_of_a_model_are_never_better_than_its_roofline(graph) -> None:
    gpu = Gpu(flops=1e11, launch_ns=0, start_ns=0, eager_ns=0)
    macs = sum(each.macs for each in graph.operators)
    for name in APPROACHES:
        assert gpu_busy_ns(kit.simulate(graph, name, gpu=gpu)) >= 0.999 * 2 * macs / 1e11 * 1e9


# What was recorded ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_a_recorded_stream_is_predicted(path: Path) -> None:
    trace = load_trace(path)
    assert abs(one_stream(trace) / busy_share(trace) - 1) < 0.15


@pytest.mark.skipif(PUBLIC is None, reason="the public traces are not beside this checkout")
@pytest.mark.parametrize("name", ONE_STREAM)
def test_public_recordings_of_one_stream_are_predicted(name: str) -> None:
    assert PUBLIC is not None
    trace = load_trace(PUBLIC / f"{name}.json.gz")
    assert len(on_gpu(trace)) > 50
    assert abs(one_stream(trace) / busy_share(trace) - 1) < 0.15


def test_branches_of_a_recording_are_independent_and_the_rest_is_not() -> None:
    trace = load_trace(ROOT / "data" / "traces" / "h200-inception-block-sequential.json.gz")
    operations = recorded_operations(trace, Gpu())
    assert len(operations) == len(on_gpu(trace))
    assert {each.branch for each in operations} == {-1, 0, 1, 2, 3}
    (merge,) = [each for each in operations if len(each.after) > 1]
    assert {operations[i].branch for i in merge.after} == {0, 1, 2, 3}
    assert merge.branch == -1
    assert [each.kernel.block_ns for each in operations] == on_gpu(trace).duration_ns.tolist()
    assert statistics.fmean(each.host_ns or 0 for each in operations) > 0


def test_a_graph_with_streams_lies_between_kernels_that_fill_nothing_and_all() -> None:
    """Recordings do not say how much of the GPU a kernel fills: the two extremes bound what was recorded."""
    folder = ROOT / "data" / "traces"
    sequential = load_trace(folder / "h200-inception-v3-sequential.json.gz")
    recorded = load_trace(folder / "h200-inception-v3-graphed_streams.json.gz")
    least, most = (
        gpu_busy_ns(simulate(recorded_operations(sequential, Gpu(), fills), "graphed_streams")) for fills in (0.0, 1.0)
    )
    assert least < gpu_busy_ns(recorded) < most
    assert most == sum_ns(on_gpu(sequential))


def test_a_graph_is_what_was_captured() -> None:
    calls = program(block(), "graphed_streams", Gpu())["caller"]
    assert [type(each) for each in calls] == [LaunchGraph, Synchronize]
    assert not any(isinstance(each, Work) for each in calls[0].calls)  # type: ignore[union-attr]
    assert sum(isinstance(each, Record) for each in calls[0].calls) == 1 + 4  # type: ignore[union-attr]
    assert np.all(simulate(calls).duration_ns > 0)
