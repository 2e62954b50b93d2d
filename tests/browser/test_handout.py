"""The handout is one printed page, and every picture of it is drawn."""

import re
from typing import Any

from tools.teaching.handout import page


def test_the_handout_prints_on_one_page(chromium: Any, screenshots: Any) -> None:
    shown = chromium.new_page(viewport={"width": 794, "height": 1123})
    shown.set_content(page())
    assert shown.evaluate("() => [...document.images].every(image => image.complete && image.naturalWidth > 100)")
    assert len(re.findall(rb"/Type\s*/Page\b", shown.pdf(prefer_css_page_size=True))) == 1
    shown.screenshot(path=screenshots / "handout.png", full_page=True)
    shown.set_viewport_size({"width": 390, "height": 800})
    assert shown.evaluate("() => document.documentElement.scrollWidth") <= 390  # on a phone
    shown.close()
