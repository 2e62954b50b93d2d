"""TensorBoard as a child process: what it is given, that only this machine reaches it, and that nothing of it stays."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import kit
from kit.errors import KitError, TraceError, UnavailableError
from kit.trace import Event, Lane, Trace
from kit.views import tensorboard as module
from kit.views.tensorboard import TensorBoard

pytest.importorskip("torch_tb_profiler")

ROOT = Path(__file__).parents[2]
OPERATORS = [Event("aten::add", "cpu_op", 2_000, 90_000, Lane(1, 2, "worker"))]
TRACE = Trace.build([Event("call", "call", 1_000, 99_000, Lane(1, 1, "caller")), *OPERATORS])
UNREADABLE = Trace.build([Event("aten::add", "cpu_op", 2_000, 0, Lane(1, 2, "worker"))])  # no time: it divides by it
HOSTILE = [
    "../../escaped",
    "a/b",
    "..",
    ".",
    "",
    "<img src=x onerror=alert(1)>",
    "a\\b",
    "A",
    "a",
    "x" * 500,
    "ü & %2e#?",
]


def get(board: TensorBoard, what: str) -> Any:
    """An answer of the plugin."""
    return json.load(urllib.request.urlopen(f"{board.url.partition('#')[0]}data/plugin/pytorch_profiler/{what}"))


def processes(folder: Path) -> list[int]:
    """The processes that work in a folder: the server and those that it started."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            try:
                alive = place.joinpath("stat").read_text().rpartition(")")[2].split()[0] != "Z"
                where = str((place / "cwd").readlink())
            except OSError:  # it has ended meanwhile
                continue
            if alive and where.startswith(str(folder)):
                found.append(int(place.name))
    return found


def eventually(holds: Callable[[], Any], seconds: float = 60) -> Any:
    """What this function gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
    return found


def nothing_left(folder: Path) -> bool:
    return not processes(folder) and not [*folder.glob("kit-tb-*")]


@pytest.fixture(scope="module")
def board() -> Iterator[TensorBoard]:
    """One for all tests that only look: to start it takes seconds."""
    with kit.tensorboard(dict.fromkeys(HOSTILE, TRACE), progress=False) as running:
        yield running


@pytest.fixture
def folder() -> Iterator[Path]:
    """For temporary files, with a short path: sockets are among them."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as made:
        yield Path(made)


