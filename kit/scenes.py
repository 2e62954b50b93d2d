"""Generated scenes: textured shapes that move, turn and zoom over a drifting background, with their exact motion.

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
Dice = Callable[[float, float], float]  # (low, high) -> a number between


class _Pose(NamedTuple):
    """Where a layer is in one frame: local ``(u, v)`` shows at ``(x + a u - b v, y + b u + a v)``."""

    x: float
    y: float
    a: float  # zoom * cos(turn)
    b: float  # zoom * sin(turn)


class _Layer(NamedTuple):
    outline: Field | None  # signed distance to the outline of radius 1, negative inside; None covers the picture
    radius: float  # pixels, at zoom 1
    texture: Field  # of local pixels: 0..1, from the first colour to the second
    grain: Field  # of local pixels: 0..1, brightness, so that every motion shows
    colours: tuple[int, int]  # 0xRRGGBB
    poses: list[_Pose]  # one per frame


def paint(frames: int, height: int, width: int, seed: int) -> tuple[UInt8, Float32]:
    """Frames ``(frames, height, width, 3)`` uint8 RGB of the scene that the seed picks, and their exact flow.

    The flow is ``(frames - 1, height, width, 2)``, ``(dx, dy)`` in pixels per frame: the motion of what frame t shows
    at a pixel, even where something else hides it in frame t + 1. Shapes are painted with sub-pixel accuracy.
    """
    layers = _scene(frames, height, width, seed)
    video = np.empty((frames, height, width, 3), np.uint8)
    flow = np.empty((frames - 1, height, width, 2), np.float32)
    for t in range(frames):
        canvas = np.zeros((height, width, 3), np.float32)
        for layer in layers:
            _paint(canvas, flow[t] if t + 1 < frames else None, layer, t)
        video[t] = np.rint(canvas.clip(0, 255))
    return video, flow


def _scene(frames: int, height: int, width: int, seed: int) -> list[_Layer]:
    """The layers of a scene, back to front."""
    raw = np.random.PCG64(seed).random_raw
    table = (np.asarray(raw(64 * 64)) >> 56).astype(np.float32).reshape(64, 64) / np.float32(255)

    def dice(low: float, high: float) -> float:
        return low + (high - low) * (int(raw()) >> 11) * 2.0**-53

    def wave(x: Grid) -> Grid:  # a triangle between -1 and 1, of period 2
        triangle: Grid = np.abs(x - 2 * np.floor(x / 2) - 1) * 2 - 1
        return triangle

    def noise(u: Grid, v: Grid, cell: float) -> Grid:
        return _value_noise(table, u / cell, v / cell)

    def grain(u: Grid, v: Grid) -> Grid:
        octaves: Grid = 0.5 * noise(u, v, 27) + 0.3 * noise(v, u, 11) + 0.2 * noise(u, v, 6)
        return octaves

    textures: list[Field] = [
        lambda u, v: np.clip(0.5 + 1.5 * wave(u / 11), 0, 1),  # stripes
        lambda u, v: np.clip(0.5 + 3 * wave(u / 15) * wave(v / 15), 0, 1),  # checkers
        lambda u, v: np.clip(0.5 + 1.5 * wave(np.sqrt(u * u + v * v) / 9), 0, 1),  # rings
        lambda u, v: np.clip(1.2 * (wave(u / 10) + wave(v / 10)) - 0.2, 0, 1),  # dots
        lambda u, v: np.clip(4 * noise(u, v, 10) - 1.5, 0, 1),  # clouds
    ]
    shapes: list[tuple[Field, tuple[int, int]]] = [  # disc, square, star, ring, triangle
        (lambda u, v: np.sqrt(u * u + v * v) - 1, (0xD55E00, 0xFFE3C2)),
        (_facets((100, 0), (0, 100), (-100, 0), (0, -100), reach=0.8), (0x0B4F7D, 0x8CCBF0)),
        (_facets((0, -100), (-95, -31), (-59, 81), (59, 81), (95, -31), reach=0.36, but=1), (0xF0C419, 0x6B4A00)),
        (lambda u, v: np.abs(np.sqrt(u * u + v * v) - 0.72) - 0.28, (0x007A5A, 0xD5F2DF)),
        (_facets((0, 100), (87, -50), (-87, -50), reach=0.58), (0x8E3B74, 0xF5CFE4)),
    ]
    unit = min(height, width) / 240
    drift = _trajectory(dice, frames, (width * dice(0, 1), 0.0, float(width)), (0.0, 0.0, float(height)), 0.3 * unit)
    layers = [_Layer(None, 0.0, lambda u, v: noise(u, v, 31), grain, (0x26384A, 0xA6BCA8), drift)]
    shift = int(dice(0, len(textures)))
    for i, (outline, colours) in enumerate(shapes):
        x = (i * 2 % len(shapes) + dice(0.2, 0.8)) / len(shapes)  # a column for each, so that they start apart
        xs, ys = (width * x, 0.12 * width, 0.88 * width), (height * dice(0.2, 0.8), 0.15 * height, 0.85 * height)
        poses = _trajectory(dice, frames, xs, ys, unit)
        texture = textures[(i + shift) % len(textures)]
        layers.append(_Layer(outline, dice(30, 46) * unit, texture, grain, colours, poses))
    return layers


def _trajectory(
    dice: Dice, frames: int, xs: tuple[float, float, float], ys: tuple[float, float, float], pace: float
) -> list[_Pose]:
    """A constant speed, turn and zoom from a start on, back and forth between bounds (start, low, high)."""

    def bounce(x: float, low: float, high: float) -> float:
        there = (x - low) % (2 * (high - low))
        return low + min(there, 2 * (high - low) - there)

    def speed(low: float, high: float) -> float:
        return dice(low, high) * (1 if dice(-1, 1) > 0 else -1)

    dx, dy = speed(1, 3.5) * pace, speed(0.7, 2.5) * pace  # pixels per frame
    zoom, growth = dice(0.85, 1.2), speed(0.002, 0.012)
    half = speed(0.003, 0.02)  # tan(turn / 2): sine and cosine are then fractions
    cos, sin = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
    a, b = 1.0, 0.0
    poses = []
    for t in range(frames):
        scale = bounce(zoom + growth * t, 0.8, 1.25)
        poses.append(_Pose(bounce(xs[0] + dx * t, *xs[1:]), bounce(ys[0] + dy * t, *ys[1:]), scale * a, scale * b))
        a, b = a * cos - b * sin, a * sin + b * cos
    return poses


def _paint(canvas: Float32, flow: Float32 | None, layer: _Layer, t: int) -> None:
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

    low, high = (np.array([c >> 16, c >> 8 & 255, c & 255], np.float32) for c in layer.colours)
    colour = low + (high - low) * layer.texture(u, v)[..., None]
    light, cover = 0.4 + 1.2 * layer.grain(u, v), np.ones_like(u)
    if layer.outline:
        inside = -layer.outline(u / layer.radius, v / layer.radius) * layer.radius  # local pixels to the outline
        light = light * np.clip(0.55 + inside / 8, 0, 1)  # a darker rim
        cover = np.clip(0.5 + inside * zoom, 0, 1)
    canvas[box] += (colour * light[..., None] - canvas[box]) * cover[..., None]

    if flow is not None:
        after = layer.poses[t + 1]
        da, db = after.a - pose.a, after.b - pose.b
        motion = np.stack([after.x - pose.x + da * u - db * v, after.y - pose.y + db * u + da * v], axis=-1)
        np.copyto(flow[box], motion, where=(cover >= 0.5)[..., None])


def _value_noise(table: Float32, x: Grid, y: Grid) -> Grid:
    """Smooth noise in 0..1: the repeating numbers of a square table at whole (x, y), a smooth blend in between."""
    left, top = np.floor(x), np.floor(y)
    fx, fy = x - left, y - top
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    i, j = left.astype(np.int32) % len(table), top.astype(np.int32) % len(table)
    i1, j1 = (i + 1) % len(table), (j + 1) % len(table)
    upper = table[j, i] + (table[j, i1] - table[j, i]) * fx
    lower = table[j1, i] + (table[j1, i1] - table[j1, i]) * fx
    return upper + (lower - upper) * fy


def _facets(*normals: tuple[int, int], reach: float, but: int = 0) -> Field:
    """The distance to a shape inside all half-planes ``reach`` from the middle, or all ``but`` one (a star).

    Normals are in percent; the distance is exact along the edges, less than it beyond the corners.
    """

    def distance(u: Grid, v: Grid) -> Grid:
        distances = np.stack([(x * u + y * v) / 100 - reach for x, y in normals])  # (edges, h, w)
        outermost: Grid = np.sort(distances, axis=0)[-1 - but]
        return outermost

    return distance
