"""The model of host threads and a GPU: its rules hold for any program, and times that were computed by hand."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kit.errors import KitError
from kit.scheduling.gpu import (
    DEFAULT,
    SHARE,
    Await,
    Call,
    Copy,
    Gpu,
    Launch,
    LaunchGraph,
    Record,
    Signal,
    Synchronize,
    Wait,
    Work,
)
from kit.scheduling.gpu_engines import copy_ns, spread
from kit.scheduling.gpu_run import Run, run

# Round numbers, so that times can be computed by hand: a launch takes 10, its kernel is on the GPU 20 after it began.
GPU = Gpu(
    sms=2, threads_per_sm=1024, blocks_per_sm=4, queues=4, launch_ns=10, start_ns=20, gap_ns=3, event_ns=1, sync_ns=5,
    wake_ns=7, graph_ns=30, node_ns=2, node_gap_ns=1, copy_ns=10, pinned_gbps=10.0, pageable_gbps=5.0, gil_share=0.0,
)  # fmt: skip


@st.composite
def gpus(draw: st.DrawFn) -> Gpu:
    return replace(
        GPU,
        sms=draw(st.integers(1, 5)),
        grids=draw(st.sampled_from([1, 2, 128])),
        queues=draw(st.sampled_from([1, 2, 8])),
        launch_ns=(launch := draw(st.integers(0, 12))),
        start_ns=launch + draw(st.integers(0, 9)),
        gap_ns=draw(st.integers(0, 4)),
        gil_share=draw(st.sampled_from([0.0, 0.5, 1.0])),
        blocking_streams=draw(st.booleans()),
    )


streams = st.sampled_from([DEFAULT, 8, 9, 10])
kernels = st.tuples(
    st.just("kernel"),
    st.integers(1, 40),
    st.integers(1, 60),
    st.sampled_from([32, 256, 300, 1024]),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    streams,
).map(lambda found: Launch(*found))
copies = st.tuples(st.integers(1, 900), st.sampled_from(["device", "host"]), st.booleans(), streams).map(
    lambda found: Copy(*found)
)
names = st.sampled_from(["e", "f"])
calls = st.one_of(
    kernels,
    kernels,
    copies,
    st.tuples(names, streams).map(lambda found: Record(*found)),
    st.tuples(names, streams).map(lambda found: Wait(*found)),
    st.integers(0, 40).map(Work),
    (st.none() | streams).map(Synchronize),
)
# Every event is recorded somewhere, and the GPU is waited for in the end.
threads = st.lists(calls, max_size=16).map(lambda found: [*found, Record("e"), Record("f"), Synchronize()])
programs = st.lists(threads, min_size=1, max_size=3).map(lambda found: {f"t{i}": each for i, each in enumerate(found)})


def needs(launch: Launch) -> np.ndarray:
    """What a block takes of an SM: blocks, threads, share."""
    return np.array([1, launch.threads, int(launch.share * SHARE)])


def room(gpu: Gpu) -> np.ndarray:
    return np.array([gpu.blocks_per_sm, gpu.threads_per_sm, SHARE])


def chains(found: Run) -> dict[int, list[int]]:
    """Stream -> what ran in it, in the order of launch."""
    result = defaultdict(list)
    for i, each in enumerate(found.ran):
        result[each.what.stream].append(i)
    return result


@settings(deadline=None, max_examples=150)
@given(programs, gpus())
def test_the_rules_of_the_gpu_hold_for_any_program(program: dict[str, list[Call]], gpu: Gpu) -> None:
    found = run(program, gpu)
    assert len(found.calls) == sum(map(len, program.values()))
    blocks = defaultdict(int)
    for wave in found.waves:
        blocks[wave.ran] += int(wave.blocks.sum())
        assert wave.end_ns - wave.start_ns == found.ran[wave.ran].what.block_ns
        assert wave.blocks.min() >= 0
        assert wave.blocks.any()
    for i, each in enumerate(found.ran):
        assert each.arrived_ns <= each.left_ns <= each.start_ns < each.end_ns
        assert each.arrived_ns >= found.calls[each.call].start_ns
        if isinstance(each.what, Launch):  # all of its blocks ran, and nothing else: work is conserved
            assert blocks[i] == each.what.blocks
            own = [wave for wave in found.waves if wave.ran == i]
            assert each.start_ns == min(wave.start_ns for wave in own)
            assert each.end_ns == max(wave.end_ns for wave in own)
        else:
            assert each.end_ns - each.start_ns == copy_ns(each.what, gpu)
    for stream in chains(found).values():
        for before, after in itertools.pairwise(stream):
            assert found.ran[before].end_ns <= found.ran[after].start_ns  # the order of a stream
    for to in ("device", "host"):
        spans = sorted((e.start_ns, e.end_ns) for e in found.ran if isinstance(e.what, Copy) and e.what.to == to)
        assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))  # one copy at a time


@settings(deadline=None, max_examples=150)
@given(programs, gpus())
def test_only_the_head_places_blocks_and_they_fit(program: dict[str, list[Call]], gpu: Gpu) -> None:
    found = run(program, gpu)
    kernels = [i for i, each in enumerate(found.ran) if isinstance(each.what, Launch)]
    first, last = {}, {}
    for wave in found.waves:
        first.setdefault(wave.ran, wave.start_ns)
        last[wave.ran] = wave.start_ns
    left = [found.ran[i].left_ns for i in kernels]
    for a, b in itertools.permutations(kernels, 2):
        if found.ran[a].left_ns < found.ran[b].left_ns:  # a reached the engine's queue earlier
            assert last[a] <= first[b]
    assert len(left) == len(first)
    for moment in sorted({wave.start_ns for wave in found.waves}):
        running = [wave for wave in found.waves if wave.start_ns <= moment < wave.end_ns]
        taken = sum(np.outer(needs(found.ran[w.ran].what), w.blocks) for w in running)
        assert (taken <= room(gpu)[:, None]).all()
        assert len({wave.ran for wave in running}) <= gpu.grids


@settings(deadline=None, max_examples=100)
@given(programs, gpus())
def test_no_block_waits_while_there_is_room_for_it(program: dict[str, list[Call]], gpu: Gpu) -> None:
    """The kernel at the head of the engine's queue places what fits, at every moment at which something ends."""
    found = run(program, gpu)
    kernels = [i for i, each in enumerate(found.ran) if isinstance(each.what, Launch)]
    last = {wave.ran: wave.start_ns for wave in found.waves}
    for moment in sorted({wave.end_ns for wave in found.waves}):
        waiting = [i for i in kernels if found.ran[i].left_ns <= moment < last[i]]
        if not waiting:
            continue
        running = [wave for wave in found.waves if wave.start_ns <= moment < wave.end_ns]
        if len({wave.ran for wave in running}) >= gpu.grids:
            continue
        free = room(gpu)[:, None] - sum(
            (np.outer(needs(found.ran[w.ran].what), w.blocks) for w in running), np.zeros((3, gpu.sms), int)
        )
        earliest = min(found.ran[i].left_ns for i in waiting)
        heads = [i for i in waiting if found.ran[i].left_ns == earliest]
        assert any((needs(found.ran[i].what)[:, None] > free).any(0).all() for i in heads)


