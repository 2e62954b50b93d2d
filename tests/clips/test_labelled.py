"""Labelled clips: what an object is and what it does are independent, and both are known."""

import hashlib
import sys

import numpy as np
import pytest

from kit import clips
from kit.clips import MOTIONS, TEXTURES, Camera
from kit.errors import ClipError, UnavailableError, UnknownNameError

SMALL = {"frames": 11, "height": 64, "width": 80}


def test_a_labelled_clip_is_the_same_bits_everywhere() -> None:
    clip = clips.labelled("rings", "clockwise", 4, 60, 80, seed=0, camera=Camera(shake=2, blur=1, noise=5))
    digest = hashlib.sha256(clip.frames.tobytes()).hexdigest()
    assert digest.startswith("364952d3a2767ca4"), "labelled clips changed: train the network again, and say why"
    again = clips.labelled("rings", "clockwise", 4, 60, 80, seed=0, camera=Camera(shake=2, blur=1, noise=5))
    np.testing.assert_array_equal(clip.flow, again.flow)
    assert clip.labels == {"texture": "rings", "motion": "clockwise"}


@pytest.mark.parametrize("seed", range(4))
def test_the_texture_changes_neither_the_outline_nor_the_motion(seed: int) -> None:
    made = [clips.labelled(texture, "left", **SMALL, seed=seed) for texture in TEXTURES]
    for clip in made[1:]:
        np.testing.assert_array_equal(clip.flow, made[0].flow)
    assert len({clip.frames.tobytes() for clip in made}) == len(TEXTURES)


@pytest.mark.parametrize("seed", range(4))
def test_one_frame_in_the_middle_does_not_tell_the_motion(seed: int) -> None:
    made = [clips.labelled("dots", motion, **SMALL, seed=seed) for motion in MOTIONS]
    for clip in made[1:]:
        np.testing.assert_allclose(clip.frames[5].astype(int), made[0].frames[5], atol=1)
    assert len({clip.flow.tobytes() for clip in made}) == len(MOTIONS)


def means(flow: np.ndarray) -> tuple[float, float, float, float]:
    """Of the object's own motion at a moment: mean dx, mean dy, mean turn and mean growth about its middle."""
    ground = np.median(flow.reshape(-1, 2), axis=0)
    own = flow - ground
    y, x = np.nonzero(np.linalg.norm(own, axis=-1) > 1e-3)
    if len(y) == 0:
        return 0.0, 0.0, 0.0, 0.0
    dx, dy = own[y, x].T
    u, v = x - x.mean(), y - y.mean()
    return dx.mean(), dy.mean(), (u * dy - v * dx).mean() / (u * u + v * v).mean(), (u * dx + v * dy).mean()


@pytest.mark.parametrize("seed", range(3))
def test_the_motions_are_what_their_names_say(seed: int) -> None:
    def of(motion: str, t: int = 5) -> tuple[float, float, float, float]:
        flow = clips.labelled("stripes", motion, 12, 120, 160, seed=seed).flow
        assert flow is not None
        return means(flow[t])

    assert of("left")[0] < -0.5 < 0.5 < of("right")[0]  # x grows to the right, y downwards
    assert of("up")[1] < -0.5 < 0.5 < of("down")[1]
    assert of("counterclockwise")[2] < -0.02 < 0.02 < of("clockwise")[2]  # as seen on the screen
    assert of("shrink")[3] < 0 < of("grow")[3]
    ways = {np.sign(round(of("sway", t)[0], 3)) for t in range(11)}
    assert {-1, 1} <= ways


def test_the_exact_flow_follows_the_camera_and_explains_the_next_frame() -> None:
    clip = clips.labelled("checkers", "right", 3, 120, 160, seed=5, camera=Camera(shake=8))
    steady = clips.labelled("checkers", "right", 3, 120, 160, seed=5)
    assert clip.flow is not None
    assert np.ptp(clip.flow[:, 0, 0] - steady.flow[:, 0, 0]) > 0.5  # the shake is part of the motion
    height, width = 120, 160
    y, x = np.mgrid[:height, :width]
    target = np.rint(clip.flow[0] + np.stack([x, y], axis=-1)).astype(int)
    inside = ((target >= 0) & (target < (width, height))).all(axis=-1)
    moved = clip.frames[1][target[inside][:, 1], target[inside][:, 0]].astype(int)
    still = clip.frames[1][inside].astype(int)
    here = clip.frames[0][inside].astype(int)
    assert np.abs(moved - here).mean() < 0.75 * np.abs(still - here).mean()


@pytest.mark.parametrize("camera", [Camera(blur=2), Camera(noise=8), Camera(quality=30)])
def test_a_camera_hides_without_moving(camera: Camera) -> None:
    plain, seen = (clips.labelled("dots", "up", **SMALL, seed=1, camera=c) for c in (Camera(), camera))
    np.testing.assert_array_equal(plain.flow, seen.flow)
    off = seen.frames.astype(int) - plain.frames
    assert 1 < np.abs(off).mean() < 12
    assert abs(off.mean()) < 1
    if camera.noise:
        assert 6 < off[:, :20].std() < 9


def test_photographs_differ_from_seed_to_seed() -> None:
    corners = {clips.labelled("dots", "up", 1, 64, 64, seed=seed).frames[0, :8].tobytes() for seed in range(8)}
    assert len(corners) == 8


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"texture": "stripe"}, UnknownNameError, "texture 'stripe': did you mean 'stripes'"),
        ({"motion": "lift"}, UnknownNameError, "motion 'lift': did you mean 'left'"),
        ({"frames": 33}, ClipError, "up to 32 frames"),
        ({"height": 20}, ClipError, "cannot generate"),
        ({"camera": Camera(quality=0)}, ClipError, "quality 1 to 100"),
        ({"camera": Camera(noise=-1)}, ClipError, "must be at least 0"),
    ],
)
def test_what_cannot_be_made(arguments: dict[str, object], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        clips.labelled(**{"texture": "dots", "motion": "left", **arguments})


def test_without_scikit_image_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from kit.clips import generated

    generated._photograph.cache_clear()
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(UnavailableError, match="pip install scikit-image"):
        clips.labelled("dots", "left", 1, 32, 32)
