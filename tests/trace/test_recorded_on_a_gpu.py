"""Traces that the kit recorded on a real GPU: what each approach is said to do is seen in what the GPU did."""

import pytest

from kit.data_files import data_file
from kit.trace import (
    Trace,
    busy_ns,
    check_launches,
    critical_path,
    idle,
    launch_bound,
    load_trace,
    summary,
    wall_ns,
)
from kit.trace.metrics import on_gpu

NETWORKS = ("inception-block", "inception-v3")


@pytest.mark.parametrize("network", NETWORKS)
def test_streams_that_python_launches_never_overlap_and_those_of_a_graph_do(network: str) -> None:
    one, several, graph = (
        load_trace(data_file(f"traces/h200-{network}-{approach}.json.gz"))
        for approach in ("sequential", "cuda_streams", "graphed_streams")
    )
    for trace in (one, several, graph):
        check_launches(trace)
        assert summary(trace)["notes"] == []
    assert summary(one)["gpu_streams"] == 1
    assert summary(one)["gpu_concurrent_ns"] == 0
    assert summary(several)["gpu_streams"] > 1
    assert summary(several)["gpu_concurrent_ns"] == 0, "each kernel has ended before the next one is launched"
    assert summary(graph)["gpu_concurrent_ns"] > 0


@pytest.mark.parametrize("network", NETWORKS)
def test_launches_from_python_set_the_pace_and_not_those_of_a_graph(network: str) -> None:
    def of(approach: str) -> Trace:
        return load_trace(data_file(f"traces/h200-{network}-{approach}.json.gz"))

    one, several, graph = of("sequential"), of("cuda_streams"), of("graphed_streams")
    for trace in (one, several, graph):
        path = critical_path(trace)
        assert sum(path.causes.values()) == wall_ns(trace)
        (row, *_) = idle(trace)
        assert row.busy_ns == busy_ns(on_gpu(trace))
        assert row.wall_ns == wall_ns(on_gpu(trace))
    assert launch_bound(one).verdict == launch_bound(several).verdict == "launch-bound"
    assert launch_bound(graph).verdict != "launch-bound"
    assert all(row.host_ns / row.wall_ns > 0.5 for row in idle(one))
    streams = idle(graph)[1:]
    assert sum(row.stream_ns for row in streams) > 0, "its streams wait for each other"


def test_the_critical_path_of_a_large_graph_goes_through_its_kernels() -> None:
    one, graph = (
        critical_path(load_trace(data_file(f"traces/h200-inception-v3-{approach}.json.gz")))
        for approach in ("sequential", "graphed_streams")
    )
    assert one.causes["kernels"] == 0, "each kernel has ended before the next one is launched"
    assert graph.causes["kernels"] > wall_ns(graph.recording) / 2


@pytest.mark.parametrize("network", NETWORKS)
def test_a_graph_is_launched_once_where_each_kernel_is_launched_from_python(network: str) -> None:
    def launches(approach: str, name: str) -> int:
        trace = load_trace(data_file(f"traces/h200-{network}-{approach}.json.gz"))
        return sum(event.name == name for event in trace.events())

    assert launches("graphed_streams", "cudaGraphLaunch") == 1
    assert launches("graphed_streams", "cudaLaunchKernel") <= 2  # copies of inputs and outputs
    assert launches("sequential", "cudaLaunchKernel") > 10
