"""The timeline's page half in a real browser: what is drawn, and what each gesture does, on a page without Jupyter."""

import base64
import json
from dataclasses import replace

import numpy as np
import pytest

from kit.trace.columns import Event, Lane, Trace, stack
from kit.trace.lanes import depths
from kit.trace.links import links
from kit.views.levels import every_event
from kit.views.page import module
from kit.views.timeline import Timeline, columns, measure, thinned, timeline
from tests.browser.pages import EVIL, THEMES, opened
from tests.labs.made_up import made_up

pytest.importorskip("playwright")

MS = 1_000_000

# A stand-in for the model that anywidget hands to `render`, and two views of it when asked for.
PAGE = """<!doctype html><meta charset="utf-8"><style>
body { THEME; margin: 16px; background: var(--jp-layout-color0) }</style>
<body data-jp-theme-light="true"><div id="one"></div><div id="two"></div>
<script type="module">
import timeline from "./timeline.js";
const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
const unpack = (columns) => ({ ...columns, buffers: columns.buffers.map(bytes) });
const listeners = {};
const emit = (event, ...args) => (listeners[event] ?? []).forEach((listener) => listener(...args));
const state = { copy: unpack(COPY), view: VIEW, colour: COLOUR, selected: -1, selection: null, ruler: null };
window.saves = 0;
window.asked = [];
window.model = {
  get: (key) => state[key],
  set(key, value) { state[key] = value; emit(`change:${key}`); },
  on: (event, listener) => (listeners[event] ??= []).push(listener),
  off(event, listener) { listeners[event] = listeners[event].filter((other) => other !== listener); },
  save_changes() { window.saves += 1; },
  send(message) { window.asked.push(message); },
};
window.answer = (full) => {
  const { buffers, ...meta } = unpack(full);
  emit("msg:custom", { columns: meta }, buffers);
};
window.answer_args = ([content]) => emit("msg:custom", content, []);
window.listening = () => Object.values(listeners).flat().length;
window.mount = (id) => { // as in JupyterLab: rendered first, attached to the page later
  const el = document.createElement("div");
  const close = timeline.render({ model: window.model, el });
  document.getElementById(id).append(el);
  return close;
};
window.close_one = window.mount("one");
window.ready = true;
</script>"""


def as_json(packed: dict) -> str:
    buffers = [base64.b64encode(buffer).decode() for buffer in packed["buffers"]]
    return json.dumps({**packed, "buffers": buffers}).replace("<", "\\u003c")


def show(chromium, trace, *, theme="light", colour="branch", size=(1000, 700)):
    """A page with the timeline of a trace or a comparison, drawn."""
    packed = thinned(trace, depths(trace)) if isinstance(trace, Trace) else timeline(trace).copy
    html = PAGE.replace("THEME", THEMES[theme]).replace("COPY", as_json(packed)).replace("COLOUR", json.dumps(colour))
    html = html.replace("VIEW", json.dumps([0, max(1, packed["wall"])]))
    page = opened(chromium, html, {"timeline.js": module("timeline.js")}, size=size)
    settle(page)
    return page


def settle(page):
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def view(page):
    return page.evaluate("model.get('view')")


def selected(page):
    return page.evaluate("model.get('selected')")


def lanes(page):
    return json.loads(page.locator(".kit-timeline").first.get_attribute("data-lanes"))


def at(page, lane, share=0.5, row=0):
    """Page coordinates of a point in a lane: a share of its width, in the middle of one of its rows."""
    box = page.locator(".stage canvas").first.bounding_box()
    return box["x"] + lane["left"] + share * lane["width"], box["y"] + lane["top"] + 20 * row + 10


def coloured_pixels(page, lane):
    """How many pixels of the lane's band are neither the page's colour nor grey like the axis lines and the text."""
    return page.evaluate(
        """({ left, top, width, height }) => {
            const canvas = document.querySelector(".stage canvas");
            const scale = canvas.width / canvas.clientWidth;
            const box = [left, top, width, height].map((v) => Math.round(v * scale));
            const { data } = canvas.getContext("2d").getImageData(...box);
            let count = 0;
            for (let i = 0; i < data.length; i += 4) {
                const rgb = [data[i], data[i + 1], data[i + 2]];
                if (Math.max(...rgb) - Math.min(...rgb) > 24) count++;
            }
            return count;
        }""",
        lane,
    )


def pixels(page, box):
    """The different colours in a part of the canvas, as "#rrggbb", with how many pixels each has."""
    return page.evaluate(
        """({ left, top, width, height }) => {
            const canvas = document.querySelector(".stage canvas");
            const scale = canvas.width / canvas.clientWidth;
            const box = [left, top, width, height].map((v) => Math.round(v * scale));
            const { data } = canvas.getContext("2d").getImageData(...box);
            const counts = {};
            for (let i = 0; i < data.length; i += 4) {
                const colour = "#" + [0, 1, 2].map((k) => data[i + k].toString(16).padStart(2, "0")).join("");
                counts[colour] = (counts[colour] ?? 0) + 1;
            }
            return counts;
        }""",
        box,
    )


def trait(page, name):
    return page.evaluate(f"model.get('{name}')")


def drag(page, start, end, *, shift=False):
    if shift:
        page.keyboard.down("Shift")
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=4)
    page.mouse.up()
    if shift:
        page.keyboard.up("Shift")
    settle(page)


