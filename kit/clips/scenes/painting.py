"""Layers that move, turn and zoom over each other, painted with their exact motion.

The same frames on every platform, to the last bit: random numbers are PCG64's raw stream, and the arithmetic is
+ - * / sqrt floor, one numpy operation at a time. No sin, no matmul: their last bits depend on the machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Grid = NDArray[np.floating[Any]]  # a value at each pixel, (h, w)
Field = Callable[[Grid, Grid], Grid]  # local coordinates (u, v) -> a value
Paint = Callable[[Grid, Grid], Float32]  # local coordinates (u, v) -> RGB in 0..255, (h, w, 3)


class Pose(NamedTuple):
    """Where a layer is in one frame: local ``(u, v)`` shows at ``(x + a u - b v, y + b u + a v)``."""

    x: float
    y: float
    a: float  # zoom * cos(turn)
    b: float  # zoom * sin(turn)


class Layer(NamedTuple):
    outline: Field | None  # signed distance to the outline of radius 1, negative inside; None covers the picture
    radius: float  # pixels, at zoom 1
    paint: Paint  # of local pixels
    grain: Field | None  # of local pixels: 0..1, brightness, so that every motion shows
    poses: list[Pose]  # one per frame
    rim: float = 8.0  # pixels over which the outline darkens, at zoom 1


class Chance:
    """All that a seed decides: numbers one after the other, and smooth noise."""

    def __init__(self, seed: int) -> None:
        self.raw = np.random.PCG64(seed).random_raw
        self._table = (np.asarray(self.raw(64 * 64)) >> 56).astype(np.float32).reshape(64, 64) / np.float32(255)

    def __call__(self, low: float, high: float) -> float:
        """A number between."""
        return low + (high - low) * (int(self.raw()) >> 11) * 2.0**-53

    def speed(self, low: float, high: float) -> float:
        """A number between, or its negative."""
        return self(low, high) * (1 if self(-1, 1) > 0 else -1)

    def noise(self, u: Grid, v: Grid, cell: float) -> Grid:
        """Smooth noise in 0..1 that changes over ``cell`` pixels."""
        return value_noise(self._table, u / cell, v / cell)

    def grain(self, u: Grid, v: Grid) -> Grid:
        """Noise of three sizes."""
        octaves: Grid = 0.5 * self.noise(u, v, 27) + 0.3 * self.noise(v, u, 11) + 0.2 * self.noise(u, v, 6)
        return octaves

    def textures(self) -> dict[str, Field]:
        """Patterns by name: 0..1 at local pixels, in a period of about 20."""
        return {
            "stripes": lambda u, v: np.clip(0.5 + 1.5 * wave(u / 11), 0, 1),
            "checkers": lambda u, v: np.clip(0.5 + 3 * wave(u / 15) * wave(v / 15), 0, 1),
            "rings": lambda u, v: np.clip(0.5 + 1.5 * wave(np.sqrt(u * u + v * v) / 9), 0, 1),
            "dots": lambda u, v: np.clip(1.2 * (wave(u / 10) + wave(v / 10)) - 0.2, 0, 1),
            "clouds": lambda u, v: np.clip(4 * self.noise(u, v, 10) - 1.5, 0, 1),
        }


def wave(x: Grid) -> Grid:
    """A triangle between -1 and 1, of period 2."""
    triangle: Grid = np.abs(x - 2 * np.floor(x / 2) - 1) * 2 - 1
    return triangle


def outlines() -> list[Field]:
    """Signed distances to a disc, a square, a star, a ring and a triangle of radius 1, negative inside."""
    return [
        lambda u, v: np.sqrt(u * u + v * v) - 1,
        facets((100, 0), (0, 100), (-100, 0), (0, -100), reach=0.8),
        facets((0, -100), (-95, -31), (-59, 81), (59, 81), (95, -31), reach=0.36, but=1),
        lambda u, v: np.abs(np.sqrt(u * u + v * v) - 0.72) - 0.28,
        facets((0, 100), (87, -50), (-87, -50), reach=0.58),
    ]


def two_tone(texture: Field, first: tuple[float, ...], second: tuple[float, ...]) -> Paint:
    """From the first RGB colour, where the texture is 0, to the second, where it is 1."""
    low, high = np.array(first, np.float32), np.array(second, np.float32)
    return lambda u, v: (low + (high - low) * texture(u, v)[..., None]).astype(np.float32, copy=False)


def paint(layers: list[Layer], height: int, width: int) -> tuple[Float32, Float32]:
    """Paint layers, back to front: frames ``(T, height, width, 3)`` float32 in 0..255, and their exact flow.

    The flow is ``(T - 1, height, width, 2)``, ``(dx, dy)`` in pixels per frame: the motion of what frame t shows at a
    pixel, even where something else hides it in frame t + 1. Shapes are painted with sub-pixel accuracy.
    """
    frames = len(layers[0].poses)
    video = np.zeros((frames, height, width, 3), np.float32)
    flow = np.empty((frames - 1, height, width, 2), np.float32)
    for t in range(frames):
        for layer in layers:
            _paint(video[t], flow[t] if t + 1 < frames else None, layer, t)
    return video.clip(0, 255), flow


def to_bytes(video: Float32) -> UInt8:
    """Values in 0..255, rounded."""
    return np.rint(video).astype(np.uint8)


def _paint(canvas: Float32, flow: Float32 | None, layer: Layer, t: int) -> None:
    """Paint frame ``t`` of a layer over ``canvas`` (H, W, 3), and its motion over ``flow`` (H, W, 2)."""
    pose = layer.poses[t]
    zoom = math.sqrt(pose.a * pose.a + pose.b * pose.b)
    reach = 1.3 * layer.radius * zoom + 2 if layer.outline else math.inf
    box = tuple(
        slice(int(max(0, middle - reach)), int(max(0, min(size, middle + reach + 1))))
        for middle, size in zip((pose.y, pose.x), canvas.shape[:2], strict=True)
    )
    y = np.arange(box[0].start, box[0].stop, dtype=np.float32)[:, None] - pose.y
    x = np.arange(box[1].start, box[1].stop, dtype=np.float32)[None, :] - pose.x
    u, v = (pose.a * x + pose.b * y) / (zoom * zoom), (pose.a * y - pose.b * x) / (zoom * zoom)  # screen to local

    light, cover = 0.4 + 1.2 * layer.grain(u, v) if layer.grain else np.ones_like(u), np.ones_like(u)
    if layer.outline:
        inside = -layer.outline(u / layer.radius, v / layer.radius) * layer.radius  # local pixels to the outline
        light = light * np.clip(0.55 + inside / layer.rim, 0, 1)  # a darker rim
        cover = np.clip(0.5 + inside * zoom, 0, 1)
    canvas[box] += (layer.paint(u, v) * light[..., None] - canvas[box]) * cover[..., None]

    if flow is not None:
        after = layer.poses[t + 1]
        da, db = after.a - pose.a, after.b - pose.b
        motion = np.stack([after.x - pose.x + da * u - db * v, after.y - pose.y + db * u + da * v], axis=-1)
        np.copyto(flow[box], motion, where=(cover >= 0.5)[..., None])


def value_noise(table: Float32, x: Grid, y: Grid) -> Grid:
    """Smooth noise in 0..1: the repeating numbers of a square table at whole (x, y), a smooth blend in between."""
    left, top = np.floor(x), np.floor(y)
    fx, fy = x - left, y - top
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    i, j = left.astype(np.int32) % len(table), top.astype(np.int32) % len(table)
    i1, j1 = (i + 1) % len(table), (j + 1) % len(table)
    upper = table[j, i] + (table[j, i1] - table[j, i]) * fx
    lower = table[j1, i] + (table[j1, i1] - table[j1, i]) * fx
    return upper + (lower - upper) * fy


def facets(*normals: tuple[int, int], reach: float, but: int = 0) -> Field:
    """The distance to a shape inside all half-planes ``reach`` from the middle, or all ``but`` one (a star).

    Normals are in percent; the distance is exact along the edges, less than it beyond the corners.
    """

    def distance(u: Grid, v: Grid) -> Grid:
        distances = np.stack([(x * u + y * v) / 100 - reach for x, y in normals])  # (edges, h, w)
        outermost: Grid = np.sort(distances, axis=0)[-1 - but]
        return outermost

    return distance
