"""The error tree. Every message says what is wrong, where, and what to do next.

::

    KitError
    ├── ClipError              a clip that is missing, cannot be decoded, or is too short
    ├── ShapeError             inputs that do not fit the model or region they were given to
    ├── UnknownNameError       a name that is not in a catalogue; the message lists similar names
    ├── UnavailableError       something this machine cannot do; the message says what would change that
    ├── TaskError              a task raised; the original exception is its ``__cause__``
    ├── TransferError          something that cannot be sent to another process
    ├── WorkerError            a worker process died, did not answer in time, or is closed
    ├── WeightsError           a weights file that cannot be read, or is for another network
    ├── MeasureError           a measurement that would show nothing (too few rounds, no runners)
    ├── ProfilerError          two profilers at a time, of which PyTorch runs one
    ├── ResultError            a saved result that cannot be read or written
    └── TraceError             a trace that cannot be read, written or merged
"""

import difflib
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path


def brief(error: BaseException) -> str:
    """Type and message of another library's error in one line, without torch's list of signatures and its colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).partition(", but expected one of:")[0]
    text = " ".join(text.split())
    return f"{type(error).__name__}: {text if len(text) <= 400 else text[:399] + '…'}"


def line_of(error: BaseException) -> traceback.FrameSummary | None:
    """The traceback frame to show for an error: the innermost frame of the user's own code.

    If there is no such frame, the innermost frame of a library other than the kit and torch; else None.
    """
    torch = getattr(sys.modules.get("torch"), "__file__", None) or __file__
    ours = ("<", *(f"{Path(each).parent}{os.sep}" for each in (__file__, torch)))  # <: frozen modules, as importlib
    frames = [each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith(ours)]
    own = [each for each in frames if not _is_installed(each.filename)]
    return next(reversed(own or frames), None)


def _is_installed(file: str) -> bool:
    packages = {"site-packages", "dist-packages"} & {*Path(file).parts}
    return bool(packages) or file.startswith(f"{sysconfig.get_path('stdlib')}{os.sep}")


class KitError(Exception):
    """Base of every error that the kit raises on purpose.

    >>> try:
    ...     kit.compare(nn.Linear(2, 2), torch.rand(1, 3), "sequential", progress=False)
    ... except kit.KitError as error:
    ...     print(type(error).__name__)
    ShapeError
    """


class ClipError(KitError):
    """A clip is missing, cannot be decoded, or has too few frames."""


class ShapeError(KitError):
    """Inputs do not fit the model or region they were given to."""


class UnknownNameError(KitError):
    """A name is not in a catalogue. ``meant`` lists names in the catalogue that mean the same."""

    def __init__(self, kind: str, name: str, known: Iterable[str], meant: Iterable[str] = ()) -> None:
        super().__init__(kind, name, list(known), list(meant))  # its own arguments, so that it can be pickled

    def __str__(self) -> str:
        kind, name, known, meant = self.args
        near = meant or difflib.get_close_matches(name.lower(), known, n=2, cutoff=0.7)
        typed = name.lower()
        near = near or [each for each in known if typed in re.split("[-_]", each) or each.startswith(f"{typed:3}")]
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "choose one of these."
        return f"there is no {kind} {name!r}: {hint} Known: {', '.join(known)}."


class UnavailableError(KitError):
    """This machine cannot do what was asked for."""


class TaskError(KitError):
    """A task raised. ``__cause__`` is the original exception, with its own traceback."""

    def __init__(self, task: str, cause: BaseException) -> None:
        super().__init__(task, cause)  # its own arguments, so that it can be pickled
        self.task = task

    def __str__(self) -> str:
        task, cause = self.args
        return f"branch {task!r} raised {brief(cause)}"


class TransferError(KitError):
    """Something cannot be sent to another process."""


class WorkerError(KitError):
    """A worker process died, did not answer in time, or is closed."""


class WeightsError(KitError):
    """A weights file cannot be read, or is for another network."""


class MeasureError(KitError):
    """A measurement was requested that would show nothing."""


class ProfilerError(KitError):
    """Two profilers at a time, of which PyTorch runs one."""


class TraceError(KitError):
    """A trace cannot be read, written or merged."""


class ResultError(KitError):
    """A saved result cannot be read or written."""
