"""A live clip through the shallow two-stream 3-D network: one step, and a step against a sliding window."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from kit.approaches import Calls, Runner, Workload, parse
from kit.equality import Equality, as_args, shapes
from kit.errors import ClipError, KitError, MeasureError
from kit.macs import macs_of_call
from kit.measuring.comparison import Comparison, Ratio, Timing
from kit.measuring.rounds import ROUNDS
from kit.models.continual import Stepper, shallow_two_stream_3d, stepper
from kit.models.continual.pure import tensors
from kit.regions import Branches, Concat
from kit.reprs import one_line
from kit.trace.kernels import Exchange, Kernels, exchanged
from kit.transforms import Transform
from kit.transforms.channels_last import FORMATS
from kit.transforms.channels_last import channels_last as channels_last_format
from kit.transforms.folded import Folded
from kit.transforms.merged import Merged
from kit.verbs import compare
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
        self.single, streams, self.time = not isinstance(clip, tuple), as_args(clip), net.layout.time
        length = streams[0].shape[self.time]
        if not net.reach.gives(length - 1):
            raise KitError(
                f"frame {length} gives no output: the first output comes with frame {net.delay + 1} (stride in "
                f"time: {net.reach.stride}). Give a clip that ends with an output."
            )
        state, times = net.start(), list(zip(*(frames_of(x, self.time) for x in streams), strict=True))
        with torch.no_grad():
            for frames in times[:-1]:
                _, state = net(frames[0] if self.single else frames, state)
        self.step = net.step
        leaves, self.shape = tree_flatten(state.layers)
        self.remembered = nn.ParameterList(nn.Parameter(x, requires_grad=False) for x in tensors(leaves))
        self.others = [None if isinstance(x, Tensor) else x for x in leaves]
        self.frames = times[-1]
        self.eval()

    def forward(self, *frames: Tensor) -> tuple[Tensor, ...]:
        own = tuple(x.unsqueeze(self.time) for x in frames)
        earlier = iter(self.remembered)
        before = tree_unflatten([next(earlier) if x is None else x for x in self.others], self.shape)
        out, after = self.step(own[0] if self.single else own, before)
        return out.squeeze(self.time), *tensors(tree_leaves(after))


def frames_of(clip: Tensor, time: int = 2) -> list[Tensor]:
    """The frames ``(N, C, H, W)`` of a clip ``(N, C, T, H, W)`` as a camera gives them: each a tensor of its own.

    They are in the clip's memory format. A slice of the clip would be copied by the first operator of every step.

    Args:
        time: the dimension of time: 1 for tokens ``(N, T, E)``.
    """
    last = clip.ndim == 5 and clip.is_contiguous(memory_format=torch.channels_last_3d) and not clip.is_contiguous()
    return [x.contiguous(memory_format=FORMATS[4]) if last else x.contiguous() for x in clip.unbind(time)]


def live_clip(path: Path | None = None, frames: int = 16) -> tuple[Tensor, ...]:
    """RGB ``(1, 3, frames, 64, 64)`` and the flow of each ``(1, 2, frames, 64, 64)``, of a video or a scene.

    Raises:
        ClipError: the file cannot be read or has no more frames than these.
    """
    clip = video(path, frames + 1)
    if len(clip) <= frames:
        raise ClipError(
            f"{clip} is too short: {frames} frames and their flow need {frames + 1} frames. Give a longer clip."
        )
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
class WindowVersusStep:
    """The time of one prediction by a sliding window and by a step, under the same conditions."""

    comparison: Comparison  # of "window", the baseline, and "step"
    window_macs: int
    step_macs: int

    @property
    def window_ms(self) -> float:
        """Median, in milliseconds."""
        return self._timing("window").median_ms

    @property
    def step_ms(self) -> float:
        """Median, in milliseconds."""
        return self._timing("step").median_ms

    @property
    def measured(self) -> Ratio:
        """The window's time / the step's time."""
        return self.comparison["step"].ratio or Ratio(math.nan, math.nan, math.nan)

    @property
    def equality(self) -> Equality | None:
        """Of both predictions."""
        return self.comparison["step"].equality

    @property
    def kernels(self) -> dict[str, Kernels]:
        """Of "window" and of "step"."""
        return {row.name: row.kernels or {} for row in self.comparison.rows}

    @property
    def exchanges(self) -> list[Exchange]:
        """Operators that ran on different kernels: then the ratio also measures PyTorch's choice of kernel."""
        return exchanged(self.kernels["window"], self.kernels["step"])

    @property
    def counted(self) -> float:
        """The window's MACs / the step's MACs: the speed-up if time were proportional to MACs."""
        return self.window_macs / self.step_macs

    @property
    def realised(self) -> Ratio:
        """Measured speed-up / speed-up by MACs, with its interval; 1 means that they are equal."""
        return Ratio(*(each / self.counted for each in self.measured))

    def _timing(self, name: str) -> Timing:
        row = self.comparison[name]
        if row.timing is None:
            raise MeasureError(f"the {name} was not measured: {row.reason}")
        return row.timing


