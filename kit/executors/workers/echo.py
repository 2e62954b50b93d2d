"""A worker that sends every message back: the least work for a queue between two processes, as a reference."""

import signal
from typing import Any


def echo(requests: Any, replies: Any) -> None:
    """Put every message of one queue into the other queue, until None arrives."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while (message := requests.get()) is not None:
        replies.put(message)
        del message  # it may hold a tensor of the sender's, and with it the sender's memory
