"""``make gpu``: a run that is stopped goes on, says what failed or did not fit, and keeps only what is whole."""

import argparse
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.gpu import copies, machine, measure, plan, report
from bench.gpu.__main__ import identity
from bench.gpu.steps import ROOT, Ended, State, Step, run
from kit.approaches import parse
from kit.errors import KitError
from kit.trace import Event, Lane, Trace, load_trace, save_trace
from kit.workloads import chunks

ABOUT = {
    "date": "2026-11-27T08:32:31+00:00",
    "versions": {"python": "3.12.3", "torch": "2.11.0"},
    "machine": {"cpu": "a processor", "cores": 16, "driver": "580.159", "cuda": "13.0"},
    "gpu": {"name": "NVIDIA H200"},
}
WAITS_S = 60  # for another process, on a busy machine


def step(folder: Path, name: str, code: str = "", **options: float) -> Step:
    """One that notes in ``calls`` that it was called, does as told, and writes its file."""
    out = folder / f"{name}.txt"
    lines = [
        "import sys; from pathlib import Path",
        f"with open({str(folder / 'calls')!r}, 'a') as file: file.write({name + ' '!r})",
    ]
    return Step(name, ("-c", "\n".join([*lines, code, f"Path({str(out)!r}).touch()"])), (out,), **options)


def calls(folder: Path) -> list[str]:
    """The names of the steps that were begun, in order."""
    path = folder / "calls"
    return path.read_text().split() if path.is_file() else []


def tried(steps: list[Step], folder: Path, left: float = WAITS_S) -> tuple[dict[str, str], list[str]]:
    """How each step ended, and what was printed."""
    said: list[str] = []
    ended = run(steps, folder, left, tell=said.append, clock=lambda: 0.0)
    return {name: entry.status for name, entry in ended.items()}, said


# Steps ----------------------------------------------------------------------------------------------------------------


def test_what_is_done_is_not_done_again_and_what_failed_is(tmp_path: Path) -> None:
    fails = step(tmp_path, "b", f"if not Path({str(tmp_path / 'x')!r}).is_file(): sys.exit('there is no x')")
    steps = [step(tmp_path, "a"), fails, step(tmp_path, "c")]
    ended, said = tried(steps, tmp_path)
    assert ended == {"a": "done", "b": "failed", "c": "done"}, "the others go on"
    assert any("failed" in line and "there is no x" in line for line in said)
    (tmp_path / "x").touch()
    ended, said = tried(steps, tmp_path)
    assert set(ended.values()) == {"done"}
    assert calls(tmp_path) == ["a", "b", "c", "b"]
    assert said[0] == "[ 1/3] a: done before"


def test_another_command_or_a_missing_file_is_done_again(tmp_path: Path) -> None:
    steps = [step(tmp_path, "a"), step(tmp_path, "b"), step(tmp_path, "c")]
    tried(steps, tmp_path)
    steps[0] = step(tmp_path, "a", "1 + 1")
    (tmp_path / "b.txt").unlink()
    tried(steps, tmp_path)
    assert calls(tmp_path) == ["a", "b", "c", "a", "b"]


def test_a_step_that_fails_or_takes_too_long_leaves_no_file(tmp_path: Path) -> None:
    writes = "import time; Path(OUT).write_text('half'); "
    steps = [
        step(tmp_path, "dies", writes.replace("OUT", repr(str(tmp_path / "dies.txt"))) + "1 / 0"),
        step(tmp_path, "slow", writes.replace("OUT", repr(str(tmp_path / "slow.txt"))) + "time.sleep(600)", limit_s=2),
        replace(step(tmp_path, "forgets"), files=(tmp_path / "other.txt",)),
    ]
    ended, said = tried(steps, tmp_path)
    assert set(ended.values()) == {"failed"}
    for part in ("ZeroDivisionError", "ended after 2 s", "did not write other.txt"):
        assert any(part in line for line in said)
    assert not [*tmp_path.glob("dies.txt"), *tmp_path.glob("slow.txt")]


