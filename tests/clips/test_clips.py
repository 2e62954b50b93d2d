"""Clips: generated scenes and their exact flow, files good and bad, flow estimation, and the inputs made from them."""

import hashlib
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from kit import clips
from kit.clips import Clip
from kit.errors import ClipError, ShapeError, UnavailableError, UnknownNameError

SHAPES = Path(__file__).parents[2] / "data" / "clips" / "shapes.mp4"


@pytest.fixture(scope="module")
def scene() -> Clip:
    return clips.generate(frames=12, seed=3)


@pytest.fixture(scope="module")
def saved(scene: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "scene.mp4"
    clips.save(scene, path)
    return path


def decibels(frames: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio of the worst frame."""
    error = np.square(frames.astype(np.float64) - truth).mean(axis=(1, 2, 3))
    return float(10 * np.log10(255**2 / error.max()))


# Generated scenes


def test_a_scene_is_the_same_bits_everywhere() -> None:
    clip = clips.generate(frames=4, height=60, width=80, seed=0)
    assert clip.flow is not None
    digest = hashlib.sha256(clip.frames.tobytes()).hexdigest()
    assert digest.startswith("a58c37e826261295"), "generated frames changed: make data/clips again, and say why"
    again = clips.generate(frames=4, height=60, width=80, seed=0)
    np.testing.assert_array_equal(clip.flow, again.flow)


def test_seeds_give_different_scenes_and_longer_clips_continue_shorter_ones() -> None:
    small = {"height": 60, "width": 80}
    short, long, other = (clips.generate(n, **small, seed=seed) for n, seed in [(2, 0), (5, 0), (2, 1)])
    np.testing.assert_array_equal(short.frames, long.frames[:2])
    assert np.abs(short.frames.astype(int) - other.frames).mean() > 10


def test_a_scene_moves_in_many_ways(scene: Clip) -> None:
    assert scene.flow is not None
    assert scene.flow.shape == (11, 240, 320, 2)
    assert scene.flow.dtype == np.float32
    first = scene.flow[0].reshape(-1, 2)
    assert np.linalg.norm(first, axis=1).max() > 2  # pixels per frame
    assert len(np.unique(np.rint(first * 2), axis=0)) > 10  # half-pixel steps


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_exact_flow_explains_the_next_frame(seed: int) -> None:
    clip = clips.generate(frames=3, seed=seed)
    assert clip.flow is not None
    y, x = np.mgrid[:240, :320].astype(np.float32)
    shapes = (np.ptp(clip.frames[:-1].astype(int), axis=-1) > 60)[:, 8:-8, 8:-8]  # the colourful pixels

    def unexplained(flow: np.ndarray, where: np.ndarray) -> float:
        """Grey levels between frame t and frame t + 1 fetched back along the flow: the median; some get hidden."""
        back = [
            cv2.remap(then.astype(np.float32), x + f[..., 0], y + f[..., 1], cv2.INTER_CUBIC)
            for then, f in zip(clip.frames[1:], flow, strict=True)
        ]
        error = np.abs(np.stack(back) - clip.frames[:-1]).mean(axis=-1)
        return float(np.median(error[:, 8:-8, 8:-8][where]))

    for where, bound in ((shapes, 0.9), (~shapes, 0.5)):
        assert unexplained(clip.flow, where) < bound  # half a grey level is what rounding to uint8 leaves
        for wrong in (np.zeros_like(clip.flow), -clip.flow, clip.flow[..., ::-1]):  # none; backwards; (dy, dx)
            assert unexplained(wrong, where) > 4 * bound
        assert unexplained(np.rint(clip.flow * 2) / 2, where) > 1.2 * unexplained(clip.flow, where)  # half-pixel steps


def test_one_frame_has_no_flow_fields() -> None:
    clip = clips.generate(frames=1, height=32, width=40)
    assert clip.flow is not None
    assert clip.flow.shape == (0, 32, 40, 2)


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"height": 8}, {"width": 31}, {"seed": -1}])
def test_a_scene_that_cannot_be_generated(wrong: dict[str, int]) -> None:
    with pytest.raises(ClipError, match="cannot generate"):
        clips.generate(**wrong)


# Clips


def test_a_clip_has_a_short_repr() -> None:
    clip = Clip(np.zeros((24, 240, 320, 3), np.uint8), 25.0, "generated scene, seed 0")
    assert repr(clip) == "Clip(24 frames of 320x240 at 25 fps from 'generated scene, seed 0')"
    assert len(clip) == 24


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 32, 32, 3), np.float32),
        np.zeros((2, 32, 32), np.uint8),
        np.zeros((2, 3, 32, 32), np.uint8),
        np.zeros((0, 32, 32, 3), np.uint8),
    ],
)
def test_frames_of_another_kind_are_refused(frames: np.ndarray) -> None:
    with pytest.raises(ClipError, match=r"uint8 \(T, H, W, 3\)"):
        Clip(frames, 25.0, "mine")


def test_a_clip_needs_a_frame_rate_and_flow_that_fits() -> None:
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    for fps in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ClipError, match="frames per second"):
            Clip(frames, fps, "mine")
    with pytest.raises(ShapeError, match="T-1"):
        Clip(frames, 25.0, "mine", np.zeros((2, 32, 32, 2), np.float32))


# Files


def test_saving_and_loading_keeps_the_pictures_and_the_rate(scene: Clip, saved: Path) -> None:
    clip = clips.load(saved)
    assert clip.fps == scene.fps
    assert clip.source == str(saved)
    assert clip.flow is None
    assert decibels(clip.frames, scene.frames) > 30
    assert decibels(clip.frames[..., ::-1], scene.frames) < 20  # BGR would not pass
    np.testing.assert_array_equal(clips.load(str(saved), max_frames=3).frames, clip.frames[:3])
    assert clips.load(saved, max_frames=3).source == str(saved)  # stopping on request is no cut
    assert len(clips.load(saved, max_frames=99)) == len(scene)


def test_the_recorded_clip_is_what_its_readme_says() -> None:
    clip, made = clips.load(SHAPES), clips.generate(frames=50, seed=7)
    assert SHAPES.stat().st_size < 400_000
    assert clip.frames.shape == made.frames.shape
    assert decibels(clip.frames, made.frames) > 33
    command = "clips.save(clips.generate(frames=50, seed=7), 'data/clips/shapes.mp4')"
    assert command in (SHAPES.parent.parent / "README.md").read_text(encoding="utf-8")


def test_a_missing_clip_is_told_with_the_near_names(saved: Path) -> None:
    with pytest.raises(ClipError, match=r"no clip '.*scenes.mp4': did you mean 'scene.mp4'\?"):
        clips.load(saved.with_name("scenes.mp4"))
    with pytest.raises(ClipError, match=r"no clip '.*zzz': look into"):
        clips.load(saved.with_name("zzz"))
    with pytest.raises(ClipError, match="its folder does not exist"):
        clips.load(saved.parent / "nowhere" / "scene.mp4")


def test_a_folder_is_not_a_clip(saved: Path) -> None:
    with pytest.raises(ClipError, match="is a folder"):
        clips.load(saved.parent)


@pytest.mark.parametrize("content", [b"", b"this is a text, not a video\n" * 40], ids=["empty", "text"])
def test_a_file_that_is_no_video(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "renamed.mp4"
    path.write_bytes(content)
    with pytest.raises(ClipError, match=rf"no frame can be decoded from '.*renamed.mp4' \({len(content):,} bytes\)"):
        clips.load(path)


def test_an_mp4_cut_off_in_the_middle(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    path.write_bytes(saved.read_bytes()[: saved.stat().st_size // 2])
    with pytest.raises(ClipError, match="truncated"):  # its index is at the end
        clips.load(path)


def test_a_cut_file_with_its_index_ahead_gives_what_is_left_and_says_so(scene: Clip, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.avi", tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter.fourcc(*"MJPG"), 25, (320, 240))
    for frame in scene.frames:
        writer.write(frame)
    writer.release()
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert clips.load(whole).source == str(whole)
    clip = clips.load(cut)
    assert 0 < len(clip) < len(scene)
    assert f"({len(clip)} of the {len(scene)} frames that its header promises)" in repr(clip)


def test_max_frames_must_leave_something(saved: Path) -> None:
    with pytest.raises(ClipError, match="max_frames=0"):
        clips.load(saved, max_frames=0)


@pytest.mark.parametrize("fps", [0.0, float("nan"), -5.0])
def test_a_file_without_a_frame_rate_gets_25(fps: float, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Capture:
        def __init__(self, path: str) -> None:
            self.real = real(path)

        def get(self, key: int) -> float:
            return fps if key == cv2.CAP_PROP_FPS else self.real.get(key)

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

    real = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    assert clips.load(saved).fps == 25.0


def test_saving_refuses_what_would_come_out_wrong(scene: Clip, tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"ends in \.mp4"):
        clips.save(scene, tmp_path / "scene.avi")
    with pytest.raises(ClipError, match="does not exist; make it first"):
        clips.save(scene, tmp_path / "nowhere" / "scene.mp4")
    with pytest.raises(ClipError, match="even width and height, not 47x33"):
        clips.save(clips.generate(frames=2, height=33, width=47), tmp_path / "odd.mp4")


def test_saving_notices_that_nothing_was_written(scene: Clip, saved: Path, tmp_path: Path) -> None:
    target = tmp_path / "taken.mp4"
    target.mkdir()
    with pytest.raises(ClipError, match="could not write"):
        clips.save(scene, target)


def test_a_clip_of_yesterday_does_not_pass_for_a_new_one(
    scene: Clip, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unopened(*_: object) -> cv2.VideoWriter:  # as for a file that is read-only
        return real()

    real = cv2.VideoWriter
    unopened.fourcc = real.fourcc  # type: ignore[attr-defined]
    monkeypatch.setattr(cv2, "VideoWriter", unopened)
    with pytest.raises(ClipError, match=r"could not write .* \(0 of 12 frames\)"):
        clips.save(scene, saved)


def test_without_opencv_the_message_says_what_to_install(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UnavailableError, match="pip install opencv-python-headless"):
        clips.load(saved)
    assert len(clips.generate(frames=2, height=32, width=32)) == 2  # painting needs none


def test_importing_clips_does_not_import_opencv() -> None:
    subprocess.run([sys.executable, "-c", "import sys, kit.clips; sys.exit('cv2' in sys.modules)"], check=True)


# Optical flow


@pytest.mark.parametrize("method", clips.FLOW_METHODS)
def test_estimated_flow_is_far_better_than_none(method: str, scene: Clip) -> None:
    assert scene.flow is not None
    flow = clips.optical_flow(scene.frames[:4], method)
    truth = scene.flow[:3]
    assert flow.shape == truth.shape
    assert flow.dtype == np.float32
    assert clips.end_point_error(flow, truth) < 0.5 * clips.end_point_error(np.zeros_like(truth), truth)


def test_optical_flow_refuses_unknown_methods_and_odd_frames() -> None:
    frames = np.zeros((2, 48, 48, 3), np.uint8)
    with pytest.raises(UnknownNameError, match="no flow method 'diss': did you mean 'dis'"):
        clips.optical_flow(frames, "diss")
    for wrong in (frames[0], frames.astype(np.float32), frames[:, :31], frames[..., :2]):  # 31 high can crash DIS
        with pytest.raises(ShapeError, match="32 or more"):
            clips.optical_flow(wrong)
    assert clips.optical_flow(frames[:1]).shape == (0, 48, 48, 2)


def test_end_point_error_is_the_mean_distance() -> None:
    truth = np.zeros((2, 8, 8, 2), np.float32)
    flow = truth + np.array([3, 4], np.float32)
    assert clips.end_point_error(flow, truth) == 5.0
    flow[:, 0] = 1000
    assert clips.end_point_error(flow, truth, margin=1) == 5.0
    with pytest.raises(ShapeError, match="the same shape"):
        clips.end_point_error(flow, truth[:1])
    for margin in (4, -1):
        with pytest.raises(ShapeError, match="margin"):
            clips.end_point_error(flow, truth, margin=margin)


# Inputs of the two streams


def test_flow_stack_interleaves_scales_and_clips() -> None:
    flow = np.empty((5, 4, 6, 2), np.float32)
    flow[..., 0] = np.arange(5)[:, None, None]  # dx = t
    flow[..., 1] = -10 * np.arange(5)[:, None, None]  # dy = -10 t
    stack = clips.flow_stack(flow, start=1, length=3, clip=20.0)
    assert stack.shape == (6, 4, 6)
    assert stack.dtype == np.float32
    np.testing.assert_allclose(stack[:, 2, 3], [0.05, -0.5, 0.1, -1.0, 0.15, -1.0])  # dy beyond 20 is cut
    assert flow[3, 0, 0, 1] == -30  # the argument is left alone


def test_flow_stack_says_how_many_frames_it_needs() -> None:
    flow = np.zeros((9, 4, 4, 2), np.float32)
    with pytest.raises(ClipError, match="needs 11 frames, but there are 10: choose a longer clip or a smaller length"):
        clips.flow_stack(flow)
    with pytest.raises(ClipError, match="from frame 5 on needs 11 frames, but there are 10"):
        clips.flow_stack(flow, start=5, length=5)
    assert clips.flow_stack(flow, start=4, length=5).shape == (10, 4, 4)
    for wrong in ({"length": 0}, {"start": -1}, {"clip": 0.0}):
        with pytest.raises(ClipError, match="give no stack"):
            clips.flow_stack(flow, **wrong)
    with pytest.raises(ShapeError, match="made from flow"):
        clips.flow_stack(flow[0])


def test_two_stream_inputs_are_the_middle_of_the_clip(scene: Clip) -> None:
    rgb, stack = clips.two_stream_inputs(scene, size=64, length=5)
    assert (rgb.shape, rgb.dtype) == ((1, 3, 64, 64), np.float32)
    assert (stack.shape, stack.dtype) == ((1, 10, 64, 64), np.float32)

    # frames 3..8 are the middle of 12, and frame 5 the middle of those; 320x240 becomes 85x64, cut 10 from the left
    picture = rgb[0].transpose(1, 2, 0) * np.array(clips.RGB_STD) + np.array(clips.RGB_MEAN)
    expected = cv2.resize(scene.frames[5], (85, 64), interpolation=cv2.INTER_AREA)[:, 10:74] / 255
    np.testing.assert_allclose(picture, expected, atol=1e-6)

    # the exact flow, shrunk with the picture and its vectors with it, is what the stack shows
    assert scene.flow is not None
    truth = np.stack([cv2.resize(field, (85, 64), interpolation=cv2.INTER_AREA)[:, 10:74] for field in scene.flow[3:8]])
    truth *= 64 / 240
    shown = stack[0].reshape(5, 2, 64, 64).transpose(0, 2, 3, 1) * 20
    assert clips.end_point_error(shown, truth) < 0.6 * clips.end_point_error(np.zeros_like(truth), truth)


@pytest.mark.parametrize(("height", "width"), [(40, 33), (33, 47), (64, 500), (501, 64)])
def test_two_stream_inputs_of_any_picture_size(height: int, width: int) -> None:
    clip = clips.generate(frames=3, height=height, width=width)
    rgb, stack = clips.two_stream_inputs(clip, size=48, length=2, flow_method="farneback")
    assert rgb.shape == (1, 3, 48, 48)
    assert stack.shape == (1, 4, 48, 48)
    assert np.isfinite(rgb).all()
    assert np.isfinite(stack).all()


def test_two_stream_inputs_refuse_short_clips_and_odd_sizes() -> None:
    clip = clips.generate(frames=10, height=32, width=32)
    with pytest.raises(ClipError, match="needs 11 frames, but there are 10: choose a longer clip or a smaller length"):
        clips.two_stream_inputs(clip)
    with pytest.raises(UnknownNameError, match="flow method"):
        clips.two_stream_inputs(clip, length=4, flow_method="lucas-kanade")
    for wrong in ({"size": 31}, {"length": 0}):
        with pytest.raises(ClipError, match="give no input"):
            clips.two_stream_inputs(clip, **wrong)
