"""A JupyterLab for tests and benchmarks: with the project's settings, on a folder of theirs, and gone after."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUN_ALL = "() => window.jupyterapp.commands.execute('notebook:run-all-cells')"
READY = """path => {
  const open = window.jupyterapp?.shell.currentWidget;
  return open?.context?.path === path && open.sessionContext.session?.kernel?.status === 'idle';
}"""


@dataclass(frozen=True)
class Lab:
    """A running server."""

    folder: Path  # what it serves
    port: int
    token: str

    def url(self, path: str) -> str:
        """Where a notebook opens, without what was open before."""
        return f"http://127.0.0.1:{self.port}/lab/tree/{path}?token={self.token}&reset"


@contextmanager
def lab(folder: Path, **environment: str) -> Iterator[Lab]:
    """Serve a folder until the end of the block; its kernels import this project's ``kit``.

    Raises:
        RuntimeError: JupyterLab did not start within a minute; the message is its log.
    """
    own = folder / ".lab"
    (own / "settings").mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "tools" / "overrides.json", own / "settings")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        served = Lab(folder, free.getsockname()[1], secrets.token_hex(16))
    options = [f"--port={served.port}", "--no-browser", "--ip=127.0.0.1", "--allow-root"]
    options += [f"--IdentityProvider.token={served.token}", "--LabApp.expose_app_in_browser=True"]
    options += [f"--LabApp.{place}_dir={own / place}" for place in ("user_settings", "workspaces")]
    options += [f"--LabApp.app_settings_dir={own / 'settings'}"]
    command = [sys.executable, "-m", "jupyter", "lab", *options]
    with (own / "log").open("w") as log:
        variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        server = subprocess.Popen(command, cwd=folder, env=variables, stdout=log, stderr=log)
        try:
            _wait(server, served, own / "log")
            yield served
        finally:
            server.terminate()
            server.wait(20)


def _wait(server: subprocess.Popen[bytes], served: Lab, log: Path) -> None:
    for _ in range(120):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{served.port}/api?token={served.token}", timeout=1)
            return
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.5)
    raise RuntimeError("JupyterLab did not start:\n" + log.read_text())
