"""Idle time by cause against pictures with known gaps and a slow count; and whether launches set the pace."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.trace import Event, Lane, Trace, idle, launch_bound
from kit.trace.streams import NEVER, device_work

MAIN, THREAD = Lane(1, 1, "main"), Lane(1, 2, "thread")
S7, S20, OTHER_GPU = Lane(0, 7, "GPU 0 stream 7"), Lane(0, 20, "GPU 0 stream 20"), Lane(1, 7, "GPU 1 stream 7")
LONG = 100_000  # ns: more than the gap between two kernels


def call(start: int, tie: int, name: str = "cudaLaunchKernel", lane: Lane = MAIN) -> Event:
    return Event(name, "cuda_runtime", start, 10, lane, tie)


def kernel(start: int, end: int, tie: int = -1, lane: Lane = S7, category: str = "kernel") -> Event:
    return Event("k", category, start, end - start, lane, tie)


def causes(*events: Event) -> list[tuple[str, tuple[int, ...]]]:
    """Busy time, and idle time for the host, a copy, a stream, kernel gaps, other: of each row."""
    return [(row.where, row[2:]) for row in idle(Trace.build(events))]


def test_a_launch_after_the_stream_became_idle_is_the_host() -> None:
    events = [call(0, 1), call(150, 2), kernel(20, 100, 1), kernel(200, 300, 2)]
    assert causes(*events) == [("GPU 0, 1 stream", (180, 100, 0, 0, 0, 0))]
    early = [call(0, 1), call(100, 2), *events[2:]]  # at the very moment: it was not too late
    assert causes(*early) == [("GPU 0, 1 stream", (180, 0, 0, 0, 100, 0))]


def test_a_short_gap_is_usual_and_a_long_one_has_no_known_cause() -> None:
    events = [call(0, 1), call(15, 2), call(30, 3), kernel(20, 100, 1), kernel(110, 200, 2)]
    assert causes(*events, kernel(200 + LONG, 201 + LONG, 3)) == [("GPU 0, 1 stream", (171, 0, 0, 0, 10, LONG))]
    assert causes(kernel(0, 5), kernel(8, 9)) == [("GPU 0, 1 stream", (6, 0, 0, 0, 0, 3))], "nobody knows the launch"
    trace = Trace.build(events)
    assert idle(trace, kernel_gap_ns=10)[0].other_ns == 10
    assert idle(trace, kernel_gap_ns=11)[0].kernel_ns == 10


@pytest.mark.parametrize(("category", "at"), [("gpu_memcpy", 1), ("kernel", 2)])
def test_a_stream_that_was_told_to_wait_waits_for_a_copy_or_a_kernel_of_another(category: str, at: int) -> None:
    events = [
        call(0, 1),
        call(11, 2),
        kernel(20, 100, 1),
        kernel(30, 30 + LONG, 2, S20, category),
        call(25, -1, "cudaStreamWaitEvent"),
        call(40, 3),
        kernel(40 + LONG, 50 + LONG, 3),
    ]
    (_, together), (_, seven), (_, twenty) = causes(*events)
    assert seven == (90, 0, *(LONG - 60 if i == at else 0 for i in (1, 2)), 0, 0)
    assert twenty == (LONG, 0, 0, 0, 0, 0)
    assert together == (20 + LONG, 0, 0, 0, 10, 0), "of the device, only the last 10 ns"
    never_told = [event for event in events if event.name != "cudaStreamWaitEvent"]
    assert causes(*never_told)[1] == ("GPU 0 stream 7", (90, 0, 0, 0, 0, LONG - 60))
    by_another = [e._replace(lane=THREAD) if e.name == "cudaStreamWaitEvent" else e for e in events]
    assert causes(*by_another)[1] == ("GPU 0 stream 7", (90, 0, 0, 0, 0, LONG - 60))
    before = [e._replace(start_ns=-20) if e.name == "cudaStreamWaitEvent" else e for e in events]
    assert causes(*before)[1] == ("GPU 0 stream 7", (90, 0, 0, 0, 0, LONG - 60)), "that was for the first kernel"


def test_devices_are_apart() -> None:
    events = [kernel(0, 10), kernel(50, 60), kernel(5, 100, lane=OTHER_GPU)]
    assert [(row.where, row.busy_ns, row.idle_ns, row.wall_ns) for row in idle(Trace.build(events))] == [
        ("GPU 0, 1 stream", 20, 40, 60),
        ("GPU 1, 1 stream", 95, 0, 95),
    ]


def test_no_gpu_has_no_rows() -> None:
    for trace in (Trace.build([]), Trace.build([Event("op", "cpu_op", 0, 5, MAIN)])):
        assert list(idle(trace)) == []
        assert str(idle(trace)).endswith("no work of a GPU in this trace")
        assert launch_bound(trace).verdict == "not decided"


def test_the_table_has_shares_of_the_wall_time() -> None:
    found = idle(Trace.build([call(0, 1), call(150, 2), kernel(20, 100, 1), kernel(200, 300, 2)]))
    assert found.table()[1] == ("GPU 0, 1 stream", "280 ns", "64.3%", "35.7%", "35.7%", "0.0%", "0.0%", "0.0%", "0.0%")
    assert repr(found) == "Idle(1 rows)"
    assert "<td" in found._repr_html_()


rows = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(0, 8), st.integers(0, 3)), max_size=10)
calls = st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(1, 3)), max_size=6)


@given(rows, calls)
@settings(deadline=None, max_examples=300)
def test_against_a_slow_count(found: list[Any], launches: list[Any]) -> None:
    events = [call(start, tie, "cudaStreamWaitEvent" if wait else "cudaLaunchKernel") for wait, start, tie in launches]
    events = [event._replace(correlation=-1) if "Wait" in event.name else event for event in events]
    lanes = [S7, S20, Lane(0, 21, "GPU 0 stream 21")]
    trace = Trace.build([*events, *(kernel(s, s + n, tie or -1, lanes[lane]) for lane, s, n, tie in found)])
    work = device_work(trace)
    start, end = trace.start_ns.tolist(), trace.end_ns.tolist()
    names = [trace.names[i] for i in trace.name]
    for i, stream, launch, launched, free, released in zip(
        *(c.tolist() for c in (work.event, work.lane, work.launch, work.launched_ns, work.free_ns, work.released_by)),
        strict=True,
    ):
        place = work.event.tolist().index(i)
        before = [
            j for j, lane in list(zip(work.event.tolist(), work.lane.tolist(), strict=True))[:place] if lane == stream
        ]
        assert free == max((end[j] for j in before), default=NEVER)
        assert launched == (start[launch] if launch >= 0 else NEVER)
        others = [j for j in work.event.tolist() if end[j] > start[j] and max(free, launched) < end[j] <= start[i]]
        if released >= 0:
            assert end[released] == max(end[j] for j in others)
            assert trace.lane[released] != stream
            own = dict(zip(work.event.tolist(), work.launch.tolist(), strict=True))
            earlier = [start[own[j]] for j in own if trace.lane[j] == stream and own[j] >= 0]
            since = max((s for s in earlier if s < launched), default=NEVER)
            told = [s for s, name in zip(start, names, strict=True) if "Wait" in name and since <= s < launched]
            assert own[released] == launch or told
    for row in idle(trace):
        assert row.wall_ns == row.busy_ns + row.idle_ns
        here = [
            j
            for j in work.event.tolist()
            if row.where.startswith("GPU 0,") or trace.lanes[trace.lane[j]].label == row.where
        ]
        moments = range(min(start[j] for j in here), max(end[j] for j in here))
        assert row.busy_ns == sum(any(start[j] <= m < end[j] for j in here) for m in moments)
        assert row.wall_ns == len(moments)
        assert row.work == len(here)


def recorded(kernel_ns: int, every_ns: int, count: int = 20) -> Trace:
    """Kernels that are launched at this pace; each starts 5 us later, or when the one before has ended."""
    events, free = [], 0
    for i in range(count):
        start = max(i * every_ns + 5_000, free)
        free = start + kernel_ns
        events += [call(i * every_ns, i + 1), kernel(start, free, i + 1)]
    return Trace.build(events)


def test_the_verdict_follows_the_pace_of_launches() -> None:
    slow_host, slow_gpu = launch_bound(recorded(3_000, 20_000)), launch_bound(recorded(30_000, 8_000))
    assert slow_host.verdict == "launch-bound"
    assert (slow_host.host_ns, slow_host.idle_ns) == (19 * 17_000, 19 * 17_000)
    assert (slow_host.busy_ns, slow_host.wall_ns) == (60_000, 19 * 20_000 + 3_000)
    assert (slow_host.launches, slow_host.short, slow_host.delay_ns) == (20, 19, 5_000)  # the first has no pace
    assert slow_gpu.verdict == "not launch-bound"
    assert slow_gpu.host_ns == 0
    assert launch_bound(recorded(14_000, 20_000)).verdict == "partly launch-bound"
    assert str(slow_host).startswith("launch-bound: for 84.3% of its time the GPU is idle")
    assert dict(slow_host.table())["launch-bound?"] == "launch-bound"
    assert "84.3%" in slow_host._repr_html_()


def test_few_long_pauses_are_not_for_launches() -> None:
    trace = recorded(30_000, 8_000, 5)
    later = [
        event._replace(start_ns=event.start_ns + 10**7, correlation=event.correlation + 5) for event in trace.events()
    ]
    assert launch_bound(Trace.build([*trace.events(), *later])).verdict == "waits for the host"


def test_without_launches_nothing_is_decided() -> None:
    trace = recorded(3_000, 20_000)
    found = launch_bound(trace.take(np.flatnonzero(trace.of_category("kernel"))))
    assert found.verdict == "not decided"
    assert "the launches of 20 of 20 kernels and copies are not in the trace" in found.reason
    assert found.busy_ns == 60_000
