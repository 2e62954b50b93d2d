"""Named experiments: a model and its inputs, without Jupyter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kit.approaches import Workload
from kit.errors import KitError, UnavailableError, UnknownNameError
from kit.workloads import continual, feeding, live, networks, opencv_dnn

__all__ = ["MANY", "NAMES", "Workload", "workload"]
_MAKERS: dict[str, Callable[[Path | None], tuple[nn.Module, tuple[Any, ...]]]] = {
    "continual": continual.make,
    "googlenet": networks.googlenet,
    "inception-block": networks.inception_block,
    "inception-v3": networks.inception_v3,
    "two-stream": networks.two_stream,
    "two-stream-i3d": networks.two_stream_i3d,
}
NAMES = tuple(_MAKERS)
_MAKERS_OF_MANY: dict[str, Callable[..., Workload]] = {
    "feeding": feeding.make,
    "opencv-dnn": opencv_dnn.make,
    "pipeline": live.make,
}
MANY = tuple(_MAKERS_OF_MANY)


def workload(name: str, clip: Path | None = None, device: str = "cpu", items: int | None = None) -> Workload:
    """A workload by name: one request, or many items.

    >>> from kit.workloads import workload
    >>> work = workload("inception-block")
    >>> work.description
    '(1, 192, 35, 35) float32 on cpu'

    Args:
        clip: a video instead of the generated scene, for workloads that read a clip.
        device: device of the model and its inputs: ``cpu``, ``cuda`` or ``cuda:1``.
        items: number of items, for a workload of many items; None: the workload's default.

    Raises:
        UnknownNameError: no such workload.
        KitError: a clip, a device or a number of items was given to a workload that does not take it.
        ClipError: the clip cannot be read or is too short.
        UnavailableError: this machine has no such device; it is never replaced by another.
    """
    if name in MANY:
        return _many(name, clip, device, items)
    if items is not None:
        raise KitError(f"{name} is one request, not {items} items: leave --items out.")
    if name not in _MAKERS:
        raise UnknownNameError("workload", name, [*NAMES, *MANY])
    place = _device(device)
    model, inputs = _MAKERS[name](clip)
    return Workload(name, model.to(place), tuple(x.to(place) for x in inputs))


def _many(name: str, clip: Path | None, device: str, items: int | None) -> Workload:
    if device != "cpu":
        raise KitError(f"{name} runs on the CPU: leave --device out.")
    if items is not None and items < 1:
        raise KitError(f"{items} items are too few: give at least 1.")
    if clip is not None and name != "pipeline":
        raise KitError(f"{name} takes no clip, since it generates its images. Leave --clip out.")
    options = {"items": items, "clip": clip}
    return _MAKERS_OF_MANY[name](**{key: value for key, value in options.items() if value is not None})


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise KitError(f"{name!r} is not a device: write cpu, cuda or cuda:1.") from error
    if device.type not in ("cpu", "cuda"):
        raise KitError(f"workloads do not run on {name!r}: write cpu, cuda or cuda:1.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UnavailableError(
            f"there is no {name} here: torch {torch.__version__} finds {torch.cuda.device_count()} GPUs. Use --device "
            "cpu, or run `python -m kit doctor` to see why."
        )
    return device
