"""A kernel that starts before its launch is found and named."""

import pytest

from kit.errors import TraceError
from kit.trace import Event, Lane, Trace, check_launches, launch_delays

CPU, STREAM, OTHER = Lane(1, 1, "caller"), Lane(0, 7, "GPU 0 stream 7"), Lane(0, 20, "GPU 0 stream 20")
GOOD = [
    Event("cudaLaunchKernel", "cuda_runtime", 1_000, 500, CPU, 11),
    Event("cudaLaunchKernel", "cuda_runtime", 2_000, 500, CPU, 12),
    Event("cudaGraphLaunch", "cuda_runtime", 3_000, 500, CPU, 13),
    Event("gemm", "kernel", 1_200, 900, STREAM, 11),  # may start while its launch still returns
    Event("relu", "kernel", 2_000, 100, OTHER, 12),
    Event("copy", "gpu_memcpy", 3_100, 100, STREAM, 13),
    Event("conv", "kernel", 3_200, 100, STREAM, 13),  # one launch, many kernels
    Event("orphan", "kernel", 0, 10, STREAM, 99),  # launched before the recording
]


def test_kernels_after_their_launches_are_fine() -> None:
    trace = Trace.build(GOOD)
    assert sorted(launch_delays(trace).delay_ns.tolist()) == [0, 100, 200, 200]
    check_launches(trace)
    check_launches(Trace.build([event._replace(correlation=-1) for event in GOOD]))
    check_launches(Trace.build([]))


def test_a_planted_early_kernel_is_named_with_its_launch() -> None:
    early = Event("sigmoid", "kernel", 500, 10, OTHER, 14)
    launch = Event("cuLaunchKernel", "cuda_driver", 4_000, 100, CPU, 14)
    with pytest.raises(TraceError, match=r"1 of 5 kernels .* sigmoid by 3\.500 us before its cuLaunchKernel"):
        check_launches(Trace.build([*GOOD, early, launch]))


def test_a_shifted_gpu_clock_names_the_earliest() -> None:
    shifted = [e._replace(start_ns=e.start_ns - 150) if e.lane is not CPU else e for e in GOOD]
    with pytest.raises(TraceError, match=r"2 of 4 kernels .* relu by 0\.150 us"):
        check_launches(Trace.build(shifted))
