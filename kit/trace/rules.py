"""Rules that a trace of torch.profiler keeps unless the profiler, its driver or its clocks went wrong.

They are those of ``torch.profiler._trace_validator`` (`torch 2.13
<https://github.com/pytorch/pytorch/blob/v2.13.0/torch/profiler/_trace_validator.py>`_), each of which comes from a
fault that was seen in production. Here what breaks a rule is a sentence, and the trace is used all the same. The
validator ties a kernel to its launch by "External id", which all kernels of an operator share; here it is the
correlation id, which only one launch has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from kit.trace.categories import Role, having
from kit.trace.columns import Int64, Trace
from kit.trace.metrics import launch_delays
from kit.trace.tables import named

_RECORDED_BY = "wait_on_cuda_event_record_corr_id"
_EVENT_RECORD = re.compile(r"cudaEventRecord(WithFlags)?(_ptsz)?")
_COLLECTIVE = ("Collective name", "dtype", "In msg nelems", "Out msg nelems", "Group size")
_MOST = 20_000
_BACKWARD = "autograd::engine::evaluate_function:"


def broken_rules(trace: Trace) -> Iterator[str]:
    """A sentence for each rule that events of this trace break.

    Four rules read arguments of events. They look at the first 20,000 events that each is about, so that a large trace
    is not loaded much slower.
    """
    yield from _kernels_after_launches(trace)
    yield from _stream_idle_when_synchronised(trace)
    yield from _waits_name_their_event(trace)
    yield from _collectives_are_described(trace)
    yield from _one_backward_operator_per_sequence_number(trace)


def _kernels_after_launches(trace: Trace) -> Iterator[str]:
    delays = launch_delays(trace)
    early = np.flatnonzero(delays.delay_ns < 0)
    if len(early):
        worst = int(delays.delay_ns.argmin())
        yield (
            f"{len(early):,} of {len(delays.delay_ns):,} kernels and copies start before their launch, "
            f"{_name(trace, delays.start[worst])} by {-int(delays.delay_ns[worst]) / 1000:,.3f} us: the clocks of CPU "
            "and GPU disagree."
        )


def _stream_idle_when_synchronised(trace: Trace) -> Iterator[str]:
    """A wait for a stream is recorded, in the stream's lane, from when the stream has ended its work."""
    waits, kernels = _called(trace, {"Stream Sync"}), having(trace, Role.KERNEL)
    running = []
    for lane in np.unique(trace.lane[waits]).tolist():
        here = kernels[trace.lane[kernels] == lane]
        starts, ends = np.sort(trace.start_ns[here]), np.sort(trace.end_ns[here])
        of_lane = waits[trace.lane[waits] == lane]
        moment = trace.start_ns[of_lane]
        # As many are running as have started before the moment and not ended by it.
        open_then = np.searchsorted(starts, moment, side="left") - np.searchsorted(ends, moment, side="right")
        running += of_lane[open_then > 0].tolist()
    if running:
        yield (
            f"{len(running):,} of {len(waits):,} waits for a stream start while a kernel runs there, the "
            f"first of them on {trace.lanes[trace.lane[min(running)]].label}: some of these times are wrong."
        )


def _waits_name_their_event(trace: Trace) -> Iterator[str]:
    """A wait for a CUDA event names the call that recorded it, and that call was earlier."""
    waits = _called(trace, {"Stream Wait Event", "Event Sync"})[:_MOST]
    args = trace.args_of(waits)
    known = [_number(each.get(_RECORDED_BY)) for each in args]
    unnamed = [
        i for i, (number, each) in enumerate(zip(known, args, strict=True)) if "cuda_sync_kind" in each and number < 0
    ]
    if unnamed:
        yield (
            f"{len(unnamed):,} of {len(waits):,} waits for a CUDA event do not name the call that recorded it: what "
            "they waited for is unknown."
        )
    names = [i for i, name in enumerate(trace.names) if _EVENT_RECORD.fullmatch(name)]
    calls = np.flatnonzero(np.isin(trace.name, names))
    since: dict[int, int] = {}
    for column in ("external", "correlation"):
        for number, start in zip(trace.ids(column)[calls].tolist(), trace.start_ns[calls].tolist(), strict=True):
            since[number] = min(start, since.get(number, start))
    streams = [trace.names[name] == "Stream Wait Event" for name in trace.name[waits].tolist()]
    lost = late = 0
    for stream, number, start in zip(streams, known, trace.start_ns[waits].tolist(), strict=True):
        if stream and number >= 0:
            lost += number not in since
            late += since.get(number, start) > start
    if lost:
        yield f"{lost:,} waits of a stream name a cudaEventRecord that is not in the trace."
    if late:
        yield f"{late:,} waits of a stream start before the cudaEventRecord that they wait for: the times are wrong."


def _collectives_are_described(trace: Trace) -> Iterator[str]:
    events = _called(trace, {"record_param_comms"})[:_MOST]
    missing = [{*_COLLECTIVE} - {*args} for args in trace.args_of(events)]
    bad = [each for each in missing if each]
    if bad:
        fields = ", ".join(name for name in _COLLECTIVE if any(name in each for each in bad))
        yield (
            f"{len(bad):,} of {len(events):,} collective operations (record_param_comms) lack {fields}: tools that "
            "analyse communication cannot use them."
        )


def _one_backward_operator_per_sequence_number(trace: Trace) -> Iterator[str]:
    events = _called(trace, (name for name in trace.names if _BACKWARD in name))[:_MOST]
    operators: dict[int, set[str]] = {}
    for name, args in zip(trace.name[events].tolist(), trace.args_of(events), strict=True):
        number = _number(args.get("Sequence number") or args.get("seq_num"))
        if number >= 0:
            operators.setdefault(number, set()).add(trace.names[name].partition(":")[2].strip())
    shared = [(number, names) for number, names in operators.items() if len(names) > 1]
    if shared:
        number, names = shared[0]
        yield (
            f"{len(shared):,} sequence numbers belong to several backward operators, the first of them {number} "
            f"({named(', '.join(sorted(names)))}): which forward operator each belongs to is uncertain."
        )


def _called(trace: Trace, names: Iterable[str]) -> Int64:
    wanted = {*names}
    return np.flatnonzero(np.isin(trace.name, [i for i, name in enumerate(trace.names) if name in wanted]))


def _number(value: Any) -> int:
    """A number as Kineto writes it, or its text; -1 for anything else."""
    text = str(value)
    return int(text) if len(text) < 20 and text.isdecimal() else -1


def _name(trace: Trace, event: Any) -> str:
    return repr(named(trace.names[trace.name[int(event)]], 60))
