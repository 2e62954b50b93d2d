"""Feeding a network: JPEG files decoded, resized and normalised, by a loop, threads, processes and loaders."""

from __future__ import annotations

import atexit
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, multiprocessing, nn
from torch.utils.data import DataLoader, Dataset

from kit import clips
from kit.approaches import Calls, FunctionRunner, Workload
from kit.clips.clip import opencv
from kit.clips.scenes import UInt8
from kit.errors import ClipError, KitError, UnavailableError, UnknownNameError, WorkerError
from kit.executors.workers.process import starting
from kit.regions import Branches
from kit.reprs import one_line
from kit.spans import span
from kit.workloads.cold_pool import POOL_COLD
from kit.workloads.opencv_threads import match_opencv_threads

WORKS = ("opencv", "torch", "python", "io")
SIDE = 112  # pixels a side of what the network sees
LARGE = (960, 1280)


@one_line
class Unread(NamedTuple):
    """A file that could not be decoded into an input."""

    name: str
    reason: str


@one_line
class Batch(NamedTuple):
    """A batch of inputs, and the files that could not be read; together as many as there were files."""

    images: Tensor  # (N, 3, S, S)
    unread: tuple[Unread, ...]


class Pictures(nn.Module):
    """JPEG files as inputs ``(3, S, S)``: a map-style data set, and a module that takes an index.

    Args:
        files: the pictures.
        work: who resizes and normalises: "opencv" (with NumPy), "torch", "python" (a loop over pixels, with a quarter
            of them), or "io": opencv after 10 ms of waiting, as for a disk far away.
        on_error: "raise" raises on a file that cannot be decoded; otherwise it becomes an :class:`Unread`.

    Raises:
        UnknownNameError: no such work.
    """

    def __init__(
        self, files: Sequence[Path], work: str = "opencv", *, on_error: Literal["raise", "skip"] = "raise"
    ) -> None:
        super().__init__()
        if work not in WORKS:
            raise UnknownNameError("work", work, WORKS)
        self.files, self.work, self.on_error = list(files), work, on_error

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor | Unread:
        """Read, decode, resize and normalise one file.

        Raises:
            ClipError: the file is missing or no picture, and ``on_error`` is "raise".
        """
        match_opencv_threads()
        file = self.files[index]
        try:
            picture = _decoded(file, wait=0.01 * (self.work == "io"))
        except ClipError as error:
            if self.on_error == "raise":
                raise
            return Unread(file.name, str(error))
        with span(self.work, "part"):
            return {"torch": _with_torch, "python": _with_python}.get(self.work, _with_opencv)(picture)

    def forward(self, index: Tensor) -> Tensor | Unread:
        """The same for an executor: ``index`` is a whole number."""
        return self[int(index)]


def collate(items: Sequence[Tensor | Unread]) -> Batch:
    """Inputs of single files as a batch; the merge of the region, and what a DataLoader is given."""
    images = [item for item in items if isinstance(item, Tensor)]
    unread = tuple(item for item in items if isinstance(item, Unread))
    # By NumPy: torch.stack would copy on all cores, and wait long for them where other programs use them.
    return Batch(torch.from_numpy(np.stack(images)) if images else torch.empty(0, 3, SIDE, SIDE), unread)


def _decoded(file: Path, wait: float) -> UInt8:
    """RGB ``(H, W, 3)``."""
    cv2 = opencv()
    with span("read", "part"):
        time.sleep(wait)
        try:
            data = np.frombuffer(file.read_bytes(), np.uint8)
        except OSError as error:
            raise ClipError(f"{str(file)!r} cannot be read: {error.strerror}.") from error
    with span("decode", "part"):
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if data.size else None
    if picture is None:
        raise ClipError(f"{str(file)!r} ({data.size:,} bytes) is not a picture that OpenCV can read: remove it.")
    return np.asarray(picture, np.uint8)


def _with_opencv(picture: UInt8) -> Tensor:
    small = opencv().resize(picture, (SIDE, SIDE), interpolation=3)  # INTER_AREA
    return torch.from_numpy(clips.rgb_input(small)[0])


def _with_torch(picture: UInt8) -> Tensor:
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    small = nn.functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)[0] / 255
    return (small - torch.tensor(clips.RGB_MEAN)[:, None, None]) / torch.tensor(clips.RGB_STD)[:, None, None]


