"""What the site's search reads: one entry for each section of each page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.site.pages import Page


def write(folder: Path, menu: Mapping[str, Sequence[Page]]) -> None:
    """Write ``index.js``, a script and not JSON, so that it also loads where a page is opened as a file.

    Each entry has ``place`` (with the section's id), ``page`` and ``title`` (of the page and of the section), ``text``.
    """
    entries = [
        {
            "place": f"{page.place}{f'#{each.id}' if each.id else ''}",
            "page": page.title,
            "title": each.title or page.title,
            "text": each.text,
        }
        for pages in menu.values()
        for page in pages
        for each in page.texts
    ]
    (folder / "index.js").write_text(
        f"window.kitIndex = {json.dumps(entries, ensure_ascii=False)};\n", encoding="utf-8"
    )
