"""The experiments, drawings and exercises of notebook 09."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kit.equality import compare_outputs
from kit.errors import KitError
from kit.labs.checks import check
from kit.machine.load import NOTABLE, Taken
from kit.macs import macs_of_call
from kit.measuring.comparison import Comparison
from kit.models.continual import stepper
from kit.models.init import keep_signal
from kit.reprs import one_line
from kit.text import markdown_table, milliseconds
from kit.trace import Trace, by_name
from kit.trace.kernels import Kernels
from kit.views.chart import Chart
from kit.views.figures import GRID, TEXT
from kit.views.palette import NEUTRAL, OKABE_ITO
from kit.views.still import Still
from kit.workloads.continual import OneStep, Side, WindowVersusStep
from kit.workloads.step_parts import StepParts

LOOK = {**TEXT, "margin": {"l": 20, "r": 20, "t": 20, "b": 20}, "legend": {"orientation": "h", "y": 1.1}}
KINDS = {  # of what ran -> in its name; the first that fits
    "convolutions": r"^aten::.*conv",
    "pooling": r"^aten::.*pool",
    "moving data": r"^aten::.*(cat|copy|clone|contiguous|index|pad|roll|stack|to$|zero|fill)",
    "other operators": "^aten::",
    "outside operators (Python)": "",
}
FrameStep = Callable[[Tensor], Tensor | None]  # one frame in, an output or nothing out; it remembers by itself


# Steps ----------------------------------------------------------------------------------------------------------------


def by_library(module: Any) -> FrameStep:
    """The step of one of the library's modules, from the start of a clip."""
    module.clean_state()
    step: FrameStep = module.forward_step
    return step


def by_kit(model: nn.Module) -> FrameStep:
    """The step of a network by :func:`kit.models.continual.stepper`, from the start of a clip."""
    net, states = stepper(model), [None]

    def step(frame: Tensor) -> Tensor | None:
        out: Tensor | None
        out, states[0] = net(frame, states[0])
        return out

    return step


def frame_by_frame(module: nn.Module, step: FrameStep, clip: Tensor) -> str:
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


@one_line
@dataclass(frozen=True)
class Diagram:
    """A module's containers and layers as nested boxes: chains from left to right, parallel streams in columns."""

    module: nn.Module

    def _repr_html_(self) -> str:
        return f"<div style='overflow-x:auto;font-size:12px'>{_box(self.module)}</div>"


def _box(module: Any) -> str:
    name, children = type(module).__name__, list(module.children())
    delay = f" <i>delay {module.delay}</i>" if getattr(module, "delay", 0) else ""
    style = f"border:1px solid {NEUTRAL};border-radius:4px;padding:3px 6px;margin:2px;display:inline-block"
    if not children:
        kernel = getattr(module, "kernel_size", "")
        size = "x".join(map(str, kernel)) if isinstance(kernel, tuple) else ""
        return f"<div style='{style}'>{html.escape(name)} {size}{delay}</div>"
    parallel = name in ("Parallel", "BroadcastReduce", "Conditional")
    inside = f"display:flex;{'flex-direction:column' if parallel else 'align-items:center'}"
    inner = ("" if parallel else "&rarr;").join(map(_box, children))
    return f"<div style='{style}'><b>{html.escape(name)}</b>{delay}<div style='{inside}'>{inner}</div></div>"


def influence(make: Callable[[], FrameStep], clip: Tensor) -> NDArray[np.int8]:
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


def influence_figure(found: NDArray[np.int8]) -> Chart:
    """A row for each step, a column for each frame: a square where the frame has reached the output of the step."""
    figure = Chart()
    outputs, frames = np.nonzero(found == 1)
    silent = [i for i, row in enumerate(found) if (row < 0).all()]
    square = {"symbol": "square", "size": 16, "color": OKABE_ITO[0]}
    figure.add_scatter(x=frames, y=outputs, mode="markers", marker=square, name="has reached this step's output")
    cross = {"symbol": "x-thin-open", "size": 10, "color": OKABE_ITO[5]}
    figure.add_scatter(x=silent, y=silent, mode="markers", marker=cross, name="comes, and no output is due")
    axis = {"dtick": 1, **GRID, "zeroline": False}
    figure.update_layout(
        **LOOK,
        height=140 + 24 * len(found),
        xaxis={"title": _title("input frame"), **axis},
        yaxis={"title": _title("step"), "range": [len(found) - 0.3, -0.7], **axis},
    )
    return figure


