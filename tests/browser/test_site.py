"""The site as a reader meets it: no host is asked, pictures are live, quizzes answer, and it fits a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from kit.machine.about import about_here
from tools.executing import executed
from tools.site.build import FIRST, build

TITLE = "# Start here\n\nA page with one formula-free sentence."
COMPARED = """\
import kit, torch
from kit import models
block, inputs = models.toy_two_stream(), (torch.rand(1, 3, 25, 25), torch.rand(1, 2, 25, 25))
comparison = kit.compare(block, inputs, ["sequential", "threads"], rounds=8, progress=False)
kit.timeline(comparison)"""
ASKED = """\
quiz = kit.Quiz("Which is <faster>?", ["threads", "neither"])
quiz"""
OTHERS = (
    "quiz.reveal('neither')\nkit.comparison_chart(comparison)",
    "kit.graph_picture(kit.graph(block, inputs))",
    "from kit import labs\nlabs.continual.Explorer()",
    "clip = kit.clips.generate(frames=5, height=64, width=64)\nkit.clip_player(clip.frames, clip.flow)",
    "import numpy as np\nnp.arange(4000).reshape(20, 200)",
    "from IPython.display import HTML\nHTML('<iframe src=\"http://127.0.0.1:9/\"></iframe>')",
)
HIDDEN = {"tags": ["solution"], "jupyter": {"source_hidden": True}}
# More than one colour in a picture that was drawn.
COLOURS = """canvas => new Set(new Uint32Array(
  canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of one notebook, under the name whose comparison stands on the first page."""
    folder = tmp_path_factory.mktemp("site")
    new = nbformat.v4
    cells = [new.new_markdown_cell(TITLE), *map(new.new_code_cell, (COMPARED, ASKED, *OTHERS))]
    cells += [new.new_markdown_cell("## The end\n\nBack to [the manual](../README.md).")]
    cells += [new.new_code_cell("answer = 6 * 7", metadata=HIDDEN)]
    path = folder / f"{FIRST}.ipynb"
    nbformat.write(new.new_notebook(cells=cells), path)
    build({FIRST: (executed(path), about_here())}, folder / "site", "somebody/branch-lab")
    return folder / "site"


@pytest.fixture
def reader(chromium: Any, site: Path) -> Iterator[Any]:
    """Opens pages of the site without a network; at the end nothing but files was asked for, and nothing failed."""
    asked: list[str] = []
    faults: list[str] = []
    contexts = []

    def answer(route: Any) -> None:
        url = route.request.url
        if url.startswith("file:"):
            route.continue_()
        else:
            asked.append(url)
            route.abort()

    def page(place: str, *, width: int = 1280, colours: str = "light") -> Any:
        context = chromium.new_context(
            offline=True, viewport={"width": width, "height": 844}, color_scheme=colours, service_workers="block"
        )
        contexts.append(context)
        context.route("**/*", answer)
        shown = context.new_page()
        shown.on("pageerror", lambda error: faults.append(str(error)))
        shown.on("requestfailed", lambda request: faults.append(f"{request.url}: {request.failure}"))
        shown.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
        shown.goto((site / place).as_uri())
        return shown

    yield page
    for context in contexts:
        context.close()
    assert asked == []
    assert faults == []


NOTEBOOK = f"notebooks/{FIRST}.html"


def test_timelines_graphs_and_charts_are_live(reader: Any, screenshots: Path) -> None:
    page = reader(NOTEBOOK)
    page.wait_for_function("() => document.querySelector('.kit-timeline')?.dataset.lanes", timeout=30_000)
    canvas = page.query_selector(".kit-timeline .stage canvas")
    assert canvas.evaluate(COLOURS) > 5
    before = canvas.evaluate("canvas => canvas.toDataURL()")
    page.focus(".kit-timeline .stage")
    page.keyboard.press("w")  # zooms in
    page.wait_for_timeout(500)
    assert canvas.evaluate("canvas => canvas.toDataURL()") != before
    boxes = "() => document.querySelectorAll('.kit-graph .box').length"
    page.wait_for_function(f"() => ({boxes})() > 1")
    closed = page.evaluate(boxes)
    page.locator(".kit-graph .box[data-path$='streams']").first.dblclick(position={"x": 20, "y": 8})
    page.wait_for_function(f"before => ({boxes})() !== before", arg=closed)
    page.locator(".kit-chart").scroll_into_view_if_needed()
    page.wait_for_selector(".kit-chart .main-svg .point", timeout=30_000)
    page.screenshot(path=screenshots / "site.png", full_page=True)


def test_a_quiz_answers_and_what_needs_python_says_so(reader: Any) -> None:
    page = reader(NOTEBOOK)
    quiz = page.locator(".kit-quiz")
    assert "Which is <faster>?" in quiz.inner_text()
    assert "You predicted" not in page.inner_text("main")
    quiz.get_by_label("threads").check()
    assert "Measured: neither. You predicted: threads. Why the difference?" in quiz.inner_text()
    assert quiz.get_by_label("neither").is_disabled()
    explorer = page.locator(".kit-needs", has=page.locator("input[type=range]"), has_text="kernel")
    assert explorer.locator("input:not([disabled])").count() == 0
    assert "needs Python" in explorer.inner_text()
    assert page.locator("iframe").count() == 0
    assert not page.get_by_text("answer = 6 * 7").is_visible()
    page.get_by_text("Solution", exact=True).click()
    assert page.get_by_text("answer = 6 * 7").is_visible()


def test_a_page_says_where_it_ran_and_opens_in_binder(reader: Any) -> None:
    page = reader(NOTEBOOK)
    origin = page.inner_text(".origin")
    assert "UTC" in origin
    assert "torch" in origin
    assert "core" in origin
    binder = f"https://mybinder.org/v2/gh/somebody/branch-lab/HEAD?urlpath=lab/tree/notebooks/{FIRST}.ipynb"
    assert page.get_attribute("a.binder", "href") == binder
    page.get_by_role("link", name="the manual", exact=True).click()
    page.wait_for_url("**/README.html")
    assert page.inner_text("h1") == "Branch Lab"


def test_the_first_page_answers_three_questions_and_has_a_live_picture(reader: Any) -> None:
    page = reader("index.html")
    for said in ("does it help, and why", "Is it for my model?", "Try it", "make lab", "kit.compare(model, inputs)"):
        assert said in page.inner_text("main"), said
    page.wait_for_function("() => document.querySelector('.kit-timeline')?.dataset.lanes", timeout=30_000)
    links = page.eval_on_selector_all("main a[href]", "links => links.map(link => link.href)")
    local = [link.partition("#")[0].removeprefix("file://") for link in links if link.startswith("file:")]
    assert any(link.endswith(NOTEBOOK) for link in local)
    assert [link for link in local if not Path(link).exists()] == []


def test_search_finds_a_name_and_goes_there(reader: Any) -> None:
    page = reader(NOTEBOOK)
    page.locator("body").press("/")
    page.keyboard.type("critical_path")
    best = page.locator("#found a").first
    best.wait_for()
    assert "critical_path" in best.inner_text()
    best.click()
    page.wait_for_url("**/api/kit*.html#*critical_path")
    page.focus("#search")
    page.keyboard.type("xyzzyq")
    page.wait_for_selector("text=Nothing found.")


@pytest.mark.parametrize("place", ["index.html", NOTEBOOK, "README.html", "api/kit.html", "notebooks/README.html"])
def test_a_phone_never_scrolls_sideways(reader: Any, place: str, screenshots: Path) -> None:
    page = reader(place, width=390)
    page.wait_for_timeout(1500)  # the views are drawn
    page.screenshot(path=screenshots / f"site-phone-{Path(place).stem}.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize(("width", "colours"), [(1280, "light"), (1280, "dark"), (800, "light"), (390, "dark")])
@pytest.mark.parametrize("place", [NOTEBOOK, "api/kit.html", "api/index.html"])
def test_at_the_end_of_a_page_the_footer_is_clear_of_the_menu(
    reader: Any, place: str, width: int, colours: str, screenshots: Path
) -> None:
    page = reader(place, width=width, colours=colours)
    page.wait_for_timeout(500)  # the views are drawn
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    page.screenshot(path=screenshots / f"site-end-{Path(place).stem}-{width}-{colours}.png")
    menu, footer = (page.locator(each).bounding_box() for each in ("#menu", "footer"))
    assert footer["y"] >= menu["y"] + menu["height"] - 1 or footer["x"] >= menu["x"] + menu["width"] - 1


@pytest.mark.parametrize("place", ["index.html", "api/kit.html", "api/kit.trace.html"])
def test_the_menu_shows_the_page_that_is_open(reader: Any, place: str, screenshots: Path) -> None:
    page = reader(place)
    page.screenshot(path=screenshots / f"site-menu-{Path(place).stem}.png")
    entry, menu = (page.locator(each).bounding_box() for each in ("#menu .here > a", "#menu"))
    assert menu["y"] <= entry["y"]
    assert entry["y"] + entry["height"] <= menu["y"] + menu["height"]
    assert page.evaluate("scrollY") == 0


def test_dark_is_dark_and_the_button_changes_it_for_good(reader: Any, screenshots: Path) -> None:
    page = reader(NOTEBOOK, colours="dark")
    page.wait_for_function("() => document.querySelector('.kit-timeline')?.dataset.lanes", timeout=30_000)
    lightness = "place => getComputedStyle(document.querySelector(place)).backgroundColor.match(/\\d+/g).map(Number)"
    places = ("body", ".kit-timeline", ".highlight")
    page.screenshot(path=screenshots / "site-dark.png")
    assert all(max(page.evaluate(lightness, place)[:3]) < 60 for place in places)
    page.click("#theme")
    assert all(min(page.evaluate(lightness, place)[:3]) > 200 for place in places)
    page.reload()
    assert min(page.evaluate(lightness, "body")[:3]) > 200


def test_a_still_picture_has_the_colours_of_the_page(reader: Any) -> None:
    page = reader(NOTEBOOK, colours="dark")
    paper = "svg => getComputedStyle(svg.querySelector('#patch_1 path')).fill"
    ink = "svg => getComputedStyle(svg.querySelector('text')).fill"
    still = page.locator(".output_area svg", has=page.locator("image"))
    still.scroll_into_view_if_needed()
    for _ in ("dark", "light"):
        body = page.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
        assert [still.evaluate(paper), still.evaluate(ink)] == body
        page.click("#theme")