def test_what_does_not_fit_is_said_and_what_is_shorter_still_begins(tmp_path: Path) -> None:
    steps = [step(tmp_path, "long", expected_s=100), step(tmp_path, "short", expected_s=10)]
    ended, said = tried(steps, tmp_path, left=50)
    assert ended == {"long": "skipped", "short": "done"}
    assert said[0] == "[ 1/2] long: skipped, it takes about 100 s, and 50 s were left"
    assert tried(steps, tmp_path, left=200)[0] == {"long": "done", "short": "done"}
    assert calls(tmp_path) == ["short", "long"]


def test_a_step_within_which_the_budget_ends_did_not_fail(tmp_path: Path) -> None:
    ended, said = tried([step(tmp_path, "a", "import time; time.sleep(600)", expected_s=1)], tmp_path, left=6)
    assert ended == {"a": "skipped"}
    assert "it was ended after 6 s" in said[-1]


def test_the_processes_of_a_step_end_with_it(tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    child = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
    tried([step(tmp_path, "a", child + f"Path({str(tmp_path / 'pid')!r}).write_text(str(p.pid))")], tmp_path)
    pid = int((tmp_path / "pid").read_text())
    assert eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    out, again = tmp_path / "b.txt", tmp_path / "again"
    code = f"import time; out = Path({str(out)!r}); assert not out.is_file(); out.write_text('half'); "
    code += f"time.sleep(0 if Path({str(again)!r}).is_file() else 5); out.write_text('whole')"
    steps = [step(tmp_path, "a"), step(tmp_path, "b", code), step(tmp_path, "c")]
    runs = "import pickle, sys, time; from pathlib import Path; from bench.gpu.steps import run; "
    runs += "run(pickle.loads(bytes.fromhex(sys.argv[1])), Path(sys.argv[2]), time.monotonic() + 60)"
    command = [sys.executable, "-c", runs, pickle.dumps(steps).hex(), str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as running:
        assert eventually(out.is_file)
        running.kill()
    assert State(tmp_path / "state.json").ended["b"].status == "running"
    again.touch()
    assert tried(steps, tmp_path)[0] == {"a": "done", "b": "done", "c": "done"}
    assert calls(tmp_path) == ["a", "b", "b", "c"]
    assert out.read_text() == "whole"


def eventually(true: Callable[[], bool]) -> bool:
    """Whether it becomes true before long."""
    ends = time.monotonic() + WAITS_S
    while not true() and time.monotonic() < ends:
        time.sleep(0.05)
    return true()


# The plan -------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["cuda", "cpu"])
def device(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_plan_has_names_networks_and_approaches_that_exist(tmp_path: Path, device: str) -> None:
    steps = plan.steps(tmp_path, device, "h200")
    names, files = [each.name for each in steps], [path for each in steps for path in each.files]
    assert len(set(names)) == len(names)
    assert len(set(files)) == len(files)
    assert plan.COPIES == copies.KINDS
    assert set(plan.COMPARED) | {"inception-block"} == set(measure.NETWORKS)
    for name in {*plan.APPROACHES.split(","), *plan.APPROACHES_DRY.split(","), *plan.RECORDED}:
        parse(name)
    assert all(each.expected_s < each.limit_s for each in steps)


def test_a_dry_run_has_the_steps_of_a_real_one(tmp_path: Path) -> None:
    real, dry = (plan.steps(tmp_path, device, "h200") for device in ("cuda", "cpu"))
    assert [each.name for each in real] == [each.name for each in dry]


@pytest.mark.parametrize(("name", "wanted"), [("NVIDIA H200", "h200"), ("NVIDIA GeForce RTX 4090", "geforce-rtx-4090")])
def test_files_are_called_after_the_gpu(name: str, wanted: str) -> None:
    assert machine.short(name) == wanted


def test_results_of_two_machines_do_not_mix() -> None:
    other = {**ABOUT, "machine": {**ABOUT["machine"], "driver": "570.1"}}
    dry = {key: value for key, value in ABOUT.items() if key != "gpu"}
    assert len({identity(ABOUT), identity(other), identity(dry)}) == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_is_told_of_the_dry_run(tmp_path: Path) -> None:
    done = gpu("--out", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("error: torch sees no CUDA device")
    assert "make gpu DRY=1" in done.stderr
    assert not (tmp_path / "summary.json").exists()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "NEEDED", ("json", "no_such_package"))
    assert "no_such_package" in machine.problem("cpu")
    assert "WHEELS=folder" in machine.problem("cpu")


def gpu(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.gpu", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


# What is kept ---------------------------------------------------------------------------------------------------------


def a_trace(events: int = 3) -> Trace:
    lane = Lane(0, 7, "stream 7")
    return replace(
        Trace.build(Event(f"kernel {i}", "cpu_op", i * 10, 5, lane) for i in range(events)),
        about={**ABOUT, "workload": "inception-block", "batch": 1, "command": "python -m bench.gpu.measure trace"},
    )


def test_a_trace_that_is_too_large_is_refused_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json.gz"
    measure.keep(a_trace(), path)
    monkeypatch.setattr(measure, "MOST_BYTES", path.stat().st_size - 1)
    with pytest.raises(KitError, match=r"a\.json\.gz has .* bytes"):
        measure.keep(a_trace(), path)
    assert not path.exists()


def test_the_commands_that_are_kept_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["trace", "copies", "pinned-overlap", "--batch", "1", "--device", "cpu", "--out", "/somewhere/a.json.gz"]
    monkeypatch.setattr(sys, "argv", ["measure.py", *asked])
    options = argparse.Namespace(device="cpu", network="copies", batch=1)
    about = measure.about_of(options)
    assert about["command"] == f"python -m bench.gpu.measure {' '.join(asked[:-2])}"
    assert "dry" in about
    assert {"driver", "cuda", "cpu", "cores"} <= about["machine"].keys()


@pytest.fixture
def reported(tmp_path: Path) -> Path:
    """The folder of a run in which one step was done of each kind, one failed, and the others were not reached."""
    for each in ("traces", "comparisons"):
        (tmp_path / each).mkdir()
    steps = plan.steps(tmp_path, "cuda", "h200")
    trace = next(each for each in steps if each.name == "trace-inception-block-batch1-graphed")
    table = next(each for each in steps if each.name == "compare-two-stream-batch8")
    save_trace(a_trace(), trace.files[0])
    ratio = {"estimate": 1.5, "low": 1.25, "high": 1.75}
    rows = [
        {"name": "graphed", "available": True, "median_ms": 0.1234, "ratio": ratio, "verdict": "faster", "equal": True},
        {"name": "compiled", "available": False, "reason": "left out"},
    ]
    found = {"workload": "two-stream", "batch": 8, "about": ABOUT, "approaches": rows}
    table.files[0].write_text(json.dumps(found))
    ended = {each.name: Ended("done", 1.0, "", each.command) for each in (trace, table)}
    report.write(tmp_path, ABOUT, steps, {**ended, "tests": Ended("failed", 2.0, "exit status 1")})
    return tmp_path


def test_the_rows_say_what_the_rules_of_data_ask(reported: Path) -> None:
    text = (reported / "README.md").read_text()
    head, _, row, *_ = text.splitlines()
    table = next(line for line in (ROOT / "data/README.md").read_text().splitlines() if line.startswith("| file "))
    assert head == table
    assert row.count("|") == head.count("|")
    for part in ("traces/h200-inception-block-batch1-graphed.json.gz", "recorded on 2026-11-27", "NVIDIA H200", "MIT"):
        assert part in row
    for part in ("driver 580.159", "CUDA 13.0", "PyTorch 2.11.0", "Python 3.12.3"):
        assert part in row
    assert "python -m bench.gpu.measure trace --out traces/h200-inception-block-batch1-graphed.json.gz" in text


def test_the_summary_names_what_failed_and_what_was_not_reached(reported: Path) -> None:
    summary = json.loads((reported / "summary.json").read_text())
    assert summary["failed"] == ["tests"]
    assert "compare-googlenet-batch8" in summary["skipped"]
    assert summary["steps"]["compare-googlenet-batch8"]["reason"] == "the run was stopped before it"
    assert len(summary["skipped"]) == len(summary["steps"]) - 3
    assert [(trace["file"], trace["events"]) for trace in summary["traces"]] == [
        ("h200-inception-block-batch1-graphed.json.gz", 3)
    ]


def test_the_measured_table(reported: Path) -> None:
    text = (reported / "measured.md").read_text()
    assert "| two-stream | 8 | graphed | 0.123 | 1.50 [1.25, 1.75] | faster | yes |" in text
    assert "| two-stream | 8 | compiled | - | - | left out | - |" in text


def test_a_dry_run_is_said_to_be_one() -> None:
    assert "DRY RUN" in report.where({key: value for key, value in ABOUT.items() if key != "gpu"})
    assert "DRY" not in report.where(ABOUT)


# Copies ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [chunks.one_stream, chunks.overlap])
def test_chunks_wait_for_what_they_read_and_all_that_crosses_is_marked(order, fake_cuda) -> None:
    def work(name: str):
        return lambda x: fake_cuda.kernel(*([] if isinstance(x, int) else [x]), name=name)

    results = order(range(4), work("upload"), work("compute"), work("download"))
    assert fake_cuda.faults == []
    caller = fake_cuda.current_stream()
    for result in results:
        stream, count = result.made
        assert caller.seen[stream.cuda_stream] >= count, "the caller waits for all of them"


def test_overlapping_uploads_wait_for_no_computing(fake_cuda) -> None:
    def upload(_: int):
        return fake_cuda.kernel(name="upload")

    chunks.overlap(range(4), upload, fake_cuda.kernel, fake_cuda.kernel)
    up, work, down = fake_cuda.streams[1:]
    assert up.seen.keys() == {up.cuda_stream}
    assert down.seen[up.cuda_stream] == down.seen[work.cuda_stream] == 4


# Whole runs -----------------------------------------------------------------------------------------------------------


def test_a_run_that_is_told_to_end_leaves_a_report_and_no_process(tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    command = [sys.executable, "-m", "bench.gpu", "--dry", "--out", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as running:
        assert eventually(lambda: (tmp_path / "logs" / "tests.log").is_file())
        children = psutil.Process(running.pid).children(recursive=True)
        running.send_signal(signal.SIGTERM)
        assert running.wait(WAITS_S) == 143
    assert children
    assert psutil.wait_procs(children, WAITS_S)[1] == []
    assert "tests" in json.loads((tmp_path / "summary.json").read_text())["skipped"]


MEASURED = {
    "trace-inception-block-batch32-cuda_streams": "threads",  # in place of what needs a GPU
    "trace-copies-pinned-overlap": "pinned-overlap",
    "trace-inception-v3-batch1-sequential": "sequential",
    "compare-two-stream-batch8": "",
}


@pytest.mark.parametrize("name", MEASURED)
def test_a_dry_step_of_each_kind(name: str, tmp_path: Path) -> None:
    for each in ("traces", "comparisons"):
        (tmp_path / each).mkdir()
    (one,) = (each for each in plan.steps(tmp_path, "cpu", "dry") if each.name == name)
    (ended,) = run([replace(one, limit_s=WAITS_S)], tmp_path, time.monotonic() + WAITS_S).values()
    assert ended.status == "done", ended.reason
    if MEASURED[name]:
        trace = load_trace(one.files[0])
        assert {lane.group for lane in trace.lanes} == {MEASURED[name]}
        assert "dry run" in trace.about["dry"]
    else:
        found = json.loads(one.files[0].read_text())
        assert found["batch"] == 8
        assert [row["name"] for row in found["approaches"] if row["available"]] == ["sequential", "threads"]
        done = [sys.executable, "-m", "kit", "show", str(one.files[1])]
        assert "graphed_streams" in subprocess.run(done, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(os.environ.get("KIT_SOAK") != "1", reason="25 new processes that import torch: make soak")
def test_a_whole_dry_run(tmp_path: Path) -> None:
    done = gpu("--dry", "--out", str(tmp_path), "--budget", "1200")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["failed"] == summary["skipped"] == []
    assert len(summary["comparisons"]) == 9
    assert len([*(tmp_path / "traces").glob("dry-*.json.gz")]) == len(summary["traces"]) == 15
