"""Frames and flow as pictures: the colours mean what the wheel says."""

import base64

import cv2
import numpy as np

from kit.views.pictures import clip_figure, flow_picture, flow_wheel


def colour(dx: float, dy: float, reach: float = 2.0) -> list[int]:
    return flow_picture(np.array([[[dx, dy]]], np.float32), reach)[0, 0].tolist()


def test_hue_is_direction_and_white_is_rest() -> None:
    assert colour(0, 0) == [255, 255, 255]
    assert colour(2, 0) == [255, 0, 0]
    assert colour(1, 0) == [255, 128, 128]
    assert colour(4, 0) == [191, 0, 0]  # beyond the reach: darker
    red, green, blue = np.array([colour(0, 2), colour(-2, 0), colour(0, -2)]).T
    assert (red[0], blue[0]) == (255, 0)  # down: yellow, nearly
    assert green[0] > 230
    assert (red[1], blue[1]) == (0, 255)  # left: between cyan and blue
    assert 150 < green[1] < 255
    assert (green[2], blue[2]) == (0, 255)  # up: violet
    assert 50 < red[2] < 200


def test_neighbouring_directions_have_neighbouring_colours() -> None:
    turns = np.linspace(0, 2 * np.pi, 721)
    flow = np.stack([np.cos(turns), np.sin(turns)], axis=-1)[None].astype(np.float32)
    picture = flow_picture(flow, 1.0)[0].astype(int)
    assert np.abs(np.diff(picture, axis=0)).max() < 12
    assert len(np.unique(picture, axis=0)) > 300


def test_the_wheel_shows_each_direction_where_it_points() -> None:
    wheel = flow_wheel(101).astype(int)
    assert wheel[50, 50].min() > 250
    assert wheel[0, 0].tolist() == [255, 255, 255]
    for (y, x), (dx, dy) in {(50, 95): (2, 0), (95, 50): (0, 2), (50, 5): (-2, 0), (5, 50): (0, -2)}.items():
        assert np.abs(wheel[y, x] - colour(dx, dy)).max() < 50


def test_a_clip_figure_shows_frames_motion_and_the_wheel_as_small_pictures() -> None:
    frames = np.zeros((6, 64, 96, 3), np.uint8)
    figure = clip_figure(frames, np.ones((5, 64, 96, 2), np.float32), picks=3)
    assert len(figure.data) == 7
    titles = {note.text: note for note in figure.layout.annotations}
    assert {"frame 0", "frame 4", "motion, 0 to 1", "motion, 4 to 5"} <= set(titles)
    key = titles["hue: direction of motion<br>rim: 1.4 px per frame"]
    assert key.xanchor == "center"
    assert figure.get_subplot(1, 4).xaxis.domain[0] < key.x < figure.get_subplot(1, 4).xaxis.domain[1]
    for image in figure.data[:6]:
        kind, _, data = image.source.partition(",")
        assert kind == "data:image/jpeg;base64"
        assert len(base64.b64decode(data)) < 64 * 96
    wheel = base64.b64decode(figure.data[6].source.partition(",")[2])
    pixels = cv2.imdecode(np.frombuffer(wheel, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels.shape == (160, 160, 4)
    assert (pixels[0, 0, 3], pixels[80, 80, 3]) == (0, 255)  # no white corners on a dark page
