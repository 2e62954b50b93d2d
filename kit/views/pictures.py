"""Frames and optical flow as pictures, and plotly figures of them."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from kit.views.chart import Chart
from kit.views.figures import TEXT

_WHEEL = ((255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255))  # corners
_STEPS = (15, 6, 4, 11, 13, 6)  # from each corner to the next, as far apart as the eye tells them


def clip_figure(frames: NDArray[np.uint8], flow: NDArray[np.float32], picks: int = 4) -> Chart:
    """Frames, the motion to the next frame below each, and the colour wheel (the key to the hues) at the right.

    >>> from kit import clips
    >>> clip = clips.generate(frames=5, height=64, width=64)
    >>> kit.clip_figure(clip.frames, clip.flow)
    Chart(9 traces)

    Args:
        frames: ``(T, H, W, 3)`` uint8 RGB.
        flow: ``(T - 1, H, W, 2)`` float32, pixels per frame.
        picks: number of frames to show, evenly spaced.
    """
    moments = np.linspace(0, len(flow) - 1, picks).astype(int)
    reach = float(np.percentile(np.linalg.norm(flow, axis=-1), 99)) or 1.0
    figure: Chart = make_subplots(
        figure=Chart(),
        rows=2,
        cols=picks + 1,
        subplot_titles=[*(f"frame {t}" for t in moments), "", *(f"motion, {t} to {t + 1}" for t in moments)],
        horizontal_spacing=0.01,
        vertical_spacing=0.1,
        specs=[[{}] * picks + [{"rowspan": 2}], [{}] * picks + [None]],
    )
    for column, t in enumerate(moments, start=1):
        figure.add_trace(_image(frames[t]), 1, column)
        figure.add_trace(_image(flow_picture(flow[t], reach)), 2, column)
    wheel = "data:image/png;base64," + base64.b64encode(wheel_png()).decode()
    figure.add_trace(go.Image(source=wheel, hoverinfo="skip"), 1, picks + 1)
    figure.update_annotations(font={"size": 13})
    across = sum(figure.get_subplot(1, picks + 1).xaxis.domain) / 2
    place = {"x": across, "y": 0.82, "xref": "paper", "yref": "paper", "xanchor": "center", "yanchor": "bottom"}
    figure.add_annotation(**place, text=wheel_key(reach), showarrow=False)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.update_layout(**TEXT, height=400, margin={"l": 10, "r": 10, "t": 30, "b": 10})
    return figure


def flow_picture(flow: NDArray[np.float32], reach: float) -> NDArray[np.uint8]:
    """Flow ``(H, W, 2)`` as RGB ``(H, W, 3)``: hue is direction, white no motion, full colour ``reach`` px per frame.

    The colours are those of Baker et al., *A Database and Evaluation Methodology for Optical Flow* (2011): right is
    red, down yellow, left cyan to blue, up violet; motion faster than ``reach`` is darker.
    """
    wheel = np.concatenate(
        [np.linspace(_WHEEL[i], _WHEEL[(i + 1) % 6], steps, endpoint=False) for i, steps in enumerate(_STEPS)]
    )
    turn = np.arctan2(flow[..., 1], flow[..., 0]) / (2 * np.pi) % 1 * len(wheel)
    before = turn.astype(int) % len(wheel)
    part = (turn - turn.astype(int))[..., None]
    hue = (1 - part) * wheel[before] + part * wheel[(before + 1) % len(wheel)]
    speed = (np.linalg.norm(flow, axis=-1) / reach)[..., None]
    colour = np.where(speed <= 1, 255 - speed * (255 - hue), 0.75 * hue)
    return np.asarray(np.rint(colour), np.uint8)


def flow_wheel(size: int = 160) -> NDArray[np.uint8]:
    """The key to :func:`flow_picture`, ``(size, size, 3)``: each pixel shows the motion from the centre to it."""
    x = np.linspace(-1.05, 1.05, size, dtype=np.float32)
    flow = np.stack(np.meshgrid(x, x), axis=-1)
    return np.where(np.linalg.norm(flow, axis=-1)[..., None] <= 1, flow_picture(flow, 1.0), 255).astype(np.uint8)


def wheel_png(size: int = 160) -> bytes:
    """The colour wheel as a PNG file, with transparent corners for dark pages."""
    import cv2

    far = np.linspace(-1.05, 1.05, size) ** 2
    opaque = np.where(far + far[:, None] <= 1, 255, 0).astype(np.uint8)
    _done, data = cv2.imencode(".png", np.dstack([flow_wheel(size)[..., ::-1], opaque]))
    return bytes(data)


def wheel_key(reach: float) -> str:
    """The text beside the wheel: two lines of HTML; ``reach`` is in pixels per frame."""
    return f"hue: direction of motion<br>rim: {reach:.1f} px per frame"


def _image(pixels: NDArray[np.uint8]) -> Any:
    """An image as JPEG in the figure, since its pixel values as numbers would make a notebook fifty times as large."""
    return go.Image(source="data:image/jpeg;base64," + base64.b64encode(jpeg(pixels, 88)).decode(), hoverinfo="skip")


def jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """An RGB picture ``(H, W, 3)`` uint8 as a JPEG file; quality is 0 to 100."""
    import cv2

    _done, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(data)
