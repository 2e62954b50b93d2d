"""A scene of five textured shapes that move, turn and zoom over a drifting background."""

from __future__ import annotations

from kit.clips.scenes.painting import Chance, Float32, Layer, Pose, UInt8, outlines, paint, to_bytes, two_tone

_COLOURS = (
    (0xD55E00, 0xFFE3C2),
    (0x0B4F7D, 0x8CCBF0),
    (0xF0C419, 0x6B4A00),
    (0x007A5A, 0xD5F2DF),
    (0x8E3B74, 0xF5CFE4),
)


def paint_shapes(frames: int, height: int, width: int, seed: int) -> tuple[UInt8, Float32]:
    """Frames ``(frames, height, width, 3)`` uint8 RGB of the scene that the seed picks, and their exact flow."""
    dice = Chance(seed)
    textures = list(dice.textures().values())
    unit = min(height, width) / 240
    drift = _trajectory(dice, frames, (width * dice(0, 1), 0.0, float(width)), (0.0, 0.0, float(height)), 0.3 * unit)
    ground = two_tone(lambda u, v: dice.noise(u, v, 31), _rgb(0x26384A), _rgb(0xA6BCA8))
    layers = [Layer(None, 0.0, ground, dice.grain, drift)]
    shift = int(dice(0, len(textures)))
    for i, (outline, (dark, light)) in enumerate(zip(outlines(), _COLOURS, strict=True)):
        x = (i * 2 % len(_COLOURS) + dice(0.2, 0.8)) / len(_COLOURS)  # a column for each, so that they start apart
        xs, ys = (width * x, 0.12 * width, 0.88 * width), (height * dice(0.2, 0.8), 0.15 * height, 0.85 * height)
        poses = _trajectory(dice, frames, xs, ys, unit)
        colours = two_tone(textures[(i + shift) % len(textures)], _rgb(dark), _rgb(light))
        layers.append(Layer(outline, dice(30, 46) * unit, colours, dice.grain, poses))
    video, flow = paint(layers, height, width)
    return to_bytes(video), flow


def _rgb(colour: int) -> tuple[int, int, int]:
    return colour >> 16, colour >> 8 & 255, colour & 255


def _trajectory(
    dice: Chance, frames: int, xs: tuple[float, float, float], ys: tuple[float, float, float], pace: float
) -> list[Pose]:
    """A constant speed, turn and zoom from a start on, back and forth between bounds (start, low, high)."""

    def bounce(x: float, low: float, high: float) -> float:
        there = (x - low) % (2 * (high - low))
        return low + min(there, 2 * (high - low) - there)

    dx, dy = dice.speed(1, 3.5) * pace, dice.speed(0.7, 2.5) * pace  # pixels per frame
    zoom, growth = dice(0.85, 1.2), dice.speed(0.002, 0.012)
    half = dice.speed(0.003, 0.02)  # tan(turn / 2): sine and cosine are then fractions
    cos, sin = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
    a, b = 1.0, 0.0
    poses = []
    for t in range(frames):
        scale = bounce(zoom + growth * t, 0.8, 1.25)
        poses.append(Pose(bounce(xs[0] + dx * t, *xs[1:]), bounce(ys[0] + dy * t, *ys[1:]), scale * a, scale * b))
        a, b = a * cos - b * sin, a * sin + b * cos
    return poses
