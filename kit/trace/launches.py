"""Is the GPU's side of a trace where it belongs? No kernel runs before the call that launched it."""

from __future__ import annotations

from kit.errors import TraceError
from kit.trace.columns import Trace
from kit.trace.metrics import launch_delays


def check_launches(trace: Trace) -> None:
    """Refuse a trace in which GPU work starts before its launch on the CPU, tied to it by its correlation id.

    A process that profiles CUDA a second time can find its kernels shifted in time, or not at all (`PyTorch issues
    175790 <https://github.com/pytorch/pytorch/issues/175790>`_ and `192021
    <https://github.com/pytorch/pytorch/issues/192021>`_).

    Raises:
        TraceError: the message names the kernel that is earliest.
    """
    delays = launch_delays(trace)
    early = int((delays.delay_ns < 0).sum())
    if early:
        worst = int(delays.delay_ns.argmin())
        kernel, launch = (trace.names[trace.name[int(column[worst])]] for column in (delays.start, delays.launch))
        raise TraceError(
            f"the GPU's clock does not fit the CPU's: {early:,} of {len(delays.delay_ns):,} kernels and copies start "
            f"before they were launched, {kernel} by {-int(delays.delay_ns[worst]) / 1000:,.3f} us before its "
            f"{launch}. Nothing can be read from such a recording: record again, in a fresh process."
        )
