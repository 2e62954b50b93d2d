"""The notebooks as a learner meets them: JupyterLab opens one, runs it to its end, and the timelines draw and move."""

from __future__ import annotations

import json
import os
import re
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tools.lab import READY, ROOT, RUN_ALL, Lab
from tools.lab import lab as start_lab

SOAK = os.environ.get("KIT_SOAK") == "1"
STATES = """() => {
  const cells = window.jupyterapp.shell.currentWidget.content.model.cells;
  return Array.from({length: cells.length}, (_, i) => cells.get(i)).filter(cell => cell.type === 'code').map(cell => ({
    source: cell.sharedModel.getSource(),
    count: cell.executionCount,
    errors: cell.outputs.toJSON().filter(output => output.output_type === 'error').map(output => output.evalue),
  }));
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
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One JupyterLab for all these tests, on a copy of the notebooks: to start it takes longer than most of them."""
    folder = tmp_path_factory.mktemp("lab")
    for name in ("notebooks", "data"):
        shutil.copytree(ROOT / name, folder / name)
    with start_lab(folder, KIT_FAST="1") as served:
        yield served


def written(path: Path, *sources: str) -> None:
    """A notebook of these cells."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in sources],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(notebook, path)


def open_and_run(chromium: Any, lab: Lab, path: str) -> Any:
    """The page of a notebook of which every cell has run without an error."""
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.goto(lab.url(path))
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
    page.wait_for_function("root => root.dataset.lanes", arg=timeline, timeout=30_000)  # written with the first drawing
    for _ in range(20):
        timeline.evaluate("root => root.scrollIntoView({block: 'start'})")
        page.wait_for_timeout(300)
        before, _wait, after = canvas.bounding_box(), page.wait_for_timeout(300), canvas.bounding_box()
        if before == after and 0 <= after["y"] < 500:
            return canvas
    raise AssertionError(f"the page never came to rest with the timeline in view: {after}")


PROCESSES = """\
import kit, torch
from kit import models
inputs = torch.rand(1, 3, 25, 25), torch.rand(1, 2, 25, 25)
kit.timeline(kit.compare(models.toy_two_stream(), inputs, ["sequential", "threads", "processes"], rounds=6))"""
# At least so many. nbval runs every notebook, and `make soak` a whole one with processes here.
TIMELINES = {"00_start_here": 3, "lanes_of_processes": 1, **({"02_processes": 3} if SOAK else {})}


@pytest.mark.parametrize("name", TIMELINES)
def test_runs_to_its_end_and_draws_every_lane(chromium: Any, lab: Lab, name: str, screenshots: Path) -> None:
    written(lab.folder / "notebooks" / "lanes_of_processes.ipynb", PROCESSES)
    page = open_and_run(chromium, lab, f"notebooks/{name}.ipynb")
    page.wait_for_selector(".kit-timeline .stage canvas", timeout=30_000)
    timelines = page.query_selector_all(".kit-timeline")
    assert len(timelines) >= TIMELINES[name]
    for i, timeline in enumerate(timelines):
        canvas = show(page, timeline)
        page.screenshot(path=screenshots / f"{name}-{i}.png")
        colours = canvas.evaluate(COLOURS_PER_LANE)
        assert colours, "a timeline without lanes"
        assert all(count > 1 for count in colours.values()), colours  # more than the lane's own background
    assert page.query_selector(".jp-Dialog, .Toastify__toast") is None  # no rebuild recommended, no news
    page.close()


STREAMS = """\
import kit, torch
from kit import models
kit.timeline(kit.record(models.toy_two_stream(), (torch.rand(1, 3, 25, 25), torch.rand(1, 2, 25, 25)), "threads"))"""


def test_wheel_zooms_drag_pans_and_f_fits(chromium: Any, lab: Lab, screenshots: Path) -> None:
    written(lab.folder / "gestures.ipynb", STREAMS)
    page = open_and_run(chromium, lab, "gestures.ipynb")
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


@pytest.mark.parametrize(
    ("lab_of", "before", "after"),
    [
        ("continual", "Receptive field 3, delay 2", "Receptive field 4, delay 3"),
        ("gpu", "Simulated, not measured: a GPU of 132 SMs", "Simulated, not measured: a GPU of 133 SMs"),
    ],
)
def test_a_key_on_a_slider_changes_what_the_explorer_says(
    chromium: Any, lab: Lab, lab_of: str, before: str, after: str
) -> None:
    written(lab.folder / f"explorer_{lab_of}.ipynb", f"from kit import labs\nlabs.{lab_of}.Explorer()")
    page = open_and_run(chromium, lab, f"explorer_{lab_of}.ipynb")
    said = page.wait_for_selector(f"text={before}", timeout=30_000)
    page.focus(".widget-slider [role=slider]")  # the first one
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(f"text={after}", timeout=30_000)
    assert not said.is_visible()
    page.close()


LIVE = """\
from kit.models import trained_two_stream
from kit.views.live import Live
from kit.workloads import live
Live(lambda: live.pipeline(trained_two_stream(), live=True), lambda: live.paced(live.frames(live.CLIP), 10))"""
GRID = """\
from kit.views.grid import Grid
from kit.workloads import opencv_dnn
Grid(lambda items: opencv_dnn.sleep_control(items, 0.001), approaches=["threads"])"""


def test_the_live_view_plays_and_stops_and_the_grid_measures_again(chromium: Any, lab: Lab, screenshots: Path) -> None:
    written(lab.folder / "react.ipynb", GRID, LIVE)
    page = open_and_run(chromium, lab, "react.ipynb")
    start = page.get_by_role("button", name="Start", exact=True)
    start.wait_for(timeout=30_000)
    picture = page.locator("img.widget-image").first
    empty = picture.get_attribute("src")
    start.click()
    changed = "old => document.querySelector('img.widget-image').src !== old"
    page.wait_for_function(changed, arg=empty, timeout=30_000)
    page.screenshot(path=screenshots / "live.png")
    page.get_by_role("button", name="Stop", exact=True).click()
    start.wait_for(timeout=10_000)
    table = page.locator("table", has_text="workers").first
    before = table.inner_text()
    page.locator("select", has_text="16").select_option("8")
    # On a busy machine no cell is marked as the best.
    again = (
        "old => [...document.querySelectorAll('table')].some(t => /workers/.test(t.innerText) && t.innerText !== old)"
    )
    page.wait_for_function(again, arg=before, timeout=60_000)
    page.close()


MANY = """\
import kit
from kit.trace import Event, Lane, Trace
busy = [Event(f"op {i % 7}", "cpu_op", i * 1000, 900, Lane(1, 1, "busy")) for i in range(30_000)]
late = [Event("late", "task", 29_000_000, 1_000_000, Lane(1, 2, "late"))]
kit.timeline(Trace.build([*busy, *late]))"""


def end_kernels(lab: Lab) -> None:
    """End every kernel of the server: what is opened next gets one in which nothing has run."""
    api, token = f"http://127.0.0.1:{lab.port}/api/sessions", {"Authorization": f"token {lab.token}"}
    with urllib.request.urlopen(urllib.request.Request(api, headers=token), timeout=20) as answer:
        sessions = json.load(answer)
    for session in sessions:
        request = urllib.request.Request(f"{api}/{session['id']}", method="DELETE", headers=token)
        urllib.request.urlopen(request, timeout=20).close()


def test_a_saved_notebook_draws_its_copy_when_its_kernel_is_gone(chromium: Any, lab: Lab, screenshots: Path) -> None:
    path = lab.folder / "many.ipynb"
    written(path, MANY)
    page = open_and_run(chromium, lab, "many.ipynb")
    page.wait_for_selector(".kit-timeline[data-events='30001']", timeout=30_000)  # all of them, from the kernel
    page.wait_for_timeout(1000)  # the widgets' state reaches the notebook's model a little after the widget
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty", timeout=30_000)
    page.close()
    saved = path.read_text()
    assert len(saved) < 400_000
    assert json.loads(saved)["metadata"]["widgets"]
    end_kernels(lab)
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.goto(lab.url("many.ipynb"))
    timeline = page.wait_for_selector(".kit-timeline", timeout=60_000)
    assert 1000 < int(timeline.get_attribute("data-events")) < 30_001
    assert "30,001 events: the thinned copy" in timeline.text_content()
    canvas = show(page, timeline)
    assert all(count > 1 for count in canvas.evaluate(COLOURS_PER_LANE).values())
    page.screenshot(path=screenshots / "saved-notebook.png")
    pictures = [canvas.evaluate("canvas => canvas.toDataURL()")]
    timeline.query_selector(".stage").focus()
    for key in "wdf":
        page.keyboard.press(key)
        page.wait_for_timeout(300)
        pictures.append(canvas.evaluate("canvas => canvas.toDataURL()"))
    assert len(set(pictures[:3])) == 3  # zoomed, panned
    assert pictures[3] == pictures[0]
    page.close()


GRAPH = """\
import kit, torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(3, 64, 5, padding=2)
    def forward(self, x):
        return torch.cat([self.left(x), self.right(x)], 1)
