"""The origin of a result: when it was made, by which command, with which versions, on which machine."""

from __future__ import annotations

import functools
import importlib.metadata
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kit.machine import hardware
from kit.reprs import one_line

LONGEST_COMMAND = 500  # characters


@one_line
@dataclass(frozen=True)
class About:
    """The origin of a result. A field that is not known is empty."""

    date: str = ""  # UTC, ISO 8601 to the second: "2026-11-26T04:20:52+00:00"
    command: str = ""  # the command line, or "notebook"
    versions: Mapping[str, str] = field(default_factory=dict)  # of python, kit, torch and numpy
    machine: Mapping[str, str | int | None] = field(default_factory=dict)  # cpu, cores, memory_bytes, gpus, platform

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        cpu, cores, gpus = (self.machine.get(name) for name in ("cpu", "cores", "gpus"))
        count = f"{cores} {'core' if cores == 1 else 'cores'}"
        parts = [cpu, *([] if count in str(cpu) else [count]), gpus or "no GPU"]  # a name may give the number itself
        machine = ", ".join(map(str, parts)) if self.machine else ""
        made = f"made {self.date.replace('T', ' ').replace('+00:00', ' UTC')}" if self.date else ""
        by = f"by {self.command}" if self.command else ""
        return "; ".join(filter(None, (" ".join(filter(None, (made, by))), versions, machine)))


def about_here() -> About:
    """The current time, process and machine. Only the first call, which detects the hardware, is slow."""
    machine = hardware.detect()
    return About(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=_command(),
        versions={
            "python": machine.python,
            "kit": _kit_version(),
            "torch": machine.torch,
            "numpy": machine.packages.get("numpy") or "",
        },
        machine={
            "cpu": machine.cpu,
            "cores": machine.cores,
            "memory_bytes": machine.memory_bytes,
            "gpus": ", ".join(machine.gpus),
            "platform": machine.platform,
        },
    )


def _command() -> str:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()  # never imported for this
    if hasattr(shell, "kernel"):
        return "notebook"
    program, *arguments = sys.orig_argv or sys.argv
    command = shlex.join([Path(program).name, *arguments])
    return command if len(command) <= LONGEST_COMMAND else f"{command[: LONGEST_COMMAND - 1]}…"


@functools.cache
def _kit_version() -> str:
    try:
        return importlib.metadata.version("branch-lab")
    except importlib.metadata.PackageNotFoundError:  # a checkout that is on the path and not installed
        return "not installed"
