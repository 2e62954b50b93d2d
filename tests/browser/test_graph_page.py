"""The page half of a graph's picture in a real browser: what is drawn, and what keys and gestures do. No Jupyter."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest

from kit.trace.columns import Event, Lane, Trace
from kit.trace.lanes import depths
from kit.views.boxes import boxes
from kit.views.graph_picture import columns, graph_picture, script
from kit.views.page import module
from kit.views.timeline import thinned
from tests.browser.pages import EVIL, THEMES, opened
from tests.views.networks import Graph, Operator, inception, nasnet

pytest.importorskip("playwright")

UNIT = "features.stage1.unit1.branches"

# A stand-in for the model that anywidget hands to `render`.
PAGE = """<!doctype html><meta charset="utf-8"><style>
body { THEME; margin: 16px; background: var(--jp-layout-color0) }</style>
<body data-jp-theme-light="true"><div id="one"></div>
<script type="module">
import picture from "./graph_picture.js";
const listeners = {};
const emit = (event, ...args) => (listeners[event] ?? []).forEach((listener) => listener(...args));
const state = STATE;
window.asked = [];
window.model = {
  get: (key) => state[key],
  set(key, value) { state[key] = value; emit(`change:${key}`); },
  on: (event, listener) => (listeners[event] ??= []).push(listener),
  off(event, listener) { listeners[event] = listeners[event].filter((other) => other !== listener); },
  save_changes() {},
  send(message) { window.asked.push(message); },
};
window.answer = (full) => emit("msg:custom", { columns: full }, []);
window.listening = () => Object.values(listeners).flat().length;
const el = document.createElement("div"); // as in JupyterLab: rendered first, attached to the page later
window.close_one = picture.render({ model: window.model, el });
document.getElementById("one").append(el);
window.ready = true;
</script>"""


def show(chromium, graph, *, theme="light", size=(1000, 760)):
    """A page with the graph's picture, drawn."""
    widget = graph_picture(graph)
    state = {"copy": widget.copy, "opened": widget.opened, "selected": ""}
    html = PAGE.replace("THEME", THEMES[theme]).replace("STATE", json.dumps(state).replace("<", "\\u003c"))
    page = opened(chromium, html, {"graph_picture.js": script()}, size=size)
    page.wait_for_selector(".box")
    return page


def box(page, path):
    return page.locator(f'.box[data-path="{path}"]')


def shown(page):
    """The paths of the closed boxes that are drawn."""
    return page.eval_on_selector_all(".box:not(.open)", "all => all.map(each => each.dataset.path)")


def moved(page):
    """How far right and down the picture is, and its scale."""
    text = page.evaluate("document.querySelector('.stage > svg > g').getAttribute('transform')")
    return [float(word) for word in text.replace("translate(", "").replace(") scale(", " ").rstrip(")").split()]


def trait(page, name):
    return page.evaluate(f"model.get('{name}')")


@pytest.fixture(scope="module")
def graph():
    return inception()


def test_modules_are_boxes_until_they_are_opened(chromium, graph, screenshots):
    page = show(chromium, graph)
    assert len(shown(page)) == 19
    assert page.locator(".kit-graph").get_attribute("data-boxes") == "19"
    before = box(page, UNIT).bounding_box()
    box(page, UNIT).dblclick()
    assert box(page, UNIT).get_attribute("class").split() == ["box", "open", "selected"]
    assert len(shown(page)) == 19 - 1 + 5  # four branches, and what joins them
    after = box(page, UNIT).bounding_box()
    assert after["y"] == pytest.approx(before["y"], abs=2)  # it stays where it was
    branches = [
        box(page, f"{UNIT}.{name}").bounding_box() for name in ("branch1.conv1", "branch2", "branch3", "branch4")
    ]
    tops = [each["y"] for each in branches]
    assert max(tops) - min(tops) <= 1.5  # side by side; that on the critical path has a thicker line
    spans = [(each["x"], each["x"] + each["width"]) for each in branches]  # in the order of the program
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    page.screenshot(path=screenshots / "graph-open.png")
    box(page, UNIT).dblclick(position={"x": 4, "y": 4})
    assert len(shown(page)) == 19
    assert trait(page, "selected") == UNIT
    assert page.errors == []
    page.evaluate("close_one()")
    assert page.evaluate("listening()") == 0
    assert page.locator(".kit-graph").count() == 0
    page.close()


