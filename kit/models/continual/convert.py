"""From a network over clips to the same network over frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from kit.equality import shapes
from kit.errors import KitError, ShapeError
from kit.models.continual.attention import AttentionStep, SlidingAttention, reason_against
from kit.models.continual.known import (
    AVG_POOLS,
    MAX_POOLS,
    as_its_class,
    by_name,
    is_convolution,
    looks_at_one_frame,
    merges_frame_by_frame,
    unknown,
)
from kit.models.continual.layout import Layout, layout_of
from kit.models.continual.proof import prove
from kit.models.continual.reach import Reach, beside
from kit.models.continual.steps import (
    AvgPoolStep,
    ChainStep,
    ConvStep,
    Crop,
    CropStep,
    EachFrame,
    ForkStep,
    Layers,
    MaxPoolStep,
    ModuleStep,
    RegionStep,
)
from kit.models.inception3d import EdgeConv3d
from kit.regions import Branches


@dataclass(frozen=True, eq=False)
class State:
    """What a network remembers of one clip between two frames. It is never changed: each step gives a new one.

    >>> from kit.models.continual import stepper
    >>> net = stepper(nn.Sequential(nn.Conv3d(3, 4, 3)).eval())
    >>> out, state = net(torch.rand(1, 3, 8, 8), None)
    >>> out is None, state
    (True, State(Stepper after 1 frames))
    """

    of: Stepper  # the network that made it
    layers: Layers  # earlier frames, layer by layer; tensors that states share
    frames: int = 0  # that have come so far

    def __repr__(self) -> str:
        return f"State({type(self.of).__name__} after {self.frames} frames)"


class Stepper(nn.Module):
    """A network over clips, one frame at a time: :func:`stepper` makes it.

    >>> from kit.models.continual import stepper
    >>> net, state = stepper(nn.Sequential(nn.Conv3d(3, 4, 3)).eval()), None
    >>> for frame in torch.rand(4, 1, 3, 8, 8):  # four frames (N, C, H, W)
    ...     out, state = net(frame, state)
    ...     print(None if out is None else out.shape)
    None
    None
    torch.Size([1, 4, 6, 6])
    torch.Size([1, 4, 6, 6])
    """

    def __init__(self, step: ChainStep, layout: Layout) -> None:
        super().__init__()
        self.step, self.layout = step, layout

    @property
    def reach(self) -> Reach:
        """Receptive field, padding and stride in time; its ``delay``."""
        return self.step.reach

    @property
    def delay(self) -> int:
        """Frames before the one that brings the first output."""
        return self.reach.delay

    def start(self) -> State:
        """The state before the first frame of a clip."""
        return State(self, self.step.start())

    def forward(self, frame: Any, state: State | None = None) -> tuple[Tensor | None, State]:
        """One step: the output that is due with this frame, if one is, and the state after it.

        Args:
            frame: ``(N, C, H, W)``, ``(N, C, W)``, ``(N, C)`` or a token ``(N, E)``, as the layers are made for; or a
                tuple with one for each branch of an outer region. It is copied.
            state: from the frame before; None for the first of a clip. It stays as it is, and can be used again.

        Raises:
            ShapeError: a frame that is unlike those before, or that a layer does not take, which the message names.
            KitError: a state of another network.
        """
        state = state or self.start()
        if state.of is not self:
            raise KitError(
                "this state belongs to another network with other layers: keep one state for each network and clip, "
                "and begin a clip with None."
            )
        frames = frame if isinstance(frame, tuple | list) else (frame,)
        if not all(isinstance(x, Tensor) and x.ndim == self.layout.rank - 1 for x in frames):
            raise ShapeError(
                f"a step takes a frame {self.layout.frame}, but was given {shapes(frames)}: remove the time axis."
            )
        if frames is frame and not isinstance(self.step.steps[0], RegionStep | ForkStep):
            raise ShapeError(
                f"{self.step.name} takes one stream of frames, but was given {len(frames)}: give one tensor."
            )
        # A copy: whoever reads a camera fills the same memory again.
        time = self.layout.time
        own = tuple(x.clone().unsqueeze(time) for x in frames)
        out, layers = self.step(own if frames is frame else own[0], state.layers)
        return None if out is None else out.squeeze(time), State(self, layers, state.frames + 1)

    def over(self, clip: Any, state: State | None = None) -> tuple[Tensor, State]:
        """Step through a clip, as ``(N, C, T, H, W)``: all outputs ``(N, C', T', H', W')``, and the state after it.

        From the start of a clip these are the outputs of the network on the clip, but for those that need frames after
        its end: of padding, or of the last window of a pool with ``ceil_mode=True``.

        Raises: as :meth:`forward`, and
            ShapeError: a clip so short that no output is due in it.
        """
        clips = clip if isinstance(clip, tuple | list) else (clip,)
        time = self.layout.time
        lengths = {x.shape[time] for x in clips if isinstance(x, Tensor) and x.ndim == self.layout.rank}
        if len(lengths) != 1:
            raise ShapeError(
                f"a clip must be {self.layout.clip}, with the same T in every stream, but T is {sorted(lengths)}."
            )
        outputs, state = [], state or self.start()
        for t in range(*lengths):
            frames = [x.select(time, t) for x in clips]
            out, state = self(frames if clips is clip else frames[0], state)
            outputs += [] if out is None else [out]
        if not outputs:
            raise ShapeError(
                f"no output is due within these {max(lengths)} frames: {self.step.name} looks at "
                f"{self.reach.receptive_field}, gives its first output with frame {self.delay + 1} of a clip, and has "
                f"now had {state.frames}. Give a longer clip, or go on from the state of the frames before."
            )
        return torch.stack(outputs, time), state


def stepper(model: nn.Module, clip: Any = None) -> Stepper:
    """The same network, one frame at a time.

    It takes heads that keep the time axis, such as ``nn.AvgPool3d((frames, h, w), stride=1)`` and a 1x1x1 convolution;
    no global pool over time, no Flatten, and no Linear over time.

    The steps are a copy, with the weights as they are now. They are shown to give what the model gives: copies of both
    run on the CPU on an example clip, and every output that is due is compared. What is not due within a clip needs
    frames after its end: of padding, or of the last window of a pool with ``ceil_mode=True``.

    >>> from kit.models.continual import stepper
    >>> model = nn.Sequential(nn.Conv3d(3, 4, 3), nn.ReLU(), nn.AvgPool3d((2, 6, 6), stride=1)).eval()
    >>> net = stepper(model)
    >>> net.delay  # frames before the one that brings the first output
    3
    >>> clip = torch.rand(1, 3, 8, 8, 8)
    >>> torch.allclose(net.over(clip)[0], model(clip), atol=1e-6)
    True

    Args:
        model: in eval mode; of convolutions, pools, batch norms and pointwise layers in one to three dimensions, of
            which time is the first (convolutions and Linear of the library *continual-inference* too), Linear and
            norms within frames, or of :class:`SlidingAttention` with such layers for tokens ``(N, T, E)``; in
            ``nn.Sequential`` and :class:`kit.Branches` that are merged by Concat, Mean, Product or ``sum``. Each is
            known by its very class: a subclass may do something else.
        clip: the example ``(N, C, T, H, W)``, ``(N, C, T, W)``, ``(N, C, T)`` or ``(N, T, E)``, or a tuple with one for
            each branch of an outer region. None draws a small one that the model takes.

    Raises:
        KitError: a layer that cannot go frame by frame, by name, and why; no example that the model takes or reacts to;
            steps that give something else than the model.
        ShapeError: an example that is too short.
    """
    title = type(model).__name__
    layout = layout_of(model.modules() if isinstance(model, nn.Module) else (), title)
    step = ChainStep(title, [_step(model, title, "", layout)])
    prove(model, step, layout, clip)
    return Stepper(step, layout).eval()


def _step(module: Any, name: str, path: str, layout: Layout) -> ModuleStep:
    """The step of a module; ``path`` is what leads to its children's names."""
    kind, flat = type(module), 5 - layout.rank
    as_its_class(module, name)

    def inner(children: Mapping[str, nn.Module], path: str) -> dict[str, ModuleStep]:
        return {key: _step(child, f"{path}{key}", f"{path}{key}.", layout) for key, child in children.items()}

    if kind is nn.Sequential:  # named_children() would leave out a module that is there twice
        return ChainStep(name, list(inner(module._modules, path).values()))
    if kind is Branches:
        return _region(module, inner(module.branches, f"{path}branches."), name, layout)
    if kind is by_name("kit.transforms.merged", "_SharedHead"):
        steps = inner({"head": module.head, "tails": module.tails}, path)
        return ForkStep(name, steps["head"], module.index, module.widths, cast(RegionStep | ForkStep, steps["tails"]))
    if is_convolution(module) and module.weight is not None:
        return _convolution(module, name)
    if kind in MAX_POOLS and not module.return_indices:
        return MaxPoolStep(name, module, flat)
    if kind in AVG_POOLS:
        return AvgPoolStep(name, module, flat)
    if kind is SlidingAttention:
        return _attention(module, name, path)
    if kind is Crop and module.frames >= 0 and layout.time == 2:
        return CropStep(name, module)
    if looks_at_one_frame(module, layout):
        return EachFrame(name, module)
    raise KitError(
        f"{name} is {unknown(module, layout)}. Instead of a layer that takes in a whole clip, such as a global pool or "
        "Flatten, give a window: nn.AvgPool3d((frames, h, w), stride=1); instead of Linear, a convolution with a "
        "kernel of 1."
    )


