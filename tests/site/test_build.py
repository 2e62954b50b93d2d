"""The site's parts that need no browser: a broken cell is named, and the reference has every public name."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import nbformat
import pytest

import kit
from kit.machine.about import About
from tools.executing import BrokenCell, copied, executed
from tools.site import reference
from tools.site.build import build
from tools.site.outputs import Outputs


def written(path: Path, *sources: str) -> Path:
    """A notebook of these cells."""
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in sources]), path)
    return path


def test_a_broken_cell_is_named_with_its_notebook(tmp_path: Path) -> None:
    path = written(tmp_path / "broken.ipynb", "fine = 1", "first = 2\nraise ValueError('no such lane')", "never = 3")
    with pytest.raises(BrokenCell, match=r"^broken\.ipynb, cell 2 \(first = 2\): ValueError: no such lane$"):
        executed(path)


def test_the_notebooks_run_on_a_copy(tmp_path: Path) -> None:
    path = written(
        tmp_path / "one.ipynb", "from pathlib import Path\nPath('left.txt').touch()\nPath('../data').is_dir()"
    )
    before = path.read_bytes()
    with copied([path]) as [copy]:
        notebook = executed(copy)
        assert (copy.parent / "left.txt").exists()
    assert notebook.cells[0].outputs[0].data["text/plain"] == "True"
    assert path.read_bytes() == before
    assert not copy.exists()


def test_an_unknown_output_stays_as_it_is() -> None:
    output = nbformat.v4.new_output("display_data", {"text/plain": "4", "text/html": "<b>4</b>"})
    empty = nbformat.v4.new_output("display_data", {"text/plain": ""})
    cell = nbformat.v4.new_code_cell("4", outputs=[output, empty])
    notebook = nbformat.v4.new_notebook(cells=[cell])
    Outputs("").replace(notebook)
    assert notebook.cells[0].outputs == [output]


def test_a_playground_keeps_its_code_and_its_controls_are_disabled(tmp_path: Path) -> None:
    notebook = executed(written(tmp_path / "play.ipynb", "import kit\nkit.playground()"))
    outputs = Outputs("needs Python")
    outputs.replace(notebook)
    shown = notebook.cells[0].outputs[0].data["text/html"]
    assert "'kit-live'" in shown
    assert "compare(" in shown.partition("'kit-live'")[2], "the code that Run would execute"
    assert "<button disabled>Run</button>" in shown
    assert "needs Python" in shown
    assert any("Copy as code" in script for script in outputs.scripts.values())


def test_a_page_says_where_its_numbers_were_measured(tmp_path: Path) -> None:
    about = About("2030-01-02T03:04+00:00", "", {"torch": "9.9"}, {"cpu": "Some CPU", "cores": 3})
    build({"mine": (nbformat.v4.new_notebook(), about)}, tmp_path / "site", "")
    page = (tmp_path / "site/notebooks/mine.html").read_text(encoding="utf-8")
    [origin] = re.findall(r'<p class="origin">(.*)', page)
    assert "2030-01-02 03:04 UTC on " in origin
    assert "Some CPU" in origin
    assert "The numbers were measured there" in origin
    assert "in JupyterLab the notebook measures on your machine." in origin


def test_every_link_between_documents_leads_to_a_heading(tmp_path: Path) -> None:
    build({}, tmp_path / "site", "")
    pages = {path: path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.html")}
    ids = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in pages.items()}
    links = [
        (path, link.partition("#"))
        for path, text in pages.items()
        for link in re.findall(r'<a\b[^>]*?\bhref="([^":]*#[^"]+)"', text)
    ]
    wrong = [
        f"{path.name}: {to}#{anchor}"
        for path, (to, _, anchor) in links
        if anchor not in ids[(path.parent / to).resolve() if to else path]
    ]
    assert len(links) > 20
    assert wrong == []


@pytest.mark.parametrize("name", reference.modules())
def test_the_reference_has_every_public_name(name: str) -> None:
    text = reference.module_page(name)
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == importlib.import_module(name).__all__
    assert text.count("```") % 2 == 0
    table = [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("| [")]
    assert [line.partition("(#")[2].partition(")")[0] for line in table] == importlib.import_module(name).__all__
    assert not any(line.endswith("|  |") for line in table), "each is described"


def test_a_docstring_becomes_markdown() -> None:
    def example(first: int, *, second: str | None = None) -> list[str]:
        """Do it, as :func:`~kit.trace.stack` with ``x < 1``.

        >>> example(1)
        []

        Args:
            first: a number
                on two lines.
            second: a text.
        """

    assert reference.signature(example, "kit.example") == (
        "kit.example(first: int, *, second: str | None = None) -> list[str]"
    )
    assert reference.described(example).splitlines() == [
        "Do it, as `stack` with `x < 1`.",
        "",
        "```python",
        ">>> example(1)",
        "[]",
        "```",
        "",
        "**Args**",
        "",
        "- `first`: a number",
        "  on two lines.",
        "- `second`: a text.",
    ]


def test_all_packages_with_public_names_are_in_the_reference() -> None:
    assert {"kit", "kit.trace", "kit.models"} <= set(reference.modules())
    assert "## compare\n" in reference.module_page("kit")
    assert kit.compare.__doc__ is not None
    assert kit.compare.__doc__.splitlines()[0] in reference.module_page("kit")
