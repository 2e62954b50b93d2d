"""Run other things in the place of PyTorch's functions: what isolates a cause without another model.

Where PyTorch would choose a kernel by shapes, batch size and threads, :func:`on_one_dnn` takes the choice away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
Swap = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]  # function, arguments -> its result; None: as it is


class Instead(TorchFunctionMode):
    """Within ``with``, run something else in the place of some of PyTorch's functions, in this thread.

    Args:
        instead: (the function, its positional and its named arguments) -> what it shall return; None: as it is.
    """

    def __init__(self, instead: Swap) -> None:
        super().__init__()
        self.instead = instead

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = self.instead(func, args, kwargs or {})
        return func(*args, **(kwargs or {})) if found is None else found


def on_one_dnn(func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Tensor | None:
    """A convolution given to oneDNN, whatever kernel PyTorch would choose for it."""
    return _one_dnn(*args, **named) if func in CONVOLUTIONS else None


def _one_dnn(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(input.ndim, torch.contiguous_format)
    either = any(x.is_contiguous(memory_format=last) and not x.is_contiguous() for x in (input, weight))
    input, weight = (x.contiguous(memory_format=last if either else torch.contiguous_format) for x in (input, weight))
    sizes = [[x] * (input.ndim - 2) if isinstance(x, int) else list(x) for x in (padding, stride, dilation)]
    padding, stride, dilation = sizes
    return torch.mkldnn_convolution(input, weight, bias, padding, stride, dilation, groups)


class WithoutZeros:
    """On oneDNN, and a frame padded in time by as many zeros as give an output for each part of the kernel, without.

    What a frame adds to each of those outputs is a 2-D convolution of it: one with the filters of all parts.
    """

    def __init__(self) -> None:
        self.weights: dict[int, Tensor] = {}  # a library would keep them like that

    def __call__(self, func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Tensor | None:
        if func is not torch.conv3d or args or not self.padded(**named):
            return on_one_dnn(func, args, named)
        weight, groups, parts = named["weight"], named["groups"], named["weight"].shape[2]
        if id(weight) not in self.weights:  # (O, C, T, h, w) -> (T x O, C, h, w), the last part first; by group
            split = weight.flip(2).unflatten(0, (groups, -1)).permute(0, 3, 1, 2, 4, 5)
            self.weights[id(weight)] = split.flatten(0, 2).contiguous()
        space = {name: named[name][1:] for name in ("stride", "padding", "dilation")}
        found = _one_dnn(named["input"].squeeze(2), self.weights[id(weight)], groups=groups, **space)
        height, width = found.shape[2:]
        return found.view(len(found), groups, parts, -1, height, width).transpose(2, 3).flatten(1, 2)

    @staticmethod
    def padded(input: Tensor, weight: Tensor, padding: Any, bias: Any = None, **others: Any) -> bool:
        """Whether this is the frame of a step, with zeros on both sides."""
        parts = weight.shape[2]
        return bias is None and input.shape[2] == 1 < parts and padding[0] == parts - 1


class Replay:
    """Functions of some names return what they returned when they were first called with such shapes: no work at all.

    Args:
        names: parts of names, as in "conv" or "pool".
        before: what they run the first time.
    """

    def __init__(self, *names: str, before: Swap = on_one_dnn) -> None:
        self.names, self.before = names, before
        self.found: dict[Any, Any] = {}

    def __call__(self, func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        name = getattr(func, "__name__", "")
        if not any(part in name for part in self.names):
            return None
        tensors = [x for x in (*args, *named.values()) if isinstance(x, Tensor)]
        key = (name, *(tuple(x.shape) for x in tensors), *(x.data_ptr() for x in tensors[1:]))
        if key not in self.found:
            found = self.before(func, args, named)
            self.found[key] = func(*args, **named) if found is None else found
        return self.found[key]


class Given(nn.Module):
    """A call in which something runs instead of some of PyTorch's functions; nothing does where none is given."""

    def __init__(self, instead: Swap | None, call: Callable[..., Any]) -> None:
        super().__init__()
        self.instead, self.call = instead, call
        self.eval()

    def forward(self, *args: Any) -> Any:
        if self.instead is None:
            return self.call(*args)
        with Instead(self.instead):
            return self.call(*args)
