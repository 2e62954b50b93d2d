"""``python -m bench.gpu``, or ``make gpu``: test, measure and record on a GPU, within a budget of seconds.

It goes on where it was stopped: what is done is not done again, what failed or did not fit is tried again. The folder
then holds ``traces/`` for ``data/traces``, a README with their rows, ``comparisons/``, ``measured.md``, and
``summary.json`` with what every step took, and which ones failed or were skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from bench.gpu import plan, report
from bench.gpu.machine import short
from bench.gpu.steps import ROOT, State, run

BUDGET_S = 540.0


def prepared(folder: Path, device: str, ends: float) -> dict[str, Any] | str:
    """What this machine is, which is checked on every start; where it will not do, the reason."""
    now, kept = folder / "logs" / "machine.json", folder / "machine.json"
    now.unlink(missing_ok=True)
    (ended,) = run([plan.machine_step(now, device)], folder, ends, tell=lambda _: None).values()
    if ended.status != "done":
        said = (folder / "logs" / "machine.log").read_text().strip()
        return said.removeprefix("error: ") or ended.reason
    if not kept.is_file():
        now.replace(kept)
        return dict(json.loads(kept.read_text()))
    before, here = (json.loads(path.read_text()) for path in (kept, now))
    if identity(before) != identity(here):
        both = " and not ".join(", ".join(identity(each)) for each in (before, here))
        return f"{folder} has results of {both}: start another folder with ARGS='--out FOLDER'"
    return dict(before)


def identity(about: dict[str, Any]) -> tuple[str, str, str]:
    """What all results in one folder have in common."""
    gpu = about.get("gpu", {"name": "no GPU"})["name"]
    return gpu, f"driver {about['machine']['driver'] or 'none'}", f"torch {about['versions']['torch']}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--dry", action="store_true", help="the same steps with small stand-ins on the CPU")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds for all of it (default 540)")
    parser.add_argument("--out", type=Path, help="folder of the results (default build/gpu, dry: build/gpu-dry)")
    options = parser.parse_args()
    ends = time.monotonic() + options.budget
    # So that the steps that are ended along with the run are ended properly.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))
    device = "cpu" if options.dry else "cuda"
    folder = (options.out or ROOT / "build" / ("gpu-dry" if options.dry else "gpu")).resolve()
    os.chdir(ROOT)
    if folder.is_relative_to(ROOT):  # a copy of the checkout at another place goes on as well
        folder = folder.relative_to(ROOT)
    for each in ("comparisons", "logs", "traces"):
        (folder / each).mkdir(parents=True, exist_ok=True)
    about = prepared(folder, device, ends)
    if isinstance(about, str):
        print(f"error: {about}", file=sys.stderr)
        return 1
    print(f"{report.where(about)}\nresults: {folder}", flush=True)
    todo = plan.steps(folder, device, "dry" if options.dry else short(about["gpu"]["name"]))
    try:
        run(todo, folder, ends, tell=lambda line: print(line, flush=True))
    finally:  # also of a run that was stopped
        summary = report.write(folder, about, todo, State(folder / "state.json").ended)
    print((folder / "measured.md").read_text())
    for status in ("failed", "skipped"):
        if names := summary[status]:
            print(f"{status}: {', '.join(names)}")
    return int(bool(summary["failed"]))


if __name__ == "__main__":
    sys.exit(main())
