"""The grid of a layer over time: a row for each step, a column for each frame and for the padding around the clip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kit.models.continual import Reach
from kit.reprs import one_line
from kit.text import html_table
from kit.views.palette import NEUTRAL, OKABE_ITO

_CELL, _LEFT, _RIGHT, _TOP = 18, 62, 84, 40  # pixels of a cell, and beside and above the cells
_USED, _PADDED = OKABE_ITO[0], OKABE_ITO[1]


@one_line
@dataclass(frozen=True)
class FrameGrid:
    """Which frames and which padding each output is made of.

    Frames are measured by changing them; the places of padding follow from kernel, stride, padding and dilation.
    """

    found: NDArray[np.int8]  # (T, T) from kit.labs.continual.influence: steps x frames
    after: NDArray[np.int8]  # (n, T): outputs that are due only when padding follows the last frame
    reach: Reach
    dilation: int = 1

    def rows(self) -> Iterator[tuple[str, NDArray[np.int8], list[int], str]]:
        """Of each row: its name, its frames, the places of padding that it is made of, and its output."""
        output = 0
        for t, frames in enumerate(self.found):
            gives = frames.min() >= 0
            yield f"step {t}", frames, self._padding(output) if gives else [], f"output {output}" if gives else "None"
            output += int(gives)
        for i, frames in enumerate(self.after, 1):
            yield f"end {i}", frames, self._padding(output), f"output {output}"
            output += 1

    def _padding(self, output: int) -> list[int]:
        first, length = output * self.reach.stride - self.reach.padding, self.found.shape[1]
        places = range(first, first + self.reach.receptive_field, self.dilation)
        return [place for place in places if not 0 <= place < length]

    def svg(self) -> str:
        """The grid as an SVG picture, in the colours of the page that shows it."""
        length, pad = self.found.shape[1], self.reach.padding
        rows = list(self.rows())
        width, height = _LEFT + _CELL * (length + 2 * pad) + _RIGHT, _TOP + _CELL * len(rows) + 4
        title = f"{length} input frames" + (f", {pad} of padding on each side" if pad else "")
        parts = [_text(_LEFT + _CELL * pad, 14, title)]
        parts += [_text(_LEFT + _CELL * (pad + t) + 4, _TOP - 6, str(t)) for t in range(0, length, 2)]
        for i, (name, frames, padding, output) in enumerate(rows):
            y = _TOP + _CELL * i
            parts.append(_text(4, y + 13, name) + _text(_LEFT + _CELL * (length + 2 * pad) + 8, y + 13, output))
            for place in range(-pad, length + pad):
                inside = 0 <= place < length
                used = frames[place] == 1 if inside else place in padding
                parts.append(_cell(_LEFT + _CELL * (place + pad), y, inside, bool(used), name == f"step {place}"))
        label = "Which frames and which padding the output of each step is made of; the table below says the same."
        return (
            f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' viewBox='0 0 {width} {height}' "
            f"role='img' aria-label='{label}' style='max-width:100%;height:auto' font-size='12' fill='currentColor'>"
            f"{''.join(parts)}</svg>"
        )

    def table(self) -> str:
        """The same as an HTML table, folded."""
        lines = [
            (name, _numbers(np.flatnonzero(frames == 1)), str(len(padding) or ""), output)
            for name, frames, padding, output in self.rows()
        ]
        table = html_table([("step", "frames that count", "frames of padding", "gives"), *lines], [])
        return f"<details><summary>The grid as a table</summary>{table}</details>"


def influence_on_clip(model: nn.Module, clip: Tensor, first: int) -> NDArray[np.int8]:
    """Which frames the outputs of ``forward`` from number ``first`` on depend on: ``(outputs, T)`` of 1 and 0."""
    with torch.no_grad():
        base = model(clip)[:, :, first:]
        found = np.zeros((base.shape[2], clip.shape[2]), np.int8)
        for t in range(clip.shape[2]):
            other = clip.clone()
            other[:, :, t] = -other[:, :, t] + 1
            changed = model(other)[:, :, first:]
            found[:, t] = [not torch.allclose(a, b) for a, b in zip(base.unbind(2), changed.unbind(2), strict=True)]
    return found


def _cell(x: int, y: int, inside: bool, used: bool, now: bool) -> str:
    fill = (_USED if inside else _PADDED) if used else "none"
    dashed = "" if inside else " stroke-dasharray='3 2'"
    side = _CELL - 2
    box = f"<rect x='{x + 1}' y='{y + 1}' width='{side}' height='{side}' fill='{fill}' stroke='{NEUTRAL}'{dashed}/>"
    mark = f"<path d='M{x + 4} {y + 4}l10 10m0 -10l-10 10' stroke='#000000'/>" if used and not inside else ""
    dot = f"<circle cx='{x + 9}' cy='{y + 9}' r='3' fill='{'#000000' if used else 'currentColor'}'/>" if now else ""
    return box + mark + dot


def _text(x: int, y: int, text: str) -> str:
    return f"<text x='{x}' y='{y}'>{text}</text>"


def _numbers(numbers: NDArray[np.int64]) -> str:
    return ", ".join(map(str, numbers)) or "none"
