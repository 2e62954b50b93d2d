"""Run the notebooks on a copy, so that the committed ones stay without outputs."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from tools.lab import ROOT

CELL_S = 900  # a cell that takes longer hangs
COPIED = ("notebooks", "data", "docs")  # what notebooks read beside themselves


class BrokenCell(Exception):
    """A cell that raised, hung or lost its kernel; the text names the notebook, the cell and its first line."""


@contextmanager
def copied(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """The notebooks in a temporary copy of the folders that they read."""
    with tempfile.TemporaryDirectory(prefix="branch-lab-notebooks-") as folder:
        for name in COPIED:
            shutil.copytree(ROOT / name, Path(folder) / name)
        places = [Path(folder) / "notebooks" / path.name for path in paths]
        for path, place in zip(paths, places, strict=True):
            shutil.copy(path, place)
        yield places


def executed(path: Path) -> NotebookNode:
    """The notebook with the outputs of all cells and the state of its widgets; says how far it is on a terminal.

    Raises:
        BrokenCell: at the first cell that fails.
    """
    notebook = nbformat.read(path, as_version=4)
    current, begun = 0, time.monotonic()

    def started(cell: NotebookNode, cell_index: int) -> None:
        nonlocal current
        current = cell_index
        if sys.stdout.isatty():
            print(f"\r\x1b[K{path.name}: cell {cell_index + 1} of {len(notebook.cells)}", end="", flush=True)

    client = NotebookClient(
        notebook,
        timeout=CELL_S,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],  # not a warning of each kernel that its socket is not encrypted
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_start=started,
    )
    try:
        client.execute(env={**os.environ, "PYTHONPATH": str(ROOT)})
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        lines = notebook.cells[current].source.strip().splitlines() or [""]
        said = f"{error.ename}: {error.evalue}" if isinstance(error, CellExecutionError) else str(error)
        raise BrokenCell(f"{path.name}, cell {current + 1} ({lines[0]}): {said}") from error
    end = "\r\x1b[K" if sys.stdout.isatty() else ""
    print(f"{end}{path.name}: {len(notebook.cells)} cells in {time.monotonic() - begun:.0f} s", flush=True)
    return notebook