def approach(*, parallel):
    """A two-stream run with operators below its branches, sequential or on two workers."""
    caller, other = Lane(1, 1, "caller"), (Lane(1, 2, "worker 0"), Lane(1, 3, "worker 1"))
    home = other if parallel else (caller, caller)
    starts = (0.2, 0.3) if parallel else (0.2, 5.2)
    ends = (6.1, 7.4) if parallel else (5.1, 11.6)
    wall = 8.1 if parallel else 12.3
    rows = [("call", "call", 0.0, wall, caller), ("two_stream", "region", 0.05, wall - 0.1, caller)]
    rows.append(("merge", "merge", wall - 0.6, wall - 0.1, caller))
    for branch, lane, start, end in zip(("spatial", "temporal"), home, starts, ends, strict=True):
        rows.append((branch, "task", start, end, lane))
        names = ("aten::conv2d", "aten::batch_norm", "aten::relu_", "aten::max_pool2d") * 4
        edges = np.linspace(start + 0.03, end - 0.03, len(names) + 1)
        for name, left, right in zip(names, edges[:-1], edges[1:], strict=True):
            rows.append((name, "cpu_op", left, right - 0.02, lane))
            rows.append((name.replace("::", "::_"), "cpu_op", left + 0.02, right - 0.06, lane))
    return Trace.build(Event(n, c, int(s * MS), int((e - s) * MS), lane) for n, c, s, e, lane in rows)


@pytest.fixture(scope="module")
def comparison():
    return stack({"sequential": approach(parallel=False), "threads": approach(parallel=True)})


@pytest.fixture
def page(chromium, comparison):
    page = show(chromium, comparison)
    yield page
    assert page.errors == []
    page.close()


@pytest.mark.parametrize("theme", THEMES)
def test_every_lane_is_drawn(chromium, comparison, screenshots, theme):
    page = show(chromium, comparison, theme=theme)
    drawn = lanes(page)
    assert [(lane["group"], lane["label"]) for lane in drawn] == [
        ("sequential", "caller"),
        ("threads", "caller"),
        ("threads", "worker 0"),
        ("threads", "worker 1"),
    ]
    for lane in drawn:
        if lane["label"] != "caller" or lane["group"] == "sequential":
            assert coloured_pixels(page, lane) > 0.2 * lane["width"] * lane["height"]
    page.screenshot(path=screenshots / f"timeline-{theme}.png")
    page.close()


def test_a_drag_pans_and_leaves_the_length(page):
    before = view(page)
    x, y = at(page, lanes(page)[0])
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 120, y, steps=4)
    page.mouse.up()
    after = view(page)
    width = lanes(page)[0]["width"]
    assert after[0] - before[0] == pytest.approx(120 / width * (before[1] - before[0]), rel=0.01)
    assert after[1] - after[0] == pytest.approx(before[1] - before[0])
    assert selected(page) == -1  # a drag is not a click
    page.wait_for_function("window.saves > 0")


def test_the_wheel_zooms_at_the_pointer_and_f_fits(page):
    fitted = view(page)
    lane = lanes(page)[0]
    page.mouse.move(*at(page, lane, 0.25))
    page.mouse.wheel(0, -400)
    page.wait_for_function(f"model.get('view')[1] - model.get('view')[0] < {0.9 * fitted[1]}")
    begin, end = view(page)
    assert begin + 0.25 * (end - begin) == pytest.approx(0.25 * fitted[1], rel=0.02)
    page.keyboard.press("f")  # the wheel has focused it
    assert view(page) == fitted


def test_the_wheel_is_left_to_the_page_outside_the_canvas_and_at_full_width(page):
    prevented = page.evaluate(
        """() => [["canvas", 10], ["canvas", -10], [".details", -10], [".bar", -10]].map(([where, deltaY]) => {
            const event = new WheelEvent("wheel", { deltaY, bubbles: true, cancelable: true });
            document.querySelector(where === "canvas" ? ".stage canvas" : where).dispatchEvent(event);
            return event.defaultPrevented;
        })"""
    )
    assert prevented == [False, True, False, False]


def test_keys_zoom_and_pan_when_focused(page):
    page.locator(".stage").focus()
    begin, end = view(page)
    page.keyboard.press("w")
    closer = view(page)
    assert closer[1] - closer[0] == pytest.approx((end - begin) / 1.5)
    page.keyboard.press("d")
    assert view(page)[0] > closer[0]
    page.keyboard.press("a")
    assert view(page) == pytest.approx(closer)
    page.keyboard.press("s")
    assert view(page)[1] - view(page)[0] == pytest.approx(end - begin)


def test_panning_and_zooming_never_lose_the_trace(page):
    page.locator(".stage").focus()
    for key in "aaaaaaaaaaaaaaaaaaaasssssssss":
        page.keyboard.press(key)
    begin, end = view(page)
    assert begin < 0.5 * 12.3 * MS
    assert end > 0
    assert end - begin <= 2.01 * 12.3 * MS


def test_hover_says_what_an_event_is(page, screenshots):
    lane = next(lane for lane in lanes(page) if lane["label"] == "worker 1")
    page.mouse.move(*at(page, lane, 0.3))
    tip = page.locator(".tip")
    tip.wait_for(state="visible")
    lines = tip.locator("div").all_text_contents()
    assert lines == ["temporal", "threads · worker 1", "starts at 300 µs", "takes 7.10 ms", "task"]
    page.screenshot(path=screenshots / "timeline-hover.png")
    page.mouse.move(2, 2)
    tip.wait_for(state="hidden")


