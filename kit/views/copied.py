"""Code to copy into a cell."""

from __future__ import annotations

import anywidget
import traitlets

from kit.views.page import module


class Copied(anywidget.AnyWidget):
    """A button that copies code to the clipboard, and shows it below itself."""

    _esm = module("copied.js")
    code = traitlets.Unicode().tag(sync=True)

    def __repr__(self) -> str:
        return f"Copied({len(self.code.splitlines())} lines)"
