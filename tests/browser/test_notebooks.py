"""The notebooks as a learner meets them: JupyterLab opens one, runs it to its end, and the timelines draw and move."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RUN_ALL = "() => window.jupyterapp.commands.execute('notebook:run-all-cells')"
STATES = """() => {
  const cells = window.jupyterapp.shell.currentWidget.content.model.cells;
  return Array.from({length: cells.length}, (_, i) => cells.get(i)).filter(cell => cell.type === 'code').map(cell => ({
    source: cell.sharedModel.getSource(),
    count: cell.executionCount,
    errors: cell.outputs.toJSON().filter(output => output.output_type === 'error').map(output => output.evalue),
  }));
}"""


READY = """path => {
  const open = window.jupyterapp?.shell.currentWidget;
  return open?.context?.path === path && open.sessionContext.session?.kernel?.status === 'idle';
}"""
# lane -> how many colours were drawn in its band: right of the lanes' names
COLOURS_PER_LANE = """canvas => {
  const lanes = JSON.parse(canvas.closest('.kit-timeline').dataset.lanes);
  const pen = canvas.getContext('2d'), scale = canvas.width / canvas.clientWidth;
  const count = lane => {
    const pixels = new Uint32Array(
      pen.getImageData(...[lane.left, lane.top, lane.width, lane.height].map(x => Math.round(x * scale))).data.buffer);
    return new Set(pixels).size;
  };
  return Object.fromEntries(lanes.map((lane, i) => [`${i} ${lane.label}`, count(lane)]));
}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A JupyterLab with the project's own settings on a copy of the notebooks; its address with the token."""
    folder = tmp_path_factory.mktemp("lab")
    for name in ("notebooks", "data"):
        shutil.copytree(ROOT / name, folder / name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    settings = folder / "settings"
    settings.mkdir()
    shutil.copy(ROOT / "tools" / "overrides.json", settings)
    options = [f"--port={port}", "--no-browser", "--ip=127.0.0.1", f"--IdentityProvider.token={token}"]
    options += [f"--LabApp.app_settings_dir={settings}", f"--LabApp.user_settings_dir={folder / 'user'}"]
    options += [
        f"--LabApp.workspaces_dir={folder / 'workspaces'}",
        "--LabApp.expose_app_in_browser=True",
        "--allow-root",
    ]
    environment = {**os.environ, "KIT_FAST": "1", "PYTHONPATH": str(ROOT)}
    log = (folder / "lab.log").open("w")
    command = [sys.executable, "-m", "jupyter", "lab", *options]
    server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/api?token={token}", timeout=1)
                break
            except OSError:
                assert server.poll() is None, (folder / "lab.log").read_text()
                time.sleep(0.5)
        else:
            pytest.fail("JupyterLab did not start:\n" + (folder / "lab.log").read_text())
        yield f"{address}/lab/tree/{{path}}?token={token}"
    finally:
        server.terminate()
        server.wait(20)
        log.close()


def open_and_run(chromium: Any, address: str, path: str) -> Any:
    """The page of a notebook of which every cell has run without an error."""
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.goto(address.format(path=path) + "&reset")  # without what earlier tests had open
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    page.wait_for_function(READY, arg=path, timeout=60_000)
    page.evaluate(RUN_ALL)
    # The command may return before the last cell has its number.
    page.wait_for_function(f"() => ({STATES})().every(cell => cell.count || cell.errors.length)", timeout=150_000)
    assert [cell for cell in page.evaluate(STATES) if cell["errors"]] == []
    return page


def show(page: Any, timeline: Any) -> Any:
    """The canvas of a timeline, in view and drawn: JupyterLab shifts its cells for a while after a scroll."""
    canvas = timeline.query_selector(".stage canvas")
    for _ in range(20):
        timeline.evaluate("root => root.scrollIntoView({block: 'start'})")
        page.wait_for_timeout(300)
        before, _wait, after = canvas.bounding_box(), page.wait_for_timeout(300), canvas.bounding_box()
        if before == after and 0 <= after["y"] < 500:
            return canvas
    raise AssertionError(f"the page never came to rest with the timeline in view: {after}")


@pytest.mark.parametrize("name", ["00_start_here", "01_two_stream", "02_processes"])
def test_runs_to_its_end_and_draws_every_lane(chromium: Any, lab: str, name: str, screenshots: Path) -> None:
    page = open_and_run(chromium, lab, f"notebooks/{name}.ipynb")
    page.wait_for_selector(".kit-timeline .stage canvas", timeout=30_000)
    timelines = page.query_selector_all(".kit-timeline")
    assert len(timelines) >= 3
    for i, timeline in enumerate(timelines):
        canvas = show(page, timeline)
        page.screenshot(path=screenshots / f"{name}-{i}.png")
        colours = canvas.evaluate(COLOURS_PER_LANE)
        assert colours, "a timeline without lanes"
        assert all(count > 1 for count in colours.values()), colours  # more than the lane's own background
    assert page.query_selector(".jp-Dialog, .Toastify__toast") is None  # no rebuild recommended, no news
    page.close()


def test_wheel_zooms_drag_pans_and_f_fits(chromium: Any, lab: str, screenshots: Path) -> None:
    page = open_and_run(chromium, lab, "notebooks/01_two_stream.ipynb")
    timeline = page.wait_for_selector(".kit-timeline", timeout=30_000)
    canvas = show(page, timeline)
    box = canvas.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + min(100, box["height"] / 2)  # what is below may be off the screen

    def picture() -> str:
        page.mouse.move(2, 2)  # no tooltip, no highlight
        page.wait_for_timeout(300)
        drawn: str = canvas.evaluate("canvas => canvas.toDataURL()")
        return drawn

    fitted = picture()
    page.mouse.move(*middle)
    page.mouse.wheel(0, -400)
    page.wait_for_timeout(300)
    zoomed = picture()
    page.screenshot(path=screenshots / "zoomed.png")
    assert zoomed != fitted
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 150, middle[1], steps=5)
    page.mouse.up()
    panned = picture()
    page.screenshot(path=screenshots / "zoomed-and-panned.png")
    assert panned not in (fitted, zoomed)
    timeline.focus()
    page.keyboard.press("f")
    assert picture() == fitted
    page.close()
