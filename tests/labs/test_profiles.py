"""Notebook 10: what its quizzes reveal and its sentences say, of calm, busy and missing measurements; its exercises."""

import asyncio
from typing import Any

import pytest

import kit
from kit.labs import profiles
from kit.labs.profiles import told
from kit.labs.profiles.recorded import ALONE, CALLS, DEEP, PROFILED, REQUESTS, First, Seen
from kit.labs.profiles.told import QUIZZES
from kit.machine.load import Taken
from kit.trace import Event, Lane, Trace, save_trace
from kit.views.badge import badge
from tests.labs.made_up import busy, made_up

MS = 1_000_000
CALLER, STREAM = Lane(1, 1, "caller"), Lane(0, 7, "GPU 0 stream 7")
COST = {ALONE: 10.0, PROFILED: 15.0, DEEP: 30.0}


def calls(*ms: float) -> Trace:
    """Calls one after the other, as ``first_calls`` records them."""
    events, at = [], 0
    for i, each in enumerate(ms, start=1):
        events.append(Event(f"call {i}", "part", at, round(each * MS), CALLER))
        at += round(each * MS)
    return Trace.build(events)


def first(*ratios: float, others: float = 0.0) -> First:
    return First([calls(ratio, 1, 1, 1, 1) for ratio in ratios], Taken(others, 0.0))


def requests(*ms: float) -> Trace:
    return Trace.build([Event("request", "part", i * MS, round(each * MS), CALLER) for i, each in enumerate(ms)])


def on_gpu(kernel_ms: int, launch_ends: int = 1) -> Trace:
    """10 ms, in which a kernel runs for so many."""
    return Trace.build(
        [
            Event("call", "call", 0, 10 * MS, CALLER),
            Event("cudaLaunchKernel", "cuda_runtime", 0, launch_ends * MS, CALLER),
            Event("conv", "kernel", 0, kernel_ms * MS, STREAM),
        ]
    )


# What is recorded -----------------------------------------------------------------------------------------------------


def test_the_first_call_is_recorded_in_new_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIT_FAST", "1")
    found = profiles.first_calls()
    assert len(found.traces) == 2
    assert all(ratio > 0 for ratio in found.ratios)
    assert len({lane.process for trace in found.traces for lane in trace.lanes}) == 2


def test_the_profiler_is_measured_beside_the_same_calls() -> None:
    model, x = profiles.block()
    found = kit.compare(profiles.profiler_cost(model, x), rounds=6, progress=False)
    assert [row.name for row in found.rows if row.timing] == [ALONE, PROFILED, DEEP]
    assert all(row.equality.equal for row in found.rows if row.equality)


def test_a_plain_profile_leaves_worker_threads_out() -> None:
    seen = profiles.threads_seen()
    assert (seen.ran, seen.every) == (2, 2)
    assert seen.plain < seen.ran


def test_no_profile_has_what_other_processes_do() -> None:
    assert profiles.children_seen() == Seen(2, 0, 2)


def test_one_request_is_larger_and_tasks_overlap_without_nesting() -> None:
    assert len(told._requests(profiles.requests())) == REQUESTS
    trace = asyncio.run(profiles.waiting_together())
    assert len(trace) == 4
    assert told.dropped(trace) == 2


def test_mine_is_a_file_or_the_recording_that_comes_with_the_kit(tmp_path: Any) -> None:
    save_trace(calls(1, 1), tmp_path / "mine.json")
    assert len(profiles.mine(tmp_path / "mine.json")) == 2
    assert "H200" in badge(profiles.mine())


# What the quizzes reveal ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (first(3, 5), QUIZZES["first"][1][1]),
        (first(1.1, 0.9), QUIZZES["first"][1][0]),
        (first(1.1, 5), "not decided: from 1.10 to 5.00 times as long"),
        (first(3, 5, others=0.5), "not decided: machine busy"),
    ],
)
def test_the_first_call(given: First, said: str) -> None:
    assert profiles.first_answer(given).startswith(said)
    text = profiles.about_first(given)
    assert ("shows the start of a process" in text) == (said == QUIZZES["first"][1][1])


def test_the_cost() -> None:
    assert "small operators look slower" in profiles.about_cost(made_up(COST), 20)
    assert profiles.about_cost(busy(COST), 20).count("machine busy") == 1
    assert profiles.cost_answer(made_up(COST)) == "longer"
    assert profiles.cost_answer(busy(COST)).startswith("not decided: machine busy")
    assert profiles.cost_answer(made_up({ALONE: 10.0, PROFILED: "no profiler"})).startswith("not measured")
    each = 5.0 / CALLS / 20 * 1000
    assert f"{each:.3g} µs for each of its 20 operators" in profiles.about_cost(made_up(COST, scatter=0), 20).replace(
        ".0 µs", " µs"
    )
    assert (
        profiles.about_cost(made_up({ALONE: 10.0, PROFILED: "x", DEEP: "x"}), 20)
        == "The profiler was not measured here."
    )


@pytest.mark.parametrize(("plain", "said"), [(0, "neither branch"), (1, "one branch"), (2, "both branches")])
def test_threads(plain: int, said: str) -> None:
    assert profiles.threads_answer(Seen(2, plain, 2)) == said
    _, _, profile, recording = profiles.threads_table(Seen(2, plain, 2)).splitlines()
    assert profile.endswith(f"| {plain} | 2 |")
    assert recording.endswith("| 2 | 2 |")


def test_children() -> None:
    assert profiles.children_answer(Seen(2, 0, 2)) == "not in the profile"
    assert profiles.children_answer(Seen(2, 2, 2)) == "in the profile"
    _, _, workers, itself = profiles.children_table(Seen(3, 0, 2)).splitlines()
    assert workers == "| in 2 worker processes | 0 | 3 |"
    assert itself == "| in the process itself | 2 | 3 |"


