"""Steps are shown to give what the network gives, on an example clip, or they are refused."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from kit import executors
from kit.equality import as_args, shapes
from kit.errors import KitError, ShapeError
from kit.models.continual.attention import AttentionStep
from kit.models.continual.known import last_dimensions
from kit.models.continual.layout import Layout
from kit.models.continual.reach import Reach
from kit.models.continual.steps import ChainStep, ConvStep, EachFrame, ForkStep, Layers, ModuleStep, RegionStep
from kit.regions import Branches

Module = TypeVar("Module", bound=nn.Module)
Clips = Sequence[Tensor]  # such as (N, C, T, H, W), one for each stream
_SIDES = (8, 16, 32, 64, 128, 256)  # of drawn frames
# -> what an output may be off by: a share of how far it moves with the input, and of the largest output. Single
# precision settles most, double what that leaves open.
_PRECISIONS = {torch.float32: (1e-4, 0.0), torch.float64: (1e-7, 1e-12)}


def prove(model: nn.Module, step: ChainStep, layout: Layout, clip: Any = None) -> None:
    """Run a model on a clip and its steps on the frames of the clip: each output that is due must be the model's.

    Copies run on the CPU, so that the model stays as it is. What a channel of the output may be off by is measured by
    how far it moves when other frames come; where that is hardly more than rounding, in double precision. So an output
    that is little but a bias proves as much as any, and a stream of frames that moves nothing is an error.

    Raises: as :func:`kit.models.continual.stepper`.
    """
    if any(x.is_meta for x in _tensors(model)):
        raise KitError(f"{step.name} is on the device meta, without values: give it weights, then convert it.")
    with torch.no_grad(), executors.use(executors.Sequential()):
        clips = _drawn(model, step, layout) if clip is None else _checked(clip, step, layout)
        for precision in _PRECISIONS:
            own, steps = _copied(model, precision), _copied(step, precision)
            alike, deaf = _compared(own, steps, clips := [_as(x, precision) for x in clips], layout)
            if alike and not deaf:
                return
    if deaf:
        raise KitError(
            f"the output of {step.name} does not move with {shapes([clips[i] for i in deaf])}, so equal steps would "
            "show nothing: give stepper(model, clip) a clip that it reacts to."
        )
    with torch.no_grad(), executors.use(executors.Sequential()):
        place = _place(own, cast(ModuleStep, steps.steps[0]), clips, layout)
    raise KitError(
        f"the steps of {place} do not give what it gives on clips ({shapes(clips)}), so they are refused: take it out "
        "of the model."
    )


# Examples -------------------------------------------------------------------------------------------------------------


def _frames(reach: Reach) -> int:
    """What it takes for two outputs that no frame of padding has a part in, and all before them."""
    padded = -(-reach.padding // reach.stride)
    return reach.delay + (padded + 1) * reach.stride + 1


def _checked(clip: Any, step: ModuleStep, layout: Layout) -> Clips:
    clips, frames, rank = as_args(clip), _frames(step.reach), layout.rank
    numbers = all(isinstance(x, Tensor) and x.ndim == rank and (x.is_floating_point() or x.is_complex()) for x in clips)
    if not numbers or len({x.shape[layout.time] for x in clips}) != 1:
        raise ShapeError(
            f"an example clip is {layout.clip} of floating-point numbers, with the same T in every stream; got "
            f"{shapes(clip)}."
        )
    if clips[0].shape[layout.time] < frames:
        raise ShapeError(
            f"the example clip has {clips[0].shape[layout.time]} frames, too few to compare the steps of {step.name} "
            f"on two outputs without padding: give at least {frames}, or no clip."
        )
    return [_as(x, torch.float64) for x in clips]


def _drawn(model: nn.Module, step: ChainStep, layout: Layout) -> Clips:
    """Noise that the model takes, of the first size that does; found by shapes alone, which costs no arithmetic."""
    bare = _copied(model, torch.float64, "meta")
    dtype = torch.complex128 if any(x.is_complex() for x in _tensors(model)) else torch.float64
    failure: Exception | None = None
    for channels in _ways(step.steps[0]):
        for space in _spaces(model, layout):
            sizes = [layout.size(1, c or 3, _frames(step.reach), space) for c in channels]
            try:
                bare(*(torch.empty(size, dtype=dtype, device="meta") for size in sizes))
            except Exception as error:
                failure = error
            else:
                generator = torch.Generator().manual_seed(0)
                return [_noise(size, dtype, generator) for size in sizes]
    raise KitError(
        f"no clip was found that {step.name} takes, to compare its steps with it ({failure}). If it takes one, give "
        f"it: stepper(model, clip), with clip {layout.clip}."
    ) from failure


def _spaces(model: nn.Module, layout: Layout) -> Iterator[tuple[int, ...]]:
    """Heights and widths of frames to try, as many as frames have, or features of tokens; and what layers ask for."""
    count = layout.space
    asked = {
        (8, *sizes)[-count:]
        for module in model.modules()
        if (sizes := last_dimensions(module)) and count and len(sizes) <= count
    }
    for height in _SIDES:
        for width in (height + height // 8, height):
            yield (height, width)[2 - count :]
    yield from sorted(asked)


def _ways(step: Any) -> list[list[int | None]]:
    """The streams of frames that a step may take, by their channels; None for any number."""
    if isinstance(step, ForkStep):
        (streams,) = _ways(step.region)
        streams = streams[len(step.widths) :]
        streams[step.index] = _channels(step.head)
        return [streams]
    if not isinstance(step, RegionStep):
        return [[_channels(step)]]
    if step.takes is None:
        each = [_channels(branch) for branch in step.steps()]
        return [*([[_channels(step)]] if len({*each} - {None}) < 2 else []), each]
    streams = [None] * (1 + max(map(max, step.takes.values())))
    for branch, indices in zip(step.steps(), step.takes.values(), strict=True):
        found = next((way for way in _ways(branch) if len(way) == len(indices)), [None] * len(indices))
        for i, channels in zip(indices, found, strict=True):
            streams[i] = streams[i] or channels
    return [streams]


def _channels(step: Any) -> int | None:
    """Of the frames that a step takes; None for any number."""
    if isinstance(step, ConvStep):
        return step.in_channels
    if isinstance(step, AttentionStep):
        return int(step.features)
    if isinstance(step, EachFrame):
        layer: Any = step.layer
        if type(layer) is nn.Linear:
            return None  # of the last dimension
        shared = type(layer) is nn.PReLU and layer.num_parameters == 1  # by all channels
        return None if shared else getattr(layer, "num_features", getattr(layer, "num_parameters", None))
    inner: list[Any] = []
    if isinstance(step, ForkStep):
        inner = [step.head]
    if isinstance(step, RegionStep):
        inner = step.steps()
    if isinstance(step, ChainStep):
        inner = list(step.steps)
    return next((channels for channels in map(_channels, inner) if channels), None)


# Comparing ------------------------------------------------------------------------------------------------------------


def _compared(module: nn.Module, step: ModuleStep, clips: Clips, layout: Layout) -> tuple[bool, list[int]]:
    """Whether each output of the steps that is due is the module's, and which streams the module does not react to."""
    share, noise = _PRECISIONS[clips[0].real.dtype]
    generator = torch.Generator().manual_seed(1)
    # In one batch: the clips, and beside them the same with one stream exchanged, for each stream.
    batches = [
        torch.cat([x + scale * _noise(x.shape, x.dtype, generator) if i == j else x for j in range(-1, len(clips))])
        for i, x in enumerate(clips)
        for scale in [float(x.abs().max()) or 1]
    ]
    whole, stepped = _whole(module, step.name, batches, layout), _stepped(step, batches, layout)
    first, *others = whole.chunk(len(clips) + 1)
    moved, largest = [_size(other - first, layout) for other in others], _size(whole, layout).max()
    deaf = [i for i, by in enumerate(moved) if by.max() <= share * largest]
    whole = whole.narrow(layout.time, 0, min(whole.shape[layout.time], stepped.shape[layout.time]))
    allowed = share * torch.stack(moved).amax(0) + noise * largest
    return whole.shape == stepped.shape and bool((_size(whole - stepped, layout) <= allowed).all()), deaf