def _title(text: str) -> dict[str, Any]:
    return {"text": text, "font": {"size": 13}}


class Explorer(Still):
    """Kernel, stride, padding, dilation in time: what a convolution's step sees, gives and costs."""

    CHANNELS, SIDE, FRAMES = 4, 6, 16

    def __init__(self) -> None:
        ranges = {"kernel": (3, 1, 7), "stride": (1, 1, 4), "padding": (0, 0, 6), "dilation": (1, 1, 3)}
        self.controls = tuple(
            widgets.IntSlider(*value_and_range, description=name, continuous_update=False)
            for name, value_and_range in ranges.items()
        )
        self.answer = widgets.HTML()
        super().__init__(*self.controls, self.answer)
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
        macs = macs_of_call(step, *step.frames)
        window = macs_of_call(conv, clip)
        self.answer.value = (
            f"<p>Receptive field <b>{reach.receptive_field}</b>, delay <b>{reach.delay}</b>; outputs at the first "
            f"{self.FRAMES} frames: <code>{pattern}</code><br>MACs of a step with an output: <b>{macs:,}</b>, of a "
            f"frame on average {macs / reach.stride:,.0f}; of a window of {frames} frames: {window:,}.</p>"
        )

    def still(self) -> str:
        """The settings, and what they give."""
        settings = ", ".join(f"{control.description} {control.value}" for control in self.controls)
        return f"<p>{settings}</p>{self.answer.value}"

    def __repr__(self) -> str:
        return "Explorer of a convolution's step"


# Where a step's time goes ---------------------------------------------------------------------------------------------


def ms_by_kind(trace: Trace) -> dict[str, float]:
    """Milliseconds of a recorded call by the kind of what ran; they add up to the call."""
    found = dict.fromkeys(KINDS, 0.0)
    for row in by_name(trace):
        found[next(kind for kind, names in KINDS.items() if re.search(names, row.name))] += row.self_ns / 1e6
    return found


def kinds_table(columns: Mapping[str, Mapping[str, float]]) -> str:
    """A row for each kind of work and a column for each of these, in milliseconds, and their sums, as Markdown."""
    rows = [(kind, *(f"{column[kind]:.2f}" for column in columns.values())) for kind in KINDS]
    sums = (f"**{sum(column.values()):.2f}**" for column in columns.values())
    return markdown_table(("ms", *columns), f"l{'r' * len(columns)}", [*rows, ("**whole call**", *sums)])


def kernels_in_words(found: Kernels, family: str = "convolution") -> str:
    """What the calls of a family ran on, as in ``slow_conv3d 4, oneDNN 2``."""
    calls: Counter[str] = Counter()
    for kernel, use in found.items():
        if kernel.family == family:
            calls[kernel.name] += use.calls
    return ", ".join(f"{name} {n}" for name, n in calls.most_common()) or "none recorded"


def kernels_table(steps: Comparison) -> str:
    """What the convolutions of each row of a comparison ran on, as Markdown."""
    return markdown_table(
        ("", "its convolutions ran on"),
        "ll",
        [(row.name, kernels_in_words(row.kernels or {})) for row in steps.rows],
    )


def macs_told(sides: Mapping[str, Side]) -> str:
    """What the window, and the steps of library and kit, count in MACs, in a sentence."""
    macs = {name: macs_of_call(each, *args) / 1e6 for name, (each, args) in sides.items()}
    return (
        f"The window runs {macs['window']:.0f} million MACs, the library's step **{macs['library']:.0f} million**, the "
        f"kit's {macs['kit']:.0f} million: by count the library does {macs['library'] / macs['kit']:.1f} times as much."
    )


def parts_table(parts: StepParts) -> str:
    """What a step of the library and one of the kit are made of, in milliseconds, and the difference, as Markdown."""
    library, kit = parts.ms("library"), parts.ms("kit")
    rows = [(part, f"{library[part]:.2f}", f"{kit[part]:.2f}", f"{library[part] - kit[part]:+.2f}") for part in library]
    sums = sum(library.values()), sum(kit.values())
    whole = ("**whole step**", *(f"**{each:.2f}**" for each in sums), f"**{sums[0] - sums[1]:+.2f}**")
    return markdown_table(("ms", "library", "kit", "difference"), "lrrr", [*rows, whole])


