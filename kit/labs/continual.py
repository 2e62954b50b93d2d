"""The experiments, drawings and exercises of notebook 09."""

from __future__ import annotations

import html
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kit.approaches import parse
from kit.comparison import Comparison, Row
from kit.equality import compare_outputs, shapes
from kit.errors import KitError
from kit.labs.checks import NOT_ATTEMPTED, Check, check, is_stub
from kit.measure import measure, speed_up
from kit.models import describe
from kit.models.continual import stepper
from kit.models.init import keep_signal
from kit.trace import Trace, by_name
from kit.views.palette import NEUTRAL, OKABE_ITO
from kit.workloads.continual import Bound, OneStep

Step = Callable[[Tensor], Tensor | None]  # one frame in, an output or nothing out; it remembers by itself


# The library's containers ---------------------------------------------------------------------------------------------


def containers(channels: int = 4) -> dict[str, nn.Module]:
    """Every container of *continual-inference*, around small convolutions ``(N, channels, T, H, W)``; in eval mode."""
    import continual as co

    def conv(i: int, o: int, kernel: int, **options: Any) -> nn.Module:
        return co.Conv3d(i, o, kernel, padding=kernel // 2, **options)  # type: ignore[no-any-return]

    c = channels
    squeeze = [
        ("pool", co.AdaptiveAvgPool3d((1, 1, 1), kernel_size=5)),
        ("down", conv(c, 2, 1)),
        ("relu", nn.ReLU()),
        ("up", conv(2, c, 1)),
        ("sigmoid", nn.Sigmoid()),
    ]
    inverted = [conv(c, 2 * c, 1), nn.BatchNorm3d(2 * c), nn.ReLU6(), conv(2 * c, 2 * c, 3, groups=2 * c)]
    inverted += [nn.ReLU6(), conv(2 * c, c, 1), nn.BatchNorm3d(c)]
    found = {
        "Sequential": co.Sequential(conv(c, c, 3), nn.ReLU(), co.Conv3d(c, c, (2, 1, 1))),
        "Broadcast, Parallel, Reduce": co.Sequential(
            co.Broadcast(2), co.Parallel(conv(c, c, 3), co.Delay(1)), co.Reduce("sum")
        ),
        "ParallelDispatch": co.Sequential(
            co.Broadcast(2),
            co.ParallelDispatch([1, 0, 0]),
            co.Parallel(co.Add(1), conv(c, c, 3), co.Identity()),
            co.Reduce("max"),
        ),
        "BroadcastReduce": co.BroadcastReduce(conv(c, 2, 1), conv(c, 2, 3), reduce="concat"),
        "Residual": co.Residual(conv(c, c, 3)),
        "Residual, shrunk": co.Residual(co.Conv3d(c, c, 3, padding=(0, 1, 1)), residual_shrink=True),
        "Conditional": co.Conditional(lambda module, x: not module.training, conv(c, c, 3), co.Delay(1)),
        "Delay": co.Delay(2),
        "inverted residual": co.Residual(co.Sequential(*inverted)),
        "squeeze-and-excitation": co.Residual(co.Sequential(OrderedDict(squeeze)), reduce="mul"),
    }
    return {name: keep_signal(module, 0).eval() for name, module in found.items()}


def by_library(module: Any) -> Step:
    """The step of one of the library's modules, from the start of a clip."""
    module.clean_state()

    def step(frame: Tensor) -> Tensor | None:
        out: Tensor | None = module.forward_step(frame)
        return out

    return step


def by_kit(model: nn.Module) -> Step:
    """The step of a network by :func:`kit.models.continual.stepper`, from the start of a clip."""
    net, states = stepper(model), [None]

    def step(frame: Tensor) -> Tensor | None:
        out: Tensor | None
        out, states[0] = net(frame, states[0])
        return out

    return step


def frame_by_frame(module: nn.Module, step: Step, clip: Tensor) -> str:
    """A sentence: when a step gave outputs, and whether they are those of the module on the whole clip.

    Args:
        clip: ``(N, C, T, H, W)``.
    """
    with torch.no_grad():
        whole, outs = module(clip), [step(clip[:, :, t]) for t in range(clip.shape[2])]
    found = [out for out in outs if out is not None]
    pattern = "".join("·" if out is None else "█" for out in outs)
    if not found:
        return f"{pattern} nothing yet"
    return f"{pattern} {compare_outputs(whole[:, :, : len(found)], torch.stack(found, 2))}"


# Drawings -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Diagram:
    """A module's containers and layers as nested boxes: chains from left to right, parallel streams in columns."""

    module: nn.Module

    def _repr_html_(self) -> str:
        return f"<div style='overflow-x:auto;font-size:12px'>{_box(self.module)}</div>"


def _box(module: Any) -> str:
    name, children = type(module).__name__, list(module.children())
    delay = f" <i>delay {module.delay}</i>" if getattr(module, "delay", 0) else ""
    border = f"border:1px solid {NEUTRAL};border-radius:4px;padding:3px 6px;margin:2px"
    if not children:
        kernel = getattr(module, "kernel_size", "")
        size = "x".join(map(str, kernel)) if isinstance(kernel, tuple) else ""
        return f"<div style='{border}'>{html.escape(name)} {size}{delay}</div>"
    parallel = name in ("Parallel", "BroadcastReduce", "Conditional")
    flow = "column" if parallel else "row"
    inner = ("" if parallel else "&rarr;").join(map(_box, children))
    inside = f"display:flex;flex-direction:{flow};align-items:{'stretch' if parallel else 'center'}"
    title = f"<b>{html.escape(name)}</b>{delay}"
    return f"<div style='{border};display:inline-block'>{title}<div style='{inside}'>{inner}</div></div>"


def influence(make: Callable[[], Step], clip: Tensor) -> NDArray[np.int8]:
    """Which frames reach which outputs, found by changing one frame after the other.

    Args:
        make: a fresh step, at the start of a clip.
        clip: ``(N, C, T, H, W)``.

    Returns:
        ``(T, T)``, a row for the step at each frame: 1 where the output depends on that column's frame, 0 where it does
        not, -1 in the whole row where there is no output.
    """
    length = clip.shape[2]

    def run(frames: Tensor) -> list[Tensor | None]:
        step = make()
        with torch.no_grad():
            return [step(frames[:, :, t]) for t in range(length)]

    base, found = run(clip), np.zeros((length, length), np.int8)
    for t in range(length):
        other = clip.clone()
        other[:, :, t] = -other[:, :, t] + 1
        for i, (before, after) in enumerate(zip(base, run(other), strict=True)):
            if before is None or after is None:
                found[i] = -1
            elif not torch.allclose(before, after):
                found[i, t] = 1
    return found


def influence_figure(found: NDArray[np.int8]) -> go.Figure:
    """A row for each step, a column for each frame: a square where the frame has reached the output of the step."""
    figure = go.Figure()
    outputs, frames = np.nonzero(found == 1)
    silent = [i for i, row in enumerate(found) if (row < 0).all()]
    square = {"symbol": "square", "size": 16, "color": OKABE_ITO[0]}
    figure.add_scatter(x=frames, y=outputs, mode="markers", marker=square, name="has reached this step's output")
    cross = {"symbol": "x-thin-open", "size": 10, "color": OKABE_ITO[5]}
    figure.add_scatter(x=silent, y=silent, mode="markers", marker=cross, name="comes, and no output is due")
    ticks = {"dtick": 1, "gridcolor": "rgba(138,143,152,0.3)", "zeroline": False}
    figure.update_layout(
        height=140 + 24 * len(found),
        font={"size": 13, "color": NEUTRAL},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 20, "r": 20, "t": 20, "b": 20},
        legend={"orientation": "h", "y": 1.1},
        xaxis={"title": "input frame", **ticks},
        yaxis={"title": "step", "autorange": "reversed", **ticks},
    )
    return figure


