"""Memory format: channels beside each other instead of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from kit.errors import KitError
from kit.transforms.base import Transform
from kit.transforms.copying import rewritable

FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}  # dimensions -> format


@dataclass(frozen=True, kw_only=True)
class ChannelsLast(Transform):
    """Weights and inputs with the channels innermost, as most convolution kernels want them.

    Helps where kernels would otherwise reorder each input and output. Does not help where a model is mostly something
    else than convolutions, or where its inputs have few channels.

    Source: `Channels Last Memory Format
    <https://docs.pytorch.org/tutorials/intermediate/memory_format_tutorial.html>`_.
    """

    def rewrite(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        if not any(tensor.ndim in FORMATS for tensor in model.parameters()):
            raise KitError(f"{type(model).__name__} has no convolution, so no memory format to choose: leave it out.")
        model = rewritable(model, args).model
        for tensor in model.parameters():
            tensor.data = channels_last(tensor.data)
        return _ChannelsLastIn(model).eval()  # a new module would be in training mode, which exporters warn of


class _ChannelsLastIn(nn.Module):
    """Reorders the inputs once, at the door."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any) -> Any:
        return self.model(*pytree.tree_map_only(Tensor, channels_last, args))


def channels_last(x: Tensor) -> Tensor:
    """The same values ``(N, C, ...)`` with C innermost in memory; other than 4 or 5 dimensions stay as they are."""
    return x.contiguous(memory_format=FORMATS[x.ndim]) if x.ndim in FORMATS else x
