"""What the category of an event means: work of a device, a call that launches it, an operator, or no work.

One table for every writer. Kineto has a name per vendor (`libkineto/include/ActivityType.h
<https://github.com/pytorch/kineto/blob/main/libkineto/include/ActivityType.h>`_); torch before 1.12 wrote ``Kernel``
and ``Runtime``; ROCm's own profilers write ``kernel_dispatch`` and ``hip_api``. All give the same figures.
"""

from __future__ import annotations

import re
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from kit.trace.columns import Int64, Trace


class Role(IntEnum):
    """The role of an event. Roles up to OTHER are work; a moment counts for the first role that runs then."""

    KERNEL = 0  # a device computes
    MEMORY = 1  # a device copies or fills memory
    RUNTIME = 2  # a call into CUDA, HIP, Level Zero ..., which may launch the first two
    OPERATOR = 3  # of the framework
    OTHER = 4  # any other event: the kit's own spans, Python frames, what nobody knows
    ANNOTATION = 5  # a range that somebody named, around what happens
    DEVICE_ANNOTATION = 6  # the same range as a device went through it
    BOOKKEEPING = 7  # the profiler about itself: its recording, steps, overhead; waits, and calls that mostly wait


DEVICE = (Role.KERNEL, Role.MEMORY)  # what keeps a device busy

_VENDOR = "cuda|gpu|hip|rocm|xpu|mtia|hpu|mlu|gcu|musa|maca|npu|privateuse1"
_ROLES = [  # the whole category, in lower case
    (Role.KERNEL, rf"(?:(?:{_VENDOR}|concurrent)_)?kernel|kernel_dispatch|mtia_ccp_events"),
    (Role.MEMORY, rf"(?:(?:{_VENDOR})_)?(?:memcpy|memset)|memory_copy"),
    (Role.RUNTIME, r"(?:\w+_)?(?:runtime|driver)|hpu_op|(?:hip|hsa)(?:_\w+)?_api"),
    (Role.OPERATOR, r"cpu_op|operator"),
    (Role.ANNOTATION, r"user_annotation"),
    (Role.DEVICE_ANNOTATION, rf"(?:{_VENDOR})_user_annotation"),
    (
        Role.BOOKKEEPING,
        rf"overhead|external_correlation|hpu_meta_op|mtia_insight|mlu_notifier|gpu_pm_counter|"
        rf"(?:{_VENDOR})_(?:sync|event|counters|profiler_range|scope_profiler)|osrt_api",
    ),
    (Role.OTHER, r"python_function|collective_comm|cpu_instant_event"),
]
_TABLE = [(role, re.compile(pattern)) for role, pattern in _ROLES]
_STEP = "ProfilerStep#"  # the profiler's own range, which torch before 1.12 wrote as an operator


def role_of(category: str) -> Role | None:
    """The role of events of a category; None if the category is unknown, which counts as OTHER."""
    if category == "Trace":  # Kineto's one event for the recording as a whole; elsewhere "trace" is a usual word
        return Role.BOOKKEEPING
    return next((role for role, pattern in _TABLE if pattern.fullmatch(category.lower())), None)


def on_device(category: str) -> bool:
    """Whether events of this category are in a device's lane: its work, or a range of its work."""
    return role_of(category) in (*DEVICE, Role.DEVICE_ANNOTATION)


def roles(trace: Trace) -> NDArray[np.int8]:
    """The :class:`Role` of each event, shape ``(n,)``. Asynchronous events keep nobody busy: they are ranges."""
    known = [role_of(category) for category in trace.categories]
    table = np.array([Role.OTHER if role is None else role for role in known], np.int8)
    found: NDArray[np.int8] = table[trace.category]
    steps = [i for i, name in enumerate(trace.names) if name.startswith(_STEP)]
    if steps:
        found[np.isin(trace.name, steps)] = Role.BOOKKEEPING
    ranges = [i for i, lane in enumerate(trace.lanes) if lane.asynchronous]
    if ranges:
        found[(found == Role.OTHER) & np.isin(trace.lane, ranges)] = Role.ANNOTATION
    return found


def is_work(trace: Trace) -> NDArray[np.bool_]:
    """Which events are work rather than annotations or bookkeeping, shape ``(n,)``."""
    return roles(trace) <= Role.OTHER


def having(trace: Trace, *wanted: Role) -> Int64:
    """The indices of the events with these roles, shape ``(k,)``."""
    return np.flatnonzero(np.isin(roles(trace), wanted))
