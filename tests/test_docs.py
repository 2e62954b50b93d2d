"""The pages for readers: links lead somewhere, and tables name every page, approach, notebook and file of data."""

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from kit.approaches import REGISTRY

ROOT = Path(__file__).parents[1]
FILES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "notebooks/README.md", ROOT / "data/README.md"]
FILES += [ROOT / "kit/views/vendor/README.md"]


def without_code(text: str) -> str:
    """The text of a page without its blocks of code, in which brackets are no links."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    """Where a page's links and pictures lead, other pages of this project only."""
    found = re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8")))
    return [link for link in found if not link.startswith(("https://", "http://"))]


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as a link has them."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", FILES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in links(ROOT / "README.md")}
    assert {*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")} - {ROOT / "README.md"} <= linked


def first_column(page: Path) -> str:
    """The first cells of all rows of a page's tables."""
    return "\n".join(re.findall(r"^\| (.+?) \|", page.read_text(encoding="utf-8"), flags=re.MULTILINE))


def test_every_approach_of_the_kit_is_in_the_table() -> None:
    named = set(re.findall(r"`(\w+)`", first_column(ROOT / "docs/approaches.md")))
    assert named == set(REGISTRY)


def test_every_notebook_is_in_both_tables() -> None:
    for notebook in ROOT.glob("notebooks/*.ipynb"):
        for page in (ROOT / "README.md", ROOT / "notebooks/README.md"):
            assert notebook.stem in first_column(page), f"{notebook.stem} has no row in {page.relative_to(ROOT)}"


def test_every_file_of_data_has_its_row() -> None:
    patterns = re.findall(r"`([^`]+)`", (ROOT / "data/README.md").read_text(encoding="utf-8"))
    for file in (ROOT / "data").glob("*/*"):
        name = file.relative_to(ROOT / "data").as_posix()
        assert any(fnmatch(name, pattern) for pattern in patterns), f"{name} has no row in data/README.md"


def test_the_first_screen_has_the_question_one_picture_the_commands_and_three_lines() -> None:
    screen = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## The notebooks\n")[0]
    assert len(screen.splitlines()) <= 50
    assert screen.index("?**") < screen.index("![") < screen.index("make lab") < screen.index("kit.compare(model")
    assert screen.count("![") == 1