class Explorer(widgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Kernel, stride, padding, dilation in time: what a convolution's step sees, gives and costs."""

    CHANNELS, SIDE, FRAMES = 4, 6, 16

    def __init__(self) -> None:
        def slider(name: str, low: int, high: int, value: int) -> widgets.IntSlider:
            return widgets.IntSlider(value, low, high, description=name, continuous_update=False)

        self.controls = (
            slider("kernel", 1, 7, 3),
            slider("stride", 1, 4, 1),
            slider("padding", 0, 6, 0),
            slider("dilation", 1, 3, 1),
        )
        self.answer = widgets.HTML()
        super().__init__([*self.controls, self.answer])
        for control in self.controls:
            control.observe(self._show, "value")
        self._show()

    def _show(self, change: object = None) -> None:
        kernel, stride, padding, dilation = (control.value for control in self.controls)
        c = self.CHANNELS
        conv = nn.Conv3d(c, c, (kernel, 3, 3), (stride, 1, 1), (padding, 1, 1), (dilation, 1, 1)).eval()
        try:
            net = stepper(conv)
        except KitError as error:
            self.answer.value = f"<p>{html.escape(str(error))}</p>"
            return
        reach = net.reach
        pattern = "".join("█" if reach.gives(t) else "·" for t in range(self.FRAMES))
        frames = max(self.FRAMES, reach.receptive_field)
        clip = torch.zeros(1, c, frames, self.SIDE, self.SIDE)
        step = OneStep(net, clip[:, :, : reach.delay + 1])
        macs = describe(step, step.frames).whole.macs
        window = describe(conv, clip).whole.macs
        self.answer.value = (
            f"<p>Receptive field <b>{reach.receptive_field}</b>, delay <b>{reach.delay}</b>; outputs at the first "
            f"{self.FRAMES} frames: <code>{pattern}</code><br>MACs of a step with an output: <b>{macs:,}</b>, of a "
            f"frame on average {macs / reach.stride:,.0f}; of a window of {frames} frames: {window:,}.</p>"
        )

    def __repr__(self) -> str:
        return "Explorer of a convolution's step"


# Where a step's time goes ---------------------------------------------------------------------------------------------


class LibraryStep(nn.Module):
    """A step of one of the library's modules as a plain call: ``(N, C, H, W) -> (N, C', H', W')``."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module
        self.eval()

    def forward(self, frame: Tensor) -> Tensor:
        out: Tensor = self.module.forward_step(frame)
        return out


def step_times(model: nn.Module, library: Any, clip: Tensor, *, rounds: int) -> Comparison:
    """One prediction by a window, by the library's step and by the kit's, all as they are, on one thread.

    Args:
        model: over clips; ``library`` is the same in the library's containers, at the start of a clip.
        clip: ``(N, C, T, H, W)``, the window.
    """
    own = OneStep(stepper(model), clip)
    with torch.inference_mode():
        expected = model(clip)[:, :, clip.shape[2] - 1 - library.delay]
        library.clean_state()
        for t in range(clip.shape[2]):
            last = library.forward_step(clip[:, :, t])
        outputs = {"window": expected, "library": last, "kit": own(*own.frames)[0]}
    calls = {
        "window": Bound(model, [clip]),
        "library": Bound(library.forward_step, own.frames),
        "kit": Bound(own, own.frames),
    }
    with ExitStack() as stack:
        prepared = {
            name: stack.enter_context(parse("sequential(threads=1)").prepare(call)) for name, call in calls.items()
        }
        timings = measure(prepared, (), rounds=rounds)
    rows = [
        Row(
            name,
            timing=timing,
            ratio=speed_up(timings["window"], timing),
            equality=compare_outputs(expected, outputs[name]),
            baseline=name == "window",
        )
        for name, timing in timings.items()
    ]
    return Comparison(tuple(rows), rounds, shapes(clip))


def operator_table(traces: Mapping[str, Trace], top: int = 6) -> str:
    """The operators that took most of each recorded call by themselves, as Markdown, with their milliseconds."""
    lines = ["| step | operator | calls | ms by itself |", "|---|---|---:|---:|"]
    for name, trace in traces.items():
        rows = [row for row in by_name(trace) if row.name.startswith("aten::")]
        lines += [f"| {name} | `{row.name}` | {row.events} | {row.self_ns / 1e6:.2f} |" for row in rows[:top]]
    return "\n".join(lines)


# Exercises ------------------------------------------------------------------------------------------------------------


@check
def check_reach(reach: Callable[[Sequence[tuple[int, int]]], tuple[int, int] | None]) -> str | Check | None:
    """``reach([(kernel, padding), ...])``: receptive field and delay of convolutions in a row, strides of 1."""
    if is_stub(reach):
        return NOT_ATTEMPTED
    if not isinstance(reach([(3, 0)]), tuple):
        return f"it gives {reach([(3, 0)])!r}: return a tuple (receptive field, delay)."
    if reach([(3, 0)]) != (3, 2):
        return "one kernel of 3 sees 3 frames, and must wait for 2 before it has them."
    if reach([(3, 0), (3, 0)]) != (5, 4):
        return "a second kernel of 3 sees three outputs of the first, which overlap: 5 frames, not 6."
    if reach([(3, 1), (5, 1)]) != (7, 4):
        return "padding stands for frames before the first, so each padded frame is one less to wait for."
    return None


@check
def check_partial_sums(partial: Callable[[nn.Conv3d, Tensor], Tensor | None]) -> str | Check | None:
    """``partial(conv, frame)``: what one frame adds to each of the outputs it takes part in, ``(N, kt, O, H', W')``."""
    if is_stub(partial):
        return NOT_ATTEMPTED
    conv = keep_signal(nn.Conv3d(3, 4, 3, padding=(0, 1, 1), bias=False), 0).eval()
    frame = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        got = partial(conv, frame)
        want = nn.functional.conv3d(frame.unsqueeze(2), conv.weight, padding=(2, 1, 1)).flip(2).transpose(1, 2)
    if not isinstance(got, Tensor):
        return f"it gives {type(got).__name__}: return a tensor."
    if got.shape != want.shape:
        return f"the result is {tuple(got.shape)} and should be {tuple(want.shape)}: (N, kernel in time, O, H, W)."
    if torch.allclose(got.flip(1), want, atol=1e-5) and not torch.allclose(got, want, atol=1e-5):
        return "the right sums in the wrong order: part k belongs to conv.weight[:, :, k]."
    if not torch.allclose(got, want, atol=1e-5):
        return "the sums differ: part k is the 2-D convolution of the frame with conv.weight[:, :, k]."
    return None
