"""A progress bar that is removed at the end: in a saved notebook, its remains look like an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_shown: ContextVar[bool] = ContextVar("kit_progress", default=False)  # whether a bar is shown now


@contextmanager
def progress_bar(total: int, wanted: bool | None, what: str = "rounds") -> Iterator[Callable[[int], None]]:
    """A function to call with the amount done, of ``total`` (0: not known).

    Shows nothing if ``wanted`` is False or tqdm is not installed.

    Args:
        wanted: None for a step of something larger: shown if a bar of that is shown.
    """
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
