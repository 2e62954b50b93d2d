"""Clips that the kit paints itself, whose motion is known at every pixel."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from kit.clips.clip import DEFAULT_FPS, SMALLEST, Clip, opencv
from kit.clips.scenes import MOTIONS, TEXTURES, Camera, Float32, UInt8, paint_action, paint_shapes
from kit.errors import ClipError, UnavailableError, UnknownNameError

# Of scikit-image's packaged pictures those in the public domain or CC0 that show no people. PNG alone: unlike JPEG it
# decodes to the same bits everywhere.
PHOTOGRAPHS = ("brick", "chelsea", "coffee", "coins", "grass", "gravel", "immunohistochemistry")
LONGEST = 32  # frames of a labelled clip: its object must not leave the picture
STILL = Camera()


def generate(frames: int = 24, height: int = 240, width: int = 320, *, seed: int = 0, fps: float = DEFAULT_FPS) -> Clip:
    """A scene of moving, turning, zooming textured shapes over a drifting background, with its exact flow.

    The same arguments give the same bits on every platform (:mod:`kit.clips.scenes`).

    >>> from kit import clips
    >>> clip = clips.generate(frames=11, height=64, width=96, seed=3)
    >>> clip, clip.flow.shape
    (Clip(11 frames of 96x64 at 25 fps from 'generated scene, seed 3'), (10, 64, 96, 2))

    Raises:
        ClipError: no frames, a side below 32 pixels, or a negative seed.
    """
    _check(frames, height, width, seed)
    video, flow = paint_shapes(frames, height, width, seed)
    return Clip(video, fps, f"generated scene, seed {seed}", flow)


def labelled(
    texture: str,
    motion: str,
    frames: int = 24,
    height: int = 240,
    width: int = 320,
    *,
    seed: int = 0,
    fps: float = DEFAULT_FPS,
    camera: Camera = STILL,
) -> Clip:
    """One object of a texture that does one motion over a photograph, with its exact flow and its labels.

    What the object is and what it does are independent: everything else is drawn from the seed alone. The same
    arguments give the same bits on every platform (with ``camera.quality``: those of the platform's JPEG encoder).

    >>> from kit import clips
    >>> clips.labelled("rings", "clockwise", frames=4, height=64, width=64).labels
    {'texture': 'rings', 'motion': 'clockwise'}

    Args:
        texture: one of TEXTURES.
        motion: one of MOTIONS; "sway" goes left and right by turns.
        frames: 1 to 32.
        camera: its shake, blur, noise and compression.

    Raises:
        UnknownNameError: no such texture or motion.
        ClipError: another number of frames, a side below 32 pixels, a negative seed, or a camera out of its ranges.
        UnavailableError: scikit-image, from whose pictures the background is taken, is not installed.
    """
    for kind, name, known in (("texture", texture, TEXTURES), ("motion", motion, MOTIONS)):
        if name not in known:
            raise UnknownNameError(kind, name, known)
    _check(frames, height, width, seed)
    if frames > LONGEST:
        raise ClipError(f"a labelled clip has up to {LONGEST} frames, not {frames}: its object must stay in sight.")
    if min(camera.shake, camera.blur, camera.noise) < 0 or camera.quality not in (None, *range(1, 101)):
        raise ClipError(f"{camera} is not possible: shake, blur and noise must be at least 0, quality 1 to 100.")
    picked = PHOTOGRAPHS[int(np.random.PCG64(seed).random_raw()) % len(PHOTOGRAPHS)]
    photograph = _photograph(picked, max(1, round(240 / min(height, width))))
    video, flow = paint_action(texture, motion, photograph, frames, height, width, seed, camera)
    if camera.quality is not None:
        video = np.stack([_compressed(frame, camera.quality) for frame in video])
    labels = {"texture": texture, "motion": motion}
    return Clip(video, fps, f"generated {texture}, {motion}, seed {seed}", flow, labels)


def _check(frames: int, height: int, width: int, seed: int) -> None:
    if frames < 1 or min(height, width) < SMALLEST or seed < 0:
        asked = f"{frames} frames of {width}x{height} from seed {seed}"
        raise ClipError(
            f"cannot generate {asked}: give at least 1 frame, sides of at least {SMALLEST} pixels, and a seed of at "
            "least 0."
        )


@lru_cache
def _photograph(name: str, step: int) -> Float32:
    """A packaged picture, ``step`` times smaller: RGB in 0..255, ``(H, W, 3)``."""
    try:
        from skimage import data
    except ImportError as error:
        raise UnavailableError(
            f"photographs come with scikit-image ({error}): run 'pip install scikit-image'."
        ) from error
    picture = np.atleast_3d(getattr(data, name)())  # (H, W, 3), or (H, W, 1) where it is grey
    height, width = picture.shape[0] // step, picture.shape[1] // step
    blocks = picture[: height * step, : width * step].reshape(height, step, width, step, -1)
    small = (blocks.sum(axis=(1, 3), dtype=np.int64) / (step * step)).astype(np.float32)
    return np.broadcast_to(small, (height, width, 3))


def _compressed(frame: UInt8, quality: int) -> UInt8:
    """A frame after a JPEG encoder."""
    cv2 = opencv()
    _done, jpeg = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
    back: UInt8 = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    return back
