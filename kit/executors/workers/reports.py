"""Sentences for errors: how a worker process ended, and which limit of the system was reached.

The system may refuse a process, a thread, memory or an open file. Each message names the limit and the remedy.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kit.errors import KitError, WorkerError

_LIMITS = {
    errno.EMFILE: "this process may have {RLIMIT_NOFILE} files open at a time: raise its limit before Python "
    "starts, as in `ulimit -n 4096`, or use fewer workers",
    errno.ENFILE: "the system may open no more files: close other programs",
    errno.EAGAIN: "no more processes or threads may be started (at most {RLIMIT_NPROC}, in a container often "
    "fewer): raise the limit, as in `ulimit -u 4096`, or start fewer",
    errno.ENOMEM: "memory is full: close other programs, use fewer workers or smaller inputs, or give this "
    "container more memory",
    errno.ENOSPC: "memory, /dev/shm or the temporary folder is full: free some space, use fewer workers, or give "
    "this container more memory (--shm-size=1g)",
}
_NO_THREAD = "can't start new thread"  # all that Python says
_SIGNALS = {
    "SIGKILL": "The system does that when memory runs out.",
    "SIGSEGV": "Native code crashed: it accessed memory that it does not own.",
    "SIGBUS": "Native code crashed. A small /dev/shm that is full causes this.",
    "SIGABRT": "Native code found an error and stopped; its message is on stderr.",
    "SIGILL": "Native code crashed: it was built for another kind of processor.",
    "SIGFPE": "Native code crashed: it divided by zero.",
}


@contextmanager
def starting_is_possible(what: str) -> Iterator[None]:
    """Start ``what`` in this block; if the system refuses, the error names the limit.

    Raises:
        WorkerError: the system gave no file descriptor, process, thread or memory.
    """
    try:
        yield
    except KitError:
        raise
    except Exception as error:
        hint = remedy(error) or ("the system refused" if isinstance(error, OSError) else "")
        if not hint:
            raise
        raise WorkerError(f"cannot start {what} ({type(error).__name__}: {error}): {hint}.") from error


def remedy(error: BaseException) -> str:
    """What to do after an error that says that a limit of the system was reached; ``""`` for any other error."""
    if isinstance(error, MemoryError):
        return _LIMITS[errno.ENOMEM]
    if isinstance(error, OSError) and error.errno is not None:
        return _LIMITS.get(error.errno, "").format_map(_Numbers())
    words = str(error)  # an import or native code gives no errno
    codes = [code for code in _LIMITS if os.strerror(code) in words]
    codes += [errno.EAGAIN] if _NO_THREAD in words else []
    return _LIMITS[codes[0]].format_map(_Numbers()) if codes else ""


class _Numbers(dict[str, str]):
    """This process's limits by their names."""

    def __missing__(self, name: str) -> str:
        try:
            import resource
        except ImportError:  # Windows has none
            return "a limited number of"
        soft, _ = resource.getrlimit(getattr(resource, name))
        return "any number of" if soft == resource.RLIM_INFINITY else str(soft)


def how_it_ended(process: Any, task: str, by_the_kit: bool = False) -> str:
    """Say how a worker process ended before its task was done.

    Args:
        process: a process that was joined.
        task: the name of its task.
        by_the_kit: whether the kit itself killed the process, since its executor was closed.
    """
    if by_the_kit:
        return f"branch {task!r} has no result: its worker process was ended, since the executor was closed."
    code = process.exitcode
    if code is None:
        how, why = "closed its pipe but still runs", ""
    elif code < 0:
        name = next((each.name for each in signal.Signals if each == -code), f"signal {-code}")
        how, why = f"was killed by {name}", _SIGNALS.get(name, "")
    else:
        how, why = f"ended with status {code}", "Something in it called exit."
        if code == 1:  # Python's own, after an exception that nobody caught
            why = "Something in it called exit, or raised a BaseException: in that case its traceback is on stderr."
    sentences = f"worker process {process.pid} {how} while it had branch {task!r}. {why}".strip()
    return f"{sentences} The next call starts a new process."


def no_answer(late: Iterable[tuple[str, int | None]], timeout: float) -> str:
    """Say which tasks took too long.

    Args:
        late: name of each task, and the process id of its worker.
        timeout: seconds that they were given.
    """
    names = ", ".join(repr(name) + " (stopped)" * _is_stopped(pid) for name, pid in late)
    return (
        f"no answer within {timeout:g} s from {names}: the workers were ended, and the next call starts new ones. "
        "Allow more time, as in processes(timeout=300) or Stage(..., timeout=300), or look for a deadlock."
    )


def _is_stopped(pid: int | None) -> bool:
    """Whether a process is stopped (SIGSTOP, Ctrl+Z, a debugger), as far as the system says."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except (OSError, IndexError):
        return False
