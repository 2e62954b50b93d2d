"""A worker that sends back what it gets: the least that a queue between two processes can do, for comparison."""

import signal
from typing import Any


def echo(requests: Any, replies: Any) -> None:
    """Put everything that comes out of one queue into the other, until None comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while (message := requests.get()) is not None:
        replies.put(message)
        del message  # a tensor of the sender's: holding it would hold the sender's memory
