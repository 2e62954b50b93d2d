"""Beside two busy programs a notebook states nothing that the same notebook contradicts when it is alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
HEAD = "| claim | this machine said | by |"
IN_SOAK = pytest.mark.skipif(os.environ.get("KIT_SOAK") != "1", reason="minutes: whole notebooks, twice: make soak")


def card_of(notebook: NotebookNode) -> dict[str, str]:
    """Claim -> true, false or not decided, as the outputs of an executed notebook say."""
    texts = [
        "".join(output.data.get("text/markdown", ""))
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "data" in output
    ]
    rows = [line for text in texts if HEAD in text for line in text.partition(HEAD)[2].splitlines()]
    found = [re.match(r"\| (.+?) \| \**(true|false|not decided)\** \| ", row) for row in rows]
    return {each[1]: each[2] for each in found if each}


def contradictions(calm: dict[str, str], busy: dict[str, str]) -> list[str]:
    """Claims on which both runs decide, each in another way."""
    return [claim for claim in calm if {calm[claim], busy.get(claim)} == {"true", "false"}]


@contextmanager
def busy_programs(count: int) -> Iterator[None]:
    """So many other processes that compute all the time."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for each in busy:
            each.kill()
            each.wait()


def executed(path: Path) -> NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(path.parent)}}).execute()
    return notebook


def markdown(text: str) -> NotebookNode:
    output = nbformat.v4.new_output("display_data", {"text/markdown": text})
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[output])])


def test_a_card_is_read_from_the_outputs_and_contradictions_are_found() -> None:
    rows = [
        "| Threads are faster | **true** | 1.5x |",
        "| It is equal | not decided | busy |",
        "| Free | **false** | 2 |",
    ]
    card = card_of(markdown("\n".join(["The card.", "", HEAD, "|---|---|---|", *rows])))
    assert card == {"Threads are faster": "true", "It is equal": "not decided", "Free": "false"}
    other = {"Threads are faster": "not decided", "It is equal": "false", "Free": "true"}
    assert contradictions(card, other) == ["Free"]


@IN_SOAK
@pytest.mark.parametrize("name", ["00_start_here", "01_two_stream", "03_threads_and_cores", "04_inception"])
def test_what_is_said_beside_busy_programs_is_not_contradicted_alone(name: str) -> None:
    path = NOTEBOOKS / f"{name}.ipynb"
    with busy_programs(2):
        busy = card_of(executed(path))
    calm = card_of(executed(path))
    print(name, *(f"{claim}: alone {calm[claim]}, beside others {busy.get(claim)}" for claim in calm), sep="\n  ")
    assert busy.keys() == calm.keys() != set()
    assert contradictions(calm, busy) == []