def test_widths_are_times_and_the_critical_path_is_thick(chromium, graph):
    page = show(chromium, graph)
    page.evaluate(f"model.set('opened', [...model.get('opened'), '{UNIT}'])")
    width = {path: box(page, path).locator("rect").first.evaluate("r => r.width.baseVal.value") for path in shown(page)}
    wide = width["features.stage1.unit2.branches"]
    assert width["features.init_block.conv3"] / wide == pytest.approx(4.715 / 6.855, rel=0.01)
    weight = "node => parseFloat(getComputedStyle(node.querySelector('rect')).strokeWidth)"
    thick = {path for path in shown(page) if box(page, path).evaluate(weight) > 2}
    assert {f"{UNIT}.branch3", "features.init_block.conv1"} <= thick
    assert f"{UNIT}.branch2" not in thick
    shapes = page.locator(".shape").all_text_contents()
    assert {"1x3x299x299", "1x288x35x35", "1x2048x8x8"} <= set(shapes)
    page.close()


def test_order_is_dashed_and_hover_gives_the_details(chromium):
    rows = [Operator(f"op_{i}", "relu", "", "1x8", 2000, 0.5, ()) for i in range(3)]
    rows[1], rows[2] = replace(rows[1], data=(0,)), replace(rows[2], order=(0,), name=EVIL)
    page = show(chromium, Graph("Net", "1x8", tuple(rows)))
    dashes = page.eval_on_selector_all(".stage .edge", "all => all.map(each => getComputedStyle(each).strokeDasharray)")
    assert sorted(dashes) == ["5px, 4px", "none"]
    assert "order only" in page.locator(".bar").first.text_content()
    page.locator(".box").nth(2).hover()
    tip = page.locator(".tip div").all_text_contents()
    assert tip == [
        f"{EVIL}: relu",
        "in the model itself",
        "output 1x8",
        "500 µs on one thread (33.3% of all)",
        "2.00 kMACs",
    ]
    page.mouse.move(1, 1)
    assert not page.locator(".tip").is_visible()
    assert page.evaluate("window.hacked") is None
    page.close()


def test_keys_pan_zoom_walk_open_and_close(chromium, graph):
    page = show(chromium, graph)
    page.locator(".stage").focus()
    x, y, scale = moved(page)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert moved(page) == [x - 60, y - 60, scale]
    page.keyboard.press("+")
    assert moved(page)[2] == pytest.approx(1.25 * scale, rel=1e-3)
    page.keyboard.press("-")
    assert moved(page)[2] == pytest.approx(scale, rel=1e-3)
    page.keyboard.press("f")
    stage, last = page.locator(".stage").bounding_box(), page.locator(".box:not(.open)").last.bounding_box()
    assert last["y"] + last["height"] <= stage["y"] + stage["height"]
    for _ in range(7):
        page.keyboard.press("n")
    assert trait(page, "selected") == "features.stage1"
    page.keyboard.press("n")
    assert trait(page, "selected") == UNIT
    assert page.locator(".details").text_content().startswith(f"{UNIT}: 23 operators · output 1x288x35x35 · ")
    page.keyboard.press("Enter")
    assert UNIT in trait(page, "opened")
    page.keyboard.press("n")
    assert trait(page, "selected").startswith(f"{UNIT}.")
    page.keyboard.press("Escape")  # the one around
    assert (trait(page, "selected"), UNIT in trait(page, "opened")) == (UNIT, False)
    page.keyboard.press("Escape")
    assert "features.stage1" not in trait(page, "opened")
    page.keyboard.press("p")
    assert trait(page, "selected") == "features.init_block.conv3"
    page.close()


