"""A budget of seconds: what is left of it, when rounds are enough, and an end to what takes longer than its share."""

from __future__ import annotations

import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from kit import spans

SLACK = 1.4  # so many times the budget is the end, also of rounds without which there is no verdict
IMPORTING = "<frozen importlib"
AGAIN_S = 0.25  # until an alarm rings again: where a weak reference's callback runs, Python drops what is raised


class Overdue(BaseException):
    """Time is up; raised into the middle of whatever runs. No ``Exception``, so that nothing takes it for its own."""


class Budget:
    """Seconds from now on; ``None`` is without end."""

    def __init__(self, seconds: float | None, clock: Callable[[], int] = spans.clock) -> None:
        self.seconds, self._clock = math.inf if seconds is None else seconds, clock
        self._begin = clock()

    @property
    def left(self) -> float:
        """Seconds that are left, below 0 when they are spent."""
        return self.seconds - self._spent()

    def enough(self, least: int, reserved: float = 0.0) -> Callable[[int], bool]:
        """A function of the number of rounds done: whether another one would not end in time.

        Args:
            least: rounds that a verdict needs; they have until the end of the slack.
            reserved: seconds that something else needs afterwards.
        """
        begin = self._spent()

        def enough(done: int) -> bool:
            now = self._spent()
            ends = now + (now - begin) / done
            return ends > (self.seconds - reserved if done >= least else SLACK * self.seconds)

        return enough

    def _spent(self) -> float:
        return (self._clock() - self._begin) / 1e9


def can_interrupt() -> bool:
    """Whether :func:`limited` can end what runs here: in the main thread, where there are alarms and none is set."""
    return (
        threading.current_thread() is threading.main_thread()
        and hasattr(signal, "setitimer")
        and signal.getsignal(signal.SIGALRM) is not None
        and signal.getitimer(signal.ITIMER_REAL)[0] == 0
    )


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise :class:`Overdue` into this block when it takes longer; where that cannot be done it takes what it takes.

    It wakes what sleeps or waits, and ends Python code, such as a compiler; one operator of PyTorch is not cut in two.
    What cleans up after it is left in peace, and so are imports: half a module could not be imported again.
    """
    if not can_interrupt() or seconds == math.inf:
        yield
        return
    before, unraisable, outside = signal.getsignal(signal.SIGALRM), sys.unraisablehook, sys._getframe(2)

    def ring(number: int, frame: FrameType | None) -> None:
        error = sys.exception()
        while error is not None and not isinstance(error, Overdue):
            error = error.__context__
        while frame is not None and frame is not outside and not frame.f_code.co_filename.startswith(IMPORTING):
            frame = frame.f_back
        if error is None and frame in (None, outside):
            raise Overdue

    def end() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sys.unraisablehook = unraisable

    try:
        try:
            sys.unraisablehook = lambda lost: None if lost.exc_type is Overdue else unraisable(lost)
            signal.signal(signal.SIGALRM, ring)
            signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001), AGAIN_S)
            yield
        finally:
            end()
    finally:
        end()  # an alarm may have rung in the first one
