"""Counters, instants and arguments on the page: what is drawn, and what the pane shows of what the kernel answers."""

from dataclasses import replace

import numpy as np
import pytest

from kit.trace.columns import Event, Lane, Marks, Trace
from kit.views.details import described
from tests.browser.pages import EVIL, THEMES
from tests.browser.test_timeline_page import at, settle, show

pytest.importorskip("playwright")

MS = 1_000_000


def counted_trace() -> Trace:
    """One operator on a thread, an instant in its middle and one of all, and a counter that rises and falls."""
    lane = Lane(1, 1, "worker 0")
    events = [Event("aten::conv2d", "cpu_op", i * MS, MS - 1000, lane) for i in range(10)]
    shapes = {"Input Dims": [[8, 3, 224, 224]], "Call stack": f"main.py(3): f;{EVIL}", "bytes": 3 << 19, EVIL: EVIL}
    trace = Trace.build(events, [shapes] * 10)
    time = [0, 2 * MS, 5 * MS, 5 * MS, 6 * MS, 8 * MS]
    number = len(time)
    marks = Marks(
        time_ns=np.array(time, np.int64),
        lane=np.array([0, 0, 0, -1, 0, 0], np.int32),
        name=np.array([1, 1, 2, 2, 1, 1], np.int32),
        category=np.zeros(number, np.int32),
        kind=np.array([3, 3, 3, 3, 3, 3], np.int32),
        key=np.array([0, 0, -1, -1, 0, 0], np.int32),
        value=np.array([1 << 20, 3 << 20, np.nan, np.nan, 2 << 20, 1 << 20]),
    )
    return replace(trace, names=(*trace.names, "[memory]", EVIL), marks=marks, keys=("GPU 0",))


@pytest.mark.parametrize("theme", THEMES)
def test_the_pane_shows_shapes_and_a_counter_is_drawn(chromium, screenshots, theme):
    trace = counted_trace()
    page = show(chromium, trace, theme=theme, colour="name")
    (lane,) = page.evaluate("JSON.parse(document.querySelector('.kit-timeline').dataset.lanes)")
    (curve,) = page.evaluate("JSON.parse(document.querySelector('.kit-timeline').dataset.curves)")
    assert curve["label"] == "allocated on GPU 0"
    pane, tip = page.locator(".arguments"), page.locator(".tip")
    assert not pane.is_visible()

    page.mouse.click(*at(page, lane, 0.05))
    assert page.evaluate("asked.at(-1)") == {"ask": "args", "event": 0}
    page.evaluate("answer_args", [{"args": described(trace.args(5)), "event": 5}])  # late, of another event
    assert not pane.is_visible()
    page.evaluate("answer_args", [{"args": described(trace.args(0)), "event": 0}])
    assert pane.locator("dt").all_text_contents() == ["Input Dims", "Call stack", "bytes", EVIL[:80]]
    assert pane.locator("dd").nth(0).text_content() == "[[8, 3, 224, 224]]"
    assert pane.locator("summary").text_content() == "2 lines"
    pane.locator("summary").click()
    assert pane.locator("details div").all_text_contents() == ["main.py(3): f", EVIL]
    assert pane.locator("dd").nth(2).text_content() == "1,572,864 (1.5 MiB)"
    assert pane.locator("dd").nth(3).text_content() == EVIL
    assert page.evaluate("window.hacked") is None

    page.mouse.move(*at(page, curve, 0.3))
    assert tip.locator("div").all_text_contents()[0] == "allocated on GPU 0"
    assert tip.locator("div").all_text_contents()[1].startswith("3 MiB at 3")
    assert inked(page, curve) > curve["width"]
    page.mouse.move(*at(page, lane, 5 * MS / (10 * MS - 1000), row=-0.4))
    assert tip.locator("div").all_text_contents()[:2] == [EVIL, "worker 0"]
    page.screenshot(path=screenshots / f"timeline-counters-{theme}.png")
    page.locator(".stage").focus()
    page.keyboard.press("Escape")
    assert not pane.is_visible()
    assert page.errors == []
    page.close()


def inked(page, box) -> int:
    """How many pixels of a box have another colour than the page's."""
    settle(page)
    return page.evaluate(
        """(box) => {
          const canvas = document.querySelector(".stage canvas"), scale = window.devicePixelRatio;
          const area = [box.left, box.top, box.width, box.height].map((length) => Math.round(length * scale));
          const pixels = new Uint32Array(canvas.getContext("2d").getImageData(...area).data.buffer);
          const counts = new Map();
          for (const each of pixels) counts.set(each, (counts.get(each) ?? 0) + 1);
          return pixels.length - Math.max(...counts.values());
        }""",
        box,
    )
