"""Workers of a Dask cluster on two hosts with a network between them, which are namespaces on this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kit.errors import UnavailableError
from kit.machine import namespaces
from kit.machine.namespaces import Hosts
from tests.executors.on_hosts import ANSWERS, Caller

pytest.importorskip("distributed", reason="Dask is not installed")
WHY_NOT = namespaces.unavailable_because()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=f"no two hosts here: {WHY_NOT}")
SOAK = os.environ.get("KIT_SOAK") == "1"
LIMIT_S = 120.0  # for what ends by itself
ROOT = Path(__file__).parents[2]
PORT = 8786

# The caller, on host-a. It does what the test tells it, and answers with a line of JSON.
PROGRAM = f"""
import json, os, sys, time
import torch
from distributed import Client
from torch import nn
from kit import spans
from kit.errors import KitError
from kit.executors import Task
from kit.executors.cluster import Cluster
from kit.executors.workers.dask_workers import DaskWorkers
from kit.machine import load
from kit.profiler import trace_of_spans

def pid(): return os.getpid()
def connect(timeout, killed=None):
    while killed in client.scheduler_info(n_workers=-1)["workers"]: time.sleep(0.05)  # its caller knows first
    client.wait_for_workers(2, timeout={LIMIT_S})
    globals().update(cluster=Cluster(DaskWorkers(client, 2, 2, {LIMIT_S}), 1, timeout))

