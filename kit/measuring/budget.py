"""A budget of seconds: the seconds left, when to stop measuring, and how to interrupt what takes too long."""

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
    """Time is up; raised in the middle of running code. Not an ``Exception``, which other code may catch."""


class Budget:
    """A number of seconds, counted from now; ``None`` means no limit."""

    def __init__(self, seconds: float | None, clock: Callable[[], int] = spans.clock) -> None:
        self.seconds, self._clock = math.inf if seconds is None else seconds, clock
        self._begin = clock()

    @property
    def left(self) -> float:
        """Seconds left; negative after the budget is spent."""
        return self.seconds - self._spent()

    def enough(self, least: int, reserved: float = 0.0) -> Callable[[int], bool]:
        """A function that tells from the number of rounds done whether another round would end too late.

        Args:
            least: rounds that a verdict needs; they may take up to ``SLACK`` times the budget.
            reserved: seconds to keep for later work.
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
    """Whether :func:`limited` can interrupt code here: in the main thread, with a free alarm; never on Windows."""
    return (
        threading.current_thread() is threading.main_thread()
        and hasattr(signal, "setitimer")
        and signal.getsignal(signal.SIGALRM) is not None
        and signal.getitimer(signal.ITIMER_REAL)[0] == 0
    )


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise :class:`Overdue` in this block if it takes longer; where it cannot be interrupted, there is no limit.

    It interrupts sleeping, waiting and Python code, such as a compiler; it cannot interrupt a running PyTorch operator.
    It does not interrupt clean-up code, nor imports: a module that is imported by half could not be imported again.
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
