"""A widget as one HTML page with its script and data, which needs neither kernel nor network."""

from __future__ import annotations

import base64
import json
from html import escape
from pathlib import Path
from typing import Any

# A model of a widget's traits with nobody at the other end.
ALONE = Path(__file__).with_name("alone.js").read_text(encoding="utf-8")
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>TITLE</title>
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'">
<style>
:root { color-scheme: light dark; --jp-layout-color0: #fff; --jp-layout-color2: #eee; --jp-ui-font-color0: #111;
  --jp-ui-font-color2: #5f6368; --jp-border-color2: #d0d4da; --jp-brand-color1: #1976d2 }
@media (prefers-color-scheme: dark) { :root { --jp-layout-color0: #111; --jp-layout-color2: #424242;
  --jp-ui-font-color0: #fff; --jp-ui-font-color2: #b3b3b3; --jp-border-color2: #616161; --jp-brand-color1: #64b5f6 } }
body { margin: 16px; background: var(--jp-layout-color0) }
</style></head>
<body><div id="widget"></div><noscript>PICTURE</noscript>
<script type="application/json" id="columns">COLUMNS</script>
<script type="module">
SCRIPT
const state = JSON.parse(document.getElementById("columns").textContent);
widget.render({ model: alone(state), el: document.getElementById("widget") });
</script></body></html>
"""


def standalone(full: dict[str, Any], state: dict[str, Any], picture: str) -> bytes:
    """The page of these columns, with the timeline's traits in ``state``, and a still picture if scripts cannot run."""
    packed = {**full, "buffers": [base64.b64encode(buffer).decode() for buffer in full["buffers"]]}
    traits = {"selected": -1, "selection": None, "ruler": None, **state, "copy": packed}
    return page(module("timeline.js"), traits, picture, full["summary"])


def module(name: str, library: str = "") -> str:
    """A widget's script as one module, with the code that all widgets share before it.

    Args:
        name: name of the script file in this folder.
        library: source code to put first.
    """
    parts = (Path(__file__).with_name(each).read_text(encoding="utf-8") for each in ("shared.js", name))
    return "\n".join([*filter(None, [library]), *parts])


def page(script: str, traits: dict[str, Any], picture: str, title: str) -> bytes:
    """The page of a widget's script and traits; its ``copy`` has ``buffers``, in base64."""
    parts = {  # from the last to the first, so that no place is looked for in what was filled in before
        "SCRIPT": f"{script.replace('export default {', 'const widget = {')}\n{ALONE}",
        "COLUMNS": json.dumps(traits).replace("<", "\\u003c"),  # no name can end the script element
        "PICTURE": picture,
        "TITLE": escape(title),
    }
    written = _PAGE
    for place, text in parts.items():
        before, after = written.split(place, 1)
        written = before + text + after
    return written.encode("utf-8", "replace")
