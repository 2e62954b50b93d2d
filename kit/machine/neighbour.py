"""A program that keeps a core busy and does nothing: what a measurement suffers from on a shared machine."""

from __future__ import annotations

import signal
from multiprocessing import parent_process
from multiprocessing.connection import Connection

COUNTS = 1_000_000  # tens of milliseconds: so soon after its parent the process ends


def keep_busy(ready: Connection) -> None:
    """Compute for as long as the parent process lives: the target of a process, which is to be killed.

    Args:
        ready: gets a message as soon as the computing begins.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as with all workers: it ends with its block
    parent = parent_process()
    ready.send(None)
    while parent is not None and parent.is_alive():
        for _ in range(COUNTS):
            pass
