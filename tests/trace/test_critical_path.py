"""The critical path: pictures whose path is known, a slow search by the same rules, and recordings of real GPUs."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.trace import CriticalPath, Event, Lane, Trace, critical_path, stack, wall_ns
from kit.trace.categories import DEVICE, Role, roles
from kit.trace.critical_path import GROUP, WORDS
from kit.trace.streams import device_work
from kit.trace.walking import Cause

MAIN, OTHER = Lane(1, 1, "main"), Lane(1, 2, "worker")
S7, S20 = Lane(0, 7, "GPU 0 stream 7"), Lane(0, 20, "GPU 0 stream 20")
Told = list[tuple[str, str, int, int]]


def told(path: CriticalPath) -> Told:
    """The pieces as (name, cause, start, end)."""
    names = (*path.recording.names, "")
    of = np.append(path.recording.name, -1)[path.pieces.event]
    columns = (of, path.pieces.cause, path.pieces.start_ns, path.pieces.end_ns)
    return [(names[n], WORDS[Cause(c)], s, e) for n, c, s, e in zip(*(x.tolist() for x in columns), strict=True)]


def path_of(*events: Event) -> Told:
    found = critical_path(Trace.build(events))
    check(found)
    return told(found)


def check(path: CriticalPath) -> None:
    """It goes from the first start to the last end, without gaps, and its causes and shares add up to that."""
    pieces, trace = path.pieces, path.recording
    assert pieces.start_ns[0] == trace.start_ns.min()
    assert pieces.end_ns[-1] == trace.end_ns.max()
    np.testing.assert_array_equal(pieces.start_ns[1:], pieces.end_ns[:-1])
    assert (pieces.end_ns > pieces.start_ns).all()
    assert sum(path.causes.values()) == wall_ns(trace) == sum(row.ns for row in path.rows)
    assert int(path.own_ns.sum()) == wall_ns(trace) - path.causes["nothing recorded"]
    runs = np.isin(pieces.cause, [Cause.OPERATORS, Cause.KERNELS, Cause.COPIES, Cause.CODE])
    event = pieces.event[runs]
    assert (trace.start_ns[event] <= pieces.start_ns[runs]).all()
    assert (trace.end_ns[event] >= pieces.end_ns[runs]).all()


def op(name: str, start: int, duration: int, lane: Lane = MAIN) -> Event:
    return Event(name, "cpu_op", start, duration, lane)


def call(name: str, start: int, duration: int, tie: int = -1, lane: Lane = MAIN) -> Event:
    return Event(name, "cuda_runtime", start, duration, lane, tie)


def kernel(name: str, start: int, duration: int, tie: int = -1, lane: Lane = S7, category: str = "kernel") -> Event:
    return Event(name, category, start, duration, lane, tie)


def test_the_path_as_a_trace_has_only_the_lanes_that_it_goes_through() -> None:
    path = critical_path(Trace.build([op("before", 0, 3, OTHER), op("long", 0, 90), kernel("a", 5, 5)]))
    assert path.trace.lanes == (MAIN._replace(group=GROUP),)
    assert [event.lane.label for event in path.trace.events()] == ["main"]


def test_on_one_thread_it_is_the_innermost_event_at_each_moment() -> None:
    assert path_of(op("conv", 10, 20), op("mkldnn", 15, 5), op("relu", 40, 2)) == [
        ("conv", "operators", 10, 15),
        ("mkldnn", "operators", 15, 20),
        ("conv", "operators", 20, 30),
        ("", "nothing recorded", 30, 40),
        ("relu", "operators", 40, 42),
    ]


def test_from_a_launch_to_its_kernel_to_the_call_that_waits_for_it() -> None:
    events = [
        op("mm", 0, 10),
        call("cudaLaunchKernel", 4, 3, 1),
        kernel("gemm", 9, 30, 1),
        call("cudaDeviceSynchronize", 12, 30),
        op("item", 45, 5),
    ]
    assert path_of(*events) == [
        ("mm", "operators", 0, 4),
        ("cudaLaunchKernel", "launches", 4, 9),
        ("gemm", "kernels", 9, 39),
        ("cudaDeviceSynchronize", "waiting", 39, 42),
        ("", "nothing recorded", 42, 45),
        ("item", "operators", 45, 50),
    ]


def test_a_synchronising_call_that_finds_the_gpu_idle_is_itself_on_the_path() -> None:
    events = [call("cudaLaunchKernel", 0, 3, 1), kernel("gemm", 4, 5, 1), call("cudaStreamSynchronize", 20, 6)]
    assert path_of(*events)[-1] == ("cudaStreamSynchronize", "launches", 20, 26)


def test_kernels_that_were_launched_ahead_follow_each_other() -> None:
    events = [
        call("cudaLaunchKernel", 0, 2, 1),
        call("cudaLaunchKernel", 3, 2, 2),
        kernel("a", 5, 20, 1),
        kernel("b", 27, 10, 2),
    ]
    assert path_of(*events) == [
        ("cudaLaunchKernel", "launches", 0, 5),
        ("a", "kernels", 5, 25),
        ("b", "waiting", 25, 27),
        ("b", "kernels", 27, 37),
    ]


def test_a_wait_names_its_stream_in_the_recording() -> None:
    events = [
        call("cudaLaunchKernel", 0, 2, 1),
        call("cudaLaunchKernel", 3, 2, 2),
        kernel("short", 5, 10, 1),
        kernel("long", 6, 20, 2, S20),
        call("cudaStreamSynchronize", 10, 25, 9),
    ]
    assert ("long", "kernels", 6, 26) in path_of(*events)  # what ended last
    sync = Event("Stream Sync", "cuda_sync", 10, 5, S7, 9)
    assert ("short", "kernels", 5, 15) in path_of(*events, sync)


def test_a_copy_that_has_ended_before_its_call_returns_was_waited_for() -> None:
    events = [
        call("cudaMemcpyAsync", 0, 30, 1),
        kernel("Memcpy DtoH (Device -> Pageable)", 5, 20, 1, category="gpu_memcpy"),
        op("print", 30, 5),
    ]
    assert path_of(*events) == [
        ("cudaMemcpyAsync", "launches", 0, 5),
        ("Memcpy DtoH (Device -> Pageable)", "copies", 5, 25),
        ("cudaMemcpyAsync", "waiting", 25, 30),
        ("print", "operators", 30, 35),
    ]
    assert path_of(events[0]._replace(duration_ns=4), *events[1:])[:2] == [  # pinned: the call does not wait
        ("cudaMemcpyAsync", "launches", 0, 4),
        ("", "nothing recorded", 4, 30),
    ]


@pytest.mark.parametrize("waits", [True, False])
def test_another_stream_is_waited_for_if_the_thread_said_so(waits: bool) -> None:
    events = [
        call("cudaLaunchKernel", 0, 2, 1),
        call("cudaStreamWaitEvent" if waits else "cudaEventQuery", 3, 1),
        call("cudaLaunchKernel", 5, 2, 2),
        kernel("a", 4, 20, 1),
        kernel("b", 26, 5, 2, S20),
    ]
    waited = [("a", "kernels", 4, 24), ("b", "waiting", 24, 26)]
    launched = [("", "nothing recorded", 4, 5), ("cudaLaunchKernel", "launches", 5, 26)]
    assert path_of(*events)[-3:] == [*(waited if waits else launched), ("b", "kernels", 26, 31)]


def test_the_kernels_of_a_graph_wait_for_each_other_across_streams() -> None:
    events = [
        call("cudaGraphLaunch", 0, 4, 1),
        kernel("a", 5, 10, 1),
        kernel("left", 16, 30, 1),
        kernel("right", 17, 10, 1, S20),
        kernel("join", 48, 5, 1, S20),
    ]
    assert path_of(*events) == [
        ("cudaGraphLaunch", "launches", 0, 5),
        ("a", "kernels", 5, 15),
        ("left", "waiting", 15, 16),
        ("left", "kernels", 16, 46),
        ("join", "waiting", 46, 48),
        ("join", "kernels", 48, 53),
    ]


def test_a_region_forks_and_waits_for_its_last_task() -> None:
    events = [
        Event("call", "call", 0, 100, MAIN),
        Event("block", "region", 10, 80, MAIN),
        Event("left", "task", 15, 20, MAIN),
        Event("right", "task", 18, 50, OTHER),
        op("conv", 20, 40, OTHER),
        Event("merge", "merge", 75, 10, MAIN),
    ]
    assert path_of(*events) == [
        ("call", "other code", 0, 10),
        ("right", "waiting", 10, 18),
        ("right", "other code", 18, 20),
        ("conv", "operators", 20, 60),
        ("right", "other code", 60, 68),
        ("block", "waiting", 68, 75),
        ("merge", "other code", 75, 85),
        ("block", "other code", 85, 90),
        ("call", "other code", 90, 100),
    ]


def test_a_second_task_of_a_lane_waits_for_the_first() -> None:
    events = [
        Event("block", "region", 0, 60, MAIN),
        Event("one", "task", 5, 20, OTHER),
        Event("two", "task", 27, 30, OTHER),
    ]
    assert path_of(*events) == [
        ("one", "waiting", 0, 5),
        ("one", "other code", 5, 25),
        ("two", "waiting", 25, 27),
        ("two", "other code", 27, 57),
        ("block", "waiting", 57, 60),
    ]


@pytest.mark.parametrize(
    ("name", "category"), [("take", "wait"), ("<built-in method acquire of _thread.lock object>", "python_function")]
)
def test_a_thread_that_waits_does_so_for_what_ended_last_on_another(name: str, category: str) -> None:
    events = [op("conv", 0, 30, OTHER), Event(name, category, 5, 30, MAIN), op("cat", 35, 5)]
    assert path_of(*events) == [
        ("conv", "operators", 0, 30),
        (name, "waiting", 30, 35),
        ("cat", "operators", 35, 40),
    ]


def test_a_thread_that_was_idle_went_on_when_another_had_handed_over() -> None:
    forward, backward, step = op("forward", 0, 10), op("backward", 12, 20, OTHER), op("step", 35, 5)
    expected = [
        ("forward", "operators", 0, 10),
        ("", "nothing recorded", 10, 12),
        ("backward", "operators", 12, 32),
        ("", "nothing recorded", 32, 35),
        ("step", "operators", 35, 40),
    ]
    assert path_of(forward, backward, step) == expected
    busy = op("next", 33, 10, OTHER)  # then it did not hand over
    assert path_of(forward, backward, step._replace(duration_ns=20), busy) == [
        ("forward", "operators", 0, 10),
        ("", "nothing recorded", 10, 35),
        ("step", "operators", 35, 55),
    ]


def test_a_span_whose_thread_may_have_waited_for_other_threads_is_named() -> None:
    around = Event("pool", "call", 0, 100, MAIN)
    beside = op("conv", 10, 60, OTHER)
    (note,) = critical_path(Trace.build([around, beside])).notes()
    assert note.startswith("for 100 ns of 'pool', other threads ran operators.")
    for lane in (MAIN, Lane(2, 1, "another process")):
        assert not critical_path(Trace.build([around, op("conv", 10, 60, lane)])).notes()
    assert not critical_path(Trace.build([around, op("conv", 10, 40, OTHER)])).notes()  # less than half of it
    assert not critical_path(Trace.build([around._replace(category="python_function"), beside])).notes()
    assert not critical_path(Trace.build([around._replace(category="wait"), beside])).notes()


def test_the_recording_around_it_is_in_the_wall_time() -> None:
    around = Event("PyTorch Profiler (0)", "Trace", -10, 100, Lane("Spans", "x", ""))
    assert path_of(op("mm", 0, 10), around) == [
        ("", "nothing recorded", -10, 0),
        ("mm", "operators", 0, 10),
        ("", "nothing recorded", 10, 90),
    ]
    assert path_of(around) == [("", "nothing recorded", -10, 90)]


def test_nothing_has_an_empty_path() -> None:
    path = critical_path(Trace.build([]))
    assert sum(path.causes.values()) == 0
    assert not len(path.trace)
    assert "together" in str(path)
    assert path.rows == []
    assert path_of_instants() == []


def path_of_instants() -> Told:
    return told(critical_path(Trace.build([op("a", 5, 0), kernel("b", 5, 0)])))


def test_it_is_shown_as_a_table_and_above_its_recording() -> None:
    events = [op("mm", 0, 10), call("cudaLaunchKernel", 4, 3, 1), kernel("<gemm>", 9, 30, 1)]
    path = critical_path(Trace.build(events))
    assert path.table() == [
        ("critical path", "time", "share"),
        ("operators", "4 ns", "10.3%"),
        ("launches", "5 ns", "12.8%"),
        ("kernels", "30 ns", "76.9%"),
        ("together", "39 ns", "100.0%"),
    ]
    assert path.top()[1] == ("<gemm>", "kernels", "1", "30 ns", "76.9%")
    assert "&lt;gemm&gt;" in path._repr_html_()
    assert path.own_ns.tolist() == [4, 5, 30]
    alone, both = path.trace, path.with_recording()
    assert [lane.group for lane in alone.lanes] == [GROUP, GROUP]
    assert [(e.name, e.category, e.start_ns, e.duration_ns) for e in alone.events()] == [
        ("mm", "cpu_op", 0, 4),
        ("cudaLaunchKernel", "cuda_runtime", 4, 5),
        ("<gemm>", "kernel", 9, 30),
    ]
    assert [both.lanes[i].group for i in both.used_lanes] == [GROUP, GROUP, "recording", "recording"]
    assert len(both) == 6
    assert len(stack({"path": alone, "all": path.recording})) == 6


# A slow search by the same rules: every lookup goes through all events.

KINDS = [
    ("op", "cpu_op"),
    ("cudaLaunchKernel", "cuda_runtime"),
    ("cudaMemcpyAsync", "cuda_runtime"),
    ("cudaDeviceSynchronize", "cuda_runtime"),
    ("cudaStreamWaitEvent", "cuda_runtime"),
    ("task", "task"),
    ("region", "region"),
    ("wait", "wait"),
    ("note", "user_annotation"),
    ("kernel", "kernel"),
    ("copy", "gpu_memcpy"),
]
rows = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 2), st.integers(0, 30), st.integers(0, 12), st.integers(-1, 4)),
    max_size=14,
)


def trace_of(found: list[Any]) -> Trace:
    events = []
    for (name, category), lane, start, duration, tie in found:
        place = (
            Lane(0, 7 + lane, f"stream {7 + lane}") if name in ("kernel", "copy") else Lane(1, lane, f"thread {lane}")
        )
        events.append(Event(name, category, start, duration, place, tie or -1))
    return Trace.build(events)


def searched(trace: Trace) -> list[tuple[int, int, int, int]]:
    """(event, cause, start, end), the first first."""
    start, end, lane, role = (x.tolist() for x in (trace.start_ns, trace.end_ns, trace.lane, roles(trace)))
    category = [trace.categories[i] for i in trace.category]
    name = [trace.names[i] for i in trace.name]
    work = [i for i in range(len(trace)) if role[i] <= Role.OTHER]  # rows are by start, the longest first
    host = [i for i in work if role[i] not in DEVICE and category[i] != "wait"]
    device = {int(e): row for row, e in enumerate(device_work(trace).event)}
    known = device_work(trace)
    cause_of = [Cause.KERNELS, Cause.COPIES, Cause.LAUNCHES, Cause.OPERATORS, Cause.CODE]
    first, last = min(start), max(end)
    if not work:
        return [(-1, Cause.NOTHING, first, last)]
    now = max(end[i] for i in work)
    here = min(lane[i] for i in work if end[i] == now)
    found, seen = [(-1, Cause.NOTHING, now, last)], {here}

    def latest(among: list[int], after: float) -> int:
        usable = [i for i in among if start[i] < end[i] and after < end[i] <= now and lane[i] not in seen]
        return max(usable, key=lambda i: (end[i], lane[i], i), default=-1)

    while True:
        mine = [i for i in work if lane[i] == here and start[i] < now]
        running = [i for i in mine if end[i] >= now]
        to, event = -1, -1
        if running:
            event = running[-1]
            begin = max([start[event], *(end[i] for i in mine if i > event)])
            cause = cause_of[role[event]]
            if name[event] == "cudaMemcpyAsync":
                copies = [e for e, row in device.items() if known.launch[row] == event]
                to = latest(sorted(copies, key=lambda e: device[e])[-1:], begin)
            elif name[event] == "cudaDeviceSynchronize":
                to = latest(list(device), begin)
            elif category[event] == "region":
                to = latest([i for i in work if category[i] == "task" and start[i] >= start[event]], begin)
            elif category[event] == "wait":
                to, cause = latest(host, begin), Cause.WAITING
            if to >= 0:
                begin, cause = end[to], Cause.WAITING
            target = begin
        else:
            reach = max((end[i] for i in mine), default=-np.inf)
            after = min(i for i in work if lane[i] == here and start[i] >= now)
            target, cause = None, Cause.NOTHING
            if after in device:
                launch, released = int(known.launch[device[after]]), int(known.released_by[device[after]])
                if released >= 0 and end[released] > reach and lane[released] not in seen:
                    to, target, cause, event = released, end[released], Cause.WAITING, after
                elif launch >= 0 and reach < start[launch] <= now and lane[launch] not in seen:
                    to, target, cause, event = launch, start[launch], Cause.LAUNCHES, launch
                elif mine:
                    target, cause, event = reach, Cause.WAITING, after
            elif category[after] == "task":
                around = [i for i in work if category[i] == "region" and lane[i] != here]
                around = [i for i in around if start[i] <= start[after] and end[i] >= end[after]]
                region = max(around, key=lambda i: (start[i], lane[i], i), default=-1)
                if region >= 0 and lane[region] not in seen:
                    cause, event = Cause.WAITING, after
                    to, target = (region, start[region]) if start[region] >= reach else (-1, reach)
            if target is None:
                idle = [
                    i
                    for i in host
                    if start[i] < now and not any(lane[j] == lane[i] and start[j] < now < end[j] for j in work)
                ]
                idle = [i for i in idle if end[i] == max(end[j] for j in work if lane[j] == lane[i] and start[j] < now)]
                same = [i for i in idle if trace.lanes[lane[i]].process == trace.lanes[here].process]
                to = latest(same, reach)
                if to < 0 and not mine:
                    one, other = latest(host, -np.inf), latest(list(device), -np.inf)
                    to = other if one < 0 or (other >= 0 and end[other] > end[one]) else one
                target = end[to] if to >= 0 else first if not mine else reach
            begin = target
        found.append((event, cause, begin, now))
        if not running and begin == first and to < 0 and not mine:
            break
        if begin < now:
            seen = {here}
        now = begin
        if to >= 0:
            here = lane[to]
            seen.add(here)
    merged: list[tuple[int, int, int, int]] = []
    for event, cause, begin, until in reversed(found):
        if begin < until:
            if merged and merged[-1][:2] == (event, cause) and merged[-1][3] == begin and event >= 0:
                begin = merged.pop()[2]
            merged.append((event, int(cause), begin, until))
    return merged


@given(rows)
@settings(deadline=None, max_examples=400)
def test_against_a_slow_search(found: list[Any]) -> None:
    trace = trace_of(found)
    path = critical_path(trace)
    if wall_ns(trace) == 0:
        assert told(path) == []
        return
    check(path)
    columns = (path.pieces.event, path.pieces.cause, path.pieces.start_ns, path.pieces.end_ns)
    pieces = list(zip(*(column.tolist() for column in columns), strict=True))
    assert pieces_without_borders(pieces) == pieces_without_borders(searched(trace))


def pieces_without_borders(pieces: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Neighbours where nothing is recorded, on several lanes, as one."""
    merged: list[tuple[int, int, int, int]] = []
    for event, cause, begin, until in pieces:
        if merged and event == merged[-1][0] and cause == merged[-1][1]:
            begin = merged.pop()[2]
        merged.append((event, cause, begin, until))
    return merged
