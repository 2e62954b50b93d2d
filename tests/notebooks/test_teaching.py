"""What a teacher gets is of the notebooks as they are now: the answer key, the handout, the times, the syllabus."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import nbformat
import pytest

from kit.machine import doctor, hardware
from tools.lab import ROOT
from tools.teaching import answers, handout, times
from tools.walk import WALKED, sections_of

README = times.README.read_text(encoding="utf-8")
AGAIN = "run python -m tools.teaching"


def test_the_answer_key_is_that_of_the_notebooks() -> None:
    assert (ROOT / "docs" / "answers.md").read_text(encoding="utf-8") == answers.key(), AGAIN


def test_the_handout_is_what_the_kit_draws() -> None:
    assert (ROOT / "docs" / "handout.html").read_text(encoding="utf-8") == handout.page(), AGAIN


def test_the_table_of_times_is_of_what_was_walked_through() -> None:
    assert times.renewed(README) == README, AGAIN


@pytest.mark.parametrize("path", sorted(answers.NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_quiz_and_every_solution_is_in_the_key(path: answers.Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    source = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    quizzes = list(answers.quizzes_of(notebook))
    assert len(quizzes) == len(re.findall(r"\.quiz\(", source))
    assert all(asked.question and len(asked.options) > 1 and asked.decided_by for asked in quizzes)
    solved = list(answers.solutions_of(notebook))
    assert len(solved) == sum("exercise" in cell.metadata.get("tags", []) for cell in notebook.cells)
    assert all(task.startswith("### Exercise") and "check_" in code for task, code in solved)


def test_a_quiz_that_is_made_in_another_way_is_no_silent_gap() -> None:
    cell = nbformat.v4.new_code_cell("asked = other.quiz('one')")
    with pytest.raises(ValueError, match="'one'"):
        list(answers.quizzes_of(nbformat.v4.new_notebook(cells=[cell])))


def test_the_seconds_of_a_section_are_those_of_its_cells() -> None:
    v4 = nbformat.v4

    def ran(seconds: float) -> nbformat.NotebookNode:
        end = f"2026-01-01T00:00:{seconds:09.6f}Z"
        at = {"iopub.execute_input": "2026-01-01T00:00:00.000000Z", "shell.execute_reply": end}
        return v4.new_code_cell("", metadata={"execution": at})

    cells = [ran(1), v4.new_markdown_cell("## 1. One"), ran(2), ran(0.5), v4.new_markdown_cell("## 2. Two"), ran(4)]
    cells += [v4.new_markdown_cell("## Where to go"), v4.new_markdown_cell("## 3. Three")]
    found = sections_of(v4.new_notebook(cells=cells))
    assert found == {"1. One": 3.5, "2. Two": 4.0, "3. Three": 0.0}


def test_what_was_walked_through_says_when_where_and_beside_what() -> None:
    for name, walk in json.loads(WALKED.read_text(encoding="utf-8")).items():
        assert walk.keys() == {"date", "machine", "load average before", "seconds"}, name


# The syllabus --------------------------------------------------------------------------------------------------------

ROW = re.compile(r"^\| (\d\d):(\d\d) \| (.+?) \|", re.MULTILINE)


def plan(title: str) -> list[tuple[timedelta, str]]:
    """The rows of a day: when, what."""
    section = README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return [(timedelta(hours=int(h), minutes=int(m)), what) for h, m, what in ROW.findall(section)]


@pytest.mark.parametrize(("title", "least"), [("Half a day", 6), ("A full day", 10)])
def test_a_day_gives_each_notebook_the_minutes_of_its_card(title: str, least: int) -> None:
    rows, known = plan(title), {path.stem: path for path in answers.NOTEBOOKS.glob("*.ipynb")}
    given = {}
    for (begin, what), (end, _) in pairwise(rows):
        name = re.split(r"[:, ]", what)[0]
        if name in known:
            given[name] = (end - begin).total_seconds() / 60
    assert len(given) > least
    assert given == {name: int(times.card(known[name], "Minutes").partition(":")[0]) for name in given}
    assert rows[-1][1] == "end"


def test_what_doctor_finds_wrong_has_a_row_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    table = README.partition("\n## Recovery, by what `doctor` says\n")[2].partition("\n## ")[0]
    keys = [key.split(" ... ") for key in re.findall(r"^\| `(.+?)` \| .+ \|$", table, re.MULTILINE)]
    here = replace(hardware.detect(), cores=4, affinity=4, memory_bytes=2**34, shm_bytes=2**34)
    ill = [
        replace(here, packages={}),
        replace(here, cores=1),
        replace(here, cores=2, affinity=8),
        replace(here, memory_bytes=2**30),
        replace(here, memory_bytes=None),
        replace(here, shm_bytes=2**26),
        replace(here, cxx=None),
        replace(here, cxx="g++", python_headers=False),
        replace(here, gpus=(), nvidia_device=True),
    ]
    found = [str(each) for one in ill for each in doctor.checks(one, 9.0) if each.status != "OK"]
    without = [line for line in found if not any(all(part in line for part in key) for key in keys)]
    assert without == []
    unused = [key for key in keys if not any(all(part in line for part in key) for line in found)]
    assert unused == []