@settings(deadline=None, max_examples=100)
@given(programs, gpus())
def test_never_below_the_bound(program: dict[str, list[Call]], gpu: Gpu) -> None:
    found = run(program, gpu)
    end = max((each.end_ns for each in found.calls), default=0)
    launched = [each.what for each in found.ran if isinstance(each.what, Launch)]
    for resource in range(3):
        work = sum(int(needs(each)[resource]) * each.blocks * each.block_ns for each in launched)
        assert end >= work / (int(room(gpu)[resource]) * gpu.sms)
    for to in ("device", "host"):
        copied = (each.what for each in found.ran if isinstance(each.what, Copy) and each.what.to == to)
        assert end >= sum(copy_ns(each, gpu) for each in copied)
    for stream in chains(found).values():
        shortest = [e.what.block_ns if isinstance(e.what, Launch) else copy_ns(e.what, gpu) for e in
                    (found.ran[i] for i in stream)]  # fmt: skip
        assert end >= sum(shortest) + gpu.gap_ns * (len(shortest) - 1)
    for calls in program.values():  # the longest chain of a thread is all of it
        assert end >= sum(
            {Work: lambda c: c.ns, Launch: lambda c: gpu.launch_ns}.get(type(c), lambda c: 0)(c) for c in calls
        )


