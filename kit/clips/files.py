"""Clips from video files and folders of pictures, whole or piece by piece, and back into a file."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from kit.clips.clip import DEFAULT_FPS, Clip, fit, opencv
from kit.clips.scenes import UInt8
from kit.errors import ClipError
from kit.progress import progress_bar

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_UNEVEN = 1.5  # a step between frames that is so many times another: more than the rounding of a file's clock


@dataclass
class _Source:
    """A file or folder that is read once, and what was learnt on the way."""

    fps: float
    promised: float  # frames, as its header says; NaN or below 1 where it says nothing
    pictures: Iterator[tuple[float, UInt8]]  # (seconds, RGB (H, W, 3))
    read: int = 0  # frames so far
    shortest: float = math.inf  # seconds between two of them
    longest: float = 0.0

    def frames(self) -> Iterator[tuple[float, UInt8]]:
        """Every frame and its time, from 0 on and rising: where the file's clock stands still, at its rate."""
        start = last = math.nan
        for seconds, frame in self.pictures:
            if self.read == 0:
                start = last = seconds
            else:
                seconds = seconds if last < seconds < math.inf else last + 1 / self.fps
                self.shortest, self.longest = min(self.shortest, seconds - last), max(self.longest, seconds - last)
                last = seconds
            self.read += 1
            yield last - start, frame

    def sampled(self, fps: float) -> Iterator[UInt8]:
        """What shows at every tick of ``1 / fps`` seconds: some frames twice, some not at all."""
        tick, shown, seconds, rounding = 0, None, 0.0, 1e-4
        for seconds, frame in self.frames():
            while shown is not None and tick / fps < seconds - rounding:
                yield shown
                tick += 1
            shown = frame
        if shown is not None and tick / fps <= seconds + rounding:
            yield shown


def load(
    path: str | Path,
    *,
    max_frames: int | None = None,
    fps: float | None = None,
    size: tuple[int, int] | None = None,
    progress: bool = False,
) -> Clip:
    """Decode a video file, or a folder of pictures in the order of their names, into memory: ``T * H * W * 3`` bytes.

    A file that ends before its header says (cut off, or a header that only estimates) gives the frames that could be
    decoded, and ``source`` says so; it also says where the time between frames varies. Grey pictures become RGB, an
    alpha channel is left out, and the rotation that a phone notes in its file is applied.

    >>> from kit import clips
    >>> clips.save(clips.generate(frames=12, height=64, width=64), "shapes.mp4")
    >>> clips.load("shapes.mp4", max_frames=11, size=(48, 48))
    Clip(11 frames of 48x48 at 25 fps from 'shapes.mp4')

    Args:
        max_frames: largest number of frames to read.
        fps: sample the file at this rate, by the times of its frames. None: every frame, at the file's average rate.
            Pictures have no times: for a folder this is their rate. It is 25 where nobody says.
        size: height and width to fit each frame to as it is read: resized until it covers them, cut to its middle.
        progress: show a bar.

    Raises:
        ClipError: a path with no video in it (missing, not decodable, without a single frame), pictures of different
            sizes, or an argument that leaves nothing.
    """
    if max_frames is not None and max_frames < 1:
        raise ClipError(f"max_frames={max_frames} leaves no frame of {str(path)!r}: give 1 or more, or None for all.")
    with closing(_pieces(Path(path), max_frames, fps, size, progress)) as pieces:
        return next(pieces)


def stream(
    path: str | Path,
    length: int,
    *,
    fps: float | None = None,
    size: tuple[int, int] | None = None,
    progress: bool = False,
) -> Iterator[Clip]:
    """A file or folder as clips of ``length`` frames, one after the other; the last may be shorter.

    Only one of them is in memory, however long the file. The other arguments, and what is raised, are as in
    :func:`load`.

    >>> from kit import clips
    >>> clips.save(clips.generate(frames=12, height=64, width=64), "shapes.mp4")
    >>> [len(part) for part in clips.stream("shapes.mp4", length=5)]
    [5, 5, 2]
    """
    if length < 1:
        raise ClipError(f"length={length} leaves no frame of {str(path)!r}: give 1 or more frames.")
    return _pieces(Path(path), length, fps, size, progress)


