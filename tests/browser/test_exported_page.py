"""A notebook that was executed without a browser and exported: one page, without a network, which keeps the answers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tools.lab import ROOT

CELLS = (
    "import kit, torch\n"
    "from kit import models\n"
    "block = models.toy_two_stream()\n"
    "inputs = torch.rand(1, 3, 25, 25), torch.rand(1, 2, 25, 25)\n"
    "quiz = kit.Quiz('Which is <faster>?', ['threads', 'neither'])\n"
    "quiz",
    "comparison = kit.compare(block, inputs, ['sequential', 'threads'], rounds=8)\n"
    "quiz.reveal('neither')\n"
    "kit.timeline(comparison)",
    "kit.comparison_chart(comparison)",
    "kit.waterfall(kit.explain(comparison, 'threads'))",
    "from kit.views.grid import Grid\n"
    "from kit.workloads import opencv_dnn\n"
    "Grid(lambda items: opencv_dnn.sleep_control(items, 0.001), approaches=['threads'], workers=[1, 2], threads=[1])",
    "from kit import labs\nlabs.continual.Explorer()",
    "from kit.simulating import Launch, Synchronize\n"
    "labs.badged({'a kernel': kit.simulate([Launch('k', 1, 1000), Synchronize()])})",
)
SOLUTION = "answer = 6 * 7"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, made by the settings that `make lab` installs."""
    folder = tmp_path_factory.mktemp("export")
    config = folder / "jupyter"
    (config / "nbconvert" / "templates").mkdir(parents=True)
    shutil.copy(ROOT / "tools/nbconvert/config.json", config / "jupyter_nbconvert_config.json")
    shutil.copytree(ROOT / "tools/nbconvert/branch_lab", config / "nbconvert/templates/branch_lab")
    hidden = nbformat.v4.new_code_cell(SOLUTION, metadata={"tags": ["solution"], "jupyter": {"source_hidden": True}})
    cells = [nbformat.v4.new_markdown_cell("# A title"), *map(nbformat.v4.new_code_cell, CELLS), hidden]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "answers.ipynb")
    command = [sys.executable, "-m", "jupyter", "nbconvert", "--execute", "--to", "html", "answers.ipynb"]
    places = {"JUPYTER_CONFIG_DIR": str(config), "JUPYTER_PATH": str(config), "PYTHONPATH": str(ROOT)}
    environment = {**os.environ, "KIT_FAST": "1", **places}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "answers.html"


def test_the_page_asks_no_host_and_shows_every_figure_and_answer(chromium: Any, page: Path, screenshots: Path) -> None:
    browser = chromium.new_context(offline=True, viewport={"width": 1280, "height": 900})
    shown, asked, faults = browser.new_page(), [], []
    shown.on("request", lambda request: asked.append(request.url))
    shown.on("pageerror", lambda error: faults.append(str(error)))
    shown.goto(page.as_uri())
    shown.wait_for_load_state("networkidle")
    shown.screenshot(path=screenshots / "exported.png", full_page=True)
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert faults == []
    pictures = shown.query_selector_all(".jp-RenderedSVG img")
    assert [picture.get_attribute("alt").partition("(")[0] for picture in pictures] == ["Timeline", "Chart", "Chart"]
    assert all(picture.evaluate("img => img.complete && img.naturalWidth > 100") for picture in pictures)
    drawn = [b64decode(picture.get_attribute("src").partition(",")[2]).decode() for picture in pictures]
    assert "as fast as sequential" in drawn[1]
    assert "measured" in drawn[2]
    text = shown.inner_text("body")
    for said in (
        "Which is <faster>?",
        "The answer",  # folded away
        "1 OpenCV thread each",  # the grid
        "Receptive field 3, delay 2",  # the explorer
        "Simulated, not measured: a GPU of 132 SMs",  # the badge
        "a kernel (simulated)",  # the timeline under it
    ):
        assert said in text, said
    assert not shown.get_by_text(SOLUTION).is_visible()
    shown.get_by_text("Solution", exact=True).click()
    assert shown.get_by_text("answer").first.is_visible()
    browser.close()
