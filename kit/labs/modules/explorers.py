"""The explorer of notebook 09, with layers of the library beside those of torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from kit.labs.continual.explorer import CHANNELS, Explorer, Make, conv_of_torch


def explorer() -> Explorer:
    """Layers of the library by their own steps, then the same ones of torch by the kit's."""
    import continual as co

    def conv_of_library(kernel: int, stride: int, padding: int, dilation: int) -> Any:
        sizes = ((kernel, 3, 3), (stride, 1, 1), (padding, 1, 1), (dilation, 1, 1))
        return co.Conv3d(CHANNELS, CHANNELS, *sizes)

    def pool(kind: Callable[..., Any], dilated: bool = True) -> Make:
        def made(kernel: int, stride: int, padding: int, dilation: int) -> Any:
            options = {"dilation": (dilation, 1, 1)} if dilated else {}
            if not dilated and dilation > 1:
                raise RuntimeError(f"{kind.__name__} of torch has no dilation: set it to 1.")
            return kind((kernel, 1, 1), stride=(stride, 1, 1), padding=(padding, 0, 0), **options)

        return made

    return Explorer(
        {
            "co.Conv3d": conv_of_library,
            "co.MaxPool3d": pool(co.MaxPool3d),
            "co.AvgPool3d": pool(co.AvgPool3d),
            "nn.Conv3d by the kit": conv_of_torch,
            "nn.MaxPool3d by the kit": pool(nn.MaxPool3d),
            "nn.AvgPool3d by the kit": pool(nn.AvgPool3d, dilated=False),
        }
    )
