"""Initialisation that keeps the signal alive through a deep network."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def keep_signal(model: Model, seed: int) -> Model:
    """Initialise in place from a seed so that activations keep their variance from layer to layer; returns the model.

    With PyTorch's default initialisation a deep network in eval mode outputs little but its last bias, so that any two
    approaches look equal. He initialisation (He et al., *Delving Deep into Rectifiers*, 2015) keeps the variance under
    ReLU. The global random state is left as it was.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
