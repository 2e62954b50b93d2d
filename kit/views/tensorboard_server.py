"""The process that :func:`kit.tensorboard` starts: TensorBoard with torch-tb-profiler, and no other plugin.

It serves the plugin's pages so that they work without the web. As they come, every view waits for Google Charts, and
the trace view for a polyfill from cdnjs.cloudflare.com; without these two files nothing at all is drawn. Here the
polyfill is a file of the kit, and a chart that cannot be drawn is a sentence (``charts.js``).

The process ends when its standard input closes or its parent has ended, for any reason, and takes the processes that
it started and its folder with it.

Sources: `torch-tb-profiler <https://github.com/pytorch/kineto/tree/main/tb_plugin>`_, which was retired in 2026 and is
no longer developed; `TensorBoard <https://github.com/tensorflow/tensorboard>`_.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

RUNS, URL, LOG = "runs", "url", "log"  # names in the folder of a server
PLUGIN = "pytorch_profiler"
_PARENT_S = 0.5  # between two checks that the parent process lives
_HERE = Path(__file__).parent
_CHARTS = "https://www.gstatic.com/charts/loader.js"
_POLYFILL = "https://cdnjs.cloudflare.com/ajax/libs/webcomponentsjs/0.7.24/webcomponents.min.js"
_ADDED = {"charts.js": "charts.js", "webcomponents.min.js": "vendor/webcomponents.min.js"}
_CHANGED = {"index.html": (_CHARTS, "charts.js"), "trace_embedding.html": (_POLYFILL, "webcomponents.min.js")}
WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]


def main() -> None:
    """Serve ``runs`` of the folder ``argv[1]`` to the process ``argv[2]``, as soon as a line comes on standard input.

    The line says that the runs are written. The address is written into the file ``url``: a free port of 127.0.0.1 and
    a path that nobody can guess, as other users of this machine, and pages in a browser, reach the port too.
    """
    folder, parent = Path(sys.argv[1]), int(sys.argv[2])
    written = threading.Event()
    for watch in (lambda: _watch_input(written), lambda: _watch_parent(parent)):
        threading.Thread(target=_end_after, args=(watch, folder), daemon=True).start()
    try:
        url = _serve(folder, written)
        (folder / "url.part").write_text(url, encoding="utf-8")
        (folder / "url.part").rename(folder / URL)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # the parent reads the log, and removes the folder
    threading.Event().wait()


def _serve(folder: Path, written: threading.Event) -> str:
    from tensorboard import program
    from tensorboard.plugins.core import core_plugin

    plugins = [core_plugin.CorePluginLoader(), _offline_plugin()]
    server = program.TensorBoard(plugins=plugins)
    prefix = f"/{secrets.token_urlsafe(16)}"
    flags = {"logdir": str(folder / RUNS), "host": "127.0.0.1", "port": "0", "path_prefix": prefix}
    server.configure(argv=["kit", "--load_fast=false", *(f"--{name}={value}" for name, value in flags.items())])
    written.wait()
    return f"{server.launch().rstrip('/')}/"


def _offline_plugin() -> type:
    """torch-tb-profiler's plugin with pages that need no web, and the trace view as the first one."""
    from torch_tb_profiler.plugin import TorchProfilerPlugin
    from werkzeug import Request, Response

    static = Path(sys.modules[TorchProfilerPlugin.__module__].__file__ or "").parent / "static"

    def text(body: str, name: str) -> WsgiApp:
        kind = "text/html" if name.endswith(".html") else "text/javascript"
        return Response(body, content_type=f"{kind}; charset=utf-8", headers={"X-Content-Type-Options": "nosniff"})

    class OfflinePlugin(TorchProfilerPlugin):  # type: ignore[misc]  # which has no types
        def get_plugin_apps(self) -> dict[str, WsgiApp]:
            apps: dict[str, WsgiApp] = super().get_plugin_apps()
            pages = {name: (_HERE / file).read_text(encoding="utf-8") for name, file in _ADDED.items()}
            for name, (url, file) in _CHANGED.items():
                pages[name] = (static / name).read_text(encoding="utf-8").replace(url, file)
            apps |= {f"/{name}": text(page, name) for name, page in pages.items()}
            return apps | {"/views": self._trace_first(apps["/views"])}

        @staticmethod
        def _trace_first(app: WsgiApp) -> WsgiApp:
            @Request.application
            def views(request: Request) -> Response:
                found = Response.from_app(app, request.environ)
                if found.status_code == 200:
                    found.data = json.dumps(sorted(json.loads(found.data), key=lambda view: view != "Trace"))
                return found

            return views

    return OfflinePlugin


def _watch_input(written: threading.Event) -> None:
    if sys.stdin.readline():
        written.set()
        sys.stdin.read()


def _watch_parent(parent: int) -> None:
    """A process that the parent has forked may keep the pipe to standard input open."""
    while os.getppid() == parent:
        time.sleep(_PARENT_S)


def _end_after(watch: Callable[[], None], folder: Path) -> None:
    watch()
    for _ in range(10):  # a process that reads a trace may write meanwhile
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            break
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)  # this process leads a group of its own
    os._exit(0)