def test_the_wheel_zooms_where_the_pointer_is_and_a_drag_pans(chromium, graph):
    page = show(chromium, graph)
    target = box(page, "features.init_block.conv2")
    before = target.bounding_box()
    at = before["x"] + before["width"] / 2, before["y"] + before["height"] / 2
    page.mouse.move(*at)
    page.mouse.wheel(0, -300)
    page.wait_for_function(
        "document.querySelector('.stage > svg > g').getAttribute('transform').split('scale(')[1] !== '0.7500)'"
    )
    after = target.bounding_box()
    assert after["width"] > 1.3 * before["width"]
    assert after["x"] + after["width"] / 2 == pytest.approx(at[0], abs=2)
    page.mouse.down()
    page.mouse.move(at[0] + 50, at[1] + 30, steps=4)
    page.mouse.up()
    assert target.bounding_box()["x"] == pytest.approx(after["x"] + 50, abs=2)
    assert trait(page, "selected") == ""  # a drag selects nothing
    page.close()


@pytest.mark.parametrize("theme", THEMES)
def test_colours_follow_the_page(chromium, graph, screenshots, theme):
    page = show(chromium, graph, theme=theme)
    page.evaluate(f"model.set('opened', [...model.get('opened'), '{UNIT}'])")
    colours = page.evaluate(
        """(path) => {
            const node = document.querySelector(`.box[data-path="${path}"]`);
            const light = (text) => text.match(/[\\d.]+/g).slice(0, 3).reduce((sum, c) => sum + Number(c), 0) / 3;
            const of = (each, name) => light(getComputedStyle(each)[name]);
            return [of(document.querySelector(".kit-graph"), "backgroundColor"), of(node.querySelector("rect"), "fill"),
                of(node.querySelector("text"), "fill"), of(document.querySelector(".edge.critical"), "stroke")];
        }""",
        f"{UNIT}.branch3",
    )
    ground, fill, text, edge = colours
    page.screenshot(path=screenshots / f"graph-{theme}.png")
    assert abs(text - fill) > 90
    assert abs(edge - ground) > 200
    assert (ground, fill > 128, text) == ((255, True, 0) if theme == "light" else (17, False, 255))
    page.close()


def test_a_thousand_operators_open_at_once_and_what_was_left_out_comes_from_the_kernel(chromium, screenshots):
    graph = nasnet(24)
    page = show(chromium, graph)
    assert page.evaluate("asked") == [{"ask": "columns"}]
    assert "opening the rest needs its kernel" in page.locator(".details").text_content()
    tree = boxes(graph)
    page.evaluate("(full) => answer(full)", columns(graph, tree))
    assert (
        page.locator(".details").text_content()
        == f"NASNet on 1x3x224x224: {len(graph.operators)} operators. There is an answer."
    )
    page.evaluate("(paths) => model.set('opened', paths)", [each.path for each in tree if each.module])
    assert len(shown(page)) == len(graph.operators) > 1000
    page.locator(".stage").focus()
    page.keyboard.press("f")
    page.screenshot(path=screenshots / "graph-thousand.png")
    assert page.errors == []
    page.close()


def test_a_page_of_its_own_works_without_network_or_kernel(chromium, graph, screenshots, tmp_path):
    file = tmp_path / "graph.html"
    graph_picture(replace(graph, name=EVIL + "</script> SCRIPT COLUMNS")).to_html(file)
    context = chromium.new_context(offline=True, color_scheme="dark", viewport={"width": 1000, "height": 760})
    page = context.new_page()
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(file.as_uri())
    page.wait_for_selector(".box")
    box(page, UNIT).dblclick()
    assert len(shown(page)) == 23
    page.get_by_role("button", name="Text").click()
    assert page.locator(".twin pre").text_content().endswith(": 330 operators")
    page.screenshot(path=screenshots / "graph-page-dark.png")
    assert page.evaluate("window.hacked") is None
    assert (asked, errors) == ([file.as_uri()], [])
    context.close()


