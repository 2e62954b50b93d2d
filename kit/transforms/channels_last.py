"""Memory format: the channels of a pixel are adjacent in memory."""

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
    """Weights and inputs with the channels innermost in memory, as most convolution kernels prefer.

    Helps when kernels would otherwise reorder each input and output. Does not help when most of the model is not
    convolutions, or when its inputs have few channels.

    Source: `Channels Last Memory Format
    <https://docs.pytorch.org/tutorials/intermediate/memory_format_tutorial.html>`_.
    """

    def rewrite(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        if not any(tensor.ndim in FORMATS for tensor in model.parameters()):
            raise KitError(f"{type(model).__name__} has no convolution, so no use of channels_last: leave it out.")
        model = rewritable(model, args).model
        for tensor in model.parameters():
            tensor.data = channels_last(tensor.data)
        return _ChannelsLastIn(model).eval()  # a new module would be in training mode, which exporters warn of


class _ChannelsLastIn(nn.Module):
    """Reorders the model's inputs once, before its first layer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any) -> Any:
        return self.model(*pytree.tree_map_only(Tensor, channels_last, args))


def channels_last(x: Tensor) -> Tensor:
    """The same values ``(N, C, ...)`` with C innermost in memory; only for 4 or 5 dimensions."""
    return x.contiguous(memory_format=FORMATS[x.ndim]) if x.ndim in FORMATS else x