@pytest.mark.parametrize(("ms", "said"), [(9, "more than 75%"), (5, "25% to 75%"), (1, "less than 25%")])
def test_a_gpu(ms: int, said: str) -> None:
    assert profiles.asynchronous_answer(on_gpu(ms)) == said
    told = profiles.about_gpu(on_gpu(ms))
    assert f"works for {ms * 10}% of the 10.0 ms" in told
    assert f"the {ms}.00 ms from its first kernel" in told


def test_a_path_says_what_would_make_the_call_shorter() -> None:
    said = profiles.about_path(kit.trace.critical_path(profiles.on_a_gpu()))
    assert said.startswith("Kernels and copies are 0% of the path")
    assert "the CPU launches faster" in said
    wait = Event("cudaDeviceSynchronize", "cuda_runtime", 2 * MS, 8 * MS, CALLER)
    launch = Event("cudaLaunchKernel", "cuda_runtime", 0, MS, CALLER, correlation=1)
    kernel = Event("conv", "kernel", MS, 9 * MS - 1, STREAM, correlation=1)
    said = profiles.about_path(kit.trace.critical_path(Trace.build([launch, wait, kernel])))
    assert said.startswith("Kernels and copies are 90% of the path")
    assert "the CPU launches faster" not in said


def test_a_straggler() -> None:
    slow, even = requests(*[1] * 19, 50), requests(*[1] * 20)
    assert profiles.straggler_answer(slow) == QUIZZES["straggler"][1][1]
    assert profiles.straggler_answer(even) == QUIZZES["straggler"][1][0]
    assert "**none** of the requests" in profiles.about_straggler(slow)
    assert "20 of the requests" in profiles.about_straggler(even)


# Sentences, tables, card ----------------------------------------------------------------------------------------------


def test_what_a_viewer_of_nested_rows_would_drop_is_counted() -> None:
    def trace(*spans: tuple[int, int]) -> Trace:
        return Trace.build([Event("wait", "part", start * MS, (end - start) * MS, CALLER) for start, end in spans])

    assert "The trace has 2 events. 0 of them overlap" in profiles.about_dropped(trace((0, 4), (1, 3)))
    assert "The trace has 2 events. 1 of them overlap" in profiles.about_dropped(trace((0, 4), (1, 6)))


def test_of_a_trace_of_ones_own_the_gpu_is_told_where_there_is_one() -> None:
    said = profiles.about_mine(requests(1, 3))
    assert "- The largest self time: `request`, 4.00 ms in 2 events." in said
    assert "GPU" not in said
    assert "- A GPU works for 50% of it." in profiles.about_mine(on_gpu(5))


def test_the_cost_of_each_event_is_told_only_where_there_is_one() -> None:
    cheaper = profiles.about_cost(made_up({ALONE: 10.0, PROFILED: 9.0}), 20)
    assert "for each of its 20 operators" not in cheaper
    assert "With call stacks" not in cheaper
    assert "With call stacks" in profiles.about_cost(made_up(COST), 20)


def test_self_times_add_up_to_the_recording_and_totals_do_not() -> None:
    trace = Trace.build([Event("outer", "cpu_op", 0, 10 * MS, CALLER), Event("inner", "cpu_op", MS, 8 * MS, CALLER)])
    text = profiles.about_totals(trace)
    assert "total times add up to 18.0 ms" in text
    assert "self times add up to 10.0 ms" in text


def test_the_card_says_what_was_measured() -> None:
    seen = Seen(2, 0, 2)
    text = profiles.conclusion(first(3, 5), made_up(COST), seen, seen, on_gpu(1), requests(*[1] * 19, 50))
    assert text.count("**false**") == 6
    text = profiles.conclusion(first(3, 5, others=0.5), busy(COST), seen, seen, on_gpu(1), requests(*[1] * 19, 50))
    assert text.count("not decided |") == 2
    seen = Seen(2, 2, 2)
    text = profiles.conclusion(first(1, 1), made_up({**COST, PROFILED: 10.0}), seen, seen, on_gpu(9), requests(1, 1, 1))
    assert text.count("**true**") == 6


# Exercises ------------------------------------------------------------------------------------------------------------


def heaviest(events: list[tuple[str, int, int]]) -> str:
    own: dict[str, int] = {}
    for name, start, end in events:
        inside = [e for e in events if e != (name, start, end) and start <= e[1] and e[2] <= end]
        direct = [e for e in inside if not any(o != e and o[1] <= e[1] and e[2] <= o[2] for o in inside)]
        own[name] = own.get(name, 0) + end - start - sum(e[2] - e[1] for e in direct)
    return max(own, key=lambda name: own[name])


def test_self_time_is_checked() -> None:
    def stub(events: list[tuple[str, int, int]]) -> str: ...  # type: ignore[empty-body]

    assert profiles.check_self_time(stub).state == "not attempted yet"
    assert profiles.check_self_time(heaviest).state == "passed"
    longest = profiles.check_self_time(lambda events: max(events, key=lambda event: event[2] - event[1])[0])
    assert longest.state == "hint"
    assert "forward contains conv" in longest.message


def test_the_share_of_a_gpu_is_checked() -> None:
    def share(kernels: list[tuple[int, int]], wall: int) -> float:
        return len({moment for start, end in kernels for moment in range(start, end)}) / wall

    assert profiles.check_gpu_share(share).state == "passed"
    added = profiles.check_gpu_share(lambda kernels, wall: sum(end - start for start, end in kernels) / wall)
    assert "which counts once" in added.message
