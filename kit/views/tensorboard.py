"""TensorBoard with torch-tb-profiler in a notebook: of traces, on this machine only, and gone with the kernel."""

from __future__ import annotations

import contextlib
import gzip
import html
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import IO, Any, cast

from kit.errors import KitError, TraceError, UnavailableError
from kit.executors.base import uninterrupted
from kit.measuring.comparison import Comparison
from kit.progress import progress_bar
from kit.text import counted
from kit.trace import Trace, load_trace, save_trace
from kit.views.tensorboard_server import LOG, PLUGIN, RUNS, URL

START_S = 120.0  # until TensorBoard answers; 3 s on two cores
_SILENT_S = (
    20.0  # until a run that nobody reads any more counts as unreadable; the plugin looks for new runs every 10 s
)
_GROUP_S = 2.0  # at most for a killed group to be gone; where nobody reaps its dead processes it never is
_HEIGHT = 720  # pixels of the frame
_SERVE = "from kit.views.tensorboard_server import main; main()"
_LONGEST = 80  # characters of a run's name
_SOCKET = 103  # bytes in the path of a socket, on macOS; on Linux 107
_HEAD = 1 << 16  # bytes of a file in which its writer says what it is
Traces = Trace | Comparison | str | Path | Mapping[str, Trace | str | Path] | Iterable[str | Path]


def tensorboard(traces: Traces, *, progress: bool = True) -> TensorBoard:
    """Show traces in TensorBoard, with the PyTorch profiler's plugin (torch-tb-profiler), inside the notebook.

    TensorBoard is a process of its own. It listens on 127.0.0.1, on a free port, below a path that nobody can guess.
    It ends with ``close()``, at the end of a ``with`` block, at the next call of this function, and with the kernel,
    however that ends. Then its files, which are copies of the traces, are removed too.

    Source: `torch-tb-profiler <https://github.com/pytorch/kineto/tree/main/tb_plugin>`_. Its project was retired in
    2026; nothing else in the kit depends on it.

    >>> with kit.recording() as recording:
    ...     y = nn.Linear(8, 8)(torch.rand(4, 8))
    >>> with kit.tensorboard({"one call": recording.trace}, progress=False) as board:
    ...     board
    TensorBoard(1 run)

    Args:
        traces: a trace, a comparison (the trace of each approach), a file or several files, or a mapping from names to
            traces or files. Each is a run in TensorBoard. In the names of runs, characters that a folder's name should
            not have become ``_``.
        progress: show a progress bar until the plugin has read every run.

    Raises:
        UnavailableError: tensorboard or torch-tb-profiler is not installed.
        TraceError: a file cannot be read, or the plugin cannot read a trace.
        KitError: there is no trace, or TensorBoard did not start; the message ends with its own last lines.
    """
    runs = _named(traces)
    _check_installed()
    for earlier in [*_running]:
        earlier.close()
    server = _Server()
    try:
        with progress_bar(len(runs) + 1, progress, "runs") as advance:
            for name, trace in runs.items():
                _write(trace, server.folder / RUNS / name)
            server.begin()
            advance(1)
            for _ in server.loaded(runs):
                advance(1)
    except BaseException:
        server.close()
        raise
    _running.add(server)
    return TensorBoard(server.url, tuple(runs), server)


@dataclass(frozen=True, eq=False, repr=False)
class TensorBoard:
    """A running TensorBoard: a notebook shows it in a frame. Closing it ends its process."""

    url: str  # where the profiler's plugin is
    runs: tuple[str, ...]  # their names in TensorBoard
    _server: _Server = field(repr=False)

    def close(self) -> None:
        """End the process and remove its files; to call it again does nothing."""
        self._server.close()

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"TensorBoard({counted(len(self.runs), 'run')})"

    def _repr_html_(self) -> str:
        if not self._server.lives:
            return "<p>This TensorBoard has ended. Run the cell again to start a new one.</p>"
        port = urllib.parse.urlsplit(self.url).port
        proxied = _proxied(self.url)
        shown = html.escape(proxied or self.url)
        elsewhere = (
            "The frame goes through the Jupyter server (jupyter-server-proxy)."
            if proxied
            else "If the frame stays empty, JupyterLab runs on another machine than your browser: install "
            "jupyter-server-proxy there and start JupyterLab again, or forward the port with "
            f"<code>ssh -L {port}:127.0.0.1:{port} that-machine</code> and open the link."
        )
        return (
            f"<p>TensorBoard with {counted(len(self.runs), 'run')}: "
            f"<a href='{shown}' target='_blank' rel='noreferrer'>open it in a tab of its own</a>. "
            "At its left you choose a run and a view; the arrow there hides this list. The <b>Trace</b> view and all "
            "tables (<b>Operator</b>, <b>GPU Kernel</b>, <b>Module</b>, <b>Memory</b>) work without the web. The "
            "charts, which are most of the <b>Overview</b>, are drawn by Google Charts from the web; without it a "
            f"sentence stands in the place of each chart. {elsewhere} "
            "It ends with the kernel: in a notebook that was opened again, run this cell again.</p>"
            f"<iframe src='{shown}' title='TensorBoard' width='100%' height='{_HEIGHT}' style='border: 0'></iframe>"
        )


