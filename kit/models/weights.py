"""Weights in and out of a model: safetensors, or PyTorch files read with ``weights_only``. Never unpickled code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from kit.errors import UnavailableError, WeightsError

Model = TypeVar("Model", bound=nn.Module)
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1], per channel: how published weights want pictures normalised
IMAGENET_STD = (0.229, 0.224, 0.225)
_SHOWN = 3  # keys of each kind that an error names


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors in a file, by name, on the CPU: ``.safetensors``, or ``.pt`` as `torch.save` writes them.

    Raises:
        WeightsError: the file is missing, truncated, of another kind, or holds anything but tensors.
        UnavailableError: a .safetensors file where the package safetensors is not installed.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise WeightsError(f"there is no weights file {str(path)!r}. Paths start at {Path.cwd()}.")
    tensors = _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)
    if not isinstance(tensors, Mapping) or not all(isinstance(x, Tensor) for x in tensors.values()):
        raise WeightsError(f"{str(path)!r} contains no state dict (names and tensors): save model.state_dict().")
    return dict(tensors)


def _read_safetensors(file: Path) -> object:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise UnavailableError(f"{file.name} needs safetensors ({error}): run 'pip install safetensors'.") from error
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(file, error) from error


def _read_torch(file: Path) -> object:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> WeightsError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return WeightsError(
        f"{str(file)!r} ({file.stat().st_size:,} bytes) cannot be read as weights: it is truncated, or of another "
        "kind. Copy it again, and check that it is a .safetensors file, or a .pt file that contains only tensors. "
        f"({reason})"
    )


def put_weights(model: Model, tensors: Mapping[str, Tensor], source: str | Path) -> Model:
    """Fill a model in place with tensors of exactly its names and shapes; returns the model.

    Raises:
        WeightsError: names the first keys that are missing, unexpected or of another shape; the model is unchanged.
    """
    wanted = model.state_dict()
    faults = {
        "missing": [name for name in wanted if name not in tensors],
        "unexpected": [name for name in tensors if name not in wanted],
        "misshapen": [
            f"{name} {tuple(tensors[name].shape)} for {tuple(x.shape)}"
            for name, x in wanted.items()
            if name in tensors and tensors[name].shape != x.shape
        ],
    }
    if any(faults.values()):
        words = "; ".join(
            f"{len(keys)} {kind}: {', '.join(keys[:_SHOWN])}{', ...' * (len(keys) > _SHOWN)}"
            for kind, keys in faults.items()
            if keys
        )
        raise WeightsError(f"{str(source)!r} is not for this {type(model).__name__}. {words}.")
    model.load_state_dict(tensors)
    return model


def load_weights(model: Model, path: str | Path) -> Model:
    """:func:`read_weights`, then :func:`put_weights`.

    >>> from kit import models
    >>> trained, fresh = models.toy_two_stream(seed=1), models.toy_two_stream(seed=2)
    >>> torch.save(trained.state_dict(), "toy.pt")
    >>> same = models.load_weights(fresh, "toy.pt")
    >>> inputs = torch.rand(1, 3, 25, 25), torch.rand(1, 2, 25, 25)
    >>> torch.equal(same(*inputs), trained(*inputs))
    True
    """
    return put_weights(model, read_weights(path), path)


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write a model's state dict as safetensors."""
    from safetensors.torch import save_file

    save_file({name: x.contiguous() for name, x in model.state_dict().items()}, path)