def test_a_click_selects_and_the_arrows_walk(page, comparison):
    lane = lanes(page)[0]
    page.mouse.click(*at(page, lane, 0.2, row=2))
    assert comparison.names[comparison.name[selected(page)]] == "spatial"
    assert page.locator(".details").text_content().startswith("spatial: sequential · caller, starts at 200 µs")
    walked = []
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowUp", "ArrowUp", "ArrowUp"):
        page.keyboard.press(key)
        walked.append(comparison.names[comparison.name[selected(page)]])
    assert walked == ["temporal", "merge", "temporal", "two_stream", "call", "call"]
    page.keyboard.press("Escape")
    assert selected(page) == -1


def test_names_stay_text(chromium):
    caller = Lane(1, 1, EVIL, EVIL)
    trace = Trace.build([Event(EVIL, "task", 0, 100, caller), Event("🔥" * 5000, EVIL, 100, 100, caller)])
    page = show(chromium, trace)
    lane = lanes(page)[0]
    for share in (0.2, 0.8):
        page.mouse.click(*at(page, lane, share))
        page.locator(".tip").wait_for(state="visible")
    page.mouse.move(*at(page, lane, 0.2))
    assert page.locator(".tip div").first.text_content() == EVIL
    page.get_by_role("button", name="Table").click()
    assert page.locator(".twin td").nth(2).text_content() == EVIL[:120]
    assert page.evaluate("window.hacked") is None
    assert page.locator(".kit-timeline script, .kit-timeline img").count() == 0
    assert page.errors == []
    page.close()


def test_a_long_lane_label_is_cut_and_told_in_full_on_hover(chromium):
    label = "pool worker " * 8 + "the end"
    trace = Trace.build([Event("a", "task", 0, 100, Lane(1, 1, label))])
    page = show(chromium, trace)
    lane = lanes(page)[0]
    assert lane["left"] <= 250
    page.mouse.move(*at(page, lane, -0.02))
    page.locator(".tip").wait_for(state="visible")
    assert page.locator(".tip").text_content() == label
    page.close()


def test_the_table_twin_is_a_keyboard_away(page):
    assert not page.locator(".twin").is_visible()
    page.locator(".stage").focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert page.locator(".twin").is_visible()
    header, first = page.locator(".twin tr").all()[:2]
    assert header.locator("th").all_text_contents() == ["approach", "lane", "name", "count", "total"]
    assert first.locator("td").all_text_contents() == ["sequential", "caller", "call", "1", "12.3 ms"]


def many(n=50_000):
    """More events than the copy holds: a busy lane of short ones, and one with a single long one at the end."""
    short = [Event(f"op {i % 7}", "cpu_op", i * 1000, 900, Lane(1, 1, "busy")) for i in range(n)]
    return Trace.build([*short, Event("long", "task", n * 900, n * 100, Lane(1, 2, "late"))])


def test_the_copy_is_drawn_until_the_columns_come(chromium):
    trace = many()
    page = show(chromium, trace, colour="name")
    root = page.locator(".kit-timeline")
    assert page.evaluate("window.asked") == [{"ask": "columns"}]
    assert int(root.get_attribute("data-events")) <= 6000
    assert "of 50,001 events: the thinned copy" in page.locator(".details").text_content()
    before = [coloured_pixels(page, lane) for lane in lanes(page)]
    assert min(before) > 0
    full = columns(trace, depths(trace), every_event(trace), links(trace))
    page.evaluate("(full) => window.answer(full)", json.loads(as_json(full)))
    settle(page)
    assert root.get_attribute("data-events") == "50001"
    assert "copy" not in page.locator(".details").text_content()
    lane = lanes(page)[0]
    assert coloured_pixels(page, lane) > 0.5 * lane["width"] * lane["height"]
    page.evaluate("void window.mount('two')")  # a second view finds the columns there
    assert page.locator("#two .kit-timeline").get_attribute("data-events") == "50001"
    assert len(page.evaluate("window.asked")) == 1
    assert page.errors == []
    page.close()


def test_events_thinner_than_a_pixel_say_how_many_they_are(chromium):
    trace = many(5_000)
    page = show(chromium, trace)
    page.mouse.move(*at(page, lanes(page)[0], 0.5))
    page.locator(".tip").wait_for(state="visible")
    assert "6 events in this pixel, zoom in" in page.locator(".tip").text_content()
    page.close()


def test_a_view_set_by_the_kernel_is_drawn(page):
    lane = lanes(page)[3]
    before = coloured_pixels(page, lane)
    page.evaluate("model.set('view', [9e6, 12e6])")  # the threads were done by then
    settle(page)
    assert before > 1000
    assert coloured_pixels(page, lane) == 0


def test_two_views_share_a_model_and_closing_one_leaves_the_other(page):
    alone = page.evaluate("window.listening()")
    page.evaluate("void window.mount('two')")
    assert page.evaluate("window.listening()") == 2 * alone
    page.evaluate("window.close_one()")
    assert page.evaluate("window.listening()") == alone
    assert page.locator("#one .kit-timeline").count() == 0
    page.locator("#two .stage").focus()
    page.keyboard.press("w")
    assert view(page)[1] < 12.3 * MS


