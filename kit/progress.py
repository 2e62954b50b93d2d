"""A progress bar that is removed at the end: in a saved notebook, its remains look like an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def progress_bar(total: int, wanted: bool, what: str = "rounds") -> Iterator[Callable[[int], None]]:
    """A function to call with the amount done, of ``total`` (0: not known).

    Shows nothing if ``wanted`` is False or tqdm is not installed.
    """
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
