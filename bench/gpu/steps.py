"""Steps with names, each in a process of its own, within a budget; a run that was stopped goes on where it was.

Only Python's own library is imported here, so that a machine that lacks a package can be told so.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
LEAST_S = 5.0  # with less time left, no step begins
TAIL = 15  # lines of a failed step's output that are printed


@dataclass(frozen=True)
class Step:
    """A command, and the files that it writes."""

    name: str
    command: tuple[str, ...]  # arguments of Python, as in ("-m", "bench.gpu.machine")
    files: tuple[Path, ...] = ()
    expected_s: float = 10.0  # about how long it takes: it does not begin with less time left
    limit_s: float = 60.0  # after which it is ended


class Ended(NamedTuple):
    """How a step ended: ``done``, ``failed``, ``skipped``, or ``running``, where the run was stopped meanwhile."""

    status: str
    seconds: float = 0.0
    reason: str = ""
    command: tuple[str, ...] = ()


class State:
    """How each step ended, in a file that is whole at every moment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.ended: dict[str, Ended] = {}
        with suppress(FileNotFoundError):
            for name, entry in json.loads(path.read_text()).items():
                self.ended[name] = Ended(**{**entry, "command": tuple(entry["command"])})

    def __setitem__(self, name: str, ended: Ended) -> None:
        self.ended[name] = ended
        whole = self._path.with_suffix(".new")
        whole.write_text(json.dumps({each: entry._asdict() for each, entry in self.ended.items()}, indent=2) + "\n")
        whole.replace(self._path)

    def is_done(self, step: Step) -> bool:
        """Whether this very command has ended well, and its files are still there."""
        entry = self.ended.get(step.name)
        same = entry is not None and entry.status == "done" and entry.command == step.command
        return same and all(path.is_file() for path in step.files)


def run(
    steps: Sequence[Step],
    folder: Path,
    ends: float,
    *,
    tell: Callable[[str], None] = print,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Ended]:
    """Run the steps that are not done yet, the most important ones first; a step that fails does not stop the others.

    A step that fails, or does not end in time, leaves none of its files. Its output is in ``logs/``.

    Args:
        folder: holds ``state.json`` and ``logs/``.
        ends: when the budget is spent, on this clock. A step whose expected time is not left is skipped; a shorter one
            after it may still begin.

    Returns:
        How each of the steps ended, in their order.
    """
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    state = State(folder / "state.json")
    for i, step in enumerate(steps, start=1):
        here = f"[{i:2}/{len(steps)}] {step.name}"
        if state.is_done(step):
            tell(f"{here}: done before")
            continue
        _remove(step.files)
        left = ends - clock()
        if left < max(step.expected_s, LEAST_S):
            reason = f"it takes about {step.expected_s:.0f} s, and {max(left, 0):.0f} s were left"
            state[step.name] = Ended("skipped", 0.0, reason, step.command)
            tell(f"{here}: skipped, {reason}")
            continue
        tell(f"{here} ...")
        state[step.name] = Ended("running", 0.0, "the run was stopped meanwhile", step.command)
        begin = clock()
        log, most = folder / "logs" / f"{step.name}.log", min(step.limit_s, left)
        code = _call(step, log, most)
        seconds, reason = round(clock() - begin, 1), _fault(step, code, most)
        if reason:
            _remove(step.files)
        status = "done" if not reason else "skipped" if code is None and left < step.limit_s else "failed"
        state[step.name] = Ended(status, seconds, reason, step.command)
        tell(f"{' ' * 8}{status} after {seconds:.1f} s{reason and f': {reason}{_tail(log)}'}")
    return {step.name: state.ended[step.name] for step in steps}


def _call(step: Step, log: Path, seconds: float) -> int | None:
    """Run the command, and end all that it started; returns its exit status, or None if it took too long."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *step.command],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # it may start processes, which must end with it
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _fault(step: Step, code: int | None, most: float) -> str:
    if code is None:
        return f"it was ended after {most:.0f} s"
    if code:
        return f"exit status {code}"
    missing = [path.name for path in step.files if not path.is_file()]
    return f"it did not write {', '.join(missing)}" if missing else ""


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-TAIL:]
    return "".join(f"\n{' ' * 10}{line}" for line in lines)


def _remove(files: Sequence[Path]) -> None:
    for path in files:
        path.unlink(missing_ok=True)