@settings(deadline=None, max_examples=50)
@given(programs, gpus())
def test_the_same_program_gives_the_same_run(program: dict[str, list[Call]], gpu: Gpu) -> None:
    one, other = run(program, gpu), run(program, gpu)
    assert (one.calls, one.ran, one.races) == (other.calls, other.ran, other.races)
    assert str(one.waves) == str(other.waves)


@settings(deadline=None, max_examples=50)
@given(programs, gpus())
def test_threads_hold_the_gil_one_at_a_time(program: dict[str, list[Call]], gpu: Gpu) -> None:
    gpu = replace(gpu, gil_share=1.0)
    found = run(program, gpu)
    whole = [c for c in found.calls if isinstance(c.call, Work | Launch | Record | Wait) and c.end_ns > c.start_ns]
    spans = sorted((each.start_ns, each.end_ns) for each in whole)
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))


@given(st.lists(st.integers(0, 32), min_size=1, max_size=9), st.integers(1, 400))
def test_blocks_go_one_by_one_to_the_sm_with_most_room(free: list[int], blocks: int) -> None:
    assume(any(free))
    left, counts = np.array(free), np.zeros(len(free), int)
    for _ in range(min(blocks, int(left.sum()))):
        place = int(left.argmax())
        left[place] -= 1
        counts[place] += 1
    assert spread(np.array(free), blocks).tolist() == counts.tolist()


# By hand --------------------------------------------------------------------------------------------------------------


def times(program: list[Call] | dict[str, list[Call]], gpu: Gpu = GPU) -> list[tuple[int, int]]:
    """When each kernel and copy began and ended, in the order of launch."""
    found = run(program if isinstance(program, dict) else {"caller": program}, gpu)
    return [(each.start_ns, each.end_ns) for each in found.ran]


def kernel(ns: int, blocks: int = 1, stream: int = DEFAULT, **other: object) -> Launch:
    return Launch("k", blocks, ns, threads=256, stream=stream, **other)  # 4 blocks of it fill an SM


def test_one_stream_asynchronous_but_not_concurrent() -> None:
    # Launches at 0 and 10, arrivals at 20 and 30; the second waits for the first, and 3 more.
    found = run({"caller": [kernel(100), kernel(50), Synchronize()]}, GPU)
    assert [(each.start_ns, each.end_ns) for each in found.ran] == [(20, 120), (123, 173)]
    assert [(each.start_ns, each.end_ns) for each in found.calls] == [(0, 10), (10, 20), (20, 173 + 5)]


def test_launch_bound_the_gpu_waits_for_the_host() -> None:
    assert times([Work(90), kernel(30), Work(90), kernel(30)]) == [(110, 140), (210, 240)]


def test_small_kernels_overlap_in_streams_and_large_ones_do_not() -> None:
    assert times([kernel(100, stream=8), kernel(100, stream=9)]) == [(20, 120), (30, 130)]
    # 8 blocks fill both SMs: the second kernel's blocks are placed when the first one's end.
    assert times([kernel(100, 8, stream=8), kernel(100, 8, stream=9)]) == [(20, 120), (120, 220)]


def test_waves_and_the_tail_that_another_kernel_fills() -> None:
    # 12 blocks of 8 slots: two waves, of 8 and of 4; the other kernel has room from the second wave on.
    assert times([kernel(100, 12, stream=8), kernel(60, 4, stream=9)]) == [(20, 220), (120, 180)]


def test_a_kernel_that_does_not_fit_holds_up_a_smaller_one_behind_it() -> None:
    # 7 blocks leave one slot. The second needs a whole SM; the third would fit, but is not at the head.
    program = [kernel(100, 7, stream=8), kernel(10, 1, 9, share=1.0), kernel(10, 1, 10)]
    big = run({"t": [program[0], Launch("big", 1, 10, 1024, 0.0, 9), program[2]]}, GPU).ran
    assert [(each.start_ns, each.end_ns) for each in big] == [(20, 120), (120, 130), (120, 130)]


