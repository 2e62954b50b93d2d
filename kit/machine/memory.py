"""How much memory a call takes at its peak."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes(call: Callable[[], object]) -> int | None:
    """By how many bytes this process grows while a call runs, in all its threads; None where that is not known.

    Only Linux with GNU's C library tells it: what was freed before goes back to the system, the highest resident size
    is reset (`proc_pid_clear_refs <https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html>`_), and read
    after the call. What the call returns counts too.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if RESET.exists() else None
    if trim is None:
        return None
    trim(0)
    try:
        RESET.write_text("5")
    except OSError:  # a container may forbid it
        return None
    before = _status("VmRSS")
    result = call()
    peak = _status("VmHWM")
    del result
    return max(0, peak - before)


def _status(key: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024