def test_a_change_of_theme_repaints(page):
    corner = "() => [...document.querySelector('.stage canvas').getContext('2d').getImageData(2, 2, 1, 1).data]"
    assert page.evaluate(corner) == [255, 255, 255, 255]
    page.evaluate(
        """() => {
            document.body.style.setProperty("--jp-layout-color0", "#111111");
            document.body.dataset.jpThemeLight = "false";
        }"""
    )
    settle(page)
    assert page.evaluate(corner) == [17, 17, 17, 255]


def test_a_page_hidden_while_its_theme_changes_keeps_its_width(page):
    before = lanes(page)[0]["width"]
    page.evaluate(
        """async () => {
            document.body.style.display = "none";
            document.body.dataset.jpThemeLight = "false";
            await Promise.resolve(); // observers of attributes have been called
            document.body.style.display = "";
        }"""
    )
    settle(page)
    assert lanes(page)[0]["width"] == before


def test_it_follows_the_width_of_its_cell(page):
    before = lanes(page)[0]["width"]
    page.set_viewport_size({"width": 700, "height": 700})
    page.wait_for_function(
        f"JSON.parse(document.querySelector('.kit-timeline').dataset.lanes)[0].width === {before - 300}"
    )


def test_many_lanes_scroll_below_the_axis(chromium):
    trace = Trace.build(Event(f"t{i}", "task", i, 100, Lane(1, i, f"worker {i}")) for i in range(80))
    page = show(chromium, trace)
    x, y = at(page, lanes(page)[0])
    page.mouse.move(x, y + 200)
    page.mouse.down()
    page.mouse.move(x, y, steps=5)
    page.mouse.up()
    assert page.evaluate("document.querySelector('.stage').scrollTop") == pytest.approx(200, abs=2)
    drag(page, (x, y + 100), (x + 100, y + 100), shift=True)
    measured = trait(page, "lanes")  # those in sight
    assert measured == list(range(measured[0], measured[-1] + 1))
    assert 6 <= measured[0] <= 8
    assert measured[-1] < 35
    assert page.evaluate("document.querySelector('.stage').scrollHeight") == pytest.approx(80 * 28 + 80, abs=4)
    assert page.errors == []
    page.close()


def test_more_lanes_than_the_copy_holds(chromium):
    """The busiest are drawn, what is left out is said, and a measured window names the lanes by their numbers."""
    trace = Trace.build(Event("op", "task", i, 100 + i, Lane(1, i, f"worker {i}")) for i in range(5_000))
    page = show(chromium, trace)
    drawn = lanes(page)
    assert 100 < len(drawn) <= 2_000
    assert drawn[0]["label"] == f"worker {5_000 - len(drawn)}"
    left = f"not drawn: {5_000 - len(drawn):,} lanes and {5_000 - len(drawn):,} events"
    assert left in page.locator(".details").text_content()
    page.locator(".stage").focus()
    page.keyboard.press("m")
    assert trait(page, "lanes")[0] == 5_000 - len(drawn)
    full = columns(trace, depths(trace), every_event(trace), links(trace))
    page.evaluate("(full) => window.answer(full)", json.loads(as_json(full)))
    settle(page)
    assert len(lanes(page)) == 5_000
    assert "not drawn" not in page.locator(".details").text_content()
    assert page.errors == []
    page.close()


