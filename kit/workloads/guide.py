"""A guide's call of ``torch.multiprocessing.spawn``, as it was published and as it has to be."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, multiprocessing

from kit.executors.workers.process import starting
from kit.reprs import one_line


def process_image(image: Any, rank: Any) -> Any:
    """The guide's worker, which it starts by ``mp.spawn(process_image, args=(images,), nprocs=4)``."""
    return image * rank


@one_line
class Spawned(NamedTuple):
    """What came of that call."""

    returned: object  # by ``mp.spawn``
    saw: list[tuple[str, str, str]]  # by each process: what ``image`` was, what ``rank`` was, what came out


def spawn_as_published(images: Tensor, workers: int = 4) -> Spawned:
    """Start the guide's worker as the guide does; each process notes what it got.

    Args:
        images: ``(N, ...)``, the batch that the guide wants to share out.
    """
    spawn: Any = multiprocessing.spawn  # type: ignore[attr-defined]  # has no types
    with tempfile.TemporaryDirectory(prefix="kit-guide-") as folder, starting():
        returned = spawn(_noted, args=(images, folder), nprocs=workers)
        notes = sorted(Path(folder).iterdir(), key=lambda path: int(path.stem))
        return Spawned(returned, [tuple(json.loads(note.read_text())) for note in notes])


def process_share(rank: int, images: Tensor, results: Tensor, workers: int) -> None:
    """The worker mended: the rank comes first, and the result goes into memory that all processes share."""
    mine = images.tensor_split(workers)[rank]
    results.tensor_split(workers)[rank].copy_(mine * rank)


@one_line
class Mended(NamedTuple):
    """What came of the mended call."""

    results: Tensor  # as many as images
    shares: list[int]  # images of each process


def spawn_as_mended(images: Tensor, workers: int = 4) -> Mended:
    """Start the mended worker; each process notes how many images it got.

    Args:
        images: ``(N, ...)``, the batch that is shared out.

    Raises:
        ProcessRaisedException: a worker raised.
    """
    spawn: Any = multiprocessing.spawn  # type: ignore[attr-defined]  # has no types
    results, shares = torch.full_like(images, float("nan")), torch.zeros(workers, dtype=torch.int64)
    for each in (results, shares):
        each.share_memory_()  # type: ignore[no-untyped-call]  # so that what the processes write is seen here
    with starting():
        spawn(_counted, args=(images, results, workers, shares), nprocs=workers)
    return Mended(results, shares.tolist())


def _counted(rank: int, images: Tensor, results: Tensor, workers: int, shares: Tensor) -> None:
    torch.set_num_threads(1)
    process_share(rank, images, results, workers)
    shares[rank] = len(images.tensor_split(workers)[rank])


def _noted(image: Any, rank: Any, folder: str) -> None:
    torch.set_num_threads(1)
    result = process_image(image, rank)
    (Path(folder) / f"{image}.json").write_text(json.dumps([_told(each) for each in (image, rank, result)]))


def _told(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"the number {value}"