def with_timeline(page):
    """Add a timeline of two tasks, branch2 and branch3, and return where each is drawn."""
    lanes = [Lane(1, i, f"worker {i}") for i in range(2)]
    trace = Trace.build([Event(f"branch{i + 2}", "task", 0, 1_000_000, lanes[i]) for i in range(2)])
    copy = thinned(trace, depths(trace))
    copy["buffers"] = [list(buffer) for buffer in copy["buffers"]]
    page.evaluate(
        """async ([source, copy]) => {
            const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
            const { default: timeline } = await import(url);
            copy.buffers = copy.buffers.map((bytes) => new DataView(Uint8Array.from(bytes).buffer));
            const state = { copy, view: [0, 1e6], colour: "branch", selected: -1, selection: null, ruler: null };
            const followers = {};
            const model = { get: (key) => state[key], off() {}, save_changes() {}, send() {},
                set(key, value) { state[key] = value; (followers[`change:${key}`] ?? []).forEach((each) => each()); },
                on: (event, follower) => (followers[event] ??= []).push(follower) };
            timeline.render({ model, el: document.body.appendChild(document.createElement("div")) });
        }""",
        [module("timeline.js"), copy],
    )
    page.wait_for_function("document.querySelector('.kit-timeline').dataset.lanes")
    bars = json.loads(page.locator(".kit-timeline").get_attribute("data-lanes"))
    canvas = page.locator(".kit-timeline .stage canvas").bounding_box()
    return [(canvas["x"] + bar["left"] + bar["width"] * 0.8, canvas["y"] + bar["top"] + 10) for bar in bars]


