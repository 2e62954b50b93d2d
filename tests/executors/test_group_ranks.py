"""Ranks of a group that exists: on two hosts with a network between them, which are namespaces on this machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch import distributed

from kit.errors import UnavailableError
from kit.machine import namespaces
from kit.machine.namespaces import Hosts
from tests.executors.on_hosts import ANSWERS, Caller

WHY_NOT = namespaces.unavailable_because()
pytestmark = [
    pytest.mark.skipif(not distributed.is_gloo_available(), reason="this PyTorch has no gloo"),
    pytest.mark.skipif(WHY_NOT is not None, reason=f"no two hosts here: {WHY_NOT}"),
]
SOAK = os.environ.get("KIT_SOAK") == "1"
LIMIT_S = 60.0  # for what ends by itself
ROOT = Path(__file__).parents[2]

# Every rank runs this. Rank 0 does what the test tells it, and answers with a line of JSON.
PROGRAM = """
import json, os, signal, sys, time
import torch
from torch import nn
from kit import spans
from kit.errors import KitError
from kit.executors import Task
from kit.executors.group_ranks import GroupRanks
from kit.executors.workers.group import Group, join
from kit.executors.workers.membership import membership
from kit.executors.workers.serving import serve
from kit.models import inception_block
from kit.regions import Branches
from kit.equality import compare_outputs
from kit import Concat, executors

def rank(): return int(os.environ["RANK"])
def nested(x):
    net = Branches({name: inception_block(3).eval() for name in "ab"}, Concat(1))
    with executors.use(ranks):
        found = net(x)
    return compare_outputs(net(x), found).equal and not compare_outputs(net(2 * x), found).equal
def fail(x): raise ZeroDivisionError("on purpose")
def hang(): time.sleep(1000)
def die(): os.kill(os.getpid(), signal.SIGKILL)

member = membership()
group = join(member)
if not isinstance(group, Group):
    serve(group, member.rank)
    sys.exit()
