"""nn.DataParallel: the batch split over devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kit.errors import KitError
from kit.transforms.base import Transform


@dataclass(frozen=True, kw_only=True)
class Replicated(Transform):
    """nn.DataParallel: a copy of the model on every GPU, each with a part of the batch.

    It splits batches, not branches. On a CPU or a single GPU it only calls the model. With several GPUs it copies the
    weights on every call, which DistributedDataParallel does not.

    Source: `nn.DataParallel <https://docs.pytorch.org/docs/stable/generated/torch.nn.DataParallel.html>`_.
    """

    opaque: ClassVar[str] = "a model that copies itself to every device"

    def rewrite(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        if torch.cuda.is_available() and not _on_gpu(args):
            raise KitError("nn.DataParallel needs model and inputs on cuda:0 if there is a GPU: move them there.")
        return nn.DataParallel(model)

    def remark(self, args: tuple[Any, ...], rewritten: nn.Module) -> str:
        if _on_gpu(args) and torch.cuda.device_count() > 1:
            return ""
        found = "one GPU" if _on_gpu(args) else "no GPU"
        return f"nn.DataParallel has {found} here, so it only calls the model: nothing runs at the same time."


def _on_gpu(args: tuple[Any, ...]) -> bool:
    return any(isinstance(x, Tensor) and x.is_cuda for x in args)
