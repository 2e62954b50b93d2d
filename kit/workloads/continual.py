"""A live clip through the shallow two-stream 3-D network: one step, and a step against a sliding window."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from kit.approaches import parse
from kit.equality import Equality, as_args, compare_outputs
from kit.errors import ClipError, KitError
from kit.kernels import Exchange, Kernels, exchanged, kernels
from kit.measuring.comparison import Ratio, Timing
from kit.measuring.rounds import ROUNDS, measure
from kit.measuring.statistics import speed_up
from kit.models import describe
from kit.models.continual import Stepper, shallow_two_stream_3d, stepper
from kit.recording import record_call
from kit.regions import Branches, Concat
from kit.reprs import one_line
from kit.transforms import Transform
from kit.transforms.channels_last import FORMATS, channels_last
from kit.transforms.folded import Folded
from kit.transforms.merged import Merged
from kit.workloads.instead import Given, on_one_dnn
from kit.workloads.networks import video, with_flow

Model = TypeVar("Model", bound=nn.Module)
Side = tuple[nn.Module, Sequence[Any]]  # a module and its inputs
SIDE = 64  # pixels of the square frames


class OneStep(nn.Module):
    """One and the same step of a network: ``(*frames) -> (output, *what is remembered after it)``.

    It goes on from the same memory on every call, as it is after all frames of a clip but the last. So every call is
    the same, and any approach can run it. What is remembered moves and changes its memory format with the weights.

    Args:
        net: from :func:`kit.models.continual.stepper`.
        clip: ``(N, C, T, H, W)``, or a tuple of them, whose last frame brings an output. ``frames`` are its frames.

    Raises:
        KitError: no output is due with the clip's last frame.
    """

    def __init__(self, net: Stepper, clip: Any) -> None:
        super().__init__()
        self.single, streams = not isinstance(clip, tuple), as_args(clip)
        length = streams[0].shape[2]
        if not net.reach.gives(length - 1):
            raise KitError(
                f"frame {length} brings no output: the first comes with frame {net.delay + 1}, and then one every "
                f"{net.reach.stride}. Give a clip that ends with an output."
            )
        state, times = net.start(), list(zip(*map(frames_of, streams), strict=True))
        with torch.no_grad():
            for frames in times[:-1]:
                _, state = net(frames[0] if self.single else frames, state)
        self.step = net.step
        leaves, self.shape = tree_flatten(state.layers)
        self.remembered = nn.ParameterList(nn.Parameter(x, requires_grad=False) for x in _tensors(leaves))
        self.others = [None if isinstance(x, Tensor) else x for x in leaves]
        self.frames = times[-1]
        self.eval()

    def forward(self, *frames: Tensor) -> tuple[Tensor, ...]:
        own = tuple(x.unsqueeze(2) for x in frames)
        tensors = iter(self.remembered)
        before = tree_unflatten([next(tensors) if x is None else x for x in self.others], self.shape)
        out, after = self.step(own[0] if self.single else own, before)
        return out.squeeze(2), *_tensors(tree_leaves(after))


def frames_of(clip: Tensor) -> list[Tensor]:
    """The frames ``(N, C, H, W)`` of a clip ``(N, C, T, H, W)`` as a camera gives them: each a tensor of its own.

    They are in the clip's memory format. A slice of the clip would be copied by the first operator of every step.
    """
    last = clip.is_contiguous(memory_format=torch.channels_last_3d) and not clip.is_contiguous()
    return [x.contiguous(memory_format=FORMATS[4]) if last else x.contiguous() for x in clip.unbind(2)]


def _tensors(leaves: Sequence[Any]) -> list[Tensor]:
    return [x for x in leaves if isinstance(x, Tensor)]


def live_clip(path: Path | None = None, frames: int = 16) -> tuple[Tensor, ...]:
    """RGB ``(1, 3, frames, 64, 64)`` and the flow of each ``(1, 2, frames, 64, 64)``, of a video or a scene.

    Raises:
        ClipError: the file cannot be read or has no more frames than these.
    """
    clip = video(path, frames + 1)
    if len(clip) <= frames:
        raise ClipError(f"{clip}: {frames} frames and their flow need {frames + 1}. Pass a longer one.")
    return with_flow(clip, SIDE)


def make(clip: Path | None) -> tuple[nn.Module, tuple[Any, ...]]:
    """One step of the shallow two-stream 3-D network on a frame of a clip, with what it remembers of the 15 before.

    Raises:
        ClipError: the file cannot be read or has fewer than 17 frames.
    """
    model = shallow_two_stream_3d()
    step = OneStep(stepper(model), live_clip(clip))
    return step, step.frames


# A step against a sliding window --------------------------------------------------------------------------------------


@one_line
@dataclass(frozen=True)
class Against:
    """What one prediction costs by a sliding window and by a step, under the same conditions."""

    window_ms: float  # median
    step_ms: float
    measured: Ratio  # the window's time by the step's
    window_macs: int
    step_macs: int
    equality: Equality  # of both predictions
    window_kernels: Kernels = field(default_factory=dict)
    step_kernels: Kernels = field(default_factory=dict)

    @property
    def exchanges(self) -> list[Exchange]:
        """Where both ran on different kernels: then the ratio measures PyTorch's choice of them as well."""
        return exchanged(self.window_kernels, self.step_kernels)

    @property
    def counted(self) -> float:
        """The window's MACs by the step's: what the clock would say if time were MACs."""
        return self.window_macs / self.step_macs

    @property
    def realised(self) -> float:
        """How much of the counted ratio was measured; 1 is all."""
        return self.measured.estimate / self.counted