class _Server:
    """The process, its folder, and their end."""

    def __init__(self) -> None:
        self.url = ""
        with uninterrupted():
            self.folder = Path(tempfile.mkdtemp(prefix="kit-tb-", dir=_temporary()))
            try:
                self.process = _started(self.folder)
            except OSError as error:
                shutil.rmtree(self.folder, ignore_errors=True)
                raise KitError(f"TensorBoard's process cannot start ({error}): free memory or disk space.") from error
            self.close = weakref.finalize(self, _end, self.process, self.folder, os.getpid())

    @property
    def lives(self) -> bool:
        return self.close.alive and self.process.poll() is None

    def begin(self) -> None:
        """Let it serve, now that the runs are written, and wait until it does."""
        with contextlib.suppress(OSError):  # it has failed: its log says why
            assert self.process.stdin is not None
            self.process.stdin.write(b"\n")
            self.process.stdin.flush()
        deadline, said = time.monotonic() + START_S, self.folder / URL
        while not said.exists():
            if self.process.poll() is not None:
                raise KitError(f"TensorBoard ended while it started.{self._last_lines()}")
            if time.monotonic() > deadline:
                raise KitError(f"TensorBoard did not answer within {START_S:.0f} s.{self._last_lines()}")
            time.sleep(0.05)
        self.url = f"{said.read_text(encoding='utf-8')}#{PLUGIN}"

    def loaded(self, names: Iterable[str]) -> Iterable[str]:
        """The names of the runs, each as soon as the plugin has read it."""
        waiting, active = set(names), time.monotonic()
        while waiting:
            answer = self._get("runs")
            active = time.monotonic() if answer["loading"] else active
            ready = waiting & {*answer["runs"]}
            for name in sorted(ready):
                self._check_views(name)
                yield name
            waiting -= ready
            if waiting and time.monotonic() > active + _SILENT_S:
                raise TraceError(f"torch-tb-profiler cannot read the run {min(waiting)!r}.{self._last_lines()}")
            time.sleep(0.1 if waiting else 0)

    def _check_views(self, name: str) -> None:
        try:
            views = self._get(f"views?{urllib.parse.urlencode({'run': name})}")
        except KitError:
            views = []
        if not views:
            raise TraceError(
                f"torch-tb-profiler cannot read the run {name!r}: leave it out, or look at it with kit.timeline."
                f"{self._last_lines()}"
            )

    def _get(self, what: str) -> Any:
        address = f"{self.url.partition('#')[0]}data/plugin/{PLUGIN}/{what}"
        try:
            with _direct.open(address, timeout=60) as answer:
                return json.load(answer)
        except (OSError, ValueError) as error:
            raise KitError(f"TensorBoard does not answer ({error}).{self._last_lines()}") from error

    def _last_lines(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self.folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
            return "\n".join([" Its last lines:", *lines[-12:]]) if lines else ""
        return ""


_running: weakref.WeakSet[_Server] = weakref.WeakSet()
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy is on the way to 127.0.0.1


def _temporary() -> str:
    """The folder for temporary files, or /tmp if its path is so long that no socket of multiprocessing fits in it."""
    usual = tempfile.gettempdir()
    longest = f"{usual}/kit-tb-12345678/pymp-12345678/listener-12345678"
    return usual if len(os.fsencode(longest)) <= _SOCKET or not Path("/tmp").is_dir() else "/tmp"


def _started(folder: Path) -> subprocess.Popen[bytes]:
    """The process, which imports TensorBoard while the runs are written."""
    (folder / RUNS).mkdir()
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(Path(each).absolute()) for each in sys.path),
        "TMPDIR": str(folder),  # where the plugin makes folders that it cannot remove when it is killed
    }
    with (folder / LOG).open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", _SERVE, str(folder), str(os.getpid())],
            cwd=folder,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Jupyter interrupts the whole process group of the kernel
        )


def _end(process: subprocess.Popen[bytes], folder: Path, owner: int) -> None:
    """Close its input, at which it ends with all that it started; kill it if it does not."""
    if os.getpid() != owner:
        return  # a process that was forked from the kernel: it is not its TensorBoard
    with contextlib.suppress(OSError):
        assert process.stdin is not None
        process.stdin.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
        process.wait()
    _wait_for_group(process.pid)  # what it started was killed with it, but may still write into the folder
    shutil.rmtree(folder, ignore_errors=True)


