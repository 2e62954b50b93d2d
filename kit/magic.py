"""The magics ``%%timeline`` and ``%timeline``: record a cell or a statement, and show its timeline.

``%load_ext kit`` brings them into IPython, in a notebook or in a terminal.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any
from unittest.mock import patch

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, magics_class
from IPython.display import display
from IPython.utils.capture import capture_output

from kit.recorder import recording
from kit.trace import Trace, by_name

USAGE = """%%timeline [options]           record the cell below
%timeline [options] statement  record the statement

  --warm N        run it N times before without recording or output: a first run is slow
  --no-operators  record spans only, with their true lengths: torch.profiler stays off
  --shapes        keep the shapes of each operator's inputs
  --stacks        record Python's functions too; the code takes several times as long
  --memory        draw how much memory is allocated; operators of other threads are not recorded then
  --name NAME     keep the trace in the variable NAME
  --help          show this text"""
_OPTIONS = ["warm=", "no-operators", "shapes", "stacks", "memory", "name=", "help"]


@magics_class
class TimelineMagics(Magics):
    """See :data:`USAGE`."""

    @line_cell_magic
    def timeline(self, line: str, cell: str | None = None) -> None:
        """Record a cell or a statement with kit.recording, and show its timeline; --help names the options."""
        shell: Any = self.shell
        options, rest = _parsed(self, line)
        if "help" in options:
            print(USAGE)
            return
        if cell is not None and rest:
            raise UsageError(f"{rest!r} is no option: code is in the lines below.\n{USAGE}")
        if not (code := rest if cell is None else cell).strip():
            raise UsageError(f"there is no code to record.\n{USAGE}")
        if _awaits(shell, code):
            raise UsageError(
                "a cell that awaits at its top runs in the notebook's own loop, which a magic cannot wait for: write "
                "`with kit.recording() as recording:` around the code, and then kit.timeline(recording.trace)."
            )
        name, warm = options.get("name"), _count(options.get("warm", "0"))
        if name is not None and not name.isidentifier():
            raise UsageError(f"--name {name}: a variable cannot be called so.")
        for _ in range(warm):
            with capture_output():
                _run(shell, code)
        chosen = {option: option in options for option in ("shapes", "stacks", "memory")}
        with recording("cell", operators="no-operators" not in options, **chosen) as found:
            values = _run(shell, code)
        for value in values:  # behind the recording: to write a tensor as text takes a hundred operators
            shell.displayhook(value)
        if name is not None:
            shell.user_ns[name] = found.trace
        _show(shell, found.trace)


def _awaits(shell: Any, code: str) -> bool:
    """Whether a loop of asyncio runs, as in a notebook's kernel, and the code needs it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return bool(shell.should_run_async(code, transformed_cell=shell.transform_cell(code)))


def _parsed(magics: Magics, line: str) -> tuple[Any, str]:
    """The options of a line, and the text behind them."""
    try:
        options, rest = magics.parse_options(line, "", *_OPTIONS, posix=False, strict=False, preserve_non_opts=True)
    except UsageError as error:  # it lists the options as getopt is told them
        raise UsageError(f"{str(error).partition(' (allowed')[0]}.\n{USAGE}") from None
    return options, rest.lstrip("= ")  # of "--name=NAME", IPython leaves the sign


def _count(text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"--warm {text}: give a whole number of runs, from 0 on.")
    return int(text)


def _run(shell: Any, code: str) -> list[Any]:
    """Run code as a cell in the user's namespace: the values to display. Its exception has the cell's own traceback."""
    values: list[Any] = []
    told: list[list[str]] = []  # the lines of the traceback that IPython would show

    def keep(_kind: object, _error: object, lines: list[str]) -> None:
        told.append(lines)

    with patch.object(shell, "_showtraceback", keep), patch.object(sys, "displayhook", values.append):
        result = shell.run_cell(code, store_history=False)
    error = result.error_before_exec or result.error_in_exec
    if error is not None:
        if told:
            error._render_traceback_ = lambda: told[
                0
            ]  # IPython asks it: else the magic's own frames would be shown too
        raise error
    return values


def _show(shell: Any, trace: Trace) -> None:
    if hasattr(shell, "kernel"):
        from kit.views.timeline import timeline

        display(timeline(trace))  # type: ignore[no-untyped-call]
        return
    print("\n".join([trace.size, str(by_name(trace)), *trace.notes]))


def _offered(_shell: Any, event: Any) -> list[str]:
    """What Tab completes."""
    return ["--" + option.removesuffix("=") for option in _OPTIONS]


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics; IPython calls this for ``%load_ext kit``.

    >>> from IPython.core.interactiveshell import InteractiveShell
    >>> shell = InteractiveShell()
    >>> kit.load_ipython_extension(shell)  # what %load_ext kit does
    >>> "timeline" in shell.magics_manager.magics["cell"]
    True
    """
    shell.register_magics(TimelineMagics)
    for magic in ("%timeline", "%%timeline"):
        shell.set_hook("complete_command", _offered, str_key=magic)  # type: ignore[no-untyped-call]