def test_streams_share_hardware_queues_so_the_order_of_launch_matters() -> None:
    one = replace(GPU, queues=1, launch_ns=0, start_ns=0, gap_ns=0)
    depth = [kernel(100, stream=8), kernel(100, stream=8), kernel(100, stream=9), kernel(100, stream=9)]
    breadth = [depth[0], depth[2], depth[1], depth[3]]
    # Depth first, the kernel of stream 9 waits behind one that waits for its stream.
    assert times(depth, one) == [(0, 100), (100, 200), (100, 200), (200, 300)]
    assert times(breadth, one) == [(0, 100), (0, 100), (100, 200), (100, 200)]
    assert times(depth, replace(one, queues=2)) == [(0, 100), (100, 200), (0, 100), (100, 200)]


def test_copies_pinned_return_at_once_and_pageable_block() -> None:
    pinned = run({"t": [Copy(1000), Copy(1000, "host", stream=8), kernel(10, stream=9)]}, GPU)
    assert [(each.start_ns, each.end_ns) for each in pinned.ran] == [(20, 120), (30, 130), (40, 50)]
    assert [each.end_ns for each in pinned.calls] == [10, 20, 30]
    pageable = run({"t": [Copy(1000, pinned=False), kernel(10, stream=9)]}, GPU)
    assert [(each.start_ns, each.end_ns) for each in pageable.ran] == [(20, 220), (240, 250)]
    assert [each.end_ns for each in pageable.calls] == [220, 230]
    assert times([Copy(1000, stream=8), Copy(1000, stream=9)]) == [(20, 120), (120, 220)]  # one engine a direction


def test_events_order_streams() -> None:
    program = [kernel(100, stream=8), Record("e", 8), Wait("e", 9), kernel(10, stream=9), kernel(10, stream=10)]
    # The third kernel, of a stream that does not wait, begins before the second.
    assert times(program) == [(20, 120), (123, 133), (42, 52)]
    early = [Wait("e", 9), *program[:2], program[3]]  # recorded after the wait: CUDA does not wait for it
    assert times(early) == [(21, 121), (32, 42)]
    found = run({"t": [*program[:2], Synchronize(event="e"), Synchronize(stream=10)]}, GPU)
    assert [each.end_ns for each in found.calls] == [10, 11, 125, 130]


def test_the_default_stream_waits_only_if_streams_are_blocking() -> None:
    program = [kernel(100, stream=8), kernel(10), kernel(10, stream=9)]
    assert times(program) == [(20, 120), (30, 40), (40, 50)]
    assert times(program, replace(GPU, blocking_streams=True)) == [(20, 120), (123, 133), (136, 146)]


def test_a_graph_is_one_launch() -> None:
    graph = LaunchGraph((kernel(20), kernel(20), kernel(20)))
    found = run({"t": [graph, Synchronize()]}, GPU)
    # 30 for the graph and 2 for the first node, then 10 from the end of a call to the GPU; 1 between nodes.
    assert [(each.start_ns, each.end_ns) for each in found.ran] == [(42, 62), (63, 83), (84, 104)]
    assert [each.end_ns for each in found.calls] == [36, 109]
    forked = (Record("f"), Wait("f", 8), kernel(20, stream=8), kernel(20), Record("j", 8), Wait("j"), kernel(5))
    assert times([LaunchGraph(forked), kernel(5)]) == [(42, 62), (44, 64), (65, 70), (73, 78)]


def test_threads_take_turns_with_the_gil_and_launch_side_by_side_without_it() -> None:
    work = lambda stream: [Work(100), kernel(10, stream=stream)]  # noqa: E731
    both = {"a": work(8), "b": work(9)}
    assert times(both, replace(GPU, gil_share=0.0)) == [(120, 130), (120, 130)]
    # a holds the GIL from 0 to 50, b from 50 to 100; launches from 100 and 150.
    assert times(both, replace(GPU, gil_share=0.5)) == [(120, 130), (170, 180)]
    # c holds it from 100 to 150. For its launch a asks at 100 and gets it at 150; b asks at 150, after a, until 155.
    three = {**both, "c": work(10)}
    assert times(three, replace(GPU, gil_share=0.5)) == [(170, 180), (175, 185), (220, 230)]