def colours(page, points):
    """What the timeline shows at these points of the page, once it has drawn."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    canvas = page.locator(".kit-timeline .stage canvas").bounding_box()
    return [pixel(page, x - canvas["x"], y - canvas["y"]) for x, y in points]


def classed(page, name):
    return page.eval_on_selector_all(f".box.{name}", "all => all.map(each => each.dataset.path)")


def test_a_branch_under_the_pointer_is_marked_in_the_timeline_and_the_other_way_round(chromium, graph, screenshots):
    page = show(chromium, graph, size=(1000, 1200))
    page.evaluate(f"model.set('opened', [...model.get('opened'), '{UNIT}'])")
    at = with_timeline(page)
    before = colours(page, at)
    box(page, f"{UNIT}.branch2").hover()
    marked = colours(page, at)
    assert marked[0] == before[0]
    assert sum(marked[1]) > sum(before[1]) + 60  # paler on a white page
    page.screenshot(path=screenshots / "graph-and-timeline.png")
    page.mouse.move(2, 2)
    assert colours(page, at) == before
    page.mouse.move(*at[1])
    assert classed(page, "same") == [f"{UNIT}.branch3"]
    holding = classed(page, "holds")  # where it is inside of a closed box
    assert len(holding) == 10
    assert all(path.endswith(".branches") and path != UNIT for path in holding)
    page.mouse.move(2, 2)
    assert classed(page, "same") == classed(page, "holds") == []
    page.close()


def test_keys_mark_a_branch_in_the_other_view_as_the_pointer_does(chromium, graph):
    page = show(chromium, graph, size=(1000, 1200))
    page.evaluate(f"model.set('opened', [...model.get('opened'), '{UNIT}'])")
    at = with_timeline(page)
    before = colours(page, at)
    page.locator(".kit-graph .stage").focus()
    page.evaluate(f"model.set('selected', '{UNIT}.branch1.conv1')")
    page.keyboard.press("n")
    marked = colours(page, at)
    assert marked[0] == before[0]
    assert sum(marked[1]) > sum(before[1]) + 60
    page.locator(".kit-timeline .stage").focus()  # the keys have gone elsewhere
    assert colours(page, at) == before
    page.keyboard.press("ArrowRight")
    assert classed(page, "same") == [f"{UNIT}.branch2"]
    page.keyboard.press("ArrowDown")
    assert classed(page, "same") == [f"{UNIT}.branch3"]
    page.locator(".kit-graph button").focus()
    assert classed(page, "same") == []
    page.close()


def test_text_is_never_smaller_than_twelve_pixels(chromium, graph):
    page = show(chromium, graph)
    page.locator(".stage").focus()
    sizes = []
    for key in ("f", *"+++++++++++", *"-----"):
        page.keyboard.press(key)
        seen = page.eval_on_selector_all(
            ".kit-graph .stage text",
            """all => all.filter(each => getComputedStyle(each).display !== "none").map(each =>
                parseFloat(getComputedStyle(each).fontSize) * each.getScreenCTM().a)""",
        )
        assert bool(seen) == (moved(page)[2] >= 0.5)
        sizes += seen if moved(page)[2] <= 1 else []
    assert 11.99 < min(sizes) < max(sizes) < 13.5
    page.close()


def test_no_line_crosses_the_name_of_an_open_box(chromium, graph):
    page = show(chromium, graph)
    page.evaluate(f"model.set('opened', [...model.get('opened'), '{UNIT}'])")
    covered = page.evaluate(
        """() => {
            const drawn = [...document.querySelectorAll(".stage > svg > g > *")];
            const last = drawn.findLastIndex((each) => each.classList.contains("edge"));
            return [...document.querySelectorAll(".label")].map((each) => {
                const [band, text] = ["rect", "text"].map((tag) => each.querySelector(tag).getBoundingClientRect());
                return [drawn.indexOf(each) > last, text.left >= band.left && text.right <= band.right
                    && text.top >= band.top - 1 && text.bottom <= band.bottom + 1,
                    getComputedStyle(each.querySelector("rect")).fill];
            });
        }"""
    )
    assert len(covered) >= 5
    assert all(above and inside and fill.startswith("rgb(") for above, inside, fill in covered)
    page.close()


def test_one_click_on_its_sign_opens_or_closes_a_box(chromium, graph):
    page = show(chromium, graph)
    conv = "features.init_block.conv2"
    box(page, conv).locator(".sign").click()
    assert conv in trait(page, "opened")
    number = box(page, conv).get_attribute("data-box")
    page.locator(f'.label[data-box="{number}"] .sign').click()
    assert conv not in trait(page, "opened")
    page.wait_for_timeout(1000)  # else the next would be the second half of a double click
    box(page, conv).locator(".sign").dblclick()  # a habit: it opens as a click does
    assert conv in trait(page, "opened")
    page.close()


def test_what_is_not_series_parallel_has_a_strip_and_a_key(chromium):
    page = show(chromium, nasnet(3))
    key = "not series-parallel: it does not fork and join, so no branches are found in it"
    assert key in page.locator(".kit-graph .bar").first.text_content()
    hatched = page.eval_on_selector_all(
        ".box", "all => all.filter(each => each.querySelector('rect[fill^=url]')).map(each => each.dataset.path)"
    )
    assert hatched == [f"features.stage1.unit{cell}" for cell in (1, 2, 3)]
    box(page, "features.stage1.unit2").hover()
    assert "not series-parallel" in page.locator(".tip div").all_text_contents()
    page.close()


def pixel(page, x, y):
    """Red, green and blue of the timeline's canvas at a point, in CSS pixels."""
    return page.evaluate(
        """([x, y]) => {
            const canvas = document.querySelector(".kit-timeline .stage canvas");
            const scale = canvas.width / canvas.clientWidth;
            return [...canvas.getContext("2d").getImageData(x * scale, y * scale, 1, 1).data.slice(0, 3)];
        }""",
        [x, y],
    )


def test_what_nobody_has_moved_fits_the_page_when_that_changes_its_width(chromium, graph):
    page = show(chromium, graph)
    page.locator(".stage").focus()

    def ends():
        """How far the picture is from both sides of its frame."""
        return page.evaluate(
            """() => { const [frame, all] = [".stage", ".stage > svg > g"].map(
                (each) => document.querySelector(each).getBoundingClientRect());
            return [all.left - frame.left, frame.right - all.right]; }"""
        )

    def resized(width):
        page.set_viewport_size({"width": width, "height": 760})
        page.wait_for_function(f"document.querySelector('.stage').clientWidth <= {width} - 32")
        page.wait_for_timeout(100)
        return moved(page)

    for keys in ("", "f"):
        page.keyboard.press(keys) if keys else None
        for width in (700, 1200, 1000):
            resized(width)
            left, right = ends()
            assert left == pytest.approx(right, abs=8)  # in the middle
            assert left >= -8
    page.keyboard.press("d")
    after = moved(page)
    assert resized(800) == after  # where somebody has put it
    page.close()