def _wait_for_group(leader: int) -> None:
    """Wait until the system has ended the last process of a killed group, which is after its leader has ended."""
    deadline = time.monotonic() + _GROUP_S
    with contextlib.suppress(OSError):  # there is no such group any more
        while hasattr(os, "killpg") and time.monotonic() < deadline:
            os.killpg(leader, 0)  # sends nothing: asks whether the group is there
            time.sleep(0.01)


def _named(traces: Traces) -> dict[str, Trace | Path]:
    """The traces by the names of their runs, which are names of folders. A file of torch.profiler is a path."""
    if isinstance(traces, Trace):
        found: Iterable[tuple[str, Trace | str | Path]] = [("trace", traces)]
    elif isinstance(traces, Comparison):
        found = traces.traces.items()
    elif isinstance(traces, Mapping):
        found = traces.items()
    else:
        paths = [traces] if isinstance(traces, str | Path) else traces
        found = [(re.sub(r"(\.pt)?(\.trace)?(\.json)?(\.gz)?$", "", Path(path).name), path) for path in paths]
    runs: dict[str, Trace | Path] = {}
    for name, each in found:
        if not isinstance(each, Trace | str | Path):
            raise KitError(
                f"kit.tensorboard shows traces and files of traces, but {name!r} is a {type(each).__name__}."
            )
        runs[_folder_name(str(name), runs)] = each if isinstance(each, Trace) else _from_file(Path(each))
    if not runs:
        raise KitError("there is no trace to show: give a trace, a comparison, or the path of a file.")
    return runs


def _from_file(path: Path) -> Trace | Path:
    """The path of a file that torch.profiler wrote, in which the plugin finds more than a Trace keeps; else a Trace."""
    trace = load_trace(path)  # raises for what is not a trace
    with _opened(path) as file:
        head = file.read(_HEAD)
    ours = b'"clockAnchor"' in head
    return path if b'"schemaVersion"' in head and not ours else trace


def _opened(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path)) if zipped else path.open("rb")


def _folder_name(name: str, taken: Iterable[str]) -> str:
    """A name for a folder that is near to this one: no separators, no markup, no dot in front, not too long."""
    safe = re.sub(r"[^\w .,=+()-]", "_", name).strip(". ")[:_LONGEST].strip(". ") or "run"
    known = {each.casefold() for each in taken}  # some systems do not tell A from a
    return next(each for i in count(1) if (each := safe if i == 1 else f"{safe} ({i})").casefold() not in known)


def _write(trace: Trace | Path, folder: Path) -> None:
    """A run of the plugin, as it can read it: thread ids are numbers, and GPUs are described where Kineto does so."""
    folder.mkdir()
    target = folder / "trace.pt.trace.json"
    if isinstance(trace, Path):
        with _opened(trace) as original, target.open("wb") as copy:
            shutil.copyfileobj(original, copy)
        return
    fresh = count(1 + max([0, *(lane.thread for lane in trace.lanes if isinstance(lane.thread, int))]))
    lanes = [lane if isinstance(lane.thread, int) else lane._replace(thread=next(fresh)) for lane in trace.lanes]
    save_trace(replace(trace, lanes=tuple(lanes)), target)
    if gpus := trace.about.get("deviceProperties"):
        saved = target.rename(folder / "saved")
        with saved.open("rb") as original, target.open("wb") as copy:
            original.read(1)  # the brace
            copy.write(b'{"deviceProperties":' + json.dumps(gpus).encode() + b",")
            shutil.copyfileobj(original, copy)
        saved.unlink()


def _check_installed() -> None:
    needed = {"tensorboard": "tensorboard", "torch_tb_profiler": "torch-tb-profiler"}
    missing = [package for module, package in needed.items() if importlib.util.find_spec(module) is None]
    if missing:
        command = "pip install -c constraints.txt -e '.[lab]'"
        raise UnavailableError(f"{' and '.join(missing)} not installed: run `{command}` (the lab extra).")


def _proxied(url: str) -> str | None:
    """The path of this address through the Jupyter server; None if jupyter-server-proxy is not installed."""
    if importlib.util.find_spec("jupyter_server_proxy") is None:
        return None
    base = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")
    if base is None:
        from jupyter_server.serverapp import list_running_servers

        servers = list_running_servers()
        base = next((each["base_url"] for each in servers if each["pid"] == os.getppid()), "/")
    parts = urllib.parse.urlsplit(url)
    return f"{base.rstrip('/')}/proxy/{parts.port}{parts.path}#{parts.fragment}"