def _pieces(
    path: Path, length: int | None, fps: float | None, size: tuple[int, int] | None, progress: bool
) -> Generator[Clip, None, None]:
    if fps is not None and not 0 < fps < math.inf:
        raise ClipError(f"{str(path)!r} cannot be read at {fps} frames per second: pass a number above 0, such as 25.")
    place = _existing(path)
    source = _folder(place, fps or DEFAULT_FPS) if place.is_dir() else _video(place)
    sampled = fps is not None and not place.is_dir()
    frames = source.sampled(fps or source.fps) if sampled else (frame for _, frame in source.frames())
    expected = source.promised if 1 <= source.promised < math.inf else 0
    with progress_bar(int(expected), progress, "frames") as step:

        def ready(frame: UInt8) -> UInt8:
            step(source.read)
            return fit(frame, *size) if size else frame

        while pictures := [ready(frame) for frame in islice(frames, length)]:
            remarks = ""
            if (length is None or len(pictures) < length) and source.read < expected:
                remarks = f" ({source.read} of the {expected:.0f} frames that its header promises)"
            if source.longest > _UNEVEN * source.shortest and not sampled:
                remarks += " (variable frame rate: pass fps=... for even steps)"
            yield Clip(np.stack(pictures), fps or source.fps, f"{path}{remarks}")
    if not source.read:
        raise ClipError(
            f"no frame can be decoded from {str(path)!r} ({place.stat().st_size:,} bytes): it is not a video, it is "
            "truncated, or its codec is missing. Check whether a video player opens it; converting it to mp4 (H.264) "
            "usually helps."
        )


def _video(file: Path) -> _Source:
    cv2 = opencv()
    capture = cv2.VideoCapture(str(file))

    def pictures() -> Iterator[tuple[float, UInt8]]:
        try:
            while True:
                decoded, frame = capture.read()
                if not decoded:
                    return
                yield capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        except cv2.error as error:
            raise ClipError(f"OpenCV cannot decode {str(file)!r}: {error}") from error
        finally:
            capture.release()

    fps = capture.get(cv2.CAP_PROP_FPS)
    return _Source(fps if 0 < fps < math.inf else DEFAULT_FPS, capture.get(cv2.CAP_PROP_FRAME_COUNT), pictures())


def _folder(folder: Path, fps: float) -> _Source:
    cv2 = opencv()
    files = sorted((x for x in folder.iterdir() if x.suffix.lower() in PICTURES), key=_by_number)
    if not files:
        kinds = ", ".join(PICTURES)
        raise ClipError(
            f"{str(folder)!r} is a folder without pictures ({kinds}): give a folder with pictures, or a video file."
        )

    def pictures() -> Iterator[tuple[float, UInt8]]:
        shape = None
        for i, file in enumerate(files):
            data = np.frombuffer(file.read_bytes(), np.uint8)
            frame = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
            if frame is None:
                raise ClipError(
                    f"{str(file)!r} ({data.size:,} bytes) is not a picture that OpenCV can read: remove it."
                )
            if frame.shape != (shape := shape or frame.shape):
                sizes = f"{frame.shape[1]}x{frame.shape[0]}, {files[0].name!r} {shape[1]}x{shape[0]}"
                raise ClipError(f"all pictures of a clip must have the same size, but {str(file)!r} is {sizes}.")
            yield i / fps, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

    return _Source(fps, len(files), pictures())


def _by_number(file: Path) -> list[tuple[int, str]]:
    """A key that puts frame 9 before frame 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.name)]


def _existing(path: Path) -> Path:
    place = path.expanduser()
    if not place.exists():
        if not place.parent.is_dir():
            raise ClipError(f"there is no clip {str(path)!r}: its folder does not exist. Paths start at {Path.cwd()}.")
        near = difflib.get_close_matches(place.name, [entry.name for entry in place.parent.iterdir()], n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"look into {str(place.parent)!r}."
        raise ClipError(f"there is no clip {str(path)!r}: {hint}")
    return place


def save(clip: Clip, path: str | Path) -> None:
    """Write ``clip`` as an mp4 (MPEG-4 part 2, lossy). Raises ClipError where that cannot be done whole.

    >>> from kit import clips
    >>> clips.save(clips.generate(frames=12, height=64, width=64), "shapes.mp4")  # then: kit compare --clip shapes.mp4
    """
    cv2 = opencv()
    file = Path(path).expanduser()
    height, width = clip.frames.shape[1:3]
    if file.suffix.lower() != ".mp4":
        raise ClipError(f"clips are saved as mp4, not as {file.name!r}: choose a name that ends in .mp4.")
    if not file.parent.is_dir():
        raise ClipError(f"cannot save {str(path)!r}: the folder {str(file.parent)!r} does not exist; make it first.")
    if height % 2 or width % 2:  # OpenCV would drop the last row or column without a word
        raise ClipError(f"mp4 needs an even width and height, not {width}x{height}: crop the frames by one pixel.")
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), clip.fps, (width, height))
    opened = writer.isOpened()
    for frame in clip.frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    # The writer reports nothing: neither a codec it lacks, nor a full disk. What it wrote says whether it worked.
    written = cv2.VideoCapture(str(file)).get(cv2.CAP_PROP_FRAME_COUNT) if opened else 0
    if written != len(clip):
        raise ClipError(
            f"OpenCV could not write {str(path)!r} ({written:.0f} of {len(clip)} frames): "
            "is the folder writable, the disk full, or the mp4v codec missing from this build?"
        )
