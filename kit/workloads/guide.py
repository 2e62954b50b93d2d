"""A guide's call of ``torch.multiprocessing.spawn``, as it was published, and what each process gets in it."""

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


def _noted(image: Any, rank: Any, folder: str) -> None:
    torch.set_num_threads(1)
    result = process_image(image, rank)
    (Path(folder) / f"{image}.json").write_text(json.dumps([_told(each) for each in (image, rank, result)]))


def _told(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"the number {value}"
