"""A declared network: its sleeps are those of its link, its outputs those of the caller, and it says what it is."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict

import pytest
import torch
from torch import nn

import kit
from kit import spans
from kit.approaches.registry import REGISTRY
from kit.equality import compare_outputs, inputs_without_effect
from kit.errors import TaskError
from kit.executors import Sequential, Task, current, use
from kit.executors import declared as room
from kit.executors.declared import DeclaredNetwork
from kit.models import inception_block, two_stream
from kit.scheduling.links import Link
from kit.views.badge import badge

FAST = Link(1e15)


def test_the_outputs_are_those_of_the_sequential_call() -> None:
    model, inputs = two_stream(width=8), (torch.randn(1, 3, 48, 48), torch.randn(1, 20, 48, 48))
    block, x = inception_block(8).eval(), torch.rand(1, 8, 12, 12)
    for net, args in ((model, inputs), (block, (x,))):
        with torch.inference_mode(), DeclaredNetwork(FAST, hosts=3) as hosts:
            expected = net(*args)
            assert inputs_without_effect(net, args) == []
            with use(hosts):
                for _ in range(3):
                    assert compare_outputs(expected, net(*args)).equal


def test_it_sleeps_as_long_as_the_link_takes_for_what_travels(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[tuple[str, float]] = []
    monkeypatch.setattr(room.time, "sleep", lambda seconds: slept.append((threading.current_thread().name, seconds)))
    x, link = torch.rand(1000), Link(8000.0, 0.25)  # 1,000 bytes a second
    tasks = [Task(str(i), nn.Identity(), (x,)) for i in range(3)]
    with DeclaredNetwork(link, hosts=3) as hosts:
        assert [torch.equal(y, x) for y in hosts.run(tasks)] == [True] * 3
        assert hosts.carried == 4 * x.nbytes  # the first task stays here
    assert sorted(slept) == [
        ("host 1 (declared)", 4.25),
        ("host 1 (declared)", 4.25),
        ("host 2 (declared)", 4.25),  # back
        ("host 2 (declared)", 8.25),  # its inputs leave after those of host 1
    ]


def test_tasks_are_dealt_out_in_turn_and_regions_within_them_stay_there() -> None:
    seen = []

    def where(i: int) -> None:
        seen.append((i, threading.current_thread().name, type(current())))

    with DeclaredNetwork(FAST, intra_op_threads=2) as hosts:
        hosts.run([Task(str(i), where, (i,)) for i in range(4)])
        assert hosts.run([]) == []
    main = threading.current_thread().name
    names = [main, "host 1 (declared)"]
    assert sorted(seen, key=lambda each: each[0]) == [(i, names[i % 2], Sequential) for i in range(4)]


def test_an_error_is_the_tasks_own_when_all_have_ended() -> None:
    ended = []

    def slow() -> None:
        time.sleep(0.05)
        ended.append(True)

    with DeclaredNetwork(FAST) as hosts:
        with pytest.raises(TaskError, match="branch 'bad' raised ZeroDivisionError"):
            hosts.run([Task("bad", lambda: 1 // 0), Task("slow", slow)])
        assert ended == [True]
        with pytest.raises(TaskError, match="branch 'bad'"):
            hosts.run([Task("good", slow), Task("bad", lambda: 1 // 0)])


def test_closed_it_leaves_no_thread_and_can_be_used_again() -> None:
    hosts = DeclaredNetwork(FAST, hosts=3)
    for _ in range(2):
        hosts.run([Task(str(i), list) for i in range(3)])
        hosts.close()
        assert not [thread for thread in threading.enumerate() if "declared" in thread.name]


def test_a_recording_and_a_table_say_that_it_is_simulated_from_their_own_data() -> None:
    link = Link(1e9, 50e-6)
    model, inputs = two_stream(width=8), (torch.randn(1, 3, 48, 48), torch.randn(1, 20, 48, 48))
    kit.register("declared_for_a_test", lambda: DeclaredNetwork(link))
    try:
        trace = kit.record(model, inputs, "declared_for_a_test", operators=False)
        comparison = kit.compare(model, inputs, "declared_for_a_test", rounds=6, progress=False)
    finally:
        del REGISTRY["declared_for_a_test"]
    carried = kit.explain(comparison, "declared_for_a_test").carried
    assert carried is not None
    assert carried[0] == inputs[1].nbytes, "the frame stays on the first host"
    assert trace.about["simulated"]
    assert trace.about["network"] == asdict(link)
    assert badge(trace).startswith(f"Simulated, not measured: a network of {link}, slept at each hand-over")
    assert any(
        caveat.startswith("declared_for_a_test: its network is simulated, not measured: 1 Gbit/s")
        for caveat in comparison.caveats
    )


def test_without_a_collecting_log_nothing_is_written() -> None:
    assert spans.current() is None
    with DeclaredNetwork(FAST) as hosts:
        assert hosts.run([Task("a", abs, (-1,)), Task("b", abs, (-2,))]) == [1, 2]
