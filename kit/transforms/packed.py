"""Convolutions with weights in oneDNN's own layout, and the ReLU after them in the same operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from kit.errors import KitError
from kit.machine.hardware import Hardware
from kit.transforms.base import Layer, Transform, become, oddity
from kit.transforms.copying import rewritable
from kit.transforms.following import following

REORDER: dict[type[nn.Module], str] = {
    nn.Conv2d: "mkldnn_reorder_conv2d_weight",
    nn.Conv3d: "mkldnn_reorder_conv3d_weight",
}
MOST_KEPT = 16  # layouts of one convolution's weights


@dataclass(frozen=True, kw_only=True)
class Packed(Transform):
    """Convolutions on the CPU whose weights are reordered once, with the ReLU that follows in the same operator.

    PyTorch's own layers let oneDNN reorder the weights in every call. For small batches they use other kernels, which
    are slower for most shapes: on one thread thnn_conv2d, for volumes slow_conv3d. Helps networks of convolutions, most
    after ``folded`` and ``channels_last``. Does not help where matrix products take the time. A ReLU is taken in if it
    uses only outputs of convolutions, and nothing else uses these. The weights are packed again for each number of
    intra-op threads.

    Source: oneDNN's `memory format propagation
    <https://uxlfoundation.github.io/oneDNN/page_memory_format_propagation_cpp.html>`_ and post-ops, by the operator
    that ``torch.compile`` uses when it freezes a model.
    """

    layers: ClassVar[str] = "convolutions of oneDNN"

    def rewrite(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        title, (model, calls, _) = type(model).__name__, rewritable(model, args)
        whys: dict[nn.Module, str] = {
            conv: _unlike(conv) for conv in model.modules() if isinstance(conv, _ConvNd) and calls[conv]
        }
        if all(whys.values()):
            seen = "; ".join(f"a convolution {why}" for why in list(dict.fromkeys(whys.values()))[:3])
            raise KitError(
                f"{title} has no convolution that can be packed{f' ({seen})' * bool(seen)}: leave packed out."
            )
        followers = {
            relu: convs
            for relu, convs in following(model, args, nn.ReLU).items()
            if not oddity(relu, nn.ReLU) and all(whys.get(conv) == "" for conv in convs)
        }
        with_relu = {conv for convs in followers.values() for conv in convs}
        for conv, why in whys.items():
            if not why and isinstance(conv, _ConvNd):
                become(conv, _Convolution(conv, relu=conv in with_relu))
        for relu in followers:
            become(relu, nn.Identity())
        return model.eval()

    @classmethod
    def unavailable_because(cls, machine: Hardware) -> str | None:
        if torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
            return None
        return "this build of PyTorch has no oneDNN: install one for x86 or Arm CPUs."


def _unlike(conv: _ConvNd) -> str:
    """Why a convolution cannot be packed; else ""."""
    if odd := oddity(conv, *REORDER):
        return odd
    weight = conv.weight
    if weight.device.type != "cpu" or weight.dtype not in _dtypes():
        return f"has weights of {weight.dtype} on {weight.device}, not {' or '.join(map(str, _dtypes()))} on the CPU"
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        return f"pads by {conv.padding if isinstance(conv.padding, str) else conv.padding_mode}"
    return ""


def _dtypes() -> list[torch.dtype]:
    """Those that oneDNN convolves on this CPU."""
    return [torch.float32, *([torch.bfloat16] if torch.ops.mkldnn._is_mkldnn_bf16_supported() else [])]


class _Convolution(Layer):
    """A convolution ``(N, C, [T,] H, W) -> (N, out, [T',] H', W')``, with ReLU or without."""

    def __init__(self, conv: _ConvNd, relu: bool) -> None:
        super().__init__()
        self.reorder = REORDER[type(conv)]
        self.weight, self.bias = conv.weight, conv.bias
        self.options = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.post = "relu" if relu else "none"
        self.packed: dict[tuple[Any, ...], Tensor] = {}  # by threads and input: oneDNN chooses a layout for both

    def forward(self, x: Tensor) -> Tensor:
        key = (torch.get_num_threads(), x.shape)
        packed = self.packed.get(key)
        if packed is None:
            packed = self._pack(list(x.shape))
            if len(self.packed) == MOST_KEPT:  # of a model whose inputs have another size in every call
                self.packed.clear()
            self.packed[key] = packed
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(x, packed, self.bias, *self.options, self.post, [], "")
        return out

    def _pack(self, shape: list[int]) -> Tensor:
        reorder: Any = getattr(torch._C._nn, self.reorder)
        with torch.no_grad():
            packed: Tensor = reorder(self.weight.to_mkldnn(), *self.options, shape)
        return packed

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "packed": {}}  # its layout can be neither copied nor sent

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, {self.post}"
