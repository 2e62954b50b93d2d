"""``make picture``: measure two streams on this machine, and draw docs/timeline.png, the README's first picture.

The picture shows code, its table and its timeline. It is refused if other programs use the cores, if the table decides
nothing, or if what is drawn differs from the table: then nothing is written.
"""

from __future__ import annotations

import html
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from playwright.sync_api import sync_playwright

import kit
from kit import clips, models
from kit.data_files import data_file
from kit.machine import load
from kit.measuring.comparison import Comparison, Ratio, Row
from kit.text import html_table, milliseconds
from kit.trace import wall_ns

OUT = Path(__file__).parents[1] / "docs" / "timeline.png"
WIDTH = 940  # pixels of the page; the picture has twice as many
PATIENCE_S = 60.0  # so long other programs may keep the cores before the picture is refused
ROUNDS = 40
TOLERANCE = 0.05  # a call is drawn whose time is within this share of its row's median
CODE = """\
comparison = kit.compare(model, (frame, flow), "sequential, threads")
comparison
kit.timeline(comparison)
"""
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Branch Lab</title><style>
body {{ margin: 0; padding: 20px; width: {width}px; background: #fff; color: #1a1a1a }}
body {{ font: 14px system-ui, sans-serif }}
pre {{ margin: 0 0 14px; padding: 10px 12px; background: #f1f3f5; font: 14px/1.5 ui-monospace, monospace }}
table {{ border-collapse: collapse; margin: 0 0 14px }}
th, td {{ border-bottom: 1px solid #d0d4da }}
footer {{ color: #5f6368; font-size: 12px; margin-top: 8px }}
</style></head><body><pre>{code}</pre>{table}{timeline}<footer>{about}</footer></body></html>
"""


def disagreement(comparison: Comparison) -> str | None:
    """Why this comparison makes no picture, as a clause; None if its table and its timeline say the same."""
    if comparison.taken is None:
        return "it is not known what other programs took of the cores"
    if comparison.taken.share > load.NOTABLE:
        return str(comparison.taken)
    for row in comparison.rows:
        if row.verdict not in ("baseline", "faster", "slower", "no difference found"):
            return f"the table says of {row.name}: {row.summary}"
        drawn, median = _drawn_ms(row), row.timing.median_ms  # type: ignore[union-attr]
        if abs(drawn / median - 1) > TOLERANCE:
            shown, told = milliseconds(drawn), milliseconds(median)
            return f"the timeline draws {shown} for {row.name}, and the table says {told}"
    for row in comparison.rows[1:]:
        assert row.ratio is not None  # as its verdict says
        drawn = _drawn_ms(comparison.baseline) / _drawn_ms(row)
        within = row.verdict == "no difference found" and row.ratio.low <= drawn <= row.ratio.high
        if not within and Ratio(drawn, drawn, drawn).verdict != row.verdict:
            return f"the timeline draws {row.name} {drawn:.2f}x as fast, and the table says {row.verdict}"
    return None


def _drawn_ms(row: Row) -> float:
    """Milliseconds of the call that the timeline draws."""
    assert row.timing is not None
    return wall_ns(row.timing.trace) / 1e6


def page(comparison: Comparison) -> str:
    """The picture as an HTML page that needs nothing else."""
    table, timeline = html_table(comparison.table(), []), kit.timeline(comparison).figure().svg
    about = html.escape(f"{comparison.rounds} interleaved rounds; {comparison.about}")
    return _PAGE.format(width=WIDTH - 40, code=html.escape(CODE), table=table, timeline=timeline, about=about)


def draw(comparison: Comparison, path: Path) -> None:
    """Write the picture as a PNG."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        source = Path(folder) / "page.html"
        source.write_text(page(comparison), encoding="utf-8")
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        opened = browser.new_page(viewport={"width": WIDTH, "height": 400}, device_scale_factor=2)
        opened.goto(source.as_uri())
        opened.screenshot(path=path, full_page=True)
        browser.close()


def main() -> None:
    if shutil.which("chromium") is None:
        sys.exit("no picture: there is no Chromium here: apt-get install chromium")
    if load.wait_for_calm(PATIENCE_S) is None:
        sys.exit(f"no picture: other programs used the cores for {PATIENCE_S:.0f} s. End them, and try again.")
    clip = clips.load(data_file("clips/shapes.mp4"))
    frame, flow = (torch.from_numpy(x) for x in clips.two_stream_inputs(clip))
    comparison = kit.compare(models.two_stream(), (frame, flow), "sequential, threads", rounds=ROUNDS)
    print(comparison)
    if why := disagreement(comparison):
        sys.exit(f"no picture: {why}. Try again when no other program runs.")
    draw(comparison, OUT)
    print(f"{OUT} is drawn: look at it before you commit it.")


if __name__ == "__main__":
    main()
