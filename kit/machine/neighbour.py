"""A program that keeps one core busy, as other programs do on a shared machine."""

from __future__ import annotations

import signal
from multiprocessing import parent_process
from multiprocessing.connection import Connection

COUNTS = 1_000_000  # tens of milliseconds: so soon after its parent the process ends


def keep_busy(ready: Connection) -> None:
    """Compute as long as the parent process lives: the target function of a process, which the parent should kill.

    Args:
        ready: a connection that is sent a message as soon as the computation begins.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as with all workers: it ends with its block
    parent = parent_process()
    ready.send(None)
    while parent is not None and parent.is_alive():
        for _ in range(COUNTS):
            pass