def parts_told(parts: StepParts) -> str:
    """What may be claimed of the two steps: only what is left between equal kernels."""
    library, kit = parts.ms("library"), parts.ms("kit")
    gap = {part: library[part] - kit[part] for part in library}
    ran = {side: kernels_in_words(found) for side, found in parts.kernels.items()}
    equal, zeros = parts.between_equals, parts.zeros
    own = max((part for part in gap if part != "choice of kernel"), key=gap.__getitem__)
    lines = [
        f"As PyTorch runs them, the kit's step is {parts.as_dispatched} the speed of the library's. But the library's "
        f"convolutions ran on {ran['library']}, the kit's on {ran['kit']}: of a difference of "
        f"{sum(gap.values()):.2f} ms, **{gap['choice of kernel']:.2f} ms are PyTorch's choice of kernel**.",
        "On oneDNN the zeros cost nothing that could be measured."
        if zeros.verdict == "no difference found"
        else f"On oneDNN, the step without the zeros is {zeros} the speed of the step with them.",
        {
            "faster": f"Between equal kernels the kit's step is {equal} the library's speed, **faster**, most by {own} "
            f"({gap[own]:+.2f} ms).",
            "slower": f"Between equal kernels the kit's step is {equal} the library's speed, **slower**.",
            "no difference found": f"Between equal kernels **no difference was found**, {equal}.",
        }[equal.verdict],
    ]
    if equal.verdict != "faster":
        lines.append(
            "So no speed may be claimed for it here. What it gives in any case: explicit states, the model's own "
            "outputs, and no global mode."
        )
    return " ".join(lines)


def against_table(found: Mapping[str, WindowVersusStep]) -> str:
    """What a prediction costs by a window and by a step, a row for each of these, and on which kernels, as Markdown."""
    rows = []
    for name, each in found.items():
        took = milliseconds(each.window_ms), milliseconds(each.step_ms)
        share = "other kernels" if each.exchanges else f"{each.realised:.0%}"
        ran = " / ".join(map(kernels_in_words, each.kernels.values()))
        rows.append((name, *took, f"{each.counted:.1f}x", each.measured, share, ran, each.equality))
    head = ("", "window", "step", "counted", "measured", "realised", "convolutions: window / step", "same output?")
    return markdown_table(head, "lrrrrrll", rows)


def realised_told(found: Mapping[str, WindowVersusStep]) -> str:
    """How much of the counted ratios was measured, over the rows whose sides ran on the same kernels."""
    shares = {name: each.realised for name, each in found.items() if not each.exchanges}
    others = [name for name, each in found.items() if each.exchanges]
    said = ""
    if shares:
        least, most = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
        said = "Realised is the measured ratio by the counted one, where both sides ran on the same kernels: from "
        said += f"**{shares[least]:.0%}** ({least}) to **{shares[most]:.0%}** ({most})."
    if others:
        said += f" Nothing is concluded from {', '.join(others)}: there the sides ran on different kernels, and the "
        said += "ratio measures PyTorch's choice of them as well."
    return said.strip()


def taken_told(taken: Taken | None) -> str:
    """What others took of the cores, as a paragraph of Markdown; nothing where it was little."""
    return f"\n\n&#9888; {taken}." if taken and taken.share > NOTABLE else ""


def gap_told(window: Mapping[str, float], step: Mapping[str, float], counted: float) -> str:
    """Where a step takes more than its part of a window, by the kind of what ran, as Markdown."""
    due = {kind: ms / counted for kind, ms in window.items()}
    gap = {kind: ms - due[kind] for kind, ms in step.items()}
    over, under = max(gap, key=gap.__getitem__), min(gap, key=gap.__getitem__)
    columns = {"window": window, f"a {counted:.0f}th of it": due, "step": step, "step over it": gap}
    lines = [
        f"A {counted:.0f}th of the window would be {sum(due.values()):.2f} ms, and the step took "
        f"{sum(step.values()):.2f} ms when both were recorded:\n\n{kinds_table(columns)}\n\n"
    ]
    if gap[over] > 0:
        lines.append(f"Most is added by **{over}**: {gap[over]:+.2f} ms. ")
    if gap[under] < 0:
        lines.append(f"**{under[0].upper()}{under[1:]}** took less than their part: {gap[under]:+.2f} ms. ")
    return "".join(lines) + "The profiler makes every operator a little longer: read here what costs, not how much."