class Bound(nn.Module):
    """A callable with its inputs, so that things with different inputs can be measured side by side."""

    def __init__(self, call: Callable[..., Any], inputs: Sequence[Any]) -> None:
        super().__init__()
        self.call, self.inputs = call, inputs
        self.eval()

    def forward(self) -> Any:
        return self.call(*self.inputs)


def measure_sides(
    sides: Mapping[str, Side], approach: str, *, rounds: int, seed: int = 0
) -> tuple[dict[str, Timing], dict[str, Kernels]]:
    """Measure modules side by side in interleaved rounds, each on inputs of its own; and the kernels that they ran."""
    with ExitStack() as stack:
        runners = {name: stack.enter_context(parse(approach).prepare(Bound(*side), ())) for name, side in sides.items()}
        found = {
            name: kernels(record_call(runner, (), intra_op_threads=runner.intra_op_threads))
            for name, runner in runners.items()
        }
        return measure(runners, (), rounds=rounds, seed=seed), found


def window_and_step(
    model: nn.Module, clip: Any, *, transforms: Sequence[Transform] = (Folded(), Merged()), last: bool = True
) -> dict[str, Side]:
    """A network over a whole window, and its step on the last frame, each with the same advantages.

    Args:
        model: over clips, in eval mode.
        clip: ``(N, C, T, H, W)``, or a tuple of them: the window, whose last frame is the step's.
        transforms: of the model, before both.
        last: channels last, for both.

    Raises: as :func:`kit.models.continual.stepper` and :class:`OneStep`.
    """
    streams = as_args(clip)
    with torch.no_grad():
        for transform in transforms:
            model = transform.apply(model, streams).eval()
    net = stepper(model)
    if last:
        model, net, streams = _last(model), _last(net), tuple(channels_last(x) for x in streams)
    step = OneStep(net, streams if isinstance(clip, tuple) else streams[0])
    return {"window": (model, streams), "step": (step, step.frames)}


def against_window(
    model: nn.Module,
    clip: Any,
    *,
    approach: str = "sequential",
    rounds: int = ROUNDS,
    seed: int = 0,
    one_dnn: bool = False,
    **advantages: Any,
) -> Against:
    """Measure a prediction by a whole window and by a step, as :func:`window_and_step` makes them.

    Args:
        approach: what runs the regions of both.
        one_dnn: give every convolution of both to oneDNN, where PyTorch might choose another kernel for one of them;
            only those of the calling thread, so not with an executor of several.
        advantages: ``transforms`` and ``last``.

    Raises: as :func:`window_and_step` and :func:`kit.measuring.rounds.measure`.
    """
    sides = window_and_step(model, clip, **advantages)
    (window, streams), (step, frames) = sides.values()
    one_step: Any = step  # an OneStep: another stepper would prove its steps once more
    reach = one_step.step.reach
    with torch.inference_mode():
        whole, out = window(*streams), step(*frames)[0]
    instead = on_one_dnn if one_dnn else None
    measured = {name: (Given(instead, module), inputs) for name, (module, inputs) in sides.items()}
    timings, ran = measure_sides(measured, approach, rounds=rounds, seed=seed)
    macs = {name: describe(*side).whole.macs for name, side in sides.items()}
    return Against(
        timings["window"].median_ms,
        timings["step"].median_ms,
        speed_up(timings["window"], timings["step"]),
        macs["window"],
        macs["step"],
        compare_outputs(whole[:, :, (streams[0].shape[2] - 1 - reach.delay) // reach.stride], out),
        ran["window"],
        ran["step"],
    )


def _last(model: Model) -> Model:
    """A copy with its weights channels last."""
    model = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.data = channels_last(parameter.data)
    return model


def of_library(model: nn.Module) -> Any:
    """A network of convolutions, pools, chains and concatenated regions, in containers of *continual-inference*."""
    import continual as co

    if isinstance(model, Branches) and isinstance(model.merge, Concat):
        return co.BroadcastReduce(*map(of_library, model.branches.values()), reduce="concat")
    if isinstance(model, nn.Sequential):
        return co.Sequential(*map(of_library, model))
    return co.continual(copy.deepcopy(model)).eval()