@pytest.fixture
def temporary(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, for temporary files of this process."""
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_every_run_is_there_and_its_trace_is_the_first_view(board: TensorBoard) -> None:
    assert {*get(board, "runs")["runs"]} == {*board.runs}
    for run in board.runs:
        quoted = urllib.parse.quote(run)
        assert get(board, f"views?run={quoted}") == ["Trace", "Overview", "Operator"]
        table = get(board, f"operation/table?run={quoted}&worker=trace&span=default&group_by=Operation")
        assert [row["name"] for row in table["data"]] == ["aten::add"]


def test_names_of_runs_are_names_of_folders_inside(board: TensorBoard) -> None:
    runs = board._server.folder / "runs"
    assert len({run.casefold() for run in board.runs}) == len(HOSTILE)
    assert {path.name for path in runs.iterdir()} == {*board.runs}
    for run in board.runs:
        assert (runs / run).resolve().parent == runs.resolve()
        assert not {*"<>&'\"/\\#?%"} & {*run}
        assert len(run) < 100


def test_it_answers_on_this_machine_only_and_only_below_its_secret_path(board: TensorBoard) -> None:
    address = urllib.parse.urlsplit(board.url)
    assert address.hostname == "127.0.0.1"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", address.port or 0), timeout=5)
    for path in ("/", "/data/plugin/pytorch_profiler/runs", f"{address.path[:-2]}/"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"http://127.0.0.1:{address.port}{path}")
        assert caught.value.code == 404
        caught.value.close()
    assert len(address.path) > 20
    command = Path(f"/proc/{board._server.process.pid}/cmdline").read_text()
    assert address.path.strip("/") not in command, "other users of the machine can read the arguments"
    assert board._server.folder.stat().st_mode & 0o077 == 0


def test_it_shows_a_frame_and_a_link_and_what_to_do_where_the_frame_stays_empty(
    board: TensorBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = board._repr_html_()
    port = urllib.parse.urlsplit(board.url).port
    assert f"<iframe src='{board.url}'" in shown
    assert f"<a href='{board.url}'" in shown
    assert f"ssh -L {port}:127.0.0.1:{port}" in shown
    assert "Google Charts" in shown
    found = importlib.util.find_spec
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: name if "proxy" in name else found(name))
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ann's/")
    path = urllib.parse.urlsplit(board.url).path
    assert f"src='/user/ann&#x27;s/proxy/{port}{path}#pytorch_profiler'" in board._repr_html_()
    monkeypatch.delenv("JUPYTERHUB_SERVICE_PREFIX")
    server = pytest.importorskip("jupyter_server.serverapp")
    running = [{"pid": 1, "base_url": "/other/"}, {"pid": os.getppid(), "base_url": "/lab/"}]
    monkeypatch.setattr(server, "list_running_servers", lambda: iter(running))
    assert f"src='/lab/proxy/{port}{path}#pytorch_profiler'" in board._repr_html_()


def test_its_repr_stays_the_same(board: TensorBoard) -> None:
    assert repr(board) == f"TensorBoard({len(HOSTILE)} runs)"


def test_a_new_call_ends_the_last_one_and_closing_leaves_nothing(temporary: Path) -> None:
    first = kit.tensorboard(TRACE, progress=False)
    assert first.runs == ("trace",)
    with kit.tensorboard(TRACE, progress=False) as second:
        assert "has ended" in first._repr_html_()
        assert len([*temporary.glob("kit-tb-*")]) == 1
        assert get(second, "runs")["runs"] == ["trace"]
        first.close()  # again
    second.close()
    assert nothing_left(temporary)
    assert "<iframe" not in second._repr_html_()


def test_what_the_plugin_cannot_read_is_an_error_that_names_the_run(temporary: Path) -> None:
    with pytest.raises(TraceError, match=r"cannot read the run 'no time'.*(?s:.*)ZeroDivisionError|division by zero"):
        kit.tensorboard({"fine": TRACE, "no time": UNREADABLE}, progress=False)
    assert nothing_left(temporary)


def test_the_folder_is_removed_after_the_last_process_that_may_write_into_it(folder: Path) -> None:
    made, written = folder / "kit-tb-1", folder / "written"
    made.mkdir()
    late = f"sleep 0.5; mkdir -p {made}/late; touch {written}"
    leader = subprocess.Popen(["sh", "-c", f"({late}) & exit"], stdin=subprocess.PIPE, start_new_session=True)
    module._end(leader, made, os.getpid())
    assert written.exists()
    assert nothing_left(folder)


def test_a_server_that_does_not_start_is_an_error_with_its_last_lines(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SERVE", "raise SystemExit('no such plugin here')")
    with pytest.raises(KitError, match=r"(?s)ended while it started.*no such plugin here"):
        kit.tensorboard(TRACE, progress=False)
    monkeypatch.setattr(module, "_SERVE", "import sys; print('still thinking', flush=True); sys.stdin.read()")
    monkeypatch.setattr(module, "START_S", 2.0)
    with pytest.raises(KitError, match=r"(?s)did not answer within 2 s.*still thinking"):
        kit.tensorboard(TRACE, progress=False)
    assert nothing_left(temporary)


def test_a_folder_for_temporary_files_that_is_too_long_for_a_socket_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 80)))
    with kit.tensorboard(TRACE, progress=False) as board:
        assert get(board, "runs")["runs"] == ["trace"]


def test_what_cannot_be_shown_is_refused_before_anything_starts(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KitError, match="no trace to show"):
        kit.tensorboard({}, progress=False)
    with pytest.raises(KitError, match="'one' is a int"):
        kit.tensorboard({"one": 1}, progress=False)  # type: ignore[dict-item]
    with pytest.raises(TraceError, match=r"missing\.json"):
        kit.tensorboard("missing.json", progress=False)
    found = importlib.util.find_spec
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if "torch_tb" in name else found(name))
    with pytest.raises(UnavailableError, match=r"torch-tb-profiler not installed.*\[lab\].*lab extra"):
        kit.tensorboard(TRACE, progress=False)
    assert nothing_left(temporary)


def written(traces: Any, folder: Path) -> dict[str, bytes]:
    """Run -> the file that the plugin would read."""
    folder.mkdir()
    for name, trace in module._named(traces).items():
        module._write(trace, folder / name)
    return {path.parent.name: path.read_bytes() for path in folder.glob("*/trace.pt.trace.json")}


def test_a_file_of_torch_profiler_is_given_as_it_is_and_others_as_traces(tmp_path: Path) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        torch.ones(8, 8).relu()
    profile.export_chrome_trace(str(tmp_path / "theirs.pt.trace.json"))
    original = (tmp_path / "theirs.pt.trace.json").read_bytes()
    (tmp_path / "packed.json.gz").write_bytes(gzip.compress(original))
    kit.save_trace(TRACE, tmp_path / "ours.trace.json")
    names = ("theirs.pt.trace.json", "packed.json.gz", "ours.trace.json")
    runs = written([tmp_path / name for name in names], tmp_path / "runs")
    assert {*runs} == {"theirs", "packed", "ours"}
    assert runs["theirs"] == runs["packed"] == original
    assert b"Input Dims" in original
    assert {row["name"] for row in json.loads(runs["ours"])["traceEvents"]} >= {"call", "aten::add"}


@pytest.mark.filterwarnings("ignore:The copy keyword is deprecated")  # pandas, about the plugin
def test_a_trace_is_written_as_the_plugin_can_read_it(tmp_path: Path) -> None:
    data = pytest.importorskip("torch_tb_profiler.profiler.data")
    gpus = [{"id": 0, "name": "Made-up GPU", "totalGlobalMem": 1 << 30}]
    lane, gpu = Lane(1, "main", "caller"), Lane(0, "stream 7", "stream 7")
    events = [Event("aten::add", "cpu_op", 2_000, 90_000, lane), Event("kernel", "kernel", 9_000, 50_000, gpu)]
    trace = replace(Trace.build(events), about={"deviceProperties": gpus})
    file = json.loads(written(trace, tmp_path / "runs")["trace"])
    assert all(isinstance(row.get("tid", 0), int) for row in file["traceEvents"])
    read = data.RunProfileData.parse("worker", None, str(tmp_path / "runs/trace/trace.pt.trace.json"), str(tmp_path))
    assert read.device_props == gpus
    assert read.has_kernel
    assert [row.name for row in read.op_list_groupby_name] == ["aten::add"]


def test_recorded_memory_is_written_with_its_bytes(tmp_path: Path) -> None:
    with kit.recording(memory=True) as recording:
        torch.ones(1024) + 1
    rows = json.loads(written(recording.trace, tmp_path / "runs")["trace"])["traceEvents"]
    assert 4096 in [row["args"]["Bytes"] for row in rows if row["name"] == "[memory]"]


def test_a_comparison_is_a_run_for_each_approach() -> None:
    model = kit.Branches({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)}, kit.Concat(1)).eval()
    approaches = ["sequential", "threads(workers=2)"]
    comparison = kit.compare(model, torch.ones(1, 2), approaches, rounds=6, progress=False)
    assert [*module._named(comparison)] == [*comparison.traces]
    assert "threads(workers=2)" in module._named(comparison)


START = """
import sys, time
import kit
from kit.trace import Event, Lane, Trace
trace = Trace.build([Event("aten::add", "cpu_op", 2_000, 90_000, Lane(1, 2, "worker"))])
print("imported", flush=True)
board = kit.tensorboard(trace, progress=False)
print(board.url, flush=True)
"""
WAIT = "time.sleep(120)"


def program(folder: Path, then: str) -> subprocess.Popen[str]:
    """A Python that starts TensorBoard in this folder and goes on with some lines; in a process group of its own."""
    variables = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", START + then]
    return subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def line_of(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline()


@pytest.mark.parametrize("then", ["", "raise RuntimeError('mine')", "import os, signal; os.kill(os.getpid(), 15)"])
def test_it_ends_with_the_program(folder: Path, then: str) -> None:
    with program(folder, then) as running:
        output, _ = running.communicate(timeout=120)
    assert "http://127.0.0.1" in output
    eventually(lambda: nothing_left(folder), 20)


def test_it_ends_when_the_kernel_is_killed(folder: Path) -> None:
    with program(folder, WAIT) as running:
        eventually(lambda: "http" in line_of(running))
        assert processes(folder)
        running.kill()
    eventually(lambda: nothing_left(folder), 20)


def test_it_ends_when_the_kernel_is_killed_while_it_starts(folder: Path) -> None:
    with program(folder, WAIT) as running:
        eventually(lambda: processes(folder))
        running.kill()
    eventually(lambda: nothing_left(folder), 20)


def test_it_ends_when_the_kernel_is_killed_although_a_forked_process_keeps_the_pipe_open(folder: Path) -> None:
    fork = "import os\nif not os.fork():\n    os.chdir('/'); time.sleep(60); os._exit(0)\nprint('forked', flush=True)\n"
    with program(folder, fork + WAIT) as running:
        try:
            eventually(lambda: "forked" in line_of(running))
            running.kill()
            eventually(lambda: nothing_left(folder), 20)
        finally:
            os.killpg(running.pid, signal.SIGKILL)


def test_an_interrupt_while_it_starts_leaves_nothing(folder: Path) -> None:
    with program(folder, WAIT) as running:
        eventually(lambda: processes(folder))
        os.killpg(running.pid, signal.SIGINT)  # as Jupyter does
        output, _ = running.communicate(timeout=60)
    assert "KeyboardInterrupt" in output
    assert nothing_left(folder)


def test_an_interrupt_of_another_cell_does_not_end_it(folder: Path) -> None:
    then = f"""
try:
    print("waiting", flush=True)
    {WAIT}
except KeyboardInterrupt:
    pass
import urllib.request
print(urllib.request.urlopen(board.url).status, flush=True)
"""
    with program(folder, then) as running:
        eventually(lambda: "waiting" in line_of(running))
        os.killpg(running.pid, signal.SIGINT)
        output, _ = running.communicate(timeout=60)
    assert output.strip() == "200"
    eventually(lambda: nothing_left(folder), 20)
