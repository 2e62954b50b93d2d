"""Widgets with a still copy, for exported pages, viewers and mails that cannot show widgets."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from kit.views.keys import Keys


class Still(widgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """A widget whose output also holds a still copy as HTML. Viewers without widgets and exported pages show it."""

    def __init__(self, *children: Any) -> None:
        super().__init__((*children, Keys()))
        self.add_class("kit-controls")  # for keys.js
        self._handle: Any = None  # of the output that shows the widget

    def still(self) -> str:
        """The still copy of the widget's present state, as HTML."""
        raise NotImplementedError

    def renew(self) -> None:
        """Update the still copy in the output that shows the widget, which may belong to an earlier cell."""
        if self._handle is not None:
            self._handle.update(self._bundle(), raw=True)

    def _bundle(self) -> dict[str, Any]:
        return {**self._repr_mimebundle_(), "text/html": self.still()}

    def _ipython_display_(self) -> None:
        from IPython import display

        show: Any = display.display  # IPython has no types for it
        self._handle = show(self._bundle(), raw=True, display_id=True)