class Picked(nn.Module):
    """A module of whose output a part is the prediction."""

    def __init__(self, module: nn.Module, pick: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.module, self.pick = module, pick
        self.eval()

    def forward(self, *args: Any) -> Tensor:
        return self.pick(self.module(*args))


def side(module: nn.Module, inputs: Sequence[Any], approach: str = "sequential", *, rewrites: bool = False) -> Calls:
    """A module on inputs of its own, as an approach of a workload.

    Args:
        approach: how its regions run.
        rewrites: whether it computes in another way than the workload's baseline.
    """

    def make() -> Runner:
        return parse(approach).prepare(module, tuple(inputs))

    return Calls(make, rewrites=rewrites)


def window_and_step(
    model: nn.Module, clip: Any, *, transforms: Sequence[Transform] = (Folded(), Merged()), channels_last: bool = True
) -> dict[str, Side]:
    """A network over a whole window, and its step on the last frame, each with the same advantages.

    Args:
        model: over clips, in eval mode.
        clip: ``(N, C, T, H, W)``, or a tuple of them: the window, whose last frame is the step's.
        transforms: of the model, before both.
        channels_last: the memory format, for both.

    Raises: as :func:`kit.models.continual.stepper` and :class:`OneStep`.
    """
    streams = as_args(clip)
    with torch.no_grad():
        for transform in transforms:
            model = transform.apply(model, streams).eval()
    net = stepper(model)
    if channels_last:
        model, net, streams = _last(model), _last(net), tuple(channels_last_format(x) for x in streams)
    step = OneStep(net, streams if isinstance(clip, tuple) else streams[0])
    return {"window": (model, streams), "step": (step, step.frames)}


def window_versus_step(
    model: nn.Module,
    clip: Any,
    *,
    approach: str = "sequential",
    rounds: int = ROUNDS,
    seed: int = 0,
    one_dnn: bool = False,
    **advantages: Any,
) -> WindowVersusStep:
    """Measure a prediction by a whole window and by a step, as :func:`window_and_step` makes them.

    Args:
        approach: what runs the regions of both.
        one_dnn: give every convolution of both to oneDNN, where PyTorch might choose another kernel for one of them;
            only those of the calling thread, so not with an executor of several.
        advantages: ``transforms`` and ``channels_last``.

    Raises: as :func:`window_and_step` and :func:`kit.compare`.
    """
    sides = window_and_step(model, clip, **advantages)
    rows = _both(sides, approach, one_dnn)
    comparison = compared("window-versus-step", rows, shapes(sides["window"][1]), rounds, seed)
    macs = {name: macs_of_call(each, *args) for name, (each, args) in sides.items()}
    return WindowVersusStep(comparison, macs["window"], macs["step"])


def prepared_or_not(model: nn.Module, clip: Any, *, approach: str = "sequential", rounds: int = ROUNDS) -> Comparison:
    """A window and a step as they are, and both prepared as :func:`window_and_step` does by default.

    All four have a turn in each round, and every convolution is given to oneDNN.

    Args: as :func:`window_versus_step`.

    Raises: as :func:`window_versus_step`.
    """
    as_given = window_and_step(model, clip, transforms=(), channels_last=False)
    rows = _both(as_given, approach, one_dnn=True)
    prepared = _both(window_and_step(model, clip), approach, one_dnn=True)
    # Also the window's: a gain of its transforms is none of lanes, so the number of cores does not limit it.
    rows |= {f"{name}_prepared": replace(each, rewrites=True) for name, each in prepared.items()}
    return compared("prepared-or-not", rows, shapes(as_given["window"][1]), rounds)


def compared(name: str, rows: Mapping[str, Calls], inputs: str, rounds: int, seed: int = 0) -> Comparison:
    """Measure approaches to one prediction over the row "window".

    Args:
        name: of the workload.
        rows: row -> how it predicts, on inputs of its own.
        inputs: what the window is, in words.

    Raises: as :func:`kit.compare`.
    """
    work = Workload(name, None, (), 1, "predictions", inputs, rows, "window")
    return compare(work, approaches=list(rows), rounds=rounds, seed=seed, progress=False)


def _both(sides: Mapping[str, Side], approach: str, one_dnn: bool) -> dict[str, Calls]:
    """A window's prediction and a step's, as approaches of a workload."""
    (window, streams), (step, frames) = sides["window"], sides["step"]
    one_step: Any = step  # an OneStep: another stepper would prove its steps once more
    at = (streams[0].shape[2] - 1 - one_step.step.reach.delay) // one_step.step.reach.stride
    instead = on_one_dnn if one_dnn else None
    return {
        "window": side(Picked(Given(instead, window), lambda out: out[:, :, at]), streams, approach),
        "step": side(Picked(Given(instead, step), lambda out: out[0]), frames, approach, rewrites=True),
    }


def _last(model: Model) -> Model:
    """A copy with its weights channels last."""
    model = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.data = channels_last_format(parameter.data)
    return model


def of_library(model: nn.Module) -> Any:
    """A network of convolutions, pools, chains and concatenated regions, in containers of *continual-inference*."""
    import continual as co

    if isinstance(model, Branches) and isinstance(model.merge, Concat):
        return co.BroadcastReduce(*map(of_library, model.branches.values()), reduce="concat")
    if isinstance(model, nn.Sequential):
        return co.Sequential(*map(of_library, model))
    return co.continual(copy.deepcopy(model)).eval()
