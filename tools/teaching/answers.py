"""The answer key: every quiz with what decides it, and every exercise with its solution, from the notebooks."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from nbformat import NotebookNode

from kit import labs
from tools.lab import ROOT

NOTEBOOKS = ROOT / "notebooks"
HEAD = """\
# Answer key

For the person teaching. `python -m tools.teaching` makes this file from the notebooks' quizzes and solutions; a test
compares the two, so change the notebooks and not this file.

A quiz has no fixed answer: it is answered by what *this* machine measured. So the key says what decides it. Run the
notebook on the machine that you present with: it gives the answers for that machine. On a busy machine the answer is
"not decided", with the reason.
"""


class Asked(NamedTuple):
    """A quiz as a notebook asks it."""

    question: str
    options: list[str]
    decided_by: str  # how the answer is found


def key() -> str:
    """The whole key, as Markdown."""
    return "\n".join([HEAD, *(part for path in sorted(NOTEBOOKS.glob("*.ipynb")) for part in _notebook(path))])


def _notebook(path: Path) -> Iterator[str]:
    notebook = nbformat.read(path, as_version=4)
    quizzes, solved = list(quizzes_of(notebook)), list(solutions_of(notebook))
    if not quizzes and not solved:
        return
    yield f"## {path.stem}\n"
    for asked in quizzes:
        yield f"**{asked.question}**\n"
        yield "\n".join(f"- {option}" for option in asked.options) + "\n"
        yield f"*Decided by:* {asked.decided_by}\n"
    for task, code in solved:
        yield f"{task}\n"
        yield f"```python\n{code}\n```\n"


def quizzes_of(notebook: NotebookNode) -> Iterator[Asked]:
    """The quizzes in the order in which they are asked.

    Raises:
        ValueError: a quiz that is made in another way than by ``labs.<notebook>.quiz(name)``.
    """
    modules: dict[str, Any] = {"labs": labs}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        source = "\n".join(line for line in cell.source.splitlines() if not line.lstrip().startswith(("%", "!")))
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("labs."):
                found = _resolved(ast.unparse(node.value), modules)
                if inspect.ismodule(found):
                    modules[ast.unparse(node.targets[0])] = found
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "quiz":
                yield _asked(_resolved(ast.unparse(node.func.value), modules), ast.literal_eval(node.args[0]))


def _resolved(path: str, modules: dict[str, Any]) -> Any:
    first, *rest = path.split(".")
    found = modules.get(first)
    for name in rest:
        found = getattr(found, name, None)
    return found


def _asked(lab: Any, name: str) -> Asked:
    if lab is None:
        raise ValueError(f"the quiz {name!r} is of no module of kit.labs")
    question, options = sys.modules[lab.quiz.__module__].QUIZZES[name]
    said = inspect.getdoc(getattr(lab, f"{name}_answer")) or ""
    return Asked(question, list(options), " ".join(said.partition("\n\n")[0].split()))


def solutions_of(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    """Each exercise's text, and the code of its solution."""
    task = ""
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "exercise" in tags:
            task = re.sub(r"^## .+\n+", "", cell.source, flags=re.MULTILINE).strip()
        elif "solution" in tags:
            yield task, cell.source.strip()
