"""What notebook 05 reads from a trace, whoever made it."""

from __future__ import annotations

import numpy as np

from kit.trace import Trace, busy_ns, gpu_busy_ns, launch_delays
from kit.trace.categories import Role, having
from kit.trace.metrics import on_gpu


def window_ns(trace: Trace) -> int:
    """From the first launch to the end of the GPU's work."""
    delays = launch_delays(trace)
    return int(trace.end_ns[delays.start].max() - trace.start_ns[delays.launch].min())


def clocks_ns(trace: Trace) -> tuple[int, int]:
    """What a clock says that starts at the first event of the host: stopped at once, and after waiting for the GPU.

    Stopped at once means: when the call of the last launch returned.
    """
    delays = launch_delays(trace)
    host = np.setdiff1d(np.arange(len(trace)), having(trace, Role.KERNEL, Role.MEMORY))
    begin = int(trace.start_ns[host].min())
    return int(trace.end_ns[delays.launch].max()) - begin, int(trace.end_ns[delays.start].max()) - begin


def returned_early(trace: Trace) -> tuple[int, int]:
    """How many kernels and copies ended after the call that launched them had returned; and how many there are."""
    delays = launch_delays(trace)
    early = trace.end_ns[delays.launch] < trace.end_ns[delays.start]
    return int(np.count_nonzero(early)), len(early)


def in_order(trace: Trace) -> bool:
    """Whether the work of the GPU began in the order in which it was launched."""
    delays = launch_delays(trace)
    began = trace.start_ns[delays.start][np.argsort(trace.start_ns[delays.launch], kind="stable")]
    return bool(np.all(np.diff(began) >= 0))


def streams(trace: Trace) -> int:
    """On how many streams the GPU worked."""
    return len(np.unique(on_gpu(trace).lane))


def copies_ns(trace: Trace) -> int:
    """For how long anything is copied between host and GPU."""
    return busy_ns(trace.take(having(trace, Role.MEMORY)))


def kernels_ns(trace: Trace) -> int:
    """For how long any kernel runs."""
    return busy_ns(trace.take(having(trace, Role.KERNEL)))


def hidden_ns(trace: Trace) -> int:
    """For how long a copy and a kernel run at the same time."""
    return copies_ns(trace) + kernels_ns(trace) - gpu_busy_ns(trace)
