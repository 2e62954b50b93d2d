"""Workers of a Dask cluster on this machine. On two hosts: test_cluster_hosts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import kit
from kit import executors, spans
from kit.approaches import parse
from kit.equality import compare_outputs
from kit.errors import KitError, TaskError, TransferError, UnavailableError, WorkerError
from kit.executors import Task, cluster
from kit.executors.cluster import Cluster
from kit.executors.workers.counting import tensor_bytes
from kit.executors.workers.dask_workers import DaskWorkers
from kit.models import inception_block
from kit.regions import Branches
from kit.workloads import workload

distributed = pytest.importorskip("distributed", reason="Dask is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # Dask's own
ROOT = Path(__file__).parents[2]
LIMIT_S = 120.0  # for what ends by itself
FOUR = ("two-stream", "googlenet", "inception-v3", "two-stream-i3d")


def local_cluster(workers: int) -> Any:
    return distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0")


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with local_cluster(2) as local, distributed.Client(local) as client:
        yield client


@pytest.fixture
def used(client: Any) -> Iterator[Any]:
    client.wait_for_workers(2, timeout=LIMIT_S)
    kit.use_cluster(client)
    yield client
    kit.use_cluster(None)


@contextmanager
def on_workers(client: Any, timeout: float = 60.0) -> Iterator[Cluster]:
    with Cluster(DaskWorkers(client, 2, 2, LIMIT_S), 1, timeout) as executor:
        yield executor


def keepers() -> int:
    import gc

    from kit.executors.workers.keeper import Keeper

    gc.collect()
    return sum(type(each) is Keeper for each in gc.get_objects())


def until(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + LIMIT_S
    while not true() and time.monotonic() < deadline:
        time.sleep(0.1)
    return true()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_weights_are_sent_once_and_then_only_tensors(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, int]] = []
    ask = DaskWorkers.ask

    def counted(self: DaskWorkers, method: str, arguments: Any, *rest: Any) -> Any:
        sent.extend((method, each[1].nbytes) for each in arguments.values() if method in ("keep", "run"))
        return ask(self, method, arguments, *rest)

    monkeypatch.setattr(DaskWorkers, "ask", counted)
    x, models = torch.rand(50, 400), [nn.Linear(400, 400).eval() for _ in range(3)]
    tasks = [Task(f"t{i}", model, (x * i,)) for i, model in enumerate(models)]
    with torch.inference_mode(), on_workers(client) as executor:
        for _ in range(3):
            with spans.collect() as log:
                found = executor.run(tasks)
            assert all(torch.equal(y, task.call(*task.args)) for y, task in zip(found, tasks, strict=True))
            assert log.sent_bytes == log.received_bytes == 3 * x.nbytes
        assert executor.run([]) == []
    assert [method for method, _ in sent] == ["keep", "keep", *["run", "run"] * 3]
    assert sum(size for _, size in sent[:2]) > sum(tensor_bytes([*model.parameters()]) for model in models)
    for first, second in zip(sent[2::2], sent[3::2], strict=True):
        assert 0 <= first[1] + second[1] - 3 * x.nbytes < 2000, "the tensors, and how they are nested"


def test_closing_lets_the_weights_go(client: Any) -> None:
    with on_workers(client) as executor:
        executor.run([Task("a", abs, (-1,)), Task("b", abs, (-2,))])
        assert sum(client.run(keepers).values()) == 2
    assert until(lambda: sum(client.run(keepers).values()) == 0)
    with pytest.raises(WorkerError, match="the executor was closed"):
        executor.run([Task("a", abs, (-1,))])


def test_an_error_of_a_task_is_its_own_and_the_workers_stay(client: Any) -> None:
    with on_workers(client) as executor:
        with pytest.raises(TaskError, match="branch 'bad' raised ZeroDivisionError") as caught:
            executor.run([Task("good", abs, (1,)), Task("bad", divmod, (1, 0))])
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        with pytest.raises(TransferError, match=r"the inputs of 'bad', for worker \d on .* lock"):
            executor.run([Task("bad", print, (__import__("threading").Lock(),))])
        assert executor.run([Task("a", abs, (-1,)), Task("b", abs, (-2,)), Task("c", abs, (-3,))]) == [1, 2, 3]


def test_a_region_within_a_branch_and_the_thread_state_of_the_caller(client: Any) -> None:
    net = Branches({name: inception_block(3).eval() for name in "ab"}, kit.Concat(1))
    x = torch.rand(1, 3, 12, 12)
    with torch.inference_mode(), on_workers(client) as executor:
        with executors.use(executor):
            found = net(x)
        torch.testing.assert_close(found, net(x))
        assert executor.run([Task("t", torch.is_inference_mode_enabled)]) == [True]
    with torch.no_grad(), on_workers(client) as executor:
        states = executor.run([Task("t", torch.is_inference_mode_enabled), Task("u", torch.is_grad_enabled)])
        assert states == [False, False]


def test_a_worker_that_is_killed_is_named_and_the_executor_refuses(client: Any) -> None:
    with on_workers(client) as executor:
        begun = time.monotonic()
        with pytest.raises(WorkerError, match=r"worker 1 on .* has ended, .* asked for 'long', 'bad'"):
            executor.run([Task("long", time.sleep, (0.1,)), Task("bad", die)])
        assert time.monotonic() - begun < executor.timeout
        begun = time.monotonic()
        with pytest.raises(WorkerError, match=r"were let go, so nothing can run there: worker 1 on"):
            executor.run([Task("a", abs, (1,))])
        assert time.monotonic() - begun < 1
    client.wait_for_workers(2, timeout=LIMIT_S)
    with on_workers(client) as executor:
        assert executor.run([Task("a", abs, (-1,)), Task("b", abs, (-2,))]) == [1, 2]


def test_a_worker_that_hangs_is_named_within_the_timeout(client: Any) -> None:
    with on_workers(client) as executor:
        executor.run([Task("a", abs, (1,)), Task("b", abs, (1,))])
        executor.timeout = 1.5
        begun = time.monotonic()
        with pytest.raises(WorkerError, match=r"no answer within 1.5 s from worker 1 on .*, asked for"):
            executor.run([Task("t", abs, (1,)), Task("hangs", time.sleep, (6,))])
        assert time.monotonic() - begun < 4
        with pytest.raises(WorkerError, match="no answer within"):
            executor.run([Task("t", abs, (1,))])
    with on_workers(client) as executor:  # which waits until that sleep has ended
        assert executor.run([Task("a", abs, (-1,)), Task("b", abs, (-2,))]) == [1, 2]


def test_an_interrupted_call_lets_the_workers_go(client: Any) -> None:
    with on_workers(client) as executor:
        executor.run([Task("a", abs, (1,)), Task("b", abs, (1,))])
        handler = signal.signal(signal.SIGALRM, lambda *args: signal.raise_signal(signal.SIGINT))
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            with pytest.raises(KeyboardInterrupt):
                executor.run([Task("t", time.sleep, (3,))])
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
        with pytest.raises(WorkerError, match=r"broken off \(KeyboardInterrupt\)"):
            executor.run([Task("t", abs, (1,))])


def kit_that_cannot_run(folder: Path) -> None:
    (folder / "kit.py").write_text("")


def kit_of_another_version(folder: Path) -> None:
    shutil.copytree(ROOT / "kit", folder / "kit", ignore=shutil.ignore_patterns("data", "__pycache__"))
    with (folder / "kit" / "equality.py").open("a") as file:
        file.write("# changed\n")


@pytest.mark.parametrize(
    ("kit_there", "says"),
    [
        (kit_that_cannot_run, r"worker other on .* cannot run branches: ModuleNotFoundError: .*kit"),
        (kit_of_another_version, r"worker other on .* has the kit with code \w+, but this process has the kit with"),
    ],
)
def test_a_worker_with_another_kit_is_refused(
    kit_there: Callable[[Path], None], says: str, tmp_path: Path, client: Any
) -> None:
    kit_there(tmp_path)
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as local,
        distributed.Client(local) as other,
    ):
        command = [sys.executable, "-m", "distributed.cli.dask_worker", local.scheduler_address, "--name", "other"]
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        worker = subprocess.Popen(
            [*command, "--no-dashboard", "--no-nanny"], env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        try:
            other.wait_for_workers(1, timeout=LIMIT_S)
            with pytest.raises(KitError, match=says):
                DaskWorkers(other, 1, 1, 60.0)
        finally:
            worker.kill()
            worker.wait()


def test_another_torch_is_refused(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "1.0")
    with pytest.raises(KitError, match=r"worker 0 on .* has torch 2.*, but this process has torch 1\.0: install"):
        DaskWorkers(client, 2, 2, LIMIT_S)


def test_fewer_workers_than_were_asked_for(used: Any) -> None:
    with pytest.raises(KitError, match=r"has 2 of the 3 workers that are needed: start more, as in `dask worker tcp"):
        parse("cluster(workers=3)").prepare(kit.models.two_stream(), workload("two-stream").inputs)


def test_use_cluster_takes_a_client_that_is_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    work = workload("two-stream")
    with pytest.raises(KitError, match=r"needs a distributed.Client .* this is a str: give it Client\(address\)"):
        kit.use_cluster("tcp://127.0.0.1:8786")
    with pytest.raises(UnavailableError, match=r"no cluster was named: call kit.use_cluster\("):
        parse("cluster").prepare(work.model, work.inputs)
    with local_cluster(1) as local:
        closed = distributed.Client(local)
        kit.use_cluster(closed)
        closed.close()
        with pytest.raises(UnavailableError, match=r"the client of kit.use_cluster is closed"):
            parse("cluster").prepare(work.model, work.inputs)
    kit.use_cluster(None)
    assert cluster.given_client() is None


def test_a_closed_client_does_not_disturb_the_end(client: Any) -> None:
    with local_cluster(1) as local:
        own = distributed.Client(local, set_as_default=False)
        with Cluster(DaskWorkers(own, 1, 1, LIMIT_S)) as executor:
            assert executor.run([Task("a", abs, (-1,))]) == [1], "its actors belong to this client, not to the default"
            own.close()


@pytest.mark.parametrize("name", FOUR)
def test_outputs_are_those_of_sequential_on_the_four_networks(name: str, used: Any) -> None:
    work = workload(name)
    assert work.model is not None
    with torch.inference_mode(), parse("cluster").prepare(work.model, work.inputs) as runner:
        equality = compare_outputs(work.model(*work.inputs), runner())
    assert equality.equal, equality


def test_what_a_call_hands_over_is_told_for_each_approach_that_sends(used: Any) -> None:
    work = workload("two-stream")
    assert work.model is not None
    table = kit.compare(work.model, work.inputs, ["sequential", "threads", "processes", "ranks", "cluster"], rounds=6)
    with torch.inference_mode():
        outputs = [branch(x) for branch, x in zip(work.model.streams.branches.values(), work.inputs, strict=True)]
    for row in table.rows[1:]:
        assert row.equality is not None, row.reason
        assert row.equality.equal
    for name in ("processes", "ranks", "cluster"):
        told = kit.explain(table, name)
        assert told.carried == (tensor_bytes(work.inputs), tensor_bytes(outputs))
        assert "tensors handed over, a call: 1.15 MB to other processes or hosts, 1.02 kB back" in str(told)
    assert kit.explain(table, "sequential").carried is None
    assert {"inputs through Dask", "results through Dask"} <= {event.name for event in table.traces["cluster"].events()}


def test_branches_have_their_share_of_the_cores_where_dask_gives_one_thread(used: Any) -> None:
    work = workload("two-stream")
    with parse("cluster(threads=2)").prepare(work.model, work.inputs) as runner, torch.inference_mode():
        runner()
        assert runner.executor.run([Task("t", torch.get_num_threads)] * 2) == [2, 2]
        assert [said for said in runner.remarks if "OMP_NUM_THREADS is set for worker 0 on" in said]
        assert repr(runner.executor) == "Cluster(intra_op_threads=2, timeout=60)"
    cores = len(os.sched_getaffinity(0))
    with parse("cluster").prepare(work.model, work.inputs) as runner:
        assert runner.lane_threads == max(1, cores // 2)
