"""From a network over clips to the same network over frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from kit.equality import shapes
from kit.errors import KitError, ShapeError
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
    RegionStep,
    Step,
)
from kit.models.inception3d import EdgeConv3d
from kit.regions import Branches

_POINTWISE = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.Tanh, nn.Identity)


@dataclass(frozen=True, eq=False)
class State:
    """What a network remembers of one clip between two frames. It is never changed: each step gives a new one."""

    of: Stepper  # the network that made it
    layers: Layers  # earlier frames, layer by layer; tensors that states share
    frames: int = 0  # that have come so far

    def __repr__(self) -> str:
        return f"State({type(self.of).__name__} after {self.frames} frames)"


class Stepper(nn.Module):
    """A network over clips, one frame at a time: :func:`stepper` makes it.

    >>> net, state = stepper(model), None
    >>> for frame in camera:  # (N, C, H, W)
    ...     out, state = net(frame, state)  # out is None until `net.delay` frames have come
    """

    def __init__(self, step: ChainStep) -> None:
        super().__init__()
        self.step = step

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
            frame: ``(N, C, H, W)``, or a tuple with one for each branch of an outer region. It is copied.
            state: from the frame before; None for the first of a clip. It stays as it is, and can be used again.

        Raises:
            ShapeError: a frame that is unlike those before, or that a layer does not take, which the message names.
            KitError: a state of another network.
        """
        state = state or self.start()
        if state.of is not self:
            raise KitError(
                "this state was made by another network, whose layers are not the ones here: keep one for each network "
                "and clip, and begin a clip with None."
            )
        frames = frame if isinstance(frame, tuple | list) else (frame,)
        if not all(isinstance(x, Tensor) and x.ndim == 4 for x in frames):
            raise ShapeError(f"a step takes a frame (N, C, H, W), got {shapes(frames)}: take the time axis off.")
        if frames is frame and not isinstance(self.step.steps[0], RegionStep):
            raise ShapeError(f"{self.step.name} takes one stream of frames, got {len(frames)}: give one tensor.")
        # A copy: whoever reads a camera fills the same memory again.
        own = tuple(x.clone().unsqueeze(2) for x in frames)
        out, layers = self.step(own if frames is frame else own[0], state.layers)
        return None if out is None else out.squeeze(2), State(self, layers, state.frames + 1)

    def over(self, clip: Any, state: State | None = None) -> tuple[Tensor, State]:
        """Step through a clip ``(N, C, T, H, W)``: all outputs ``(N, C', T', H', W')``, and the state after it.

        From the start of a clip these are the outputs of the network on the clip, but for those that need frames
        padded after its end.

        Raises: as :meth:`forward`, and
            ShapeError: a clip so short that no output is due in it.
        """
        clips = clip if isinstance(clip, tuple | list) else (clip,)
        lengths = {x.shape[2] for x in clips if isinstance(x, Tensor) and x.ndim == 5}
        if len(lengths) != 1:
            raise ShapeError(f"a clip is (N, C, T, H, W), with the same T in every stream; found T: {sorted(lengths)}.")
        outputs, state = [], state or self.start()
        for t in range(*lengths):
            frames = [x[:, :, t] for x in clips]
            out, state = self(frames if clips is clip else frames[0], state)
            outputs += [] if out is None else [out]
        if not outputs:
            raise ShapeError(
                f"no output is due within these {max(lengths)} frames: {self.step.name} looks at "
                f"{self.reach.receptive_field}, gives its first output with frame {self.delay + 1} of a clip, and has "
                f"now had {state.frames}. Give a longer clip, or go on from the state of the frames before."
            )
        return torch.stack(outputs, 2), state


def stepper(model: nn.Module) -> Stepper:
    """The same network, one frame at a time.

    Convolutions over time become steps with a copy of their weights in another order; what looks at one frame only is
    shared with the model, which is not changed.

    Args:
        model: in eval mode; of convolutions, pools, batch norms and pointwise layers in three dimensions (convolutions
            of the library *continual-inference* too), in ``nn.Sequential`` and :class:`kit.Branches`.

    Raises:
        KitError: a layer that cannot go frame by frame, by name, and why.
    """
    title = type(model).__name__
    return Stepper(ChainStep(title, [_step(model, title, "")])).eval()


def _step(module: Any, name: str, path: str) -> Step:
    """The step of a module; ``path`` is what leads to its children's names."""

    def inner(children: Mapping[str, nn.Module]) -> dict[str, Step]:
        return {key: _step(child, f"{path}{key}", f"{path}{key}.") for key, child in children.items()}

    if module.training and isinstance(module, _BatchNorm | _DropoutNd):
        raise KitError(f"{name} is in training mode, and looks at whole batches and clips: call model.eval() first.")
    if isinstance(module, nn.Sequential):
        return ChainStep(name, list(inner(dict(module.named_children())).values()))
    if isinstance(module, Branches):
        branches = {
            key: _step(child, f"{path}branches.{key}", f"{path}branches.{key}.")
            for key, child in module.branches.items()
        }
        return RegionStep(name, branches, beside([step.reach for step in branches.values()], name), module.merge)
    if hasattr(module, "parts"):  # merged heads
        head, region = (_step(getattr(module, key), f"{path}{key}", f"{path}{key}.") for key in ("head", "tails"))
        return ForkStep(name, head, module.parts, region)
    if isinstance(module, _ConvNd) and module.weight.ndim == 5 and not module.transposed:
        return _convolution(module, name)
    if type(module) is nn.MaxPool3d and not module.return_indices:
        return MaxPoolStep(name, module)
    if type(module) is nn.AvgPool3d:
        return AvgPoolStep(name, module)
    if type(module) is Crop:
        return CropStep(name, module)
    frame_by_frame = isinstance(module, nn.AdaptiveAvgPool3d | nn.AdaptiveMaxPool3d) and (
        isinstance(module.output_size, tuple) and module.output_size[0] is None
    )
    if frame_by_frame or isinstance(module, (*_POINTWISE, _BatchNorm, _DropoutNd)):
        return EachFrame(name, module)
    raise KitError(
        f"{name} is {module}, of which it is not known how it looks at time. Instead of a layer that takes in a whole "
        "clip, such as a global pool or Flatten, give a window: nn.AvgPool3d((frames, h, w), stride=1); instead of "
        "Linear, a 1x1x1 convolution."
    )


def _convolution(conv: _ConvNd, name: str) -> Step:
    repeat = isinstance(conv, EdgeConv3d) or conv.padding_mode == "replicate"
    step = ConvStep(name, conv, repeat=repeat)
    if step.reach.padding and not repeat and conv.padding_mode != "zeros":
        raise KitError(
            f"{name} pads time in mode {conv.padding_mode!r}, with frames that have not come yet: pad with zeros or "
            "'replicate', or not at all."
        )
    return step
