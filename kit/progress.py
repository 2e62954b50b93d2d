"""What is shown while something runs: a progress bar that leaves nothing behind, or one line where it takes long.

In a saved notebook, the remains of a bar read as an error.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def progress_bar(total: int, wanted: bool, what: str = "rounds") -> Iterator[Callable[[int], None]]:
    """A function to call with how much is done of ``total`` (0: nobody knows).

    Silent where no bar is wanted or tqdm is not installed.
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


@contextmanager
def told_if_long(what: str, after_s: float = 2.0) -> Iterator[None]:
    """Say on stderr what takes so long, if the block takes longer than this."""
    stream = sys.stderr  # that of now: within the block others may keep what is written to it
    timer = threading.Timer(after_s, lambda: print(f"{what} ...", file=stream, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
