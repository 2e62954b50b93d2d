"""What an encoder's step costs against the length of its window, and the encodings of positions on a stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kit.equality import Equality, compare_outputs
from kit.labs.conclusions import decided, row_of
from kit.labs.modules.transformers import encoder, of_library
from kit.macs import macs_of_call
from kit.measuring.comparison import Comparison
from kit.models.continual import SlidingAttention, stepper
from kit.reprs import one_line
from kit.text import markdown_table, milliseconds
from kit.views.chart import Chart
from kit.views.figures import GRID, TEXT
from kit.views.palette import NEUTRAL, OKABE_ITO
from kit.workloads.continual import OneStep, Picked, Side, compared, side

ONE_THREAD = "sequential(threads=1)"
LOOK = {**TEXT, "margin": {"l": 20, "r": 20, "t": 20, "b": 20}, "legend": {"orientation": "h", "y": 1.1}}
STEPS = ("library", "kit")


@one_line
@dataclass(frozen=True)
class Length:
    """One block of an encoder on windows of one length: what a prediction costs."""

    comparison: Comparison  # "window", "library", "kit"
    macs: Mapping[str, int]  # of the same

    def ratio(self, name: str) -> float:
        """MACs of the window / MACs of a step."""
        return self.macs["window"] / self.macs[name]


def by_length(windows: Iterable[int], *, features: int, rounds: int) -> dict[int, Length]:
    """Window -> what a prediction costs by the window and by the steps of library and kit, on one thread.

    All see the same token again and again, so that the output of every call of a step is the same.

    Args:
        features: of a token; there are ``features / 16`` heads.
    """
    found = {}
    for window in windows:
        net = encoder(1, features=features, heads=features // 16)
        tokens = torch.randn(1, 1, features, generator=torch.Generator().manual_seed(2)).repeat(1, window, 1)
        library = of_library(net, window)
        with torch.no_grad():
            for _ in range(window):
                library.forward_step(tokens[:, 0])
        kit = OneStep(stepper(SlidingAttention(net, window)), tokens)
        sides: dict[str, Side] = {
            "window": (Picked(net, lambda out: out[:, -1]), [tokens]),
            "library": (Picked(library, lambda out: out.reshape(1, -1)), [tokens[:, 0]]),
            "kit": (Picked(kit, lambda out: out[0]), kit.frames),
        }
        library.call_mode = "forward_step"
        macs = {name: macs_of_call(module, *given) for name, (module, given) in sides.items()}
        rows = {name: side(*each, ONE_THREAD, rewrites=name != "window") for name, each in sides.items()}
        found[window] = Length(compared("window-length", rows, f"{window} tokens of {features}", rounds), macs)
    return found


def lengths_chart(found: Mapping[int, Length]) -> Chart:
    """Window / step against the length of the window: counted in MACs, and measured with its interval."""
    figure = Chart()
    for name, color, symbol in zip(STEPS, OKABE_ITO, ("square", "circle"), strict=False):
        dashed = {"color": color, "dash": "dash"}
        figure.add_scatter(x=list(found), y=[x.ratio(name) for x in found.values()], line=dashed, name=f"{name}: MACs")
        for decides, look in ((True, {"color": color, "symbol": symbol}), (False, {"color": NEUTRAL, "symbol": "x"})):
            shown = {length: row for length, each in found.items() if (row := row_of(each.comparison, name))}
            ratios = {
                length: row.ratio
                for length, row in shown.items()
                if row.ratio and decided(found[length].comparison, name).startswith("not ") is not decides
            }
            if ratios:
                bars = {
                    "array": [r.high - r.estimate for r in ratios.values()],
                    "arrayminus": [r.estimate - r.low for r in ratios.values()],
                }
                figure.add_scatter(
                    x=list(ratios),
                    y=[r.estimate for r in ratios.values()],
                    error_y=bars,
                    mode="markers",
                    marker=look,
                    name=f"{name}: time [95%]" if decides else f"{name}: time, decides nothing",
                )
    ticks = {"type": "log", "tickvals": [2**i for i in range(12)], **GRID}
    title = {"font": {"size": 13}}
    xaxis = {**ticks, "title": {"text": "tokens in a window", **title}}
    yaxis = {**ticks, "title": {"text": "window / step", **title}}
    figure.update_layout(**LOOK, height=420, xaxis=xaxis, yaxis=yaxis)
    return figure


def lengths_table(found: Mapping[int, Length]) -> str:
    """The same as Markdown."""
    rows = []
    for length, each in found.items():
        for name in STEPS:
            row = row_of(each.comparison, name)
            took = milliseconds(row.timing.median_ms) if row and row.timing else "-"
            speed = row.ratio_text if row else "-"
            verdict = decided(each.comparison, name).partition(":")[0]
            rows.append((str(length), name, f"{each.ratio(name):.1f}x", took, speed, verdict))
    return markdown_table(("window", "step by", "MACs ratio", "step", "speed-up [95%]", "verdict"), "rlrrrl", rows)


def lengths_told(found: Mapping[int, Length]) -> str:
    """How MACs and time of a step grow with the window, and from which length on a step is faster."""
    shortest, longest = min(found), max(found)
    lines = []
    for name in STEPS:
        ratios = [found[length].ratio(name) for length in (shortest, longest)]
        lines.append(
            f"The MACs ratio of the {name}'s step grows from {ratios[0]:.1f}x at {shortest} tokens to {ratios[1]:.1f}x "
            f"at {longest}."
        )
        verdicts = {length: decided(each.comparison, name) for length, each in found.items()}
        faster = [length for length, said in verdicts.items() if said == "faster"]
        undecided = [length for length, said in verdicts.items() if said.startswith("not ")]
        if faster:
            lines.append(f"By the clock the {name}'s step is faster at: {', '.join(map(str, faster))} tokens.")
        if slower := [length for length, said in verdicts.items() if said == "slower"]:
            lines.append(f"By the clock the {name}'s step is slower at: {', '.join(map(str, slower))} tokens.")
        if undecided:
            lines.append(f"Not decided for the {name}'s step at: {', '.join(map(str, undecided))} tokens.")
    return "\n".join(f"- {line}" for line in lines)


# Positions ------------------------------------------------------------------------------------------------------------


def positions(window: int, recycled: int | None, steps: int) -> NDArray[np.int64]:
    """``(steps, steps + window - 1)``: the number of the encoding that a token has in a prediction; -1: not in it.

    Args:
        recycled: how many encodings are used in turns; None: a token is numbered by its place in the window.
    """
    found = np.full((steps, steps + window - 1), -1)
    for t in range(steps):
        tokens = np.arange(t, t + window)
        found[t, tokens] = tokens - t if recycled is None else tokens % recycled
    return found


def positions_figure(found: NDArray[np.int64]) -> Chart:
    """A row for each prediction, a column for each token: a square with the number of its encoding."""
    figure = Chart()
    for number in range(found.max() + 1):
        rows, tokens = np.nonzero(found == number)
        color = OKABE_ITO[number % len(OKABE_ITO)]
        figure.add_scatter(
            x=tokens,
            y=rows,
            mode="markers+text",
            text=[str(number)] * len(rows),
            textfont={"size": 12, "color": "#000000"},
            marker={"symbol": "square", "size": 24, "color": color},
            showlegend=False,
        )
    axis = {"dtick": 1, **GRID, "zeroline": False}
    figure.update_layout(
        **LOOK,
        height=110 + 34 * len(found),
        xaxis={"title": {"text": "token of the stream", "font": {"size": 13}}, **axis},
        yaxis={"title": {"text": "prediction", "font": {"size": 13}}, "range": [len(found) - 0.4, -0.6], **axis},
    )
    return figure


def positions_table(found: NDArray[np.int64]) -> str:
    """The same as Markdown."""
    head = ("prediction", *(f"token {i}" for i in range(found.shape[1])))
    rows = [(str(i), *("" if x < 0 else str(x) for x in row)) for i, row in enumerate(found)]
    return markdown_table(head, "r" * len(head), rows)


def recycled(window: int, count: int, tokens: Tensor) -> dict[str, Equality]:
    """An encoder block with recycled encodings by the library's steps, against a window with each kind of encoding.

    Args:
        count: encodings that are used in turns.
        tokens: ``(1, T, E)`` with ``T >= window``.
    """
    import continual as co

    net = encoder(1, features=tokens.shape[2])
    torch.manual_seed(0)
    places = co.RecyclingPositionalEncoding(tokens.shape[2], count)
    steps: Any = of_library(net, window)
    by_place, by_turns, outs = [], [], []
    with torch.inference_mode():
        for t in range(tokens.shape[1]):
            out = steps.forward_step(places.forward_step(tokens[:, t]))
            if t + 1 >= window:
                outs.append(out.reshape(1, -1))
                numbers = torch.arange(t + 1 - window, t + 1)
                seen = tokens[:, t + 1 - window : t + 1]
                by_place.append(net(seen + places.pe(numbers - numbers[0]))[:, -1])
                by_turns.append(net(seen + places.pe(numbers % count))[:, -1])
    return {
        "by its place in the window": compare_outputs(by_place, outs),
        "recycled": compare_outputs(by_turns, outs),
    }


def recycled_told(found: Mapping[str, Equality]) -> str:
    """Which window the steps with recycled encodings agree with."""
    rows = [(name, str(same)) for name, same in found.items()]
    table = markdown_table(("window with encodings", "same output as the steps"), "ll", rows)
    agreed = [name for name, same in found.items() if same.equal]
    said = (
        f"So the steps are exact for a network whose encodings are {', '.join(agreed)}, and for no other of these."
        if agreed
        else "So the steps agree with neither."
    )
    return f"{table}\n\n{said}"
