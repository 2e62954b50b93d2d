"""What to say where a process ended, or could not be started."""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kit.errors import WorkerError

_LIMITS = {
    errno.EMFILE: "this process may open no more files: raise its limit, as in `ulimit -n 4096`",
    errno.ENFILE: "the system may open no more files: close other programs",
    errno.EAGAIN: "no more processes or threads may be started: raise the limit, as in `ulimit -u 4096`, or take fewer",
    errno.ENOMEM: "there is no memory for it: close other programs, or take fewer workers",
    errno.ENOSPC: "there is no room for it in memory or in the temporary folder: make room, or take fewer workers",
}
_SIGNALS = {
    "SIGKILL": "The system does that when memory runs out.",
    "SIGSEGV": "Native code crashed: it touched memory that is not its own.",
    "SIGBUS": "Native code crashed. Writing beyond a small /dev/shm ends like this.",
    "SIGABRT": "Native code found an error and gave up; its own words are on stderr.",
    "SIGILL": "Native code crashed: it was built for another kind of processor.",
}


@contextmanager
def starting_is_possible(what: str) -> Iterator[None]:
    """Start ``what`` in this block; where the system refuses, the error names the limit.

    Raises:
        WorkerError: the system gave no file descriptor, process, thread or memory.
    """
    try:
        yield
    except (OSError, MemoryError) as error:
        number = error.errno if isinstance(error, OSError) else errno.ENOMEM
        remedy = _LIMITS.get(number or 0, "the system refused")
        raise WorkerError(f"cannot start {what} ({type(error).__name__}: {error}): {remedy}.") from error
    except RuntimeError as error:
        if "can't start new thread" not in str(error):
            raise
        raise WorkerError(f"cannot start {what} ({error}): {_LIMITS[errno.EAGAIN]}.") from error


def how_it_ended(process: Any, task: str, by_the_kit: bool = False) -> str:
    """What to say of a worker process that is gone before its task was done.

    Args:
        process: joined, or None where it has been closed.
        by_the_kit: whether the kit itself killed it, since its executor was closed.
    """
    if by_the_kit:
        return f"branch {task!r} has no result: its worker process was ended, since the executor was closed meanwhile."
    code = process.exitcode
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        how, why = f"was killed by {name}", _SIGNALS.get(name, "")
    else:
        how, why = f"ended with status {code}", "Something in it called exit."
    sentences = f"worker process {process.pid} {how} while it had branch {task!r}. {why}".strip()
    return f"{sentences} The next call starts a new process."


def stopped(pid: int | None) -> bool:
    """Whether a process is stopped (SIGSTOP, Ctrl+Z, a debugger), as far as the system tells."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except (OSError, IndexError):
        return False