def _attention(sliding: SlidingAttention, name: str, path: str) -> ModuleStep:
    for key, part in sliding.named_modules():
        as_its_class(part, f"{path}{key}" if key else name)
    if sliding.layer.training:
        raise KitError(f"{name} is in training mode, in which attention drops tokens: call model.eval() first.")
    if reason := reason_against(sliding):
        raise KitError(f"{name} is {reason}.")
    return AttentionStep(name, sliding)


def _convolution(conv: Any, name: str) -> ModuleStep:
    edges = type(conv) is EdgeConv3d  # which repeats frames, whatever its padding_mode
    mode = "constant" if edges or conv.padding_mode == "zeros" else conv.padding_mode
    step = ConvStep(name, conv, repeat=edges or mode == "replicate", mode=mode)
    if step.reach.padding and not step.repeat and mode != "constant":
        raise KitError(
            f"{name} pads time in mode {mode!r}, which needs future frames: pad with zeros or 'replicate', or do not "
            "pad."
        )
    return step


def _region(region: Branches, branches: dict[str, ModuleStep], name: str, layout: Layout) -> RegionStep:
    taken = region.takes or region.taken(1)
    for i, (key, step) in enumerate(branches.items()):
        if not taken[key]:
            raise KitError(f"branch {key!r} of {name} takes no input, so no frame gives its output: remove it.")
        # Those after it read what it wrote, and so does an earlier one's output that is the input itself.
        readers = [
            other
            for j, other in enumerate(branches)
            if {*taken[key]} & {*taken[other]} and (j > i or (j < i and branches[other].passes))
        ]
        if step.writer and readers:
            raise KitError(
                f"{step.writer} writes in place into the input that {', '.join(readers)} in {name} reads after it or "
                "gives, so the output depends on the order in which branches run: give it inplace=False."
            )
    if isinstance(region.merge, nn.Module):
        as_its_class(region.merge, f"the merge of {name}")
    if not merges_frame_by_frame(region.merge, layout):
        raise KitError(
            f"{name} merges by {getattr(region.merge, '__qualname__', region.merge)}, of which it is not known whether "
            "it mixes frames or writes into them: merge by kit.Concat(1), kit.Mean(), Product() or sum, and do "
            "the rest behind it."
        )
    return RegionStep(name, region, branches, beside([step.reach for step in branches.values()], name))
