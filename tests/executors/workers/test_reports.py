"""What is said of a process that ended, and of one that could not be started."""

import errno
import signal
from types import SimpleNamespace

import pytest

from kit.errors import WorkerError
from kit.executors.workers.reports import how_it_ended, remedy, starting_is_possible


def said(exitcode: int | None, by_the_kit: bool = False) -> str:
    return how_it_ended(SimpleNamespace(pid=7, exitcode=exitcode), "left", by_the_kit)


def test_memory_is_blamed_for_a_kill_that_the_kit_did_not_send_and_for_nothing_else() -> None:
    assert "was killed by SIGKILL while it had branch 'left'. The system does that when memory runs out." in said(
        -signal.SIGKILL
    )
    for other in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGTERM, 3, 0, None):
        assert "memory runs out" not in said(other)
    assert "ended, since the executor was closed" in said(-signal.SIGKILL, by_the_kit=True)
    assert "SIGKILL" not in said(-signal.SIGKILL, by_the_kit=True)


def test_a_crash_is_called_that_and_an_exit_too() -> None:
    assert "SIGSEGV while it had branch 'left'. Native code crashed" in said(-signal.SIGSEGV)
    assert "Native code found an error and stopped" in said(-signal.SIGABRT)
    assert "ended with status 3 while it had branch 'left'. Something in it called exit." in said(3)
    assert all("branch 'left'" in said(code) for code in (-9, -11, 3, None))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.EMFILE, "Too many open files"), r"start it \(OSError: .*Too many open files\): .*ulimit -n"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), r"BlockingIOError.*ulimit -u"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory is full"),
        (OSError(errno.ENOSPC, "No space left on device"), "free some space"),
        (MemoryError(), "memory is full"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (OSError("odd"), "the system refused"),
    ],
)
def test_a_limit_of_the_system_is_named_with_its_remedy(error: Exception, says: str) -> None:
    with pytest.raises(WorkerError, match=says) as told, starting_is_possible("it"):
        raise error
    assert told.value.__cause__ is error


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ImportError("libodd.so: cannot open shared object file: Too many open files"), "ulimit -n"),
        (RuntimeError("DefaultCPUAllocator: Error code 12 (Cannot allocate memory)"), "smaller inputs"),
        (RuntimeError("odd"), ""),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), ""),
    ],
)
def test_a_limit_is_known_by_its_words_too(error: Exception, says: str) -> None:
    assert says in remedy(error)
    assert bool(remedy(error)) == bool(says)


def test_the_limit_of_open_files_is_a_number() -> None:
    resource = pytest.importorskip("resource")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert f"may have {soft} files open" in remedy(OSError(errno.EMFILE, ""))


def test_ends_without_a_name() -> None:
    assert "was killed by signal 60 while" in said(-60)
    assert "closed its pipe but still runs" in said(None)
    assert "traceback is on stderr" in said(1)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="a bug"), starting_is_possible("it"):
        raise RuntimeError("a bug")