def _with_python(picture: UInt8) -> Tensor:
    """The nearest pixel, one after the other, in a loop that holds the GIL."""
    side = SIDE // 2
    height, width = picture.shape[:2]
    rows = [
        [
            [(float(picture[y * height // side, x * width // side, c]) / 255 - mean) / std for x in range(side)]
            for y in range(side)
        ]
        for c, (mean, std) in enumerate(zip(clips.RGB_MEAN, clips.RGB_STD, strict=True))
    ]
    return torch.tensor(rows)


# Files ---------------------------------------------------------------------------------------------------------------


def write_pictures(folder: Path, n: int, size: tuple[int, int] = (240, 320)) -> list[Path]:
    """``n`` JPEG files of generated frames, ``size`` high and wide; returns their paths."""
    cv2 = opencv()
    painted = clips.generate(8, 240, 320, seed=5).frames
    files = [folder / f"{i:04}.jpg" for i in range(n)]
    for i, file in enumerate(files):
        picture = cv2.resize(painted[i % len(painted)], size[::-1], interpolation=cv2.INTER_CUBIC)
        picture = np.roll(picture, 10 * i, axis=1)  # each its own
        _done, jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        file.write_bytes(jpeg.tobytes())
    return files


@cache
def _files(n: int, size: tuple[int, int]) -> tuple[Path, ...]:
    """Files that are there until this process ends, or until they are removed."""
    folder = tempfile.TemporaryDirectory(prefix="kit-pictures-", ignore_cleanup_errors=True)
    return tuple(write_pictures(Path(_folders.enter_context(folder)), n, size))


_folders = ExitStack()


@atexit.register
def remove_pictures() -> None:
    """Remove the files of every workload made so far. A kernel that is killed does not do it by itself."""
    _folders.close()
    _files.cache_clear()


# Approaches ----------------------------------------------------------------------------------------------------------


def make(items: int = 32, work: str = "opencv", size: tuple[int, int] = (240, 320)) -> Workload:
    """``items`` JPEG files, and every approach to make them inputs.

    Raises:
        UnknownNameError: a work that is not in WORKS.
        KitError: no items.
    """
    if not isinstance(items, int) or items < 1:
        raise KitError(f"items={items!r} is not possible: give a whole number of at least 1.")
    pictures = Pictures(_files(items, size), work)

    def mp_pool(cores: int, *, workers: int | None = None) -> FunctionRunner:
        """``torch.multiprocessing.Pool``, kept open: tensors come back through shared memory, a file each."""
        return _mp_pool(pictures, workers or cores)

    def mp_spawn(cores: int, *, workers: int | None = None) -> FunctionRunner:
        """``torch.multiprocessing.spawn`` as it must be called: the rank comes first. New processes for every call."""
        return FunctionRunner(lambda: collate(spawned(share, workers or cores, pictures)), cold=True)

    def published_pool(cores: int, *, workers: int | None = None) -> FunctionRunner:
        """A pool that is made for the call and maps over a loader, as a guide has it."""
        return FunctionRunner(lambda: _map_as_published(pictures, workers or cores), cold=True)

    def loader(
        *, workers: int = 0, batch: int = 8, prefetch: int = 2, persistent: int = 1, pinned: int = 0
    ) -> FunctionRunner:
        """A DataLoader: ``workers=0`` loads in the calling thread, ``persistent=0`` starts workers in every call."""
        return _loader(pictures, workers, batch, prefetch, bool(persistent), bool(pinned))

    return Workload(
        "feeding",
        Branches({file.stem: pictures for file in pictures.files}, collate).eval(),
        tuple(torch.arange(items)),
        items,
        "files",
        f"{items} files of {size[1]}x{size[0]}, {work}",
        {
            "pool_cold": POOL_COLD,
            "mp_pool": Calls(mp_pool),
            "mp_spawn": Calls(mp_spawn),
            "published_pool": Calls(published_pool),
            "loader": Calls(loader),
        },
    )


def _mp_pool(pictures: Pictures, workers: int) -> FunctionRunner:
    with starting():
        pool = multiprocessing.get_context("spawn").Pool(workers, torch.set_num_threads, (1,))

    def close() -> None:
        pool.terminate()
        pool.join()

    return FunctionRunner(lambda: collate(pool.map(pictures.__getitem__, range(len(pictures)))), close)


def spawned(share: Callable[..., None], workers: int, pictures: Pictures) -> list[Tensor | Unread]:
    """Run ``share(rank, queue, pictures, workers)`` in processes of their own; what they put, by its position.

    Raises:
        ProcessRaisedException: a worker raised.
        WorkerError: a worker died.
    """
    queue: Any = multiprocessing.get_context("spawn").SimpleQueue()
    found: dict[int, Any] = {}
    with spawning(share, (queue, pictures, workers), workers) as context:
        while len(found) < len(pictures):
            if not queue.empty():
                position, item = queue.get()
                found[position] = torch.from_numpy(item) if isinstance(item, np.ndarray) else item
            elif context.join(0.01) and queue.empty():
                raise WorkerError("the processes ended before all files were read.")
    return [found[i] for i in range(len(pictures))]


@contextmanager
def spawning(function: Callable[..., None], args: tuple[Any, ...], workers: int) -> Iterator[Any]:
    """``torch.multiprocessing.spawn`` without waiting; the end waits for the processes, or after an error kills them.

    Raises:
        ProcessRaisedException: a worker raised.
    """
    spawn: Any = multiprocessing.spawn  # type: ignore[attr-defined]  # has no types
    with starting():
        context = spawn(function, args, workers, join=False)
    try:
        yield context
        while not context.join():
            pass
    finally:
        for process in context.processes:
            process.kill()
            process.join()


def share(rank: int, queue: Any, pictures: Pictures, workers: int) -> None:
    """The work of one process: every ``workers``-th file. ``spawn`` passes the rank first."""
    torch.set_num_threads(1)
    for i in range(rank, len(pictures), workers):
        item = pictures[i]
        # As NumPy, which is copied: a tensor would be shared, and lost if this process ends before it is fetched.
        queue.put((i, item.numpy() if isinstance(item, Tensor) else item))


class _Decoded(Dataset[UInt8]):
    """The same files, decoded only: what the guide's loader gives."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> UInt8:
        return _decoded(self.pictures.files[index], wait=0.01 * (self.pictures.work == "io"))


def _map_as_published(pictures: Pictures, workers: int) -> Batch:
    """``Pool(cpu_count()).map(preprocess, iter(dataloader))``: this process reads all files, new ones resize them."""
    images: Any = DataLoader(_Decoded(pictures), 1, collate_fn=itemgetter(0))
    preprocess = {"torch": _with_torch, "python": _with_python}.get(pictures.work, _with_opencv)
    with starting(), multiprocessing.get_context("spawn").Pool(workers, torch.set_num_threads, (1,)) as pool:
        return collate(pool.map(preprocess, iter(images)))


def _loader(
    pictures: Pictures, workers: int, batch: int, prefetch: int, persistent: bool, pinned: bool
) -> FunctionRunner:
    if pinned and not torch.cuda.is_available():
        raise UnavailableError("pinned memory is for copies to a GPU, but there is no GPU here: leave pinned out.")
    options: dict[str, Any] = {}
    if workers:
        options = {
            "multiprocessing_context": "spawn",
            "prefetch_factor": max(1, prefetch),
            "persistent_workers": persistent,
            "worker_init_fn": _quiet,
        }
    data_set: Any = pictures  # of the shape of one, if not of the class
    loader: Any = DataLoader(data_set, batch, num_workers=workers, collate_fn=collate, pin_memory=pinned, **options)

    def call() -> Batch:
        with starting() if workers else nullcontext():
            batches = iter(loader)

        def next_batch() -> Batch | None:
            with span("next batch", "wait"):
                return next(batches, None)

        with ExitStack() as stack:
            if workers:
                stack.callback(_end, loader, batches)
            found = list(iter(next_batch, None))
            if persistent:
                stack.pop_all()  # all went well: the workers stay
        unread = tuple(item for batch in found for item in batch.unread)
        return Batch(torch.cat([batch.images for batch in found]), unread)

    return FunctionRunner(call, lambda: _end(loader, loader._iterator), cold=bool(workers and not persistent))


def _quiet(worker: int) -> None:
    torch.set_num_threads(1)


def _end(loader: Any, batches: Any) -> None:
    """End a loader's workers now; otherwise they end only when the garbage collector runs."""
    if hasattr(batches, "_shutdown_workers"):
        batches._shutdown_workers()
    loader._iterator = None