def apart_told(apart: Mapping[str, WindowVersusStep]) -> str:
    """What each condition brings to the window and to the step by itself; the last of these holds all of them."""
    first, best = next(iter(apart.values())), list(apart.values())[-1]
    lines = [
        f"- {name}: the window {first.window_ms / each.window_ms:.2f} times as fast as it was, the step "
        f"{first.step_ms / each.step_ms:.2f} times"
        for name, each in apart.items()
        if each is not first
    ]
    said = f"A step at its best against a window as it is would read {first.window_ms / best.step_ms:.1f} times; under "
    said += f"the same conditions it is {best.measured.estimate:.1f} times. What is between is not continual inference."
    return "\n".join([*lines, "", said])


def ratios_chart(found: Mapping[str, WindowVersusStep]) -> Chart:
    """The counted and the measured ratio, window by step, of each of these; the measured one with its interval."""
    ratios = [each.measured for each in found.values()]
    bars = {"array": [r.high - r.estimate for r in ratios], "arrayminus": [r.estimate - r.low for r in ratios]}
    figure, x = Chart(), list(found)
    counted = [each.counted for each in found.values()]
    figure.add_scatter(x=x, y=counted, mode="markers", marker_symbol="diamond", name="counted: MACs")
    figure.add_scatter(x=x, y=[r.estimate for r in ratios], error_y=bars, mode="markers", name="measured: time [95%]")
    figure.update_traces(marker_size=10)
    figure.update_layout(
        **LOOK,
        height=420,
        colorway=OKABE_ITO,
        xaxis=GRID,
        yaxis={"type": "log", "tickvals": [2**i for i in range(9)], "title": _title("a window's by a step's"), **GRID},
    )
    return figure


# Exercises ------------------------------------------------------------------------------------------------------------


@check
def check_reach(reach: Callable[[Sequence[tuple[int, int]]], tuple[int, int] | None]) -> str | None:
    """``reach([(kernel, padding), ...])``: receptive field and delay of convolutions in a row, strides of 1."""
    if not isinstance(reach([(3, 0)]), tuple):
        return f"it gives {reach([(3, 0)])!r}: return a tuple (receptive field, delay)."
    cases = [
        ([(3, 0)], (3, 2), "one kernel of 3 sees 3 frames, and must wait for 2 before it has them."),
        ([(3, 0)] * 2, (5, 4), "a second kernel of 3 sees three outputs of the first, which overlap: 5 frames, not 6."),
        ([(3, 1), (5, 1)], (7, 4), "padding stands for frames before the first: each is one less to wait for."),
    ]
    return next((hint for given, want, hint in cases if reach(given) != want), None)


@check
def check_partial_sums(partial: Callable[[nn.Conv3d, Tensor], Tensor | None]) -> str | None:
    """``partial(conv, frame)``: what one frame adds to each of the outputs it takes part in, ``(N, kt, O, H', W')``."""
    conv = keep_signal(nn.Conv3d(3, 4, 3, padding=(0, 1, 1), bias=False), 0).eval()
    frame = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        got = partial(conv, frame)
        want = nn.functional.conv3d(frame.unsqueeze(2), conv.weight, padding=(2, 1, 1)).flip(2).transpose(1, 2)
    if not isinstance(got, Tensor):
        return f"it gives {type(got).__name__}: return a tensor."
    if got.shape != want.shape:
        return f"the result is {tuple(got.shape)} and should be {tuple(want.shape)}: (N, kernel in time, O, H, W)."
    if torch.allclose(got, want, atol=1e-5):
        return None
    if torch.allclose(got.flip(1), want, atol=1e-5):
        return "the right sums in the wrong order: part k belongs to conv.weight[:, :, k]."
    return "the sums differ: part k is the 2-D convolution of the frame with conv.weight[:, :, k]."
