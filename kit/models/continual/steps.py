"""Layers over time, one frame at a time.

A step takes a frame ``(N, C, 1, H, W)`` and the layer's state, and returns an output, or None where none is due yet,
and a new state. The frames of 2-D and 1-D layers, ``(N, C, 1, W)`` and ``(N, C, 1)``, are computed as pictures of
height 1 and of one pixel; tokens are ``(N, 1, E)``. States are nested tuples of earlier frames and are never changed:
whoever keeps an old one can go back to it, a step that fails leaves nothing behind, and a frame that several states
remember is in memory once. So no step writes into what it is given: branches and states share it. Its weights are its
own, as they were when it was made.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import reduce
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.dropout import _DropoutNd

from kit.errors import KitError, ShapeError
from kit.models.continual.reach import Reach
from kit.regions import Branches
from kit.regions import taken as taken_by

Layers = tuple[Any, ...]  # the state of a step, in the shape that the step gives it
Stepped = tuple[Tensor | None, Layers]


class ModuleStep(nn.Module):
    """A layer that goes from frame to frame; ``step(frame, state) -> (output or None, new state)``."""

    # Of the layer on a clip; a step does neither.
    writer = ""  # the name of what writes into the layer's input, if something does
    passes = False  # the output may be the input, or a part of it

    def __init__(self, name: str, reach: Reach) -> None:
        super().__init__()
        self.name, self.reach = name, reach

    def start(self) -> Layers:
        """The state before the first frame."""
        return ()


class EachFrame(ModuleStep):
    """A layer that looks at one frame only: a copy of it runs, which writes nothing in place."""

    def __init__(self, name: str, layer: nn.Module) -> None:
        super().__init__(name, Reach())
        self.layer = copy.deepcopy(layer).requires_grad_(False)
        idle = isinstance(layer, nn.Identity | _DropoutNd)
        if hasattr(layer, "inplace"):
            cast(Any, self.layer).inplace = False
            self.writer = name if layer.inplace and not idle else ""
        self.passes = idle or bool(self.writer)

    def forward(self, x: Tensor, state: Layers) -> Stepped:
        return self.layer(x), state


class Window(ModuleStep):
    """A layer that looks at several frames; its state is (the frames it will look at again, frames to wait).

    Frames that padding would put before the first one are not there: subclasses leave out what they would add.
    """

    def __init__(self, name: str, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> None:
        super().__init__(name, Reach((kernel - 1) * dilation + 1, padding, stride))
        if self.reach.delay < 0:
            raise KitError(
                f"{name} pads {padding} frames before the first, but looks back on {self.reach.receptive_field - 1} "
                "only: it would give outputs before any frame has come. Pad less, or take a larger kernel."
            )
        self.kernel, self.dilation = kernel, dilation

    def start(self) -> Layers:
        return (), self.reach.delay

    def forward(self, x: Tensor, state: Layers) -> Stepped:
        before, wait = state
        given, x = x, self.prepared(x)
        if before and (x.shape, x.dtype, x.device) != (before[-1].shape, before[-1].dtype, before[-1].device):
            raise ShapeError(
                f"{self.name} remembers frames {_described(before[-1])}, and now gets {_described(x)}: go on with "
                "frames like the first, or begin another clip with None."
            )
        frames = (*before, x)
        memory = frames[max(0, len(frames) - self.reach.receptive_field + 1) :]
        if wait:
            return None, (memory, wait - 1)
        window = self.padded(frames)[:: -self.dilation][: self.kernel][::-1]
        return self.output(window, given), (memory, self.reach.stride - 1)

    def prepared(self, x: Tensor) -> Tensor:
        """What is done with each frame once, before it is remembered: ``(N, C, 1, H, W) -> (N, C', H', W')``."""
        return x

    def padded(self, frames: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """All frames that the window reaches, where padding is made of frames; the clip's first is still the first."""
        return frames

    def output(self, frames: tuple[Tensor, ...], given: Tensor) -> Tensor:
        """``(N, C', 1, H', W')`` from one window.

        Args:
            frames: as :meth:`prepared` left them, the latest last; fewer than ``kernel`` at the start.
            given: the latest frame as it came.
        """
        raise NotImplementedError


class ConvStep(Window):
    """A convolution over time as one 2-D convolution over the channels of all frames in its window.

    Nothing is computed for frames that are not there, or that no output is due for. The weights are in the order
    ``(O, kernel x C / groups, kh, kw)``.

    Args:
        repeat: padding in time repeats the first frame, instead of zeros.
        mode: of the padding in space, as in ``torch.nn.functional.pad``.
    """

    def __init__(self, name: str, conv: nn.modules.conv._ConvNd, *, repeat: bool, mode: str) -> None:
        # left, right, top, bottom; before, after. PyTorch keeps the sizes of padding="same" there.
        *space, before, after = (
            conv._reversed_padding_repeated_twice
            if isinstance(conv.padding, str) or mode != "constant"
            else _both_sides(conv.padding)
        )
        flat = 5 - conv.weight.ndim
        space += [0, 0] * flat
        if before != after:
            raise KitError(
                f"{name} pads time unevenly, {before} frames before a clip and {after} after it: give the padding in "
                "numbers."
            )
        kernel, stride, dilation = (_triple(x, flat) for x in (conv.kernel_size, conv.stride, conv.dilation))
        super().__init__(name, kernel[0], stride[0], before, dilation[0])
        self.repeat, self.mode, self.flat = repeat, mode, flat
        weight = conv.weight.detach().transpose(1, 2).flatten(1, 2)
        for _ in range(flat):
            weight = weight.unsqueeze(2)
        self.weight = nn.Parameter(weight.clone(), requires_grad=False)
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().clone(), requires_grad=False)
        self.in_channels = conv.in_channels
        even = mode == "constant" and space[::2] == space[1::2]  # conv2d pads by itself
        self.border = [] if even or not any(space) else space
        self.space: Any = (stride[1:], space[::-2] if even else 0, dilation[1:], conv.groups)

    def prepared(self, x: Tensor) -> Tensor:
        weight, x = self.weight, _plane(x, self.flat)
        if (x.shape[1], x.dtype, x.device) != (self.in_channels, weight.dtype, weight.device):
            raise ShapeError(
                f"{self.name} takes frames of {self.in_channels} channels, {_kind(weight)}, and gets {_described(x)}."
            )
        return functional.pad(x, self.border, mode=self.mode) if self.border else x

    def padded(self, frames: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        missing = self.reach.receptive_field - len(frames)
        return (frames[0],) * missing + frames if self.repeat else frames

    def output(self, frames: tuple[Tensor, ...], given: Tensor) -> Tensor:
        groups = self.space[-1]
        if len(frames) == 1:
            x = frames[0]
        elif groups == 1:
            x = torch.cat(frames, 1)
        else:  # a group's channels of all frames beside each other
            x = torch.stack([frame.reshape(len(frame), groups, -1, *frame.shape[2:]) for frame in frames], 2).flatten(
                1, 3
            )
        weight = self.weight[:, -(self.weight.shape[1] // self.kernel) * len(frames) :]
        return _frame(functional.conv2d(x, weight, self.bias, *self.space), self.flat)


class MaxPoolStep(Window):
    """A max pool over time: each frame is pooled once in space, and the window's frames are compared.

    Args:
        flat: dimensions of space that frames lack: 0 for ``nn.MaxPool3d``, 2 for ``nn.MaxPool1d``.
    """

    def __init__(self, name: str, pool: Any, flat: int) -> None:
        kernel, stride, dilation = (_triple(x, flat) for x in (pool.kernel_size, pool.stride, pool.dilation))
        padding = _triple(pool.padding, flat, 0)
        super().__init__(name, kernel[0], stride[0], padding[0], dilation[0])
        self.flat = flat
        self.space: Any = (kernel[1:], stride[1:], padding[1:], dilation[1:], pool.ceil_mode)

    def prepared(self, x: Tensor) -> Tensor:
        pooled: Tensor = functional.max_pool2d(_plane(x, self.flat), *self.space)
        return pooled

    def output(self, frames: tuple[Tensor, ...], given: Tensor) -> Tensor:
        out = reduce(torch.maximum, frames)
        return _frame(out.clone() if out is frames[0] else out, self.flat)  # it is the caller's, and may be remembered


class AvgPoolStep(Window):
    """An average pool over time: each frame is averaged once in space, and the window's frames over time.

    Args: as :class:`MaxPoolStep`.
    """

    def __init__(self, name: str, pool: Any, flat: int) -> None:
        kernel, stride, padding = (
            _triple(pool.kernel_size, flat),
            _triple(pool.stride, flat),
            _triple(pool.padding, flat, 0),
        )
        super().__init__(name, kernel[0], stride[0], padding[0])
        self.flat = flat
        self.divisor = getattr(pool, "divisor_override", None)  # a 1-D pool has none
        self.counts_padding = pool.count_include_pad
        divisor = 1 if self.divisor else None
        self.space: Any = (kernel[1:], stride[1:], padding[1:], pool.ceil_mode, pool.count_include_pad, divisor)

    def prepared(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(_plane(x, self.flat), *self.space)

    def output(self, frames: tuple[Tensor, ...], given: Tensor) -> Tensor:
        parts = self.divisor or (self.kernel if self.counts_padding else len(frames))
        return _frame(torch.stack(frames, 2).sum(2).div_(parts), self.flat)


class Crop(nn.Module):
    """Leave out the first and last frames of a clip: ``(N, C, T, H, W) -> (N, C, T - 2 * frames, H, W)``.

    What stands beside an unpadded convolution in a region must lose the frames that the convolution loses.

    >>> from kit.models.continual import Crop
    >>> Crop(1)(torch.rand(1, 3, 8, 4, 4)).shape
    torch.Size([1, 3, 6, 4, 4])
    """

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, self.frames : x.shape[2] - self.frames]

    def extra_repr(self) -> str:
        return str(self.frames)


class CropStep(Window):
    """The frame in the middle of its window."""

    def __init__(self, name: str, crop: Crop) -> None:
        super().__init__(name, 2 * crop.frames + 1)
        self.passes = True

    def output(self, frames: tuple[Tensor, ...], given: Tensor) -> Tensor:
        return frames[self.kernel // 2].clone()  # it is the caller's, and may be remembered


class ChainStep(ModuleStep):
    """Steps one after another: where one gives nothing, the later ones wait."""

    def __init__(self, name: str, steps: list[ModuleStep]) -> None:
        reach = Reach()
        for step in steps:
            reach = reach.then(step.reach)
        super().__init__(name, reach)
        self.steps = nn.ModuleList(steps)
        self.passes = all(step.passes for step in steps)
        new = next((i for i, step in enumerate(steps) if not step.passes), len(steps))  # up to it all have the input
        self.writer = next((step.writer for step in steps[: new + 1] if step.writer), "")

    def start(self) -> Layers:
        return tuple(cast(ModuleStep, step).start() for step in self.steps)

    def forward(self, x: Any, state: Layers) -> Stepped:
        after = list(state)
        for i, step in enumerate(self.steps):
            try:
                x, after[i] = step(x, state[i])
            except (RuntimeError, ValueError) as error:
                raise ShapeError(f"{step.name} does not take the frame {_described(x)}: {error}") from error
            if x is None:
                break
        return x, tuple(after)


class RegionStep(ModuleStep):
    """Branches that step side by side, on whatever executor is in use, and merge output i of all of them.

    A branch that is ahead of the slowest waits: the state is (the states of the branches, what waits of each).
    """

    def __init__(self, name: str, region: Branches, branches: dict[str, ModuleStep], reach: Reach) -> None:
        super().__init__(name, reach)
        # The inputs of a step: what each branch is given, then the state of each.
        self.region = Branches(branches, list, {key: (i, len(branches) + i) for i, key in enumerate(branches)})
        self.merge, self.takes = copy.deepcopy(region.merge), region.takes
        taken = self.takes or dict.fromkeys(branches, (0,))
        self.writers: dict[int, str] = {  # input -> what writes into it
            i: step.writer for key, step in reversed(branches.items()) if step.writer for i in taken[key]
        }
        self.writer = next(iter(self.writers.values()), "")

    def steps(self) -> list[ModuleStep]:
        """Of the branches, in their order."""
        return [cast(ModuleStep, step) for step in self.region.branches.values()]

    def start(self) -> Layers:
        steps = self.steps()
        return tuple(step.start() for step in steps), ((),) * len(steps)

    def given(self, x: Any) -> list[Any]:
        """What each branch gets of ``x``, a tensor or a tuple of them: one tensor, or a tuple of several.

        Raises:
            ShapeError: the region does not take so many.
        """
        xs = x if isinstance(x, tuple | list) else (x,)
        taken = taken_by(self.takes, list(self.region.branches), len(xs), self.name)
        return [xs[indices[0]] if len(indices) == 1 else tuple(xs[i] for i in indices) for indices in taken.values()]

    def forward(self, x: Any, state: Layers) -> Stepped:
        states, waiting = state
        stepped = self.region(*self.given(x), *states)
        lines = [line if out is None else (*line, out) for line, (out, _) in zip(waiting, stepped, strict=True)]
        states = tuple(after for _, after in stepped)
        if not all(lines):
            return None, (states, tuple(lines))
        return self.merge([line[0] for line in lines]), (states, tuple(line[1:] for line in lines))


class ForkStep(ModuleStep):
    """A merged head: a layer on one stream, whose output is split along the channels.

    The parts are the first streams of the region behind it, and the streams that came are those after them.
    """

    def __init__(
        self, name: str, head: ModuleStep, index: int, widths: list[int], region: RegionStep | ForkStep
    ) -> None:
        super().__init__(name, region.reach)
        self.head, self.index, self.widths, self.region = head, index, widths, region
        self.writers: dict[int, str] = {i - len(widths): name for i, name in region.writers.items() if i >= len(widths)}
        self.writer = next(iter(self.writers.values()), "")

    def start(self) -> Layers:
        return self.head.start(), self.region.start()

    def forward(self, x: Any, state: Layers) -> Stepped:
        xs = x if isinstance(x, tuple | list) else (x,)
        shared, head = self.head(xs[self.index], state[0])
        out, region = self.region((*torch.split(shared, self.widths, 1), *xs), state[1])
        return out, (head, region)


def _both_sides(padding: tuple[int, ...]) -> list[int]:
    """``(time, height, width)`` as PyTorch's ``pad`` wants it: the last dimension first, both sides."""
    return [side for size in reversed(padding) for side in (size, size)]


def _triple(size: int | Sequence[int], flat: int, lacking: int = 1) -> tuple[int, ...]:
    """``(time, height, width)``, with ``lacking`` for the dimensions of space that frames lack."""
    sizes = tuple(map(int, size if isinstance(size, Sequence) else (size,)))
    sizes = sizes * (3 - flat) if len(sizes) == 1 else sizes
    return sizes[0], *[lacking] * flat, *sizes[1:]


def _plane(x: Tensor, flat: int) -> Tensor:
    """A frame of time 1 as a picture: ``(N, C, 1, H, W)``, ``(N, C, 1, W)`` or ``(N, C, 1) -> (N, C, H, W)``."""
    return x.unsqueeze(3) if flat == 2 else x if flat else x.squeeze(2)


def _frame(x: Tensor, flat: int) -> Tensor:
    """A picture ``(N, C, H, W)`` as a frame of time 1; the inverse of :func:`_plane`."""
    return x.squeeze(3) if flat == 2 else x if flat else x.unsqueeze(2)


def _described(x: Any) -> str:
    if not isinstance(x, Tensor):
        return type(x).__name__
    shape = tuple(side for i, side in enumerate(x.shape) if x.ndim < 5 or i != 2)
    return f"{shape} {_kind(x)}"


def _kind(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} on {x.device}"
