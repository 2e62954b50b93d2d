"""What to do where the system refuses a process, a thread, memory or an open file."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from kit.errors import KitError, UnavailableError

_NO_MEMORY = "use fewer workers or smaller inputs, or give this container more memory"
_REMEDIES = {
    errno.EMFILE: "this process may have {RLIMIT_NOFILE} files open at a time: use fewer workers, or raise the limit "
    "before Python starts, as with `ulimit -n 4096`",
    errno.ENFILE: "that is the limit of the whole system (/proc/sys/fs/file-max): close other programs",
    errno.EAGAIN: "this user may have {RLIMIT_NPROC} processes and threads, and a container often fewer: use fewer "
    "workers, or raise the limit (`ulimit -u`; for a container, --pids-limit)",
    errno.ENOMEM: _NO_MEMORY,
    errno.ENOSPC: f"memory, /dev/shm or the temporary folder is full: {_NO_MEMORY} (--shm-size=1g)",
}
_THREAD = "can't start new thread"  # all that Python says


@contextmanager
def explained(what: str) -> Iterator[None]:
    """In this block the system may refuse what is asked of it.

    Args:
        what: the begin of the message, as "a worker process cannot start".

    Raises:
        UnavailableError: it did; the message says which limit that is and how to raise it.
    """
    try:
        yield
    except KitError:
        raise
    except Exception as error:
        if said := remedy(error):
            raise UnavailableError(f"{what}: {_cause(error)}: {said}.") from error
        raise


def remedy(error: BaseException) -> str:
    """What to do where an error says that a limit was reached; of another error, nothing."""
    code = _code(error)
    return _REMEDIES[code].format_map(_Limits()) if code is not None else ""


def _code(error: BaseException) -> int | None:
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in _REMEDIES else None
    if _THREAD in str(error):
        return errno.EAGAIN
    # Of an import, and of torch's own code, there is only the text.
    return next((code for code in _REMEDIES if os.strerror(code) in str(error)), None)


def _cause(error: BaseException) -> str:
    code = _code(error)
    return _THREAD if _THREAD in str(error) else os.strerror(code) if code is not None else str(error)


class _Limits(dict[str, str]):
    """This process's limits by their names."""

    def __missing__(self, name: str) -> str:
        try:
            import resource  # POSIX
        except ImportError:
            return "only so many"
        soft, _ = resource.getrlimit(getattr(resource, name))
        return "any number of" if soft == resource.RLIM_INFINITY else str(soft)
