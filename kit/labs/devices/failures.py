"""Notebook 06: what it looks like when a rank dies during a call."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from kit.errors import KitError
from kit.executors import Executor, Task
from kit.reprs import one_line


class _Pid(nn.Module):
    """A task that says in which process it runs."""

    def forward(self) -> int:
        return os.getpid()


class _Killed(nn.Module):
    """A task that kills its own process, as a system without memory does."""

    def forward(self, caller: int) -> None:
        if os.getpid() != caller:
            os.kill(os.getpid(), signal.SIGKILL)


@one_line
class Outcome(NamedTuple):
    """How a call ended."""

    results: int  # how many tasks gave one
    error: str  # the text of the error; empty: there was none
    seconds: float
    timeout: float  # of the executor


def healthy() -> list[Task]:
    """Two tasks that do nothing wrong."""
    return [Task("first", _Pid()), Task("second", _Pid())]


def with_a_kill() -> list[Task]:
    """Two tasks: the process that runs the second one dies."""
    return [Task("first", _Pid()), Task("killed", _Killed(), (os.getpid(),))]


def outcome(executor: Executor, tasks: Sequence[Task]) -> Outcome:
    """Run the tasks; an error of the kit is caught, and its text kept."""
    begun, timeout = time.monotonic(), float(getattr(executor, "timeout", float("inf")))
    try:
        found = executor.run(tasks)
    except KitError as error:
        return Outcome(0, f"{type(error).__name__}: {error}", time.monotonic() - begun, timeout)
    return Outcome(len(found), "", time.monotonic() - begun, timeout)
