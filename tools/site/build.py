"""The site from executed notebooks, the documents of the repository, and the docstrings."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import plotly
from nbformat import NotebookNode

from kit.machine.about import About, about_here
from kit.views.page import ALONE
from tools.lab import ROOT
from tools.site import reference, search
from tools.site.outputs import Outputs
from tools.site.pages import HERE, Page, body_of, body_of_text, code_css, write

DOCUMENTS = ("README.md", "docs/*.md", "notebooks/README.md", "data/README.md", "CONTRIBUTING.md", "CHANGELOG.md")
SHORT = {"README.md": "The manual", "notebooks/README.md": "Teaching with the notebooks", "data/README.md": "The data"}
FIRST = "00_start_here"  # whose first comparison stands on the first page
MEASURED_THERE = (
    "The numbers were measured there, unless they are marked as recorded or simulated; in JupyterLab the notebook "
    "measures on your machine."
)


def repository() -> str:
    """``owner/name`` on GitHub: of the workflow that runs this, or of the clone; empty where neither says."""
    if name := os.environ.get("GITHUB_REPOSITORY"):
        return name
    command = ["git", "-C", str(ROOT), "remote", "get-url", "origin"]
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?\s*$", done.stdout)
    return found[1] if found else ""


def build(notebooks: Mapping[str, tuple[NotebookNode, About]], folder: Path, repo: str) -> None:
    """Write the site.

    Args:
        notebooks: name -> executed notebook, and when and where it ran.
        folder: to write to; what is there is removed.
        repo: ``owner/name`` on GitHub, for links to Binder and to the source; empty if there is none.
    """
    binder = f"https://mybinder.org/v2/gh/{repo}/HEAD" if repo else ""
    outputs = Outputs(_needs_python(binder))
    shutil.rmtree(folder, ignore_errors=True)
    pages = {name: _notebook(name, *made, outputs) for name, made in notebooks.items()}
    menu = {
        "Start": [_start(pages, notebooks, repo, binder)],
        "Notebooks": list(pages.values()),
        "Documents": [_document(path) for pattern in DOCUMENTS for path in sorted(ROOT.glob(pattern))],
        "API reference": [_api(name, text) for name, text in reference.pages().items()],
    }
    built = f"Built {datetime.now(UTC):%Y-%m-%d} with {_versions(about_here())}"
    write(folder, menu, built=built, repository=repo, binder=binder)
    static = folder / "static"
    shutil.copytree(HERE / "static", static)
    (static / "code.css").write_text(code_css(), encoding="utf-8")
    (static / "site.js").write_text(f"{ALONE}\n{(HERE / 'static/site.js').read_text('utf-8')}", encoding="utf-8")
    for name, source in outputs.scripts.items():
        (static / f"{name}.js").write_text(f'kitViews["{name}"] = (() => {{\n{source}\n}})();\n', encoding="utf-8")
    shutil.copy(Path(plotly.__file__).parent / "package_data/plotly.min.js", static)
    search.write(static, menu)
    for picture in ROOT.glob("docs/*.png"):
        (folder / "docs").mkdir(exist_ok=True)
        shutil.copy(picture, folder / "docs")
    (folder / ".nojekyll").touch()  # GitHub Pages serves the files as they are


def _notebook(name: str, notebook: NotebookNode, about: About, outputs: Outputs) -> Page:
    outputs.replace(notebook)
    ran = "A short version, with few rounds, ran" if os.environ.get("KIT_FAST") == "1" else "Ran"
    when = about.date.replace("T", " ").replace("+00:00", " UTC")
    origin = f"{ran} {when} on {_machine(about)}, with {_versions(about)}. {MEASURED_THERE}"
    return Page(f"notebooks/{name}.html", body_of(notebook), f"notebooks/{name}.ipynb", origin, name.replace("_", " "))


def _start(
    pages: Mapping[str, Page], notebooks: Mapping[str, tuple[NotebookNode, About]], repo: str, binder: str
) -> Page:
    """The first page, with one comparison's timeline and the table of notebooks."""
    text = (HERE / "start.md").read_text(encoding="utf-8")
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## The notebooks\n")[2].partition("\n## ")[0]
    first = f"{binder}?urlpath=lab/tree/notebooks/{FIRST}.ipynb"
    filled = {
        "<!-- notebooks -->": "\n".join(line for line in table.splitlines() if line.startswith("|")),
        "<!-- binder -->": f"**In the browser**: [the first notebook in Binder]({first}), which starts in minutes.",
        "<!-- clone -->": f"git clone https://github.com/{repo} && cd {repo.rpartition('/')[2]}",
    }
    for mark, words in filled.items():
        text = text.replace(mark, words if repo or mark == "<!-- notebooks -->" else "")
    shown = f"{_comparison(notebooks[FIRST][0])}<p class='origin'>{pages[FIRST].origin}</p>" if FIRST in pages else ""
    body = body_of_text(text).replace("<!-- picture -->", shown)
    return Page("index.html", body, "start.md", short="What it answers")


def _comparison(notebook: NotebookNode) -> str:
    """The last live timeline of a comparison, and what the notebook says of it; nothing if there is none.

    Args:
        notebook: executed, with its outputs replaced.
    """
    data = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ())]
    live = [i for i, each in enumerate(data) if "kit-live" in (html := each.get("text/html", "")) and '"said":' in html]
    if not live:
        return ""
    said = next((each["text/markdown"] for each in data[live[-1] :] if "text/markdown" in each), "")
    return f"{data[live[-1]]['text/html']}{body_of_text(said)}"


def _document(path: Path) -> Page:
    source = path.relative_to(ROOT).as_posix()
    body = body_of_text(path.read_text(encoding="utf-8"))
    return Page(source.replace(".md", ".html"), body, source, short=SHORT.get(source, ""))


def _api(name: str, text: str) -> Page:
    return Page(f"api/{name}.html", body_of_text(text), f"api/{name}.md")


def _needs_python(binder: str) -> str:
    where = f"<a href='{binder}'>open the notebooks in Binder</a>, or run them" if binder else "run the notebook"
    return f"This needs Python: {where} on your machine."


def _machine(about: About) -> str:
    return str(About(machine=about.machine))


def _versions(about: About) -> str:
    return str(About(versions=about.versions))
