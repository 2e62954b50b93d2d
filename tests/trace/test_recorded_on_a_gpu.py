"""Traces that the kit recorded on a real GPU: what each approach is said to do is seen in what the GPU did."""

import pytest

from kit.data_files import data_file
from kit.trace import check_launches, load_trace, summary

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
def test_a_graph_is_launched_once_where_each_kernel_is_launched_from_python(network: str) -> None:
    def launches(approach: str, name: str) -> int:
        trace = load_trace(data_file(f"traces/h200-{network}-{approach}.json.gz"))
        return sum(event.name == name for event in trace.events())

    assert launches("graphed_streams", "cudaGraphLaunch") == 1
    assert launches("graphed_streams", "cudaLaunchKernel") <= 2  # copies of inputs and outputs
    assert launches("sequential", "cudaLaunchKernel") > 10
