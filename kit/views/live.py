"""A live pipeline in a notebook: the current frame, its motion, the network's predictions, start and stop."""

from __future__ import annotations

import base64
import html
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import ipywidgets as widgets
import numpy as np

from kit.pipeline import Pipeline, RunStatistics
from kit.views.pictures import flow_picture, jpeg, wheel_key, wheel_png
from kit.views.still import Still
from kit.workloads.live import Sight

SHOWN_S = 1 / 15  # between pictures: a browser needs no more, and each costs an encoding
QUALITY = 95  # of the pictures
REACH = 8.0  # pixels per frame in full colour


class Live(Still):
    """Play a source through a pipeline whose results are :class:`kit.workloads.live.Sight` objects.

    The button plays in the background until the source ends or the button is pressed again; :meth:`play` plays in the
    foreground.

    Args:
        line: makes a pipeline; each run gets its own, since stages have a state.
        source: makes the source.
    """

    def __init__(self, line: Callable[[], Pipeline], source: Callable[[], Iterable[Any]]) -> None:
        self._make, self._source = line, source
        self._line: Pipeline | None = None
        self._thread: threading.Thread | None = None
        self._shown, self._seen = 0.0, ""  # when the last picture was, and what was recognised then
        wide = {"width": "320px", "height": "240px"}
        nothing = jpeg(np.full((240, 320, 3), 128, np.uint8), QUALITY)  # an image without data is a broken one
        self._frame, self._flow = (widgets.Image(value=nothing, format="jpeg", layout=wide) for _ in range(2))
        self._text = widgets.HTML("<i>not started</i>")
        self._button = widgets.ToggleButton(description="Start", tooltip="start or stop the pipeline")
        self._button.observe(self._pressed, "value")
        super().__init__(widgets.HBox([self._frame, self._flow, widgets.HTML(_key())]), self._text, self._button)

    def play(self) -> RunStatistics:
        """Play to the end of the source in this cell; an interrupt ends the run and closes the source."""
        self.stop()
        self._line = line = self._make()
        figures = line.run(self._source(), self._show)
        self._tell(figures)  # all of it, where the last picture was shown before the last frame
        self.renew()
        return figures

    def stop(self) -> None:
        """Stop playing in the background; does nothing if nothing is playing."""
        if self._thread is not None and self._line is not None:
            self._line.stop()
            self._thread.join()
            self._thread = None

    def _pressed(self, change: dict[str, Any]) -> None:
        if not change["new"]:
            self.stop()
        elif self._thread is None:
            self._line = line = self._make()
            self._thread = threading.Thread(target=self._background, args=(line,), name="live view", daemon=True)
            self._thread.start()
        self._button.description = "Stop" if change["new"] else "Start"

    def _background(self, line: Pipeline) -> None:
        try:
            line.run(self._source(), self._show)
        except Exception as error:  # there is no cell to raise it in
            self._text.value = f"<b>stopped:</b> {html.escape(str(error))}"
        self._thread = None
        self._button.value = False

    def _show(self, sight: Sight) -> None:
        now = time.monotonic()
        if now - self._shown < SHOWN_S or self._line is None:
            return
        self._shown = now
        self._frame.value = jpeg(sight.frame, QUALITY)
        self._flow.value = jpeg(flow_picture(sight.flow, REACH), QUALITY)
        seen = [f"{guess.name} {guess.probability:.0%}" for guess in (sight.texture, sight.motion) if guess]
        self._seen = ", ".join(seen)
        self._tell(self._line.statistics)

    def _tell(self, figures: RunStatistics) -> None:
        self._text.value = (
            f"<b>{html.escape(self._seen)}</b><br>{figures.per_second:.0f} frames/s, {figures.dropped} of "
            f"{figures.read} dropped"
        )

    def still(self) -> str:
        """The last frame, its motion, and the prediction, as HTML."""
        encoded = [base64.b64encode(image.value).decode() for image in (self._frame, self._flow)]
        images = "".join(f'<img width="320" src="data:image/jpeg;base64,{data}"> ' for data in encoded)
        return f"<p>{images}</p>{_key()}<p>{self._text.value}</p>"

    def __repr__(self) -> str:
        return "Live()"


def _key() -> str:
    """The key to the hues of the motion picture, as HTML."""
    wheel = base64.b64encode(wheel_png()).decode()
    picture = f'<img width="96" src="data:image/png;base64,{wheel}" alt="a wheel of hues">'
    return f"<p>{picture}<br>{wheel_key(REACH)}<br>white: no motion</p>"
