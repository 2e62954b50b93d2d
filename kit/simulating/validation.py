"""How far off a simulated GPU is for a recording: the share of the time in which the GPU works."""

from __future__ import annotations

import numpy as np

from kit.scheduling.gpu import Gpu
from kit.simulating.operations import recorded_operations
from kit.simulating.simulation import simulate
from kit.trace import Trace, busy_ns, launch_delays


def busy_share(trace: Trace) -> float:
    """Share of the time from the first launch to the end of the GPU's work in which the GPU works."""
    delays = launch_delays(trace)
    work = trace.take(np.sort(delays.start))
    return busy_ns(work) / int(work.end_ns.max() - trace.start_ns[delays.launch].min())


def one_stream(trace: Trace) -> float:
    """The same share, predicted for one stream."""
    operations = [each._replace(branch=-1) for each in recorded_operations(trace, Gpu())]
    return busy_share(simulate(operations, "sequential"))


def other_approach(one_stream: Trace, approach: str, fills: float = 0.0) -> float:
    """The same share under another approach, predicted from the kernels and host times of a recording of one stream.

    Args:
        fills: the part of the SMs that each kernel fills, 0 to 1; recordings do not say it.
    """
    return busy_share(simulate(recorded_operations(one_stream, Gpu(), fills), approach))
