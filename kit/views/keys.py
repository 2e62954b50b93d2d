"""Keys that are pressed on controls, which JupyterLab would take for commands of its own."""

from __future__ import annotations

import anywidget

from kit.views.page import module


class Keys(anywidget.AnyWidget):
    """Not seen. The keys pressed in the box around it, of the class ``kit-controls``, are for the controls in it."""

    _esm = module("keys.js")

    def __init__(self) -> None:
        super().__init__(layout={"display": "none"})

    def __repr__(self) -> str:
        return "Keys()"
