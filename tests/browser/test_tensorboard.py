"""TensorBoard in Chromium and in JupyterLab: its views are drawn without the web, and it ends with the kernel."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nbformat
import pytest

import kit
from kit.trace import Event, Lane, Trace
from tests.browser.pages import EVIL
from tools.lab import READY, RUN_ALL, lab

pytest.importorskip("torch_tb_profiler")
Error = pytest.importorskip("playwright.sync_api").Error

TRACE = """\
from kit.trace import Event, Lane, Trace
caller, worker = Lane(1, 1, "caller"), Lane(1, 2, "worker 0")
trace = Trace.build([
    Event("whole_call", "call", 0, 100_000, caller),
    Event("left_branch", "task", 5_000, 80_000, worker),
    Event("aten::conv2d", "cpu_op", 10_000, 60_000, worker),
])"""
TITLES = {"whole_call", "left_branch", "aten::conv2d"}
CELL = f"{TRACE}\nimport kit\nboard = kit.tensorboard(trace)\nboard"
# Kept from every canvas: the viewer draws the titles of events as text into one.
DRAWN = """
  window.drawn = [];
  const fill = CanvasRenderingContext2D.prototype.fillText;
  CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
    window.drawn.push(text);
    return fill.call(this, text, ...rest);
  };
"""
SAID = "This chart is drawn by Google Charts"


def made() -> Trace:
    """The trace of the cell, and an operator and a lane whose names must stay text."""
    names: dict[str, Any] = {}
    exec(TRACE, names)
    evil = [Event(EVIL, category, 70_000, 1_000, Lane(1, 3, EVIL)) for category in ("cpu_op", "task")]
    return Trace.build([*names["trace"].events(), *evil])


def opened(chromium: Any, url: str, web: Callable[[Any], None]) -> Any:
    """A page whose requests to other machines are given to ``web``; ``page.asked`` has their hosts."""
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.add_init_script(DRAWN)
    page.asked = []

    def answer(route: Any) -> None:
        host = urlsplit(route.request.url).hostname
        if host == "127.0.0.1":
            route.continue_()
        else:
            page.asked.append(host)
            web(route)

    page.route("**/*", answer)
    page.goto(url)
    return page


def frame_of(page: Any, name: str) -> Any:
    """The frame that shows this page of the plugin, as soon as there is one."""
    deadline = time.monotonic() + 60
    while not (found := [frame for frame in page.frames if urlsplit(frame.url).path.endswith(f"/{name}")]):
        assert time.monotonic() < deadline, [frame.url for frame in page.frames]
        page.wait_for_timeout(100)
    return found[0]


def see_the_trace(page: Any) -> None:
    viewer = frame_of(page, "trace_embedding.html")
    viewer.wait_for_function(f"() => {sorted(TITLES)}.every(title => window.drawn.includes(title))", timeout=60_000)
    assert viewer.evaluate("window.drawn.includes('caller') || document.body.textContent.includes('caller')")


# A firewall may refuse, or never answer.
@pytest.mark.parametrize("web", [lambda route: route.abort(), lambda route: None], ids=["refused", "silent"])
def test_trace_operators_and_overview_without_the_web(chromium: Any, screenshots: Path, web: Any) -> None:
    with kit.tensorboard({EVIL: made()}, progress=False) as board:
        page = opened(chromium, board.url, web)
        see_the_trace(page)
        page.screenshot(path=screenshots / "tensorboard-trace.png")
        plugin = frame_of(page, "index.html")

        def choose(view: str) -> None:
            plugin.locator("[aria-haspopup=listbox]").nth(1).click()
            plugin.locator("[role=option]").get_by_text(view, exact=True).click()

        choose("Operator")
        row = plugin.locator("tr", has_text="aten::conv2d")
        row.wait_for(timeout=30_000)
        assert "60" in row.inner_text()  # microseconds
        page.screenshot(path=screenshots / "tensorboard-operators.png")
        choose("Overview")
        plugin.get_by_text("Step Time Breakdown").wait_for(timeout=30_000)
        plugin.get_by_text(SAID).first.wait_for(timeout=30_000)
        assert {*page.asked} == {"www.gstatic.com"}
        assert not any(frame.evaluate("window.hacked") for frame in page.frames)
        page.close()


def test_in_jupyterlab_the_trace_is_drawn_and_all_ends_with_the_kernel(
    chromium: Any, tmp_path: Path, screenshots: Path
) -> None:
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(CELL), nbformat.v4.new_code_cell("print(board.url)")],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(notebook, tmp_path / "board.ipynb")
    with lab(tmp_path) as served:
        page = opened(chromium, served.url("board.ipynb"), lambda route: route.abort())
        page.wait_for_function(READY, arg="board.ipynb", timeout=60_000)
        page.evaluate(RUN_ALL)
        page.wait_for_selector("iframe[title=TensorBoard]", timeout=90_000)
        url = page.locator(".jp-OutputArea-output", has_text="http://127.0.0.1").last.inner_text().strip()
        assert page.get_attribute("iframe[title=TensorBoard]", "src") == url
        see_the_trace(page)
        page.locator("iframe[title=TensorBoard]").scroll_into_view_if_needed()
        page.screenshot(path=screenshots / "tensorboard-in-jupyterlab.png")
        page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        deadline = time.monotonic() + 20
        while chromium_reaches(page, url):
            assert time.monotonic() < deadline, "TensorBoard outlived its kernel"
            page.wait_for_timeout(200)
        page.close()


def chromium_reaches(page: Any, url: str) -> bool:
    try:
        page.context.request.get(url, timeout=5_000)
    except Error:  # refused
        return False
    return True
