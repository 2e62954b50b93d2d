"""A clip to play: each frame with its motion, a slider, and a still copy."""

import cv2
import numpy as np
import pytest

import kit
from kit.errors import ShapeError
from kit.views.player import Player


def clip(frames: int = 4) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    pictures = np.stack([np.full((48, 64, 3), 60 * i, np.uint8) for i in range(frames)])
    return pictures, np.ones((frames - 1, 48, 64, 2), np.float32)


def shown(player: Player) -> np.ndarray:  # type: ignore[type-arg]
    return cv2.imdecode(np.frombuffer(player.children[0].value, np.uint8), cv2.IMREAD_COLOR)


def test_the_slider_shows_a_frame_and_its_motion() -> None:
    player = kit.clip_player(*clip())
    assert abs(int(shown(player)[10, 10, 0]) - 0) < 4
    player.slider.value = 2
    assert abs(int(shown(player)[10, 10, 0]) - 120) < 4
    assert player.caption.startswith("Frame 2, and the motion from it to frame 3.")
    assert "1.4 pixels per frame" in player.caption
    assert player.slider.max == 2  # the last frame has no motion to a next one


def test_every_control_has_a_name_and_there_is_a_still_copy() -> None:
    player = kit.clip_player(*clip())
    assert [control.description for control in player.children[2].children] == ["play the clip", "frame"]
    assert player.still().startswith("<svg")
    assert repr(player) == "Player(4 frames)"


def test_a_clip_that_rests_and_one_of_two_frames() -> None:
    frames, flow = clip(2)
    assert kit.clip_player(frames, 0 * flow).slider.max == 0
    with pytest.raises(ShapeError, match="need a flow of"):
        kit.clip_player(frames, flow[:0])
    with pytest.raises(ShapeError, match="need a flow of"):
        kit.clip_player(frames[:1], flow[:0])