torch.manual_seed(0)
model, x = Net().eval(), torch.randn(1, 3, 64, 64)
kit.graph_picture(kit.graph(model, x))"""
TASKS = """kit.timeline(kit.record(model, x, "threads(workers=2)", operators=False))"""
BOTH = """\
from IPython.display import display
display(kit.graph_picture(kit.graph(model, x)), kit.timeline(kit.record(model, x, "threads", operators=False)))"""


def test_a_branch_is_marked_in_all_pictures_of_a_notebook(chromium: Any, lab: Lab, screenshots: Path) -> None:
    """Of two cells, and of one output."""
    written(lab.folder / "marks.ipynb", GRAPH, TASKS, BOTH)
    page = open_and_run(chromium, lab, "marks.ipynb")
    page.set_viewport_size({"width": 1280, "height": 1700})  # all of them in view
    page.wait_for_function("() => document.querySelectorAll('.kit-timeline, .kit-graph').length === 4", timeout=30_000)
    timelines, graphs = page.query_selector_all(".kit-timeline"), page.query_selector_all(".kit-graph")
    canvases = [show(page, timeline) for timeline in timelines]
    right = [graph.query_selector(".box[data-path$='right']") for graph in graphs]

    def pictures() -> list[str]:
        page.wait_for_timeout(500)
        return [canvas.evaluate("canvas => canvas.toDataURL()") for canvas in canvases]

    def marked() -> list[list[str]]:
        paths = "graph => [...graph.querySelectorAll('.box.same')].map(box => box.dataset.path)"
        return [graph.evaluate(paths) for graph in graphs]

    page.mouse.move(2, 2)
    plain = pictures()
    right[0].hover()
    page.screenshot(path=screenshots / "marked-in-notebook.png")
    hovered = pictures()
    assert all(now != before for now, before in zip(hovered, plain, strict=True))
    page.mouse.move(2, 2)
    assert pictures() == plain
    right[0].click()
    page.mouse.move(2, 2)
    assert pictures() == hovered  # it is selected, and the keys go there
    for i, timeline in enumerate(timelines):
        timeline.query_selector(".stage").focus()
        for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowRight"):
            if not any(marked()):
                page.keyboard.press(key)
                page.wait_for_timeout(200)
        assert marked()[0] == marked()[1] != [], i
        graphs[0].query_selector("button").focus()
        assert marked() == [[], []]
    page.close()


QUIZ = """\
from kit.views.quiz import Quiz
asked = Quiz("Which one is faster?", ["threads", "sequential"])
asked"""


def test_run_all_does_not_give_the_answer_of_a_quiz_away_and_keys_pick_one(
    chromium: Any, lab: Lab, screenshots: Path
) -> None:
    another = "other = Quiz('Which one is slower?', ['threads', 'sequential'])\nother.reveal('sequential')\nother"
    written(lab.folder / "quiz.ipynb", QUIZ, "asked.reveal('threads')", another)
    page = open_and_run(chromium, lab, "quiz.ipynb")
    button = page.locator(".jp-Cell").first.get_by_role("button", name="Show the answer without a guess")
    button.wait_for(timeout=30_000)
    page.screenshot(path=screenshots / "quiz.png")
    assert button.bounding_box()["width"] < 400  # as wide as its words, not as the page
    assert page.locator("text=Measured: threads").count() == 0
    button.click()
    page.wait_for_selector("text=Measured: threads (no guess made).", timeout=30_000)
    assert not button.is_visible()
    cells = page.locator(".jp-Cell").count()
    page.locator(".kit-controls input:enabled").first.focus()
    page.keyboard.press("b")  # JupyterLab's command for a new cell below
    page.keyboard.press("Space")
    page.wait_for_selector("text=Measured: sequential. You predicted: threads. Why the difference?", timeout=30_000)
    assert page.locator(".jp-Cell").count() == cells
    page.close()


OWN = """\
import kit, torch
kit.playground()"""


def test_the_playground_by_keys_alone_runs_stops_and_gives_its_code(chromium: Any, lab: Lab, screenshots: Path) -> None:
    written(lab.folder / "playing.ipynb", OWN)
    page = open_and_run(chromium, lab, "playing.ipynb")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    run, stop = (page.get_by_role("button", name=name, exact=True) for name in ("Run", "Stop"))
    run.wait_for(timeout=30_000)
    assert page.get_by_text("Nothing has been measured yet.").is_visible()
    focused = "() => (document.activeElement.labels?.[0] ?? document.activeElement).textContent.trim()"

    def tab_to(name: str) -> None:
        for _ in range(40):
            if page.evaluate(focused) == name:
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"Tab never came to {name}; the focus is on {page.evaluate(focused)[:80]!r}")

    page.get_by_label("model", exact=True).focus()
    page.keyboard.press("ArrowDown")  # the key is the list's, and moves to no other cell
    assert page.get_by_label("model", exact=True).input_value() == "two streams, toy"
    tab_to("processes")
    page.keyboard.press("Space")
    tab_to("others")
    page.keyboard.type("threads(workers=2)")  # no letter is a command of JupyterLab
    tab_to("rounds")
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("1000")
    tab_to("Run")
    page.keyboard.press("Enter")
    stop.wait_for(timeout=30_000)
    page.get_by_text(re.compile(r"rounds \d+ of 1000")).wait_for(timeout=120_000)
    page.screenshot(path=screenshots / "playground-runs.png")
    assert page.evaluate(focused) == "Stop"  # where the focus was
    page.keyboard.press("Enter")
    page.get_by_text("Stopped.").wait_for(timeout=60_000)
    run.wait_for()
    assert page.locator("table", has_text="verdict").count() == 0
    page.get_by_label("rounds", exact=True).fill("6")
    tab_to("Run")
    page.keyboard.press("Space")
    page.get_by_text("Measured:").wait_for(timeout=120_000)
    table = page.locator("table", has_text="verdict")
    assert all(name in table.inner_text() for name in ("sequential", "processes", "threads(workers=2)"))
    tab_to("Copy as code")
    page.keyboard.press("Enter")
    page.get_by_text("Copied: paste it into a new cell.").wait_for(timeout=30_000)
    code = page.evaluate("() => navigator.clipboard.readText()")
    assert code == page.get_by_label("Code of a cell that measures the same").input_value()
    assert '["sequential", "threads", "processes", "threads(workers=2)"],\n    rounds=6,' in code
    show(page, page.wait_for_selector(".kit-timeline", timeout=30_000))
    assert page.get_by_role("heading", name="Explanation").count() == 1
    page.screenshot(path=screenshots / "playground.png")
    page.evaluate(RUN_ALL)  # the cell runs again
    page.wait_for_function(f"() => ({STATES})().every(cell => cell.count === 2)", timeout=60_000)
    page.get_by_role("heading", name="Explanation").wait_for(timeout=30_000)
    assert page.get_by_label("others", exact=True).input_value() == "threads(workers=2)"
    assert [cell for cell in page.evaluate(STATES) if cell["errors"]] == []
    page.close()
