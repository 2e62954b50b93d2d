"""Clips from odd files: rotated, uneven in time, grey, with alpha, in a folder, an hour long."""

import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from kit import clips
from kit.errors import ClipError


def ramp(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames of one grey value each, rising from 20 on by 10, with a white corner at the upper left."""
    frames = np.empty((count, height, width, 3), np.uint8)
    frames[:] = (20 + 10 * np.arange(count) % 200)[:, None, None, None]
    frames[:, : height // 3, : width // 3] = 255
    return frames


def greys(clip: clips.Clip) -> list[int]:
    """Which frames of a ramp these are."""
    return [round((float(np.median(frame)) - 20) / 10) for frame in clip.frames]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "ramp.mp4"
    clips.save(clips.Clip(ramp(12), 25.0, "ramp"), path)
    return path


def grown(data: bytes, path: Iterable[bytes], new: bytes) -> bytes:
    """An mp4 with the content of one of its boxes replaced, whose index is behind its pictures."""
    here, ends = data, []
    at = 0
    for name in path:
        at = data.index(name, at)
        ends.append(at - 4)
    size = struct.unpack(">I", data[ends[-1] : ends[-1] + 4])[0]
    more = 8 + len(new) - size
    here = data[: ends[-1] + 8] + new + data[ends[-1] + size :]
    for place in ends:
        before = struct.unpack(">I", here[place : place + 4])[0]
        here = here[:place] + struct.pack(">I", before + more) + here[place + 4 :]
    return here


INDEX = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts")


def test_a_variable_frame_rate_is_noticed_and_sampled_by_the_clock(video: Path, tmp_path: Path) -> None:
    data, path = video.read_bytes(), tmp_path / "uneven.mp4"
    at = data.index(b"stts")
    count, step = struct.unpack(">II", data[at + 12 : at + 20])
    assert count == 12
    path.write_bytes(grown(data, INDEX, struct.pack(">IIIIII", 0, 2, 6, step // 2, 6, 3 * step // 2)))
    plain = clips.load(path)
    assert greys(plain) == list(range(12))
    assert "variable frame rate: pass fps=" in plain.source
    even = clips.load(path, fps=25)
    assert greys(even) == [0, 2, 4, 6, 6, 7, 8, 8, 9, 10, 10]  # they show from 0, 20, ... 100, 120, 180, ... 420 ms on
    assert (even.fps, even.source) == (25, str(path))


@pytest.mark.parametrize(
    ("fps", "expected"),
    [(12.5, [0, 2, 4, 6, 8, 10]), (50, [i // 2 for i in range(23)]), (10, [0, 2, 5, 7, 10]), (25, list(range(12)))],
)
def test_sampling_at_a_rate(fps: float, expected: list[int], video: Path) -> None:
    clip = clips.load(video, fps=fps)
    assert greys(clip) == expected
    assert clip.fps == fps
    assert "variable" not in clip.source


def test_the_rotation_that_a_phone_notes_is_applied(video: Path, tmp_path: Path) -> None:
    data, path = video.read_bytes(), tmp_path / "upright.mp4"
    one = 1 << 16
    matrix = data.index(struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30), data.index(b"tkhd"))
    quarter = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data[:matrix] + quarter + data[matrix + 36 :])
    assert clips.load(video).frames.shape[1:3] == (48, 64)
    turned = clips.load(path)
    assert turned.frames.shape[1:3] == (64, 48)
    corners = [float(turned.frames[0, y, x].mean()) for y, x in ((5, 5), (5, -5), (-5, 5), (-5, -5))]
    assert [value > 200 for value in corners] == [False, True, False, False]  # turned clockwise


def test_an_odd_size_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "odd.mjpeg"  # one JPEG after the other; a container's writer would drop the last row and column
    path.write_bytes(b"".join(cv2.imencode(".jpg", frame)[1].tobytes() for frame in ramp(3, 47, 63)))
    clip = clips.load(path)
    assert clip.frames.shape == (3, 47, 63, 3)
    assert greys(clip) == [0, 1, 2]


def test_a_folder_of_pictures_grey_or_with_alpha(tmp_path: Path) -> None:
    for i, frame in enumerate(ramp(11)):
        picture = [frame, frame[..., 0], np.dstack([frame, frame[..., 0] // 2]), frame.astype(np.uint16) * 257][i % 4]
        cv2.imwrite(str(tmp_path / f"frame{i}.png"), picture)  # 10 comes after 9
    (tmp_path / "notes.txt").write_text("not a picture")
    clip = clips.load(tmp_path)
    assert greys(clip) == list(range(11))
    np.testing.assert_array_equal(clip.frames[3], ramp(11)[3])
    assert (clip.fps, clips.load(tmp_path, fps=10).fps) == (25, 10)
    assert len(clips.load(tmp_path, fps=10)) == 11


def test_colours_of_a_picture_are_rgb(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "red.png"), np.full((4, 4, 3), (0, 0, 255), np.uint8))
    assert clips.load(tmp_path).frames[0, 0, 0].tolist() == [255, 0, 0]


def test_folders_that_make_no_clip(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"folder without pictures \(\.bmp"):
        clips.load(tmp_path)
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((4, 4, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "2.png"), np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(ClipError, match=r"'.*2\.png' is 5x4, '1\.png' 4x4"):
        clips.load(tmp_path)
    (tmp_path / "2.png").write_bytes(b"")
    with pytest.raises(ClipError, match=r"2\.png' \(0 bytes\) is not a picture"):
        clips.load(tmp_path)


def test_a_size_is_covered_and_cut_to_the_middle(video: Path) -> None:
    clip = clips.load(video, size=(24, 24))
    assert clip.frames.shape == (12, 24, 24, 3)
    np.testing.assert_array_equal(clip.frames, clips.load(video).fit(24, 24).frames)
    assert clip.frames[0, 2, 1].mean() > 200  # of the white third at the left, an eighth of the width is cut off
    assert clip.frames[0, 2, 12].mean() < 40
    with pytest.raises(ClipError, match="a picture cannot be resized"):
        clips.load(video, size=(0, 24))


def test_a_stream_is_the_file_in_pieces(video: Path) -> None:
    pieces = list(clips.stream(video, 5))
    assert [len(piece) for piece in pieces] == [5, 5, 2]
    np.testing.assert_array_equal(np.concatenate([piece.frames for piece in pieces]), clips.load(video).frames)
    assert [piece.source for piece in pieces] == [str(video)] * 3
    sampled = list(clips.stream(video, 4, fps=12.5, size=(32, 32)))
    assert [greys(piece) for piece in sampled] == [[0, 2, 4, 6], [8, 10]]


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_a_rate_or_length_that_leaves_nothing(fps: float, video: Path) -> None:
    with pytest.raises(ClipError, match="frames per second"):
        clips.load(video, fps=fps)
    with pytest.raises(ClipError, match="length=0"):
        clips.stream(video, 0)


def test_an_hour_of_video_takes_the_memory_of_one_piece(tmp_path: Path) -> None:
    path = tmp_path / "hour.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 5, (64, 48))
    loop = ramp(10)
    for i in range(5 * 3600):
        writer.write(loop[i % 10])
    writer.release()
    piece = 100 * loop[0].nbytes
    tracemalloc.start()
    seconds = sum(len(clip) / clip.fps for clip in clips.stream(path, 100))
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds == 3600
    assert peak < 4 * piece + 2_000_000  # a piece as a list, the same stacked, and the one before


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_no_file_stays_open(video: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    clips.load(video, max_frames=2)
    stream = clips.stream(video, 5)
    next(stream)
    stream.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_bar_counts_the_frames(video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = f"from kit import clips; clips.load({str(video)!r}, progress=True)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "frames" in done.stderr
    assert "/12" in done.stderr
