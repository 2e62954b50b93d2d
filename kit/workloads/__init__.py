"""Named experiments: a model and inputs for it, without Jupyter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kit.errors import KitError, UnavailableError, UnknownNameError
from kit.workloads import continual, inception, inception_block, two_stream, two_stream_i3d


@dataclass(frozen=True, eq=False)
class Workload:
    """What a comparison runs on."""

    name: str
    model: nn.Module
    inputs: tuple[Any, ...]


_MAKERS: dict[str, Callable[[Path | None], tuple[nn.Module, tuple[Any, ...]]]] = {
    "continual": continual.make,
    "googlenet": inception.make_googlenet,
    "inception-block": inception_block.make,
    "inception-v3": inception.make_v3,
    "two-stream": two_stream.make,
    "two-stream-i3d": two_stream_i3d.make,
}
NAMES = tuple(_MAKERS)


def workload(name: str, clip: Path | None = None, device: str = "cpu") -> Workload:
    """A workload by name.

    Args:
        clip: the video for a workload that takes one, instead of the generated scene.
        device: where the model and its inputs are put: ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        UnknownNameError: no such workload.
        KitError: a clip for a workload that takes none.
        ClipError: the clip cannot be read or is too short.
        UnavailableError: no such device here; it is never replaced by another.
    """
    if name not in _MAKERS:
        raise UnknownNameError("workload", name, NAMES)
    place = _device(device)
    model, inputs = _MAKERS[name](clip)
    return Workload(name, model.to(place), tuple(x.to(place) for x in inputs))


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise KitError(f"{name!r} is no device: write cpu, cuda or cuda:1.") from error
    if device.type not in ("cpu", "cuda"):
        raise KitError(f"workloads do not run on {name!r}: write cpu, cuda or cuda:1.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UnavailableError(
            f"there is no {name} here: torch {torch.__version__} sees {torch.cuda.device_count()} GPUs. "
            "Use --device cpu, or run `python -m kit doctor` to see why."
        )
    return device