def test_an_empty_trace_says_so(chromium):
    page = show(chromium, Trace.build([]))
    assert "Timeline of 0 events" in page.locator(".stage").get_attribute("aria-label")
    pixels = "document.querySelector('.stage canvas').getContext('2d').getImageData(0, 0, 400, 26).data"
    assert page.evaluate(f"{pixels}.some((value) => value < 200)")  # its message stands there
    page.locator(".stage").focus()
    for key in ("f", "w", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    assert page.errors == []
    page.close()


def selected_name(page, trace):
    return trace.names[trace.name[selected(page)]]


def test_search_counts_dims_and_steps(page, comparison, screenshots):
    lane = next(lane for lane in lanes(page) if lane["label"] == "worker 0")
    branch = {**lane, "height": 20}
    assert pixels(page, branch).get("#56b4e9", 0) > 3000
    page.locator(".stage").focus()
    page.keyboard.press("/")
    page.keyboard.type("CONV2D")
    found = page.locator("output.found")
    assert found.text_content() == "32 found"  # 4 of each of two names, in two branches of two approaches
    settle(page)
    assert "#56b4e9" not in pixels(page, branch)  # what does not match is dim
    assert pixels(page, lane).get("#000000", 0) > 8 * 2 * 18  # what does has an edge in the page's ink
    page.screenshot(path=screenshots / "timeline-search.png")
    counts = []
    for key in ("Enter", "Enter", "Shift+Enter", "Shift+Enter", "Enter"):
        page.keyboard.press(key)
        counts.append(found.text_content())
        assert "conv2d" in selected_name(page, comparison)
    assert counts == ["1 of 32", "2 of 32", "1 of 32", "32 of 32", "1 of 32"]
    page.keyboard.press("Escape")
    assert found.text_content() == ""
    assert page.evaluate("document.activeElement.className") == "stage"
    settle(page)
    assert pixels(page, branch).get("#56b4e9", 0) > 3000


def test_a_search_that_finds_nothing_says_so(page):
    page.get_by_role("searchbox", name="Search").fill("<b>nothing</b>")
    page.keyboard.press("Enter")
    assert page.locator("output.found").text_content() == "nothing found"
    assert selected(page) == -1


def test_search_finds_events_thinner_than_a_pixel(chromium):
    short = [Event("op", "cpu_op", i * 1000, 900, Lane(1, 1, "busy")) for i in range(5000)]
    trace = Trace.build([*short, Event("needle", "cpu_op", 2_500_950, 10, Lane(1, 1, "busy"))])
    page = show(chromium, trace)
    lane = lanes(page)[0]
    middle_row = {**lane, "top": lane["top"] + 10, "height": 1}
    before = pixels(page, middle_row)
    page.get_by_role("searchbox", name="Search").fill("needle")
    settle(page)
    middle = {**lane, "left": lane["left"] + lane["width"] // 2 - 3, "width": 6}
    away = {**lane, "width": lane["width"] // 3}
    assert set(pixels(page, middle)) - set(pixels(page, away))  # one pixel stands out
    after = pixels(page, middle_row)
    assert sum(after.get(colour, 0) for colour in before) < 0.1 * sum(before.values())  # the rest is dim
    page.keyboard.press("Enter")
    assert selected_name(page, trace) == "needle"
    page.close()


def test_a_click_on_a_launch_draws_an_arrow_to_its_kernel(chromium, screenshots):
    cpu, gpu = Lane(1, 1, "python"), Lane(0, 7, "stream 7")
    rows = [Event("cudaLaunchKernel", "cuda_runtime", 1 * MS, MS, cpu), Event("sgemm", "kernel", 8 * MS, MS, gpu)]
    rows += [Event("last", "cpu_op", 9 * MS, MS, cpu)]
    trace = replace(Trace.build(rows), correlation=np.array([5, 5, -1]))
    page = show(chromium, trace)
    top, below = lanes(page)
    between = {
        "left": below["left"] + 0.5 * below["width"],
        "top": top["top"],
        "width": 2,
        "height": below["top"] - top["top"] + 20,
    }
    assert "#111111" not in pixels(page, between)
    page.mouse.click(*at(page, top, 0.1))
    settle(page)
    dark = [colour for colour in pixels(page, between) if max(int(colour[i : i + 2], 16) for i in (1, 3, 5)) < 64]
    assert dark  # the arrow crosses the empty middle
    assert "→ to sgemm (stream 7)" in page.locator(".details").text_content()
    page.screenshot(path=screenshots / "timeline-arrow.png")
    page.mouse.click(*at(page, below, 7.5 / 9))
    settle(page)
    assert selected_name(page, trace) == "sgemm"
    assert "← from cudaLaunchKernel (python)" in page.locator(".details").text_content()
    page.mouse.click(*at(page, top, 8.5 / 9))  # nothing led to this one
    settle(page)
    assert not [c for c in pixels(page, between) if max(int(c[i : i + 2], 16) for i in (1, 3, 5)) < 64]
    page.close()


def test_shift_drag_measures_a_window(page, comparison, screenshots):
    lane = next(lane for lane in lanes(page) if lane["label"] == "worker 0")
    before = view(page)
    start, end = at(page, lane, 0.25), at(page, lane, 0.5)
    drag(page, start, end, shift=True)
    window = trait(page, "selection")
    assert window == pytest.approx([0.25 * 12.3 * MS, 0.5 * 12.3 * MS], rel=0.01)
    assert view(page) == before  # no pan
    assert trait(page, "lanes") == [0, 1, 2, 3]  # all are in sight
    assert page.locator(".details").text_content() == "Window of 3.08 ms"  # without a kernel
    page.wait_for_function("window.saves > 0")
    band = {"left": lane["left"] + lane["width"] * 3 / 8, "top": lane["top"] - 2, "width": 4, "height": 1}
    (tint,) = pixels(page, band)
    assert tint != "#ffffff"
    page.evaluate("model.set('selection', [3e6, 6e6])")  # a round one, for the numbers
    answer = {"window": [3e6, 6e6], "groups": measure(comparison, (3e6, 6e6))}
    page.evaluate("(answer) => model.set('measured', answer)", answer)
    lines = page.locator(".details div").all_text_contents()
    assert lines == [
        "Window of 3.00 ms, sequential: busy 3.00 ms, sum over lanes 3.00 ms, overlap 0 ns, "
        "spatial 2.10 ms, temporal 800 µs",
        "Window of 3.00 ms, threads: busy 3.00 ms, sum over lanes 9.00 ms, overlap 3.00 ms, "
        "spatial 3.00 ms, temporal 3.00 ms",
    ]
    page.screenshot(path=screenshots / "timeline-measure.png")
    page.locator(".stage").focus()
    page.keyboard.press("Escape")
    assert trait(page, "selection") is None
    settle(page)
    assert set(pixels(page, band)) == {"#ffffff"}


def test_a_window_is_measured_and_the_ruler_set_by_key_too(page, comparison):
    page.locator(".stage").focus()
    page.keyboard.press("m")
    assert trait(page, "selection") == view(page)
    page.mouse.click(*at(page, lanes(page)[0], 0.2, row=2))
    page.keyboard.press("r")
    assert trait(page, "ruler") == pytest.approx(0.2 * MS, abs=1)
    page.keyboard.press("m")
    assert trait(page, "selection") == pytest.approx([0.2 * MS, 5.1 * MS], abs=1)


@pytest.mark.parametrize("theme", THEMES)
def test_colours_can_stand_for_names_or_categories(chromium, comparison, screenshots, theme):
    page = show(chromium, comparison, theme=theme)
    lane = next(lane for lane in lanes(page) if lane["label"] == "worker 0")
    seen, keys = [], []
    for mode in ("branch", "name", "category"):
        page.get_by_label("Colour by").select_option(mode)
        settle(page)
        assert trait(page, "colour") == mode
        seen.append(pixels(page, lane))
        keys.append(page.locator(".key").all_text_contents())
        page.screenshot(path=screenshots / f"timeline-{mode}-{theme}.png")
    common = [{colour for colour, count in counts.items() if count > 300} for counts in seen]
    assert len(common[1]) > len(common[0])  # a tint per name
    assert keys[0][:2] == keys[1][:2] == ["spatial", "temporal"]
    assert {"cpu_op", "task", "call"} <= set(keys[2])
    page.evaluate("model.set('colour', 'branch')")  # by the kernel
    settle(page)
    assert page.get_by_label("Colour by").input_value() == "branch"
    assert pixels(page, lane) == seen[0]
    page.close()


def test_a_crowd_of_events_has_a_texture_and_a_key(chromium, screenshots):
    short = [Event("op", "cpu_op", i * 1000, 900, Lane(1, 1, "busy")) for i in range(5000)]
    page = show(chromium, Trace.build(short), colour="name")
    lane = lanes(page)[0]
    key = page.locator(".key").last
    assert "too thin to tell apart" in key.text_content()
    assert key.is_visible()
    crowd = {"left": lane["left"] + 100, "top": lane["top"] + 8, "width": 80, "height": 1}
    pale, full = sorted(pixels(page, crowd).values())[-2:]
    assert pale == full == 40  # a comb
    page.screenshot(path=screenshots / "timeline-crowd.png")
    page.evaluate("model.set('view', [0, 20000])")
    settle(page)
    assert not key.is_visible()
    page.close()


def test_the_minimap_shows_the_whole_and_moves_the_view(chromium):
    page = show(chromium, approach(parallel=True))
    lane = lanes(page)[0]
    y = 39  # between the axis and the lanes
    early = {"left": lane["left"] + 0.3 * lane["width"], "top": 28, "width": 8, "height": 22}
    late = {**early, "left": lane["left"] + 0.95 * lane["width"]}
    dark = [pixels(page, box).get("#757575", 0) for box in (early, late)]
    assert dark[0] > 2 * dark[1] > 0  # three lanes are busy early, and one late
    wall = view(page)[1]
    page.evaluate(f"model.set('view', [0, {wall / 4}])")
    settle(page)
    assert pixels(page, late).get("#757575", 0) == 0  # paler outside the view
    box = page.locator(".stage canvas").bounding_box()
    point = lambda share: (box["x"] + lane["left"] + share * lane["width"], box["y"] + y)  # noqa: E731
    drag(page, point(0.1), point(0.4))
    assert view(page) == pytest.approx([0.3 * wall, 0.55 * wall], rel=0.01)
    page.mouse.click(*point(0.9))  # outside: there it goes
    assert view(page) == pytest.approx([0.775 * wall, 1.025 * wall], rel=0.01)
    assert selected(page) == -1
    page.close()


def test_the_ruler_follows_the_pointer_and_stays_where_the_axis_is_clicked(page, screenshots):
    lane = lanes(page)[0]
    ruler = page.locator(".ruler")
    page.mouse.move(*at(page, lane, 0.25))
    assert ruler.is_visible()
    assert float(ruler.text_content().removesuffix(" ms")) == pytest.approx(3.075, abs=0.02)
    page.mouse.wheel(0, -900)  # what it says stays true while the view moves below it
    page.wait_for_function("model.get('view')[0] > 0")
    begin, end = view(page)
    assert float(ruler.text_content().replace(",", "").split()[0]) == pytest.approx(
        (begin + 0.25 * (end - begin)) / (1e6 if "ms" in ruler.text_content() else 1e3), rel=0.01
    )
    page.keyboard.press("f")
    settle(page)
    x, _ = at(page, lane, 0.5)
    top = page.locator(".stage canvas").bounding_box()["y"]
    page.mouse.click(x, top + 10)
    assert trait(page, "ruler") == pytest.approx(6.15 * MS, rel=0.01)
    settle(page)
    line = {"left": lane["left"] + 0.5 * lane["width"] - 2, "top": lane["top"] - 2, "width": 4, "height": 1}
    assert "#1976d2" in pixels(page, line)
    page.mouse.move(*at(page, lane, 0.75))
    assert "(+3.0" in ruler.text_content()
    page.screenshot(path=screenshots / "timeline-ruler.png")
    page.mouse.click(x, top + 10)  # again: gone
    assert trait(page, "ruler") is None
    page.mouse.move(2, 2)
    assert not ruler.is_visible()


def test_without_a_kernel_the_copy_still_pans_zooms_and_says_what_it_is(chromium):
    page = show(chromium, many(), colour="name")  # nobody ever answers what the page asks
    lane = lanes(page)[0]
    shown = int(page.locator(".kit-timeline").get_attribute("data-events"))
    assert page.locator(".details").text_content().startswith(f"Showing {shown:,} of 50,001 events")
    whole = view(page)
    page.mouse.move(*at(page, lane, 0.5))
    page.mouse.wheel(0, -900)
    page.wait_for_function(f"model.get('view')[1] - model.get('view')[0] < {0.5 * whole[1]}")
    zoomed = view(page)
    x, y = at(page, lane, 0.5)
    drag(page, (x, y), (x - 100, y))
    assert view(page)[0] > zoomed[0]
    assert coloured_pixels(page, lane) > 0.2 * lane["width"] * lane["height"]
    drag(page, (x, y), (x - 100, y), shift=True)
    assert page.locator(".details div").count() == 2
    assert "Showing" in page.locator(".details").text_content()
    assert page.errors == []
    page.close()


@pytest.mark.parametrize("theme", THEMES)
def test_a_page_of_its_own_works_without_network_or_kernel(chromium, screenshots, tmp_path, theme):
    evil = Event(EVIL + "</script> SCRIPT COLUMNS", "task", 0, MS, Lane(1, 3, EVIL))
    events = [*many(20_000).events(), evil]
    trace = Trace.build(events)
    file = tmp_path / "timeline.html"
    Timeline(trace).to_html(file)
    context = chromium.new_context(offline=True, color_scheme=theme, viewport={"width": 1000, "height": 500})
    page = context.new_page()
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.route("**/*", lambda route: route.continue_() if route.request.url == file.as_uri() else route.abort())
    page.goto(file.as_uri())
    root = page.locator(".kit-timeline")
    assert root.get_attribute("data-events") == "20002"  # all of them
    settle(page)
    page.screenshot(path=screenshots / f"timeline-page-{theme}.png")
    box = {"left": 300, "top": 2, "width": 2, "height": 2}
    assert set(pixels(page, box)) == {"#ffffff" if theme == "light" else "#111111"}
    lane = lanes(page)[0]
    assert coloured_pixels(page, {**lane, "height": 20}) > 0 or lane["label"] == "busy"
    before = pixels(page, lane)
    page.mouse.move(*at(page, lane, 0.5))
    page.mouse.wheel(0, -900)
    page.wait_for_timeout(50)
    settle(page)
    assert pixels(page, lane) != before
    x, y = at(page, lane, 0.5)
    drag(page, (x, y), (x + 150, y), shift=True)
    assert page.locator(".details").text_content().startswith("Window of ")
    page.get_by_role("searchbox", name="Search").fill("op 3")
    assert page.locator("output.found").text_content() == "2,857 found"
    assert page.evaluate("window.hacked") is None
    assert (asked, errors) == ([file.as_uri()], [])
    context.close()


# ---- several approaches, of which one takes most of the width --------------------------------------------------------


@pytest.fixture
def uneven():
    """Threads and their baseline are two hairlines beside a cold start."""
    compared = made_up({"sequential": 22.0, "threads": 13.4, "processes": 40.0, "cold": 7700.0})
    unsure = {"processes": "machine busy: other programs took 70% of the machine's CPU time"}
    return replace(compared, rows=tuple(replace(row, doubt=unsure.get(row.name)) for row in compared.rows))


def lane_of(page, group, place=0):
    return [lane for lane in lanes(page) if lane["group"] == group][place]


@pytest.mark.parametrize("theme", THEMES)
def test_each_row_can_be_fitted_by_itself_and_back(chromium, uneven, screenshots, theme):
    page = show(chromium, uneven, theme=theme)
    whole = view(page)
    button = page.get_by_role("button", name="Fit each row")
    groups = ("sequential", "threads", "processes", "cold")

    def filled(group):
        """What share of a group's first branch, which takes 9/10 of its call or half of that, has its colour."""
        lane = lane_of(page, group)
        return coloured_pixels(page, {**lane, "top": lane["top"] + 28, "height": 1}) / lane["width"]

    assert filled("cold") == pytest.approx(0.9, abs=0.02)
    assert filled("threads") < 0.01
    page.screenshot(path=screenshots / f"timeline-uneven-{theme}.png")
    button.click()
    settle(page)
    assert trait(page, "own_axes") is True
    assert [filled(group) for group in groups] == pytest.approx([0.9] * 4, abs=0.02)
    page.screenshot(path=screenshots / f"timeline-each-row-{theme}.png")
    assert view(page) == whole
    page.get_by_role("button", name="One time axis").click()
    settle(page)
    assert filled("threads") < 0.01
    page.locator(".stage").focus()
    for share in (0.9, 0.0):
        page.keyboard.press("e")
        settle(page)
        assert filled("threads") == pytest.approx(share, abs=0.02)
    assert page.errors == []
    page.close()


def test_on_an_axis_of_its_own_every_gesture_means_the_row_that_it_is_in(chromium, uneven):
    page = show(chromium, uneven)
    page.locator(".stage").focus()
    page.keyboard.press("e")
    settle(page)
    whole = view(page)
    middle = at(page, lane_of(page, "threads", 1), 0.5)  # b, on its second lane
    page.mouse.click(*middle)
    assert page.locator(".details").text_content().startswith("b: threads · lane 1, starts at 0 ns, takes 12.1 ms")
    page.mouse.move(middle[0] + 1, middle[1])
    assert page.locator(".ruler").text_content().startswith("6.7")
    assert page.locator(".ruler").text_content().endswith("ms in threads")
    page.keyboard.press("Escape")

    lane, other = lane_of(page, "cold"), lane_of(page, "threads")
    page.mouse.move(2, 2)
    settle(page)
    before = [pixels(page, each) for each in (lane, other)]
    drag(page, at(page, lane, 0.25), at(page, lane, 0.75), shift=True)
    begin, end = trait(page, "selection")
    assert end - begin == pytest.approx(0.5 * 7.7e9, rel=0.02)
    cold = [i for i, lane in enumerate(lanes(page)) if lane["group"] == "cold"]
    assert trait(page, "lanes") == cold  # a time is another one in the other rows
    page.mouse.move(2, 2)
    settle(page)
    after = [pixels(page, each) for each in (lane, other)]
    assert (after[0] == before[0], after[1] == before[1]) == (False, True)

    page.keyboard.press("Escape")
    page.mouse.move(*at(page, lane, 0.5))
    page.mouse.wheel(0, -400)
    page.wait_for_function(f"model.get('view')[1] - model.get('view')[0] < {0.9 * whole[1]}")
    page.keyboard.press("ArrowRight")  # the first event, which is in sight of no other row's axis
    for key in ("ArrowDown",) * 4:
        page.keyboard.press(key)
    assert selected(page) >= 0
    page.keyboard.press("r")
    assert trait(page, "ruler") is None
    page.keyboard.press("f")
    assert view(page) == whole
    assert page.errors == []
    page.close()


def test_one_recording_has_nothing_to_fit_row_by_row(chromium):
    page = show(chromium, approach(parallel=True))
    assert not page.get_by_role("button", name="Fit each row").is_visible()
    page.locator(".stage").focus()
    page.keyboard.press("e")
    assert not trait(page, "own_axes")
    page.close()


WRITTEN = """() => {
    window.written = [];
    const { fillText } = CanvasRenderingContext2D.prototype;
    CanvasRenderingContext2D.prototype.fillText = function (text, ...at) {
        window.written.push(text);
        return fillText.call(this, text, ...at);
    };
}"""


def test_a_narrow_header_keeps_its_name_and_that_its_verdict_is_a_median(chromium, uneven, screenshots):
    """The words for the call that is drawn go first, then its time, which the line below shows too."""
    page = show(chromium, uneven)
    page.evaluate(WRITTEN)
    found = []
    for width in range(990, 350, -10):
        page.evaluate("window.written = []")
        page.set_viewport_size({"width": width, "height": 700})
        page.wait_for_function("window.written.includes('baseline')")
        written = page.evaluate("written")
        found.append(tuple(written[written.index("threads") + 1 :][:2]))
        if width == 390:
            page.screenshot(path=screenshots / "timeline-header-390.png")
    whole = "median of all rounds 1.64x as fast"
    times = [("this call 13.4 ms, ", whole), ("13.4 ms, ", whole), ("", whole), ("", "median 1.64x as fast")]
    assert list(dict.fromkeys(found)) == times
    page.close()


def test_a_header_is_grey_where_nothing_is_decided(chromium, uneven):
    page = show(chromium, uneven)

    def darkest(group):
        """Of the last letters of a header."""
        lane = lane_of(page, group)
        box = {"left": lane["left"] + lane["width"] - 30, "top": lane["top"] - 26, "width": 30, "height": 14}
        return min(pixels(page, box))

    assert darkest("threads") < "#202020"
    assert darkest("processes") > "#606060"  # as pale as the axis
    page.close()


def test_what_is_out_of_sight_is_told_and_shown_on_a_click(chromium, screenshots):
    trace = Trace.build(Event("a", "task", i, 40, Lane(1, i, f"worker {i}")) for i in range(60))
    page = show(chromium, trace)
    cue = page.locator(".cue")
    assert cue.text_content() == "▾ 40 more lanes below: show all"
    page.screenshot(path=screenshots / "timeline-more-lanes.png")
    page.locator(".stage").evaluate("stage => { stage.scrollTop = 280; }")
    settle(page)
    assert cue.text_content() == "▾ 30 more lanes below: show all"
    cue.click()
    settle(page)
    assert not cue.is_visible()
    box = page.locator(".stage canvas").bounding_box()
    assert box["height"] > 60 * 28
    last = lanes(page)[-1]
    assert coloured_pixels(page, {**last, "height": 10}) > 0
    page.close()


def test_a_few_lanes_more_than_fit_are_shown_at_once(chromium):
    trace = Trace.build(Event("a", "task", i, 40, Lane(1, i, f"worker {i}")) for i in range(22))
    page = show(chromium, trace)
    assert not page.locator(".cue").is_visible()
    assert page.locator(".stage").evaluate("stage => stage.scrollHeight - stage.clientHeight") <= 1
    page.close()


def test_it_fits_the_page_again_when_that_changes_its_width(chromium, comparison):
    """In a row of boxes too, where the widest child holds its parent wide: Jupyter puts widgets into such."""
    page = show(chromium, comparison)
    page.evaluate("document.body.style.display = 'flex'")
    page.evaluate("document.getElementById('one').style.flex = '1 1 auto'")
    whole = view(page)
    for width in (600, 1200, 800):
        page.set_viewport_size({"width": width, "height": 700})
        page.wait_for_function(f"document.querySelector('.kit-timeline').clientWidth <= {width} - 32")
        settle(page)
        lane = lane_of(page, "sequential")
        assert lane["left"] + lane["width"] == pytest.approx(width - 32 - 2 - 12, abs=2)
        assert page.locator(".stage canvas").bounding_box()["width"] == pytest.approx(width - 34, abs=2)
        assert view(page) == whole
    page.close()


def test_the_name_of_a_lane_is_explained_beside_the_pointer(chromium):
    page = show(chromium, Trace.build([Event("merge", "merge", 0, 9, Lane(1, 1, "merge 0"))]))
    box = page.locator(".stage canvas").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + lanes(page)[0]["top"] + 10)
    tip = page.locator(".tip")
    assert tip.locator("div").all_text_contents() == [
        "merge 0",
        "a thread of the calling process that joins the outputs of the branches",
    ]
    page.close()
