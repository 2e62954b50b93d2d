"""One Inception block on a random activation: four branches on one input."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from kit.errors import KitError
from kit.models import inception_block


def make(clip: Path | None) -> tuple[nn.Module, tuple[Tensor]]:
    """The 35x35 block of Inception v3, and a random activation ``(1, 192, 35, 35)`` for it.

    Raises:
        KitError: a clip was given; one block in the middle of a network takes none.
    """
    if clip:
        raise KitError("inception-block takes no clip: its input is an activation. Leave --clip out.")
    return inception_block(), (torch.randn(1, 192, 35, 35, generator=torch.Generator().manual_seed(0)).relu(),)
