"""``python -m bench.timeline``: how long a timeline of 1,000,000 events takes to its first frame, and to each next one.

The first frame is timed in JupyterLab: from the command that runs the cell until all events are there and drawn.

A page of ``Timeline.to_html`` in a headless Chromium without a GPU gets 200 gestures: wheel zooms in and out at moving
places, pans by drag, and drags of the minimap. What counts is ``work``: the handling of the event, and the drawing of
the frame after it until its pixels can be read. In between, a browser waits for the screen's next refresh, up to
16.7 ms on most; ``with that wait`` goes from the event to the pixels, and begins where the wait is longest.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from playwright.sync_api import sync_playwright

from kit.trace.columns import Lane, Trace, in_order
from kit.views.timeline import Timeline, timeline
from tools.lab import READY, lab

EVENTS, LANES, LEVELS, NAMES = 1_000_000, 12, 5, 200
GESTURES = 200
OUT = Path("build/bench_timeline.json")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]

MEASURE = """async (gestures) => {
  const canvas = document.querySelector(".stage canvas");
  const pen = canvas.getContext("2d");
  const box = canvas.getBoundingClientRect();
  canvas.setPointerCapture = () => {};
  const at = (type, Kind, x, y, more = {}) => canvas.dispatchEvent(
    new Kind(type, { clientX: box.left + x, clientY: box.top + y, bubbles: true, cancelable: true, ...more }));
  const wheel = (deltaY) => (share) => at("wheel", WheelEvent, 120 + share * (box.width - 150), 200, { deltaY });
  let held = null;
  const drag = (y) => (share) => {
    const x = 120 + share * (box.width - 150);
    if (held !== y) at("pointerdown", PointerEvent, x + 30, y, { pointerId: 1 });
    held = y;
    at("pointermove", PointerEvent, x, y, { pointerId: 1 });
  };
  const drop = () => held !== null && (at("pointerup", PointerEvent, 0, held, { pointerId: 1 }), (held = null));
  const kinds = { in: wheel(-120), out: wheel(120), pan: drag(200), map: drag(39) };
  let work = 0;
  const times = [];
  const real = window.requestAnimationFrame.bind(window);
  const timed = (step) => {
    const begin = performance.now();
    step();
    work += performance.now() - begin;
  };
  window.requestAnimationFrame = (draw) => real((now) => timed(() => {
    draw(now);
    pen.getImageData(0, 0, 1, 1); // the pixels are there, not only promised
  }));
  for (const [kind, share] of gestures) {
    if (!["pan", "map"].includes(kind) || (held !== null && held !== { pan: 200, map: 39 }[kind])) drop();
    await new Promise(real);
    const before = performance.now();
    work = 0;
    timed(() => kinds[kind](share));
    await new Promise(real); // asked for after the view's own, so run after its drawing
    times.push([work, performance.now() - before]);
  }
  window.requestAnimationFrame = real;
  return times;
}"""

FIRST_DRAW = """async (events) => {
  const begin = performance.now();
  window.jupyterapp.commands.execute("notebook:run-cell");
  const all = `.kit-timeline[data-events="${events}"] .stage canvas`;
  while (!document.querySelector(all)) await new Promise(requestAnimationFrame);
  document.querySelector(all).getContext("2d").getImageData(0, 0, 1, 1); // the pixels are there, not only promised
  return performance.now() - begin;
}"""


def synthetic(n: int = EVENTS) -> Trace:
    """``n`` operators that nest five deep on twelve threads, with gaps, as torch.profiler records a training loop."""
    random = np.random.default_rng(0)
    calls = n // (LANES * LEVELS)
    starts, durations, lanes, names = [], [], [], []
    for lane in range(LANES):
        length = random.integers(2_000, 60_000, calls)
        start = np.cumsum(length + random.integers(0, 9_000, calls)) - length
        for level in range(LEVELS):
            starts.append(start + level * 100)
            durations.append(length - level * 200)
            lanes.append(np.full(calls, lane))
            names.append(random.integers(0, NAMES, calls))
    trace = Trace(
        start_ns=np.concatenate(starts).astype(np.int64),
        duration_ns=np.concatenate(durations).astype(np.int64),
        lane=np.concatenate(lanes).astype(np.int32),
        name=np.concatenate(names).astype(np.int32),
        category=np.zeros(sum(map(len, starts)), np.int32),
        lanes=tuple(Lane(1, i, f"thread {i}") for i in range(LANES)),
        names=tuple(f"aten::operator_{i}" for i in range(NAMES)),
        categories=("cpu_op",),
    )
    return trace.take(in_order(trace.start_ns, trace.duration_ns))  # as every trace that was read from a file


def gestures() -> list[tuple[str, float]]:
    """The same 200 in every run: in eight steps, pans, out eight steps, pans, the minimap."""
    random = np.random.default_rng(1)
    turn = ["in"] * 8 + ["pan"] * 6 + ["in"] * 6 + ["pan"] * 6 + ["map"] * 6 + ["out"] * 12 + ["pan"] * 6
    kinds = (turn * (GESTURES // len(turn) + 1))[:GESTURES]
    return [(kind, round(float(share), 3)) for kind, share in zip(kinds, random.random(GESTURES), strict=True)]


def in_browser(file: Path) -> dict[str, Any]:
    """Time the gestures on a page, without and with a search."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        begin = time.perf_counter()
        page.goto(file.as_uri())
        page.wait_for_function("document.querySelector('.kit-timeline')?.dataset.lanes")
        rows: dict[str, Any] = {"page opened s": round(time.perf_counter() - begin, 2)}
        for case in ("plain", "search"):
            if case == "search":
                page.get_by_role("searchbox").fill("operator_7")
            page.locator(".stage").focus()
            page.keyboard.press("f")
            times = np.array(page.evaluate(MEASURE, gestures())).T
            for what, column in zip(("work", "with that wait"), times, strict=True):
                rows[f"{case}, {what}"] = {f"p{q} ms": round(float(np.percentile(column, q)), 1) for q in (50, 95, 100)}
        browser.close()
    return rows


def in_jupyterlab(folder: Path, events: int) -> float:
    """Seconds from running a cell that makes the timeline to its first full draw."""
    cells = [
        "from bench.timeline import synthetic\nimport kit\ntrace = synthetic()\nkit.timeline",
        "kit.timeline(trace)",
    ]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(notebook, folder / "large.ipynb")
    with sync_playwright() as playwright, lab(folder) as served:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(served.url("large.ipynb"))
        page.wait_for_function(READY, arg="large.ipynb", timeout=60_000)
        page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-cell-and-select-next')")
        page.wait_for_timeout(300)
        milliseconds: float = page.evaluate(FIRST_DRAW, events)
        browser.close()
    return milliseconds / 1e3


def main() -> None:
    if shutil.which("chromium") is None:
        sys.exit("no Chromium here: apt-get install chromium")
    trace = synthetic()
    made = time.perf_counter()
    widget: Timeline = timeline(trace)
    rows: dict[str, Any] = {"events": len(trace), "widget made s": round(time.perf_counter() - made, 2)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        begin = time.perf_counter()
        widget.to_html(file)
        rows |= {"page written s": round(time.perf_counter() - begin, 2), "page MB": round(file.stat().st_size / 1e6)}
        rows |= in_browser(file)
        rows["first full draw in JupyterLab s"] = round(in_jupyterlab(Path(folder), len(trace)), 2)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(rows, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
