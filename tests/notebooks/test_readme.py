"""The run of show names the sections of the notebooks as the notebooks do."""

import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
STEP = r"\| (\d\d), sections? (\d+)(?: to (\d+))? \((.+?)\)"  # | 01, sections 1 to 3 (name; name; name)
STEPS = re.findall(STEP, (NOTEBOOKS / "README.md").read_text(encoding="utf-8"))


def sections(number: str) -> list[str]:
    """The numbered headings of a notebook, without their numbers."""
    (path,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
    text = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
    return re.findall(r"^## \d+\. (.+)$", text, flags=re.MULTILINE)


def test_the_first_two_notebooks_are_shown_whole() -> None:
    shown = {(notebook, i) for notebook, first, last, _ in STEPS for i in range(int(first), int(last or first) + 1)}
    for notebook, last in (("00", 3), ("01", 7)):
        assert {(notebook, i) for i in range(1, last + 1)} <= shown


@pytest.mark.parametrize(("notebook", "first", "last", "names"), STEPS)
def test_a_step_names_its_sections_rightly(notebook: str, first: str, last: str, names: str) -> None:
    wanted = sections(notebook)[int(first) - 1 : int(last or first)]
    assert names.lower().split("; ") == [name.lower() for name in wanted]