def test_a_thread_that_waits_for_another_is_woken() -> None:
    found = run({"a": [Work(100), Signal("go")], "b": [Await("go"), kernel(10)]}, GPU)
    assert [(each.start_ns, each.end_ns) for each in found.ran] == [(127, 137)]


def test_uses_of_the_same_memory_without_an_order_are_told() -> None:
    write, read = kernel(10, stream=8, writes=("x",)), kernel(10, reads=("x",))
    assert [str(race) for race in run({"t": [write, read]}, GPU).races] == [
        "nothing orders k and k, which use x: the result is left to chance"
    ]
    assert run({"t": [write, Record("e", 8), Wait("e"), read]}, GPU).races == []
    assert run({"t": [write, Synchronize(8), read]}, GPU).races == []
    assert run({"t": [write, Synchronize(9), read]}, GPU).races != []
    assert run({"t": [Wait("e"), write, Record("e", 8), read]}, GPU).races != []
    assert run({"t": [kernel(10, stream=8, reads=("x",)), read]}, GPU).races == []  # both only read
    assert run({"t": [read._replace(stream=8), kernel(10, writes=("x",))]}, GPU).races != []  # memory used again
    back, use = Copy(10, "host", reads=("x",), writes=("host x",)), Work(1, reads=("host x",))
    assert len(run({"t": [back, use]}, GPU).races) == 1
    assert run({"t": [back._replace(pinned=False), use]}, GPU).races == []
    assert run({"t": [back, Synchronize(), use]}, GPU).races == []
    other = {"a": [write, Synchronize(), Signal("go")], "b": [Await("go"), read]}
    assert run(other, GPU).races == []
    assert run({"a": [write, Signal("go")], "b": [Await("go"), read]}, GPU).races != []


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ([kernel(10, 0)], "at least 1 block"),
        ([kernel(0)], "at least 1 ns"),
        ([Launch("wide", 1, 10, 2048)], "1 to 1024 threads here"),
        ([kernel(10, share=1.5)], "share of an SM"),
        ([Copy(0)], "at least 1 byte"),
        ([Copy(1, "sideways")], '"device" or to "host"'),
        ([Work(-1)], "0 ns or more"),
        ([Wait("never")], "no call records the event 'never'"),
        ([Await("never")], "no thread signals 'never'"),
        ([LaunchGraph(())], "captured no call"),
        ([LaunchGraph((Copy(1, pinned=False),))], "cannot be captured"),
        ([LaunchGraph((kernel(0),))], "at least 1 ns"),
        ([LaunchGraph((kernel(1, stream=8),))], "stream 8 does not begin with a Wait"),
        ([LaunchGraph((Record("f"), Wait("f", 8), kernel(1, stream=8)))], "unjoined work"),
        ([Await("late"), Signal("late")], "caller waits for ever in Await"),
    ],
)
def test_calls_that_mean_nothing_are_refused_by_thread_and_call(program: list[Call], said: str) -> None:
    with pytest.raises(KitError, match=said):
        run({"caller": program}, GPU)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sms", 0), ("sms", 1.5), ("threads_per_sm", 0), ("queues", 0), ("queues", 33), ("launch_ns", -1),
        ("launch_ns", 10_000_000), ("gil_share", 1.1), ("gil_share", -0.1), ("pinned_gbps", 0.0), ("flops", 0.0),
        ("bytes_per_s", float("nan")), ("pool", 0),
    ],
)  # fmt: skip
def test_a_gpu_that_cannot_be_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(KitError, match=name):
        Gpu(**{name: value})


def test_every_parameter_has_its_unit_its_range_and_its_source() -> None:
    rows = list(Gpu.parameters())
    assert [row.name for row in rows] == list(Gpu.__dataclass_fields__)
    for row in rows:
        assert row.low <= row.default <= row.high, row.name
        assert row.unit, row.name
        assert row.source, row.name


def test_many_kernels_are_simulated_within_a_moment() -> None:
    """Not a measurement: ten times what it takes on a slow machine."""
    program = [each for i in range(200) for each in (Work(45_000), Launch("k", 300, 3_000, 256, 0.1, 8 + i % 8))]
    start = time.process_time()
    run({"caller": program}, Gpu())
    assert time.process_time() - start < 0.5