client = Client(f"tcp://{{sys.argv[1]}}:{PORT}", timeout={LIMIT_S})
"""


class OnTwoHosts(Caller):
    """A scheduler and the caller on host-a, and a worker on each host, which its nanny starts again."""

    def __init__(self, hosts: Hosts, folder: Path) -> None:
        self.hosts, failures = hosts, folder / "caller.err"
        own = dict(hosts.addresses)
        self._start("host-a", "distributed.cli.dask_scheduler", f"--host={own['host-a']}", f"--port={PORT}")
        for host, address in own.items():
            scheduler = f"tcp://{own['host-a']}:{PORT}"
            about = ("--nthreads=1", f"--name={host[-1]}", f"--host={address}", f"--local-directory={folder}")
            self._start(host, "distributed.cli.dask_worker", scheduler, *about)
        program = folder / "program.py"
        program.write_text(PROGRAM + ANSWERS)
        with failures.open("w") as errors:
            caller = hosts.start(
                "host-a",
                [sys.executable, str(program), own["host-a"]],
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        super().__init__(caller, failures)
        assert self.ask("connect(20)") is None

    def _start(self, host: str, module: str, *arguments: str) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.hosts.start(host, [sys.executable, "-m", module, *arguments, "--no-dashboard"], env=environment, **quiet)

    def end(self) -> int:
        self.finish()
        return self.process.wait(LIMIT_S)


@pytest.fixture
def both(hosts: Hosts, tmp_path: Path) -> OnTwoHosts:
    return OnTwoHosts(hosts, tmp_path)


CALL = "cluster.run([Task('a', model, (x,)), Task('b', model, (2 * x,))])"


def test_over_two_hosts_only_tensors_travel_and_clocks_are_aligned(both: OnTwoHosts, hosts: Hosts) -> None:
    assert both.ask("[each.name for each in cluster.workers.all]") == ["worker a on host-a", "worker b on host-b"]
    same = f"[torch.equal(y, model(z)) for y, z in zip({CALL}, (x, 2 * x))]"
    before = hosts.sent_bytes("host-a")
    assert both.ask(same) == [True, True]
    assert hosts.sent_bytes("host-a") - before > 5_000_000, "a share of the model has 4 MB, the inputs 1 MB"
    sent, calls = [hosts.sent_bytes(host) for host in hosts.addresses], 5
    for _ in range(calls):
        assert both.ask(same) == [True, True]
    for host, had in zip(hosts.addresses, sent, strict=True):
        per_call = (hosts.sent_bytes(host) - had) / calls
        assert 1_000_000 < per_call < 1_150_000, f"{host} sends 250 x 1000 float32, and Dask's heartbeats"
    # The two hosts have one clock in truth, which the kit does not know: its offset must be within the uncertainty.
    both.ask("globals().update(log=spans.SpanLog(operators=True))")
    assert both.ask(f"spans._current.set(log) and {CALL} and [log.sent_bytes, log.received_bytes]") == [2_000_000] * 2
    offset, uncertainty, _ = both.ask("cluster.workers.all[1].clock.best(spans.clock())")
    assert abs(offset) <= uncertainty
    found = both.ask("[[s.name, s.host, str(s.process), s.thread_name, s.start_ns, s.end_ns] for s in log.spans]")
    (b,) = [each for each in found if each[0] == "b"]
    (wait,) = [each for each in found if each[0] == "wait"]
    assert b[1] == "host-b"
    assert re.fullmatch(r"host-b: process \d+", b[2])
    assert b[3] == "worker b"
    assert wait[4] - 2 * uncertainty <= b[4] < b[5] <= wait[5] + 2 * uncertainty
    assert both.ask("log.clocks")["host-b"] >= uncertainty / 2
    assert "host-b: worker b" in both.ask("sorted({lane.label for lane in trace_of_spans(log.spans).lanes})")
    # Two hosts in truth are one machine, so what the workers compute is not what other programs take of it.
    pids = both.ask("cluster.run([Task('t', pid)] * 2)")
    assert both.ask("sorted(load.also_own)") == sorted(pids)
    assert both.ask("cluster.close()") is None
    assert both.ask("sorted(load.also_own)") == []
    assert both.end() == 0


def test_a_link_that_is_cut_during_a_call_is_an_error_within_the_timeout(both: OnTwoHosts, hosts: Hosts) -> None:
    assert both.ask(f"{CALL} and None") is None
    both.ask("cluster.__dict__.update(timeout=4)")
    both.begin("cluster.run([Task('t', pid), Task('nap', time.sleep, (1.5,))])")
    time.sleep(0.7)
    hosts.cut()
    said, seconds = both.result()
    assert said.startswith("WorkerError: no answer within 4 s from worker b on host-b, asked for 't', 'nap'")
    assert seconds < 6
    both.begin("cluster.run([Task('t', pid)] * 2)")
    said, seconds = both.result()
    assert "nothing can run there: no answer within 4 s from worker b on host-b" in said
    assert seconds < 1
    assert both.ask("cluster.close()") is None
    assert both.end() == 0


def test_a_slow_link_takes_the_time_of_its_bytes(both: OnTwoHosts, hosts: Hosts) -> None:
    try:
        hosts.slow(mbit_s=20)
    except UnavailableError as error:
        pytest.skip(f"no slow link here: {error}")
    assert both.ask(f"{CALL} and None") is None  # the share too
    both.begin(f"{CALL} and None")
    _, seconds = both.result()
    assert seconds > 0.6, "1 MB there and 1 MB back, at 20 Mbit/s: 0.8 s"
    assert both.end() == 0


def test_a_worker_that_is_killed_is_named_with_its_host(both: OnTwoHosts) -> None:
    there, killed = both.ask("cluster.run([Task('t', pid)] * 2)")[1], both.ask("cluster.workers.all[1].address")
    both.begin("cluster.run([Task('t', pid), Task('long', time.sleep, (60,))])")
    time.sleep(0.5)
    os.kill(there, signal.SIGKILL)
    said, seconds = both.result()
    assert said.startswith("WorkerError: worker b on host-b has ended")
    assert seconds < 20
    assert both.ask(f"connect(20, {killed!r})") is None  # the worker that its nanny has started
    assert there not in both.ask("cluster.run([Task('t', pid)] * 2)")
    assert both.end() == 0


@pytest.mark.skipif(not SOAK, reason="takes minutes: KIT_SOAK=1 runs it")
def test_after_many_calls_and_many_kills_nothing_is_left(both: OnTwoHosts, hosts: Hosts) -> None:
    for i in range(200):
        assert both.ask(f"cluster.run([Task('a', abs, ({i},)), Task('b', abs, (-{i},))])") == [i, i]
    descriptors = "len(os.listdir('/proc/self/fd'))"
    had, used, killed = both.ask(descriptors), set[int](), None
    for i in range(50):
        assert both.ask(f"connect(20, {killed!r})") is None
        killed = both.ask(f"cluster.workers.all[{i % 2}].address")
        pids = both.ask("cluster.run([Task('t', pid)] * 2)")
        used |= {*pids}
        tasks = ["Task('t', pid)", "Task('t', pid)"]
        tasks[i % 2] = "Task('long', time.sleep, (30,))"
        both.begin(f"cluster.run([{', '.join(tasks)}])")
        time.sleep(0.2)
        os.kill(pids[i % 2], signal.SIGKILL)
        said, seconds = both.result()
        assert f"worker {'ab'[i % 2]} on host-{'ab'[i % 2]} has ended" in said
        assert seconds < 20
        assert both.ask("cluster.close()") is None
    assert both.ask(descriptors) <= had + 8, "sockets"
    assert both.end() == 0
    names = [path.name for path in Path("/dev/shm").iterdir()]  # PyTorch's have the process id in them
    assert [name for name in names if used & {int(number) for number in re.findall(r"\d+", name)}] == []
