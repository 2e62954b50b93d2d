"""Notebook 06: what its quizzes reveal and its sentences say, of results that nobody measured."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from kit.equality import Equality
from kit.errors import UnavailableError, WorkerError
from kit.executors import Sequential, Task
from kit.labs import devices
from kit.labs.devices import clusters, experiments, failures, hosts, settled
from kit.labs.devices import told as room
from kit.labs.devices.explorer import RANGES, Explorer, told
from kit.labs.devices.failures import Outcome
from kit.labs.devices.hosts import Over
from kit.labs.devices.told import IMAGE, QUIZZES, STREAMS, TWICE
from kit.machine import namespaces
from kit.measuring.comparison import Comparison
from kit.scheduling.links import LINKS, Branch, Link
from kit.scheduling.many_machines import Job
from kit.trace import Trace
from kit.views.badge import badge
from kit.workloads.two_hosts import BY_BRANCH, BY_REQUEST, ONE, REQUESTS, SIZES, Measured, network
from tests.labs.made_up import busy, made_up, span

WHY_NOT = namespaces.unavailable_because()
LINK = LINKS["1 Gbit/s"]
JOB = Job(Branch(0.020, 110_592, 400), tuple((Branch(0.0005, 40_000, 9_000),) * 4 for _ in range(9)))
CALL = Trace.build([span("a", "task", 0, 5, "caller"), span("send", "transfer", 0, 3, "caller")])
IN_TIME = Outcome(0, "WorkerError: rank 1 was killed | <by> SIGKILL.", 2.0, 60.0)
FINE = Outcome(2, "", 3.0, 60.0)


def renamed(comparison: Comparison, old: str, new: str) -> Comparison:
    rows = tuple(replace(row, name=new) if row.name == old else row for row in comparison.rows)
    return replace(comparison, rows=rows)


def without_spans(comparison: Comparison) -> Comparison:
    def bare(row: Any) -> Any:
        return replace(row, timing=replace(row.timing, turns=(None,) * len(row.timing.turns)))

    return replace(comparison, rows=tuple(map(bare, comparison.rows)))


def scatter(by_branch: float | str = 80.0, by_request: float | str = 22.0, **options: Any) -> Comparison:
    ms = {ONE: 40.0, BY_BRANCH: by_branch, BY_REQUEST: by_request}
    return made_up(ms, items=REQUESTS, unit="requests", **options)


def over(
    why_not: str = "", branch: float = 330_000.0, request: float = 60_000.0, found: Comparison | None = None
) -> Over:
    copies = [(size, LINK.seconds(size) * 1.5) for size in SIZES]
    carried = {BY_BRANCH: branch, BY_REQUEST: request}
    return Over(Measured(CALL, copies, found or scatter(), carried), LINK, why_not)


@pytest.mark.parametrize("name", QUIZZES)
def test_a_quiz_is_made_by_its_name_and_answered_by_a_function_of_that_name(name: str) -> None:
    assert devices.quiz(name).guess is None
    assert callable(getattr(devices, f"{name}_answer"))


# DataParallel and devices ---------------------------------------------------------------------------------------------

CALM = {"sequential": 10.0, "replicated": 10.1, "threads": 7.0}
SIDE_BY_SIDE = renamed(renamed(made_up(CALM), "replicated", "x"), "threads", "replicated")


@pytest.mark.parametrize(
    ("comparison", "answer", "says", "truth"),
    [
        (made_up(CALM), STREAMS[1], "its call is the call of the model", "false"),
        (busy(CALM), STREAMS[1], "its call is the call of the model", "false"),  # overlap does not depend on the load
        (SIDE_BY_SIDE, STREAMS[0], "ran at the same time", "true"),
        (made_up(CALM | {"replicated": "no GPU"}), "not measured: no GPU", "is not measured: no GPU", "not decided"),
        (without_spans(made_up(CALM)), "not known: the streams wrote no spans", "is not known", "not decided"),
    ],
)
def test_whether_data_parallel_splits_streams(comparison: Comparison, answer: str, says: str, truth: str) -> None:
    assert devices.parallel_answer(comparison) == answer
    assert says in devices.about_parallel(comparison)
    card = devices.conclusion(comparison, places(), ranks(), over(), IN_TIME, FINE)
    assert f"split streams | {'**' + truth + '**' if truth != 'not decided' else truth} |" in card
    assert ("both streams ran at the same time for " in card) == (truth != "not decided")


def places(devices_ms: float | str = "no second device.", **options: Any) -> Comparison:
    return made_up({"sequential": 10.0, "devices": devices_ms, TWICE: 10.0}, **options)


def test_one_device_under_two_names_is_one_place() -> None:
    said = devices.about_places(places())
    assert devices.places_answer(places()) == STREAMS[1]
    assert "one place: nothing is copied" in said
    assert "`devices`, a real device for each stream, is not measured: no second device." in said
    assert "a real device for each stream: **faster**" in devices.about_places(places(6.0))
    together = renamed(made_up({"sequential": 10.0, "devices": 10.0, "threads": 6.0}), "threads", TWICE)
    assert devices.places_answer(together) == STREAMS[0]
    assert "ran at the same time" in devices.about_places(together)
    missing = made_up({"sequential": 10.0, TWICE: "why not"})
    assert f"What `{TWICE}` does is not measured: why not." in devices.about_places(missing)


# Ranks and hosts ------------------------------------------------------------------------------------------------------


def ranks(ms: float | str = 12.0, **options: Any) -> Comparison:
    return made_up({"sequential": 10.0, "threads": 7.0, "ranks": ms}, **options)


@pytest.mark.parametrize(("ms", "answer"), [(6.0, "faster"), (20.0, "slower"), (10.0, "no difference found")])
def test_what_ranks_are_on_this_machine(ms: float, answer: str) -> None:
    assert devices.ranks_answer(ranks(ms)) == answer
    assert devices.ranks_answer(ranks(ms, others=0.5)).startswith("not decided: machine busy")


def test_a_network_is_called_real_only_if_it_is() -> None:
    real, simulated = over(), over("network namespaces need Linux.")
    assert (devices.how(real), devices.how(simulated)) == ("measured", "simulated")
    assert "two network namespaces of this machine" in devices.about_over(real)
    assert "declared" not in devices.about_over(real)
    said = devices.about_over(simulated)
    assert said.startswith("**The network is declared, not real**: network namespaces need Linux.")
    assert f"a link of {LINK}" in said
    for each in (devices.about_over(real), said):
        assert "computed for 5.00 ms" in each
        assert "took 3.00 ms" in each


@pytest.mark.parametrize(("factor", "answer"), [(0.02, "0.05 ms"), (0.1, "0.5 ms"), (1.0, "5 ms"), (9.0, "50 ms")])
def test_the_answer_is_the_option_that_is_closest_by_factors(factor: float, answer: str) -> None:
    copies = [(IMAGE, LINK.seconds(IMAGE) * factor)]
    assert devices.copy_answer(Over(Measured(CALL, copies, scatter(), {}), LINK)) == answer


def test_what_a_copy_costs_stands_beside_the_formula() -> None:
    here = {"in memory": dict.fromkeys(SIZES, 1e-6), "to the GPU": dict.fromkeys(SIZES, 2e-6)}
    said = devices.about_copies(over(), here)
    assert "| 602,112 bytes, the image | 1.00 µs | 2.00 µs | **7.30 ms** | 4.87 ms |" in said
    slow = [(size, LINK.seconds(size) * times) for size, times in zip(SIZES, (12, 3, 2, 1.5), strict=True)]
    uneven = devices.about_copies(over()._replace(found=Measured(CALL, slow, scatter(), {})), here)
    assert "The smallest copy took 12.0 times as long as it says, the largest 1.50 times." in uneven
    assert "| one way | in memory | to the GPU | to the other host |" in said
    assert "over the declared network (simulated)" in devices.about_copies(over("no Linux."), here)


def test_copies_are_measured_within_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    found = devices.copies_here((4, 4000))
    assert all(took > 0 for copies in found.values() for took in copies.values())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    assert list(devices.copies_here((4,))) == [experiments.IN_MEMORY, experiments.TO_THE_GPU]


@pytest.mark.parametrize(("branch", "answer"), [(330_000.0, 1), (60_500.0, 2), (10_000.0, 0)])
def test_which_way_carries_fewer_bytes(branch: float, answer: int) -> None:
    assert devices.scatter_answer(over(branch=branch)) == QUIZZES["scatter"][1][answer]


@pytest.mark.parametrize(
    ("found", "says", "truth"),
    [
        (scatter(), "**By request is faster than by branch**", "true"),
        (scatter(20.0, 60.0), "**By request is slower than by branch**", "false"),
        (scatter(40.0, 40.0), "No difference was found between by request and by branch", "not decided"),
        (scatter(80.0, 60.0), "**By request is faster than by branch**", "true"),  # both slower than one host
        (scatter(others=0.5), "Which one is faster is not decided: machine busy", "not decided"),
        (scatter(by_branch="it failed"), "Which one is faster is not measured: it failed", "not decided"),
    ],
)
def test_the_two_ways_of_scattering(found: Comparison, says: str, truth: str) -> None:
    given = over(found=found)
    said = devices.about_scatter(given, JOB)
    assert says in said
    assert "5.50 times the bytes of by request, in 9 hand-overs" in said
    card = devices.conclusion(made_up(CALM), places(), ranks(), given, IN_TIME, FINE)
    (row,) = [line for line in card.splitlines() if line.startswith(f"| {settled.JOBS}")]
    assert truth in row
    declared = devices.conclusion(made_up(CALM), places(), ranks(), over("no.", found=found), IN_TIME, FINE)
    (row,) = [line for line in declared.splitlines() if line.startswith(f"| {settled.JOBS}")]
    assert "| not decided | simulated network:" in row
    assert "no claim about them is decided by it" in declared


def test_a_wrong_output_of_ranks_is_never_a_success() -> None:
    found = scatter()
    rows = tuple(replace(row, equality=Equality(False, 1.0)) if row.name == BY_REQUEST else row for row in found.rows)
    card = devices.conclusion(made_up(CALM), places(), ranks(), over(found=replace(found, rows=rows)), IN_TIME, FINE)
    assert f"| {settled.JOBS} | **false** | ranks gave another output" in card


def test_the_bytes_decide_without_a_clock() -> None:
    for branch, truth in ((330_000.0, "true"), (1_000.0, "false")):
        card = devices.conclusion(made_up(CALM), places(), ranks(), over(branch=branch), IN_TIME, FINE)
        assert f"than sending whole requests | **{truth}** |" in card


def test_when_sending_pays_is_computed_for_each_link() -> None:
    said = devices.about_break_even(JOB)
    assert "| 1 Gbit/s | 4.87 ms | 27 of 27 |" in said  # 49 kB: 0.39 ms and the latency, twice, against 0.5 ms
    slow = replace_work(JOB, 0.0001)
    assert "| 1 Gbit/s | 4.87 ms | 0 of 27 |" in devices.about_break_even(slow)
    assert "a request takes 20.0 ms on one thread of this machine" in said
    assert "Of 36 branches in 9 regions, the first of each region stays where the image is: 27 could be sent." in said
    assert "| an image of 224 x 224, one way |" in said
    assert "the table of copies above shows what it costs besides" in said


def replace_work(job: Job, work: float) -> Job:
    return job._replace(regions=tuple(tuple(each._replace(work=work) for each in region) for region in job.regions))


def test_a_chart_has_a_line_for_each_link_and_stars_for_branches() -> None:
    chart = devices.break_even_chart(points={"mine": (1e6, 0.01)})
    assert [line.name for line in chart.data] == [*LINKS, "mine"]
    image = devices.break_even_chart({"one": Link(8e9)})
    assert image.data[0].y[3] == pytest.approx(1.0)  # 1 MB at 1 GB/s: 1 ms
    assert "<svg" in image.still()


@pytest.mark.parametrize(
    ("branch", "says"),
    [
        (Branch(0.02, 300_000, 300_000), "sending branches pays (1.61x)"),
        (Branch(0.001, 300_000, 300_000), "sending branches does not pay"),
    ],
)
def test_the_explorer_says_what_one_request_and_many_gain(branch: Branch, says: str) -> None:
    said = told(LINK, branch, 2)
    assert said.startswith("Computed, not measured.")
    assert says in said
    assert "2.00 machines' worth" in said or "limited by the link" in said


def test_a_control_of_the_explorer_redraws_it() -> None:
    explorer = Explorer()
    before = explorer.answer.value
    assert list(explorer.controls) == list(RANGES)
    explorer.controls["Gbit/s"].value = 100.0
    assert explorer.answer.value != before
    explorer.branches.value = 4
    assert "branches 4" in explorer.still()
    assert all(not control.continuous_update for control in (*explorer.controls.values(), explorer.branches))
    assert repr(explorer) == "Explorer of break-even"


# Failures and clusters ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "again", "answer", "says", "truth"),
    [
        (IN_TIME, FINE, 2, "within the timeout of 60 s", "true"),
        (IN_TIME, IN_TIME, 2, "The next call failed too", "false"),
        (IN_TIME._replace(seconds=70.0), FINE, 0, "**after** the timeout", "false"),
        (FINE, FINE, 1, "**No error**: 2 results", "false"),
    ],
)
def test_how_a_killed_rank_is_told(failure: Outcome, again: Outcome, answer: int, says: str, truth: str) -> None:
    assert devices.killed_answer(failure) == QUIZZES["killed"][1][answer]
    said = devices.about_failure(failure, again)
    assert says in said
    assert "<by>" not in said
    card = devices.conclusion(made_up(CALM), places(), ranks(), over(), failure, again)
    assert f"the next call works | **{truth}** |" in card


def test_tasks_of_the_caller_are_not_killed_and_an_error_of_the_kit_is_kept_as_text() -> None:
    assert devices.outcome(Sequential(), devices.with_a_kill()).results == 2
    assert devices.outcome(Sequential(), devices.healthy()).error == ""
    found = devices.outcome(Sequential(), [Task("bad", lambda: 1 // 0)])
    assert found.error.startswith("TaskError: branch 'bad' raised ZeroDivisionError")
    assert failures.outcome(Sequential(), []).timeout == float("inf")


def cluster(ms: float | str = 14.0, **options: Any) -> Comparison:
    return made_up({"sequential": 10.0, "ranks": 12.0, "cluster": ms}, **options)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (cluster(), "gave the same output as `sequential`; against `ranks`: **slower**"),
        (cluster(others=0.5), "against `ranks` it is not decided: machine busy"),
        (cluster(wrong=("cluster",)), "**another output**"),
        (cluster("distributed is not installed."), "`cluster` is not measured: distributed is not installed."),
    ],
)
def test_what_a_cluster_did(found: Comparison, says: str) -> None:
    assert says in devices.about_cluster(found)


def test_a_cluster_is_named_for_a_block_and_closed_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Any] = []

    class Closing:
        def __init__(self, *args: Any, **options: Any) -> None:
            events.append(type(self).__name__)

        def __enter__(self) -> Closing:
            return self

        def __exit__(self, *exc_info: object) -> None:
            events.append(f"end of {type(self).__name__}")

    class LocalCluster(Closing): ...

    class Client(Closing): ...

    fake = types.ModuleType("distributed")
    fake.LocalCluster, fake.Client = LocalCluster, Client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "distributed", fake)
    monkeypatch.setattr(clusters.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(clusters, "use_cluster", lambda client: events.append(type(client).__name__))
    with pytest.raises(ZeroDivisionError), devices.local_cluster():
        events.append(1 // 0)
    assert events == ["LocalCluster", "Client", "Client", "NoneType", "end of Client", "end of LocalCluster"]
    events.clear()
    monkeypatch.setattr(clusters.importlib.util, "find_spec", lambda name: None)
    with devices.local_cluster():
        pass
    assert events == []


# Where the two hosts come from ----------------------------------------------------------------------------------------


def test_where_no_hosts_can_be_made_the_network_is_declared_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Link, str]] = []
    monkeypatch.setattr(hosts, "declared", lambda link, why: asked.append((link, why)) or over(why))
    monkeypatch.setattr(hosts.namespaces, "unavailable_because", lambda: "only root may make them.")
    assert not devices.two_hosts().real
    monkeypatch.setattr(hosts.namespaces, "unavailable_because", lambda: None)

    def refused() -> Over:
        raise UnavailableError("the system refused.")

    monkeypatch.setattr(hosts, "_over_namespaces", refused)
    devices.two_hosts()
    monkeypatch.setattr(hosts.distributed, "is_gloo_available", lambda: False)
    devices.two_hosts()
    assert asked == [
        (LINK, "only root may make them."),
        (LINK, "the system refused."),
        (LINK, "this PyTorch has no gloo."),
    ]


class FakeHosts:
    """Two hosts that run programs on this one."""

    def __init__(self, slow: Exception | None = None) -> None:
        self.addresses = {"host-a": "10.0.0.1", "host-b": "10.0.0.2"}
        self.slow_error, self.started = slow, []

    def __enter__(self) -> FakeHosts:
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def slow(self, mbit_s: float) -> None:
        if self.slow_error:
            raise self.slow_error

    def start(self, host: str, command: list[str], env: dict[str, str], stdout: Any, stderr: Any) -> Any:
        self.started.append(command)
        stderr.write("noise\nValueError: of a test\n")

        class Process:
            def wait(self, timeout: float) -> int:
                return 1

        return Process()


def test_a_program_that_fails_is_an_error_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeHosts()
    with pytest.raises(WorkerError, match="ValueError: of a test"):
        hosts._program(fake, tmp_path)  # type: ignore[arg-type]
    first, second = fake.started
    assert first[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert [word for word in second if word.startswith("--node-rank")] == ["--node-rank=1"]
    assert first[-4:-2] == ["-m", "kit.workloads.two_hosts"]


@pytest.mark.parametrize("slow", [None, UnavailableError("no tc")])
def test_a_call_over_namespaces_says_so_in_its_own_data(
    slow: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "Hosts", lambda: FakeHosts(slow))
    monkeypatch.setattr(hosts, "_program", lambda given, folder: over().found)
    found = hosts._over_namespaces()
    assert found.real
    assert (found.link is None) == bool(slow)
    limit = "without a limit" if slow else "limited to 1 Gbit/s"
    assert limit in found.found.call.about["hosts"]


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="this PyTorch has no gloo")
@pytest.mark.skipif(WHY_NOT is not None, reason=f"no two hosts here: {WHY_NOT}")
def test_over_two_namespaces_bytes_really_travel_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIT_FAST", "1")
    over = devices.two_hosts()
    assert over.real, over.why_not
    model, images = network()
    least = (images[0].nbytes + model(images[0]).nbytes) / 2
    assert least < over.found.carried[BY_REQUEST] < 1.5 * least, "the tensors, and what packing and TCP add"
    assert over.found.carried[BY_BRANCH] > over.found.carried[BY_REQUEST]
    assert all(row.equality is None or row.equality.equal for row in over.found.scatter.rows)
    assert {lane.label.partition(":")[0] for lane in over.found.call.lanes} == {"host-a", "host-b"}
    assert badge(over.found.call).startswith("Recorded: ")
    assert "network namespaces of this machine" in badge(over.found.call)
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert f"kit-{os.getpid()}-" not in left


def test_the_networks_are_on_the_gpu_only_if_there_is_one() -> None:
    model, inputs = devices.two_streams("cpu")
    assert {x.device.type for x in inputs} == {"cpu"}
    assert not model.training
    assert room.QUIZZES is QUIZZES


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (devices.check_seconds, lambda b, g, us: us / 1e6 + 8 * b / g / 1e9, lambda b, g, us: us / 1e6 + b / g / 1e9),
        (devices.check_machines, lambda rate, ms: int(rate * ms / 1e3) + 1, lambda rate, ms: -(-rate * ms // 1e3)),
    ],
)
def test_an_exercise_tells_right_from_wrong(check: Any, right: Any, wrong: Any) -> None:
    assert check(right).state == "passed"
    assert check(wrong).state == "hint"
    assert check(...).state == "not attempted yet"
