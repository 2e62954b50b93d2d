"""A scene of one object over a photograph, in which what the object is and what it does are independent.

What it is, is its texture; what it does, is its motion. All else is drawn alike for every texture and motion: outline,
colours, place, size and turn at the middle of the clip, the photograph and its drift.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kit.clips.scenes.painting import (
    Chance,
    Float32,
    Grid,
    Layer,
    Paint,
    Pose,
    UInt8,
    outlines,
    paint,
    to_bytes,
    two_tone,
    wave,
)

TEXTURES = ("stripes", "checkers", "rings", "dots", "clouds")
MOTIONS = ("left", "right", "up", "down", "clockwise", "counterclockwise", "grow", "shrink", "sway")
_WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


@dataclass(frozen=True)
class Camera:
    """What a camera does to a scene. Its shake is motion and part of the exact flow; the others only hide it.

    >>> from kit import clips
    >>> clips.labelled("dots", "grow", frames=4, height=64, width=64, camera=clips.Camera(shake=2.0, noise=8.0))
    Clip(4 frames of 64x64 at 25 fps from 'generated dots, grow, seed 0')
    """

    shake: float = 0.0  # jumps between frames, up to so many pixels of a picture 240 high
    blur: int = 0  # passes of the filter [1, 2, 1] / 4, both ways
    noise: float = 0.0  # standard deviation in grey levels, of 255
    quality: int | None = None  # of JPEG, 1 to 100, frame by frame; None: not compressed


def paint_action(
    texture: str, motion: str, photograph: Float32, frames: int, height: int, width: int, seed: int, camera: Camera
) -> tuple[UInt8, Float32]:
    """Frames ``(frames, height, width, 3)`` uint8 RGB of one object, and their exact flow.

    ``photograph`` is RGB in 0..255, ``(H, W, 3)``, its pixels as large as those of the frames. The camera's shake, blur
    and noise are applied, in this order.
    """
    dice = Chance(seed)
    unit = min(height, width) / 240
    shakes = [(dice(-1, 1) * camera.shake * unit, dice(-1, 1) * camera.shake * unit) for _ in range(frames)]
    time = [t - (frames - 1) // 2 for t in range(frames)]  # 0 in the middle, where all classes look alike

    drift = dice(-0.6, 0.6) * unit, dice(-0.6, 0.6) * unit
    corner = dice(-999, 999), dice(-999, 999)
    ground = [Pose(corner[0] + drift[0] * k, corner[1] + drift[1] * k, 1.0, 0.0) for k in time]

    outline = outlines()[int(dice(0, 5))]
    dark, light = (tuple(dice(low, low + 90) for _ in range(3)) for low in (10, 150))
    u0, v0, pattern = dice(-16, 16), dice(-16, 16), dice.textures()[texture]
    scale = unit * dice(0.9, 1.3)  # of the pattern
    colours = two_tone(lambda u, v: pattern(u / scale + u0, v / scale + v0), dark, light)

    def grain(u: Grid, v: Grid) -> Grid:
        strong: Grid = np.clip(2.5 * dice.grain(u / unit, v / unit) - 0.75, 0, 1)  # rings that turn must show it
        return strong

    poses = _poses(dice, motion, time, width * dice(0.35, 0.65), height * dice(0.35, 0.65), unit)

    layers = [
        Layer(None, 0.0, _picture(photograph), None, ground),
        Layer(outline, dice(52, 70) * unit, colours, grain, poses, rim=8 * unit),
    ]
    moved = [
        [Pose(p.x + dx, p.y + dy, p.a, p.b) for p, (dx, dy) in zip(layer.poses, shakes, strict=True)]
        for layer in layers
    ]
    video, flow = paint([layer._replace(poses=p) for layer, p in zip(layers, moved, strict=True)], height, width)
    for _ in range(camera.blur):
        video = _blurred(_blurred(video, 1), 2)
    if camera.noise:
        video = video + np.float32(camera.noise) * _bell(dice, video.shape)
    return to_bytes(video.clip(0, 255)), flow


def _poses(dice: Chance, motion: str, time: list[int], x: float, y: float, unit: float) -> list[Pose]:
    """A motion through a random turn at ``(x, y)`` at time 0. Every motion draws the same numbers."""
    pace, growth, half = dice(3.5, 7) * unit, dice(0.035, 0.06), dice(0.04, 0.08)  # half: tan(turn / 2)
    cos, sin = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
    if motion == "counterclockwise":
        sin = -sin
    period, phase, start = dice(6, 8), dice(0, 1), dice(-1, 1)
    a, b = (1 - start * start) / (1 + start * start), 2 * start / (1 + start * start)
    for _ in range(int(dice(0, 4))):  # by quarters, to reach every turn
        a, b = -b, a
    poses = []
    for k in time:
        dx, dy = (pace * k * step for step in _WAYS.get(motion, (0, 0)))
        if motion == "sway":
            dx = pace * period / 4 * float(wave(np.array(phase + 2 * k / period)) - wave(np.array(phase)))
        size = growth * k / 2 * (motion == "grow") - growth * k / 2 * (motion == "shrink")
        zoom = (1 + size) / (1 - size)  # exp(2 size), nearly
        turned = _power(cos, sin, k) if "clockwise" in motion else (1.0, 0.0)
        poses.append(
            Pose(x + dx, y + dy, zoom * (a * turned[0] - b * turned[1]), zoom * (a * turned[1] + b * turned[0]))
        )
    return poses


def _power(cos: float, sin: float, times: int) -> tuple[float, float]:
    """A turn, so many times; backwards where that is negative."""
    a, b = 1.0, 0.0
    for _ in range(abs(times)):
        a, b = a * cos - b * sin, a * sin + b * cos
    return a, b if times >= 0 else -b


def _picture(photograph: Float32) -> Paint:
    """A photograph, repeated in mirror images over the plane, blended between its pixels."""
    height, width = photograph.shape[:2]

    def at(j: Grid, i: Grid) -> Float32:
        rows, columns = (np.abs((x.astype(np.int64) + n) % (2 * n) - n) for x, n in ((j, height - 1), (i, width - 1)))
        pixels: Float32 = photograph[rows, columns]
        return pixels

    def paint(u: Grid, v: Grid) -> Float32:
        left, top = np.floor(u), np.floor(v)
        fx, fy = (u - left)[..., None], (v - top)[..., None]
        north, south = ((at(j, left), at(j, left + 1)) for j in (top, top + 1))
        upper, lower = (west + (east - west) * fx for west, east in (north, south))
        return np.asarray(upper + (lower - upper) * fy, np.float32)

    return paint


def _blurred(video: Float32, axis: int) -> Float32:
    """[1, 2, 1] / 4 along an axis; the border repeats."""
    padded = np.pad(video, [(1, 1) if i == axis else (0, 0) for i in range(video.ndim)], mode="edge")
    left, right = (np.take(padded, np.arange(video.shape[axis]) + i, axis) for i in (0, 2))
    return ((left + 2 * video + right) / 4).astype(np.float32, copy=False)


def _bell(dice: Chance, shape: tuple[int, ...]) -> Float32:
    """Numbers of mean 0 and deviation 1, nearly normal: sums of four uniform ones."""
    bits = np.asarray(dice.raw(math.prod(shape))).reshape(shape)
    total = (bits & 0xFFFF) + (bits >> 16 & 0xFFFF) + (bits >> 32 & 0xFFFF) + (bits >> 48)
    bell: Float32 = ((total.astype(np.float32) - 2 * 65535) / np.float32(65536 / math.sqrt(3))).astype(np.float32)
    return bell