def _noise(size: Sequence[int], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Normal numbers around another mean in each channel and frame: behind a max pool, too, some are below zero."""
    means = torch.randn((*size[:3], *[1] * (len(size) - 3)), dtype=dtype, generator=generator)
    return torch.randn(size, dtype=dtype, generator=generator) + 2 * means


def _size(x: Tensor, layout: Layout) -> Tensor:
    """The largest magnitude in each channel."""
    return x.abs().transpose(0, layout.channels).flatten(1).amax(1)


def _whole(module: nn.Module, name: str, clips: Clips, layout: Layout) -> Tensor:
    try:
        out = module(*(x.clone() for x in clips))  # it may write into them
    except Exception as error:
        raise KitError(
            f"{name} does not take the clip {shapes(clips)}, so its steps cannot be compared with it: {error}"
        ) from error
    if not isinstance(out, Tensor) or out.ndim != layout.rank or not out.isfinite().all():
        raise KitError(f"{name} gives {shapes(out)} on a clip, but steps give finite {layout.clip}.")
    return out


def _stepped(step: ModuleStep, clips: Clips, layout: Layout) -> Tensor:
    state: Layers = step.start()
    outputs = [clips[0].new_empty(0)]
    for t in range(clips[0].shape[layout.time]):
        frames = tuple(x.narrow(layout.time, t, 1) for x in clips)
        out, state = step(frames if len(frames) > 1 else frames[0], state)
        outputs += [] if out is None else [out]
    return torch.cat(outputs[1:], layout.time)


def _place(module: nn.Module, step: ModuleStep, clips: Clips, layout: Layout) -> str:
    """The name of the innermost part whose steps differ from it on what comes to it."""
    if isinstance(step, ChainStep):
        for inner, part in zip(cast(Iterable[ModuleStep], step.steps), cast(nn.Sequential, module), strict=True):
            if not _compared(part, inner, clips, layout)[0]:
                return _place(part, inner, clips, layout)
            clips = [_whole(part, inner.name, clips, layout)]
    if isinstance(step, RegionStep):
        parts = cast(Branches, module).branches.values()
        for inner, part, x in zip(step.steps(), parts, step.given([*clips]), strict=True):
            given = [x] if isinstance(x, Tensor) else [*x]
            if not _compared(part, inner, given, layout)[0]:
                return _place(part, inner, given, layout)
    return step.name


# Copies ---------------------------------------------------------------------------------------------------------------


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    return chain(module.parameters(), module.buffers())


def _copied(module: Module, precision: torch.dtype, device: str = "cpu") -> Module:
    """A copy with other weights and buffers; those of the original are not copied first."""
    tensors: dict[int, Any] = {}
    for x in _tensors(module):
        new = _as(x.detach(), precision, device)
        tensors[id(x)] = nn.Parameter(new, requires_grad=False) if isinstance(x, nn.Parameter) else new
    return copy.deepcopy(module, tensors)


def _as(x: Tensor, precision: torch.dtype, device: str = "cpu") -> Tensor:
    if x.is_complex():
        precision = precision.to_complex()
    return x.to(device, precision if x.is_floating_point() or x.is_complex() else x.dtype)