"""


class Ranks(Caller):
    """The program above on both hosts."""

    def __init__(self, hosts: Hosts, folder: Path, executor: str = "GroupRanks(group, timeout=20)") -> None:
        self.hosts = hosts
        program = folder / "program.py"
        program.write_text(PROGRAM + ANSWERS)
        here = {"WORLD_SIZE": "2", "MASTER_ADDR": hosts.addresses["host-a"], "MASTER_PORT": "29400"}
        environment = os.environ | here | {"PYTHONPATH": str(ROOT)}
        self.failures = {host: folder / f"{host}.err" for host in hosts.addresses}
        self.processes = []
        for rank, host in enumerate(hosts.addresses):
            with self.failures[host].open("w") as errors:
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
                command = [sys.executable, str(program)]
                self.processes.append(hosts.start(host, command, env=environment | {"RANK": str(rank)}, **pipes))
        super().__init__(self.processes[0], self.failures["host-a"])
        self.ask(f"globals().update(ranks={executor})")

    def end(self) -> list[int]:
        """The exit status of each rank, which must end by itself."""
        self.finish()
        return [process.wait(LIMIT_S) for process in self.processes]


@pytest.fixture
def ranks(hosts: Hosts, tmp_path: Path) -> Ranks:
    return Ranks(hosts, tmp_path)


def test_calls_over_two_hosts_and_only_tensors_travel(ranks: Ranks, hosts: Hosts) -> None:
    assert ranks.ask("ranks.run([Task(f't{i}', rank) for i in range(5)])") == [0, 1, 0, 1, 0]
    assert ranks.ask("ranks.run([])") == []
    both = "ranks.run([Task('a', model, (x,)), Task('b', model, (2 * x,))])"
    same = f"[torch.equal(y, model(z)) for y, z in zip({both}, (x, 2 * x))]"
    sent = [hosts.sent_bytes("host-a"), hosts.sent_bytes("host-b")]
    assert ranks.ask(same) == [True, True]
    first = hosts.sent_bytes("host-a") - sent[0]
    assert first > 5_000_000, "a share of the model has 4 MB, the inputs 1 MB"
    sent = [hosts.sent_bytes("host-a"), hosts.sent_bytes("host-b")]
    calls = 5
    for _ in range(calls):
        assert ranks.ask(same) == [True, True]
    for host, before in zip(hosts.addresses, sent, strict=True):
        per_call = (hosts.sent_bytes(host) - before) / calls
        assert 1_000_000 < per_call < 1_100_000, f"{host} sends 250 x 1000 float32"
    assert ranks.end() == [0, 0]
    assert "rror" not in ranks.failures["host-b"].read_text()


def test_an_error_of_a_task_is_its_own_and_the_group_stays(ranks: Ranks) -> None:
    for tasks in ("Task('t', rank), Task('bad', fail, (x,))", "Task('bad', fail, (x,)), Task('t', rank)"):
        said = ranks.ask(f"ranks.run([{tasks}])")
        assert "TaskError: branch 'bad' raised ZeroDivisionError: on purpose (cause: ZeroDivisionError)" in said
    said = ranks.ask("ranks.run([Task('t', rank), Task('u', print, (group.lock,))])")
    assert re.match(r"TransferError: the inputs of 'u', for rank 1 on host-b: .* is a lock", said)
    assert ranks.ask("ranks.run([Task('t', rank)] * 2)") == [0, 1]
    assert ranks.end() == [0, 0]


def test_a_region_within_a_branch_runs_where_the_branch_runs(ranks: Ranks) -> None:
    assert ranks.ask("nested(torch.rand(1, 3, 12, 12))") is True
    assert ranks.end() == [0, 0]


LOST = {"die": ("rank 1 on host-b (process", LIMIT_S), "hang": ("no answer within 3 s from rank 1 on host-b", 4.0)}


@pytest.mark.parametrize("how", LOST)
def test_a_rank_that_dies_or_hangs_is_named_and_the_group_is_refused(how: str, hosts: Hosts, tmp_path: Path) -> None:
    ranks = Ranks(hosts, tmp_path, "GroupRanks(group, timeout=3)")
    assert ranks.ask("ranks.run([Task('t', rank)] * 2)") == [0, 1]
    ranks.begin(f"ranks.run([Task('t', rank), Task('bad', {how})])")
    said, seconds = ranks.result()
    says, limit = LOST[how]
    assert said.startswith("WorkerError:")
    assert says in said
    assert "bad" in said
    assert seconds < limit
    ranks.begin("ranks.run([Task('t', rank)] * 2)")
    said, seconds = ranks.result()
    assert "the group of ranks is closed" in said
    assert "host-b" in said
    assert seconds < 1
    assert ranks.end()[1] != 0
    if how == "hang":
        assert "rank 1 has lost rank 0" in ranks.failures["host-b"].read_text()


def test_ranks_end_when_rank_0_is_killed(ranks: Ranks) -> None:
    ranks.begin("ranks.run([Task('t', die), Task('long', hang)])")
    assert [process.wait(LIMIT_S) != 0 for process in ranks.processes] == [True, True]
    assert "rank 1 has lost rank 0" in ranks.failures["host-b"].read_text()


@pytest.mark.parametrize("when", ["while it computes", "while tensors travel"])
def test_a_link_that_is_cut_during_a_call_is_an_error_within_the_timeout(
    when: str, hosts: Hosts, tmp_path: Path
) -> None:
    ranks = Ranks(hosts, tmp_path, "GroupRanks(group, timeout=4)")
    assert ranks.ask("ranks.run([Task('t', rank)] * 2)") == [0, 1]
    if when == "while it computes":
        ranks.begin("ranks.run([Task('t', rank), Task('nap', time.sleep, (1.5,))])")
    else:
        assert ranks.ask("ranks.run([Task('t', torch.neg, (x,))] * 2) and None") is None
        hosts.slow(mbit_s=2)  # 1 MB takes 4 s
        ranks.begin("ranks.run([Task('t', torch.neg, (x,))] * 2)")
    time.sleep(0.7)
    hosts.cut()
    said, seconds = ranks.result()
    assert "rank 1 on host-b" in said
    assert seconds < 6
    assert "the group of ranks is closed" in ranks.ask("ranks.run([Task('t', rank)] * 2)")
    begun = time.monotonic()
    ranks.end()
    assert time.monotonic() - begun < LIMIT_S, "the cut-off rank sees by itself that rank 0 is gone"


def test_a_slow_link_takes_the_time_of_its_bytes(ranks: Ranks, hosts: Hosts) -> None:
    hosts.slow(mbit_s=20)
    call = "ranks.run([Task('t', torch.neg, (x,)), Task('u', torch.neg, (x,))]) and None"
    assert ranks.ask(call) is None  # the share too
    ranks.begin(call)
    _, seconds = ranks.result()
    assert seconds > 0.6, "1 MB there and 1 MB back, at 20 Mbit/s: 0.8 s"
    assert ranks.end() == [0, 0]


def test_a_link_with_delay_takes_its_time_and_the_clock_stays_within_what_is_said(ranks: Ranks, hosts: Hosts) -> None:
    assert ranks.ask("ranks.run([Task('t', rank)] * 2)") == [0, 1]
    try:
        hosts.slow(delay_ms=30)
    except UnavailableError as error:
        pytest.skip(f"no delay here: {error}")
    ranks.begin("ranks.run([Task('t', rank)] * 2)")
    found, seconds = ranks.result()
    assert found == [0, 1]
    assert seconds > 0.06, "there and back"
    offset, uncertainty, _ = ranks.ask("group.peers[0].clock.best(spans.clock())")
    assert abs(offset) <= uncertainty
    assert ranks.end() == [0, 0]


def test_the_clock_of_the_other_host_is_known_to_within_what_is_said(ranks: Ranks, hosts: Hosts) -> None:
    """The two hosts have one clock in truth, which the kit does not know: its offset must be within the uncertainty."""
    for slow in (False, True):
        if slow:
            hosts.slow(mbit_s=20)
        ranks.ask("globals().update(log=spans.SpanLog())")
        ranks.ask("spans._current.set(log) and ranks.run([Task('a', rank), Task('b', time.sleep, (0.01,))]) and None")
        offset, uncertainty, _ = ranks.ask("group.peers[0].clock.best(spans.clock())")
        assert abs(offset) <= uncertainty
        found = ranks.ask("[[s.name, s.host, str(s.process), s.start_ns, s.end_ns] for s in log.spans]")
        (b,) = [each for each in found if each[0] == "b"]
        (wait,) = [each for each in found if each[0] == "wait"]
        assert b[1] == "host-b"
        assert re.fullmatch(r"host-b: process \d+", b[2])
        assert wait[3] - uncertainty <= b[3] + uncertainty
        assert b[4] <= wait[4] + 2 * uncertainty
        assert ranks.ask("log.clocks")["host-b"] >= uncertainty / 2
    assert ranks.end() == [0, 0]


def test_torchrun_on_two_hosts_compares_and_prints_once(hosts: Hosts) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--master-port=29400"]
    command += [f"--master-addr={hosts.addresses['host-a']}"]
    compare = ["-m", "kit", "compare", "two-stream", "--approaches", "sequential,ranks", "--rounds=6"]
    runs = [
        hosts.start(
            host,
            [*command, f"--node-rank={rank}", *compare],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank, host in enumerate(hosts.addresses)
    ]
    (printed, errors), (nothing, others) = [run.communicate(timeout=4 * LIMIT_S) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], errors + others
    assert nothing == ""
    rows = [line for line in printed.splitlines() if line.startswith(("sequential", "ranks"))]
    assert len(rows) == 2
    assert "yes" in rows[1]


@pytest.mark.skipif(not SOAK, reason="takes three minutes: KIT_SOAK=1 runs it")
def test_after_many_calls_and_many_kills_nothing_is_left(hosts: Hosts, tmp_path: Path) -> None:
    ranks = Ranks(hosts, tmp_path)
    for i in range(200):
        assert ranks.ask(f"ranks.run([Task('a', abs, ({i},)), Task('b', abs, (-{i},))])") == [i, i]
    assert ranks.end() == [0, 0]
    for i in range(50):
        folder = tmp_path / str(i)
        folder.mkdir()
        ranks = Ranks(hosts, folder)
        assert ranks.ask("ranks.run([Task('t', rank)] * 2)") == [0, 1]
        tasks = ["Task('t', rank)", "Task('t', rank)"]
        tasks[i % 2] = "Task('bad', die)"
        ranks.begin(f"ranks.run([{', '.join(tasks)}])")
        if i % 2:
            said, _ = ranks.result()
            assert "rank 1 on host-b" in said
            ranks.end()
        assert [process.wait(LIMIT_S) != 0 for process in ranks.processes][i % 2]
        assert ranks.processes[1].wait(LIMIT_S) != 0
        assert hosts.processes() == []
