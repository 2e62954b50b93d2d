"""A progress bar that is removed at the end: in a saved notebook, its remains look like an error.

Who shows the progress in another way, and may want to stop the work, watches it: see :func:`watched`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from typing import Any, Protocol

_shown: ContextVar[bool] = ContextVar("kit_progress", default=False)  # whether a bar is shown now


class Stopped(BaseException):
    """A watcher stopped the work. Not an ``Exception``, which would become the reason of one approach."""


class Watcher(Protocol):
    """What is told of the work in place of a progress bar. Each method may raise :class:`Stopped`."""

    def step(self, what: str, done: int, total: int) -> None:
        """So many of ``total`` are done; ``what`` names them, as "rounds"."""

    def checkpoint(self) -> None:
        """Nothing is half done here. It is called between timed calls, and should cost next to nothing."""


_watcher: ContextVar[Watcher | None] = ContextVar("kit_watcher", default=None)


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """In this block, and in this thread, progress goes to the watcher, and no bar is shown."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def checkpoint() -> None:
    """A place where the work may be stopped, if somebody watches it."""
    if (watcher := _watcher.get()) is not None:
        watcher.checkpoint()


@contextmanager
def progress_bar(total: int, wanted: bool | None, what: str = "rounds") -> Iterator[Callable[[int], None]]:
    """A function to call with the amount done, of ``total`` (0: not known).

    Shows nothing if ``wanted`` is False or tqdm is not installed.

    Args:
        wanted: None for a step of something larger: shown if a bar of that is shown.
    """
    if (watcher := _watcher.get()) is not None:
        watcher.step(what, 0, total)
        steps = count(1)  # rounds are counted anew where an approach has rounds of its own
        yield lambda done: watcher.step(what, next(steps), total)
        return
    shown = _shown.get() if wanted is None else wanted
    token = _shown.set(shown)
    try:
        with _bar(total, shown, what) as advance:
            yield advance
    finally:
        _shown.reset(token)


@contextmanager
def _bar(total: int, wanted: bool, what: str) -> Iterator[Callable[[int], None]]:
    try:
        from tqdm.auto import tqdm
        from tqdm.notebook import tqdm as tqdm_notebook
    except ImportError:
        wanted = False
    if not wanted:
        yield lambda done: None
    elif issubclass(tqdm, tqdm_notebook):
        import IPython.display

        bar = tqdm(total=total or None, desc=what, leave=False, display=False)
        show: Any = IPython.display.display  # has no types
        handle = show(bar.container, display_id=True)
        try:
            yield lambda done: bar.update()
        finally:
            bar.close()
            handle.update({"text/plain": ""}, raw=True)  # else the output keeps a widget that no longer exists
    else:
        with tqdm(total=total or None, desc=what, leave=False) as bar:
            yield lambda done: bar.update()
