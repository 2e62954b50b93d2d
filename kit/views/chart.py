"""A plotly figure with a still picture, for pages and viewers without plotly."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

_DPI = 100
_WIDTH = 9.0  # inches
_PAGE, _INK, _LINE = "#ffffff", "#1a1a1a", "#d0d4da"
_OF_THE_PAGE = {  # the colours that follow the theme of the page: JupyterLab's names for them, which the site has too
    _PAGE: "--jp-layout-color0",
    _INK: "--jp-content-font-color1",
    _LINE: "--jp-border-color2",
}
_ON_CELLS = "#000000"  # text on a coloured cell, which no theme changes
_MARKERS = {  # plotly's symbol -> matplotlib's
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "cross": "P",
    "x": "X",
    "star": "*",
    "x-thin-open": "x",
    "line-ns-open": "|",
    "triangle-up": "^",
    "triangle-right": ">",
    "triangle-left": "<",
}
_DASHES = {"dash": "--", "dot": ":"}


class Chart(go.Figure):  # type: ignore[misc]  # plotly has no types
    """A figure of this kit: interactive with plotly, and an SVG picture in exported pages and other viewers."""

    _ipython_display_ = _repr_html_ = None  # plotly's own displays would leave the picture out, or load a script

    def still(self) -> str:
        """The figure as an SVG document, drawn by matplotlib from the same data.

        Inside a page it has the page's colours for paper, text and lines, if the page names them as JupyterLab does. As
        a file it is light.
        """
        return _still(self)

    def _repr_mimebundle_(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {
            "application/vnd.plotly.v1+json": json.loads(self.to_json()),
            "image/svg+xml": self.still(),
            "text/plain": repr(self),
        }

    def __repr__(self) -> str:
        titles = (self.layout.title.text, self.layout.xaxis.title.text, self.layout.yaxis.title.text)
        shown = ", ".join(_plain(title) for title in titles if title)
        return f"{type(self).__name__}({shown or f'{len(self.data)} traces'})"


def _still(figure: Chart) -> str:
    # Imported here: it takes half a second, and most figures are looked at where plotly is.
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    inks = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")
    look: Any = {"svg.fonttype": "none", "svg.hashsalt": "kit", "font.size": 9.5, "axes.edgecolor": _LINE}
    look |= dict.fromkeys(inks, _INK)
    with mpl.rc_context(look):
        page = Figure((_WIDTH, (figure.layout.height or 450) / _DPI), dpi=_DPI, facecolor=_PAGE)
        FigureCanvasSVG(page)
        places = {(trace.xaxis or "x", trace.yaxis or "y"): None for trace in figure.data} or {("x", "y"): None}
        if len(places) == 1:
            page.set_layout_engine("constrained")
        for place in places:
            _Panel(figure, page, *place, alone=len(places) == 1).draw()
        if figure.layout.title.text:
            page.suptitle(_plain(figure.layout.title.text), fontsize=11)
        if len(places) > 1:  # where several panels stand, their titles are annotations of the page
            for note in figure.layout.annotations:
                page.text(note.x, 0.03 + 0.9 * note.y, _plain(note.text), ha="center", rotation=-(note.textangle or 0))
        file = io.StringIO()
        page.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return _with_colours_of_the_page(re.sub(r"^.*?(?=<svg)", "", file.getvalue(), flags=re.DOTALL))


def _with_colours_of_the_page(svg: str) -> str:
    """The drawing whose own colours stand only where its page names none; a viewer without variables keeps them too."""

    def with_name(found: re.Match[str]) -> str:
        what, colour = found.groups()
        return f"{what}: {colour}; {what}: var({_OF_THE_PAGE[colour]}, {colour})"

    return re.sub(rf"\b(fill|stroke): ({'|'.join(_OF_THE_PAGE)})\b", with_name, svg)


class _Panel:
    """One pair of axes of a figure."""

    def __init__(self, figure: Chart, page: Any, x: str, y: str, *, alone: bool) -> None:
        self.figure, self.names, self.alone = figure, (x, y), alone
        self.x, self.y = (figure.layout[name[0] + "axis" + name[1:]] for name in (x, y))
        if alone:
            self.axes = page.add_subplot()
        else:
            (left, right), (bottom, top) = self.x.domain, self.y.domain
            self.axes = page.add_axes((left, 0.03 + 0.9 * bottom, right - left, 0.9 * (top - bottom)))
        self.axes.set_facecolor(_PAGE)
        self.axes.spines[:].set_color(_LINE)

    def draw(self) -> None:
        for trace in self.figure.data:
            if (trace.xaxis or "x", trace.yaxis or "y") == self.names:
                getattr(self, f"_{trace.type}")(trace)
        self._lines()
        for axis, settings, side in ((self.axes.xaxis, self.x, "x"), (self.axes.yaxis, self.y, "y")):
            self._scale(axis, settings, side)
        handles, labels = self.axes.get_legend_handles_labels()
        if labels and self.figure.layout.showlegend is not False:
            self.axes.legend(handles, labels, frameon=False, fontsize=9)

    # One method for each type of trace that the kit draws ---------------------------------------------------------

    def _scatter(self, trace: Any) -> None:
        x, y = list(trace.x if trace.x is not None else []), list(trace.y if trace.y is not None else [])
        mode, marker = trace.mode or "lines", trace.marker
        colours = self.figure.layout.colorway or ("#0072B2", "#D55E00")
        number = [other for other in self.figure.data if other.type == "scatter"].index(trace)
        colour = _colour(marker.color or trace.line.color or colours[number % len(colours)])
        self.axes.errorbar(
            x,
            y,
            xerr=_reach(trace.error_x),
            yerr=_reach(trace.error_y),
            color=colour,
            alpha=marker.opacity or 1.0,
            linestyle=_DASHES.get(trace.line.dash, "-") if "lines" in mode else "none",
            marker=_MARKERS.get(marker.symbol or "circle", "o") if "markers" in mode else "none",
            markersize=(marker.size or 7) * 0.7,
            capsize=4,
            label=_plain(trace.name) if trace.name else None,
        )
        if "text" in mode:
            for at, height, text in zip(x, y, trace.text, strict=True):
                place = {"xytext": (0, 9), "textcoords": "offset points", "ha": "center", "color": _INK}
                self.axes.annotate(_plain(text), (at, height), **place)

    def _waterfall(self, trace: Any) -> None:
        reached = base = trace.base or 0.0
        for i, (name, change, kind) in enumerate(zip(trace.x, trace.y, trace.measure, strict=True)):
            start, length = (
                (reached, change) if kind == "relative" else (base, change if kind == "absolute" else reached - base)
            )
            direction = trace.totals if kind != "relative" else trace.increasing if change > 0 else trace.decreasing
            self.axes.bar(_plain(name), length, bottom=start, width=0.8, color=_colour(direction.marker.color))
            reached = start + length
            self.axes.annotate(trace.text[i], (i, max(start, reached)), (0, 2), textcoords="offset points", ha="center")

    def _heatmap(self, trace: Any) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        scale = [(float(at), _colour(colour)) for at, colour in trace.colorscale]
        colours = LinearSegmentedColormap.from_list("chart", scale)
        self.axes.imshow(trace.z, colours, vmin=trace.zmin, vmax=trace.zmax, aspect="auto", origin="lower")
        for axis, names in ((self.axes.xaxis, trace.x), (self.axes.yaxis, trace.y)):
            axis.set_ticks(range(len(names)), [_plain(str(name)) for name in names])
        for i, row in enumerate(trace.z):
            for j, value in enumerate(row):
                text = _plain(trace.text[i][j]) if trace.text is not None else f"{value:.0f}"
                self.axes.text(j, i, text, ha="center", va="center", color=_ON_CELLS)

    def _image(self, trace: Any) -> None:
        from PIL import Image

        picture = Image.open(io.BytesIO(base64.b64decode(trace.source.partition(",")[2])))
        self.axes.imshow(picture, interpolation="none")  # at its own size: a finer one would be ten times as long

    # What is not a trace ------------------------------------------------------------------------------------------

    def _lines(self) -> None:
        """Lines over the whole width or height, with text at their end."""
        for shape in self.figure.layout.shapes:
            style = {"color": _colour(shape.line.color), "linestyle": _DASHES.get(shape.line.dash, "-")}
            if shape.x0 == shape.x1:
                self.axes.axvline(shape.x0, **style, linewidth=1)
            else:
                self.axes.axhline(shape.y0, **style, linewidth=1)
        for note in self.figure.layout.annotations if self.alone else ():
            self._note(note)

    def _note(self, note: Any) -> None:
        """Text at a position in an axis's own values, or in shares of the panel."""
        from matplotlib.transforms import ScaledTranslation

        across, along = (ref in ("paper", "x domain", "y domain") for ref in (note.xref, note.yref))
        transform = {
            (True, True): self.axes.transAxes,
            (False, True): self.axes.get_xaxis_transform(),
            (True, False): self.axes.get_yaxis_transform(),
            (False, False): self.axes.transData,
        }[across, along]
        x = 10**note.x if not across and self.x.type == "log" else note.x  # plotly gives the logarithm here
        style = {"ha": {"right": "right", "left": "left"}.get(note.xanchor, "center"), "va": "bottom", "color": _INK}
        up = ScaledTranslation(0, (note.yshift or 0) / _DPI, self.axes.figure.dpi_scale_trans)
        self.axes.text(x, note.y, _plain(note.text), transform=transform + up, **style)

    def _scale(self, axis: Any, settings: Any, side: str) -> None:
        set_limits = self.axes.set_xlim if side == "x" else self.axes.set_ylim
        if settings.visible is False:
            axis.set_visible(False)
            self.axes.spines[:].set_visible(False)
            return
        if settings.type == "log":
            (self.axes.set_xscale if side == "x" else self.axes.set_yscale)("log")
            axis.minorticks_off()
        if settings.range is not None:
            set_limits(*(10**end if settings.type == "log" else end for end in settings.range))
        elif settings.rangemode == "tozero":
            set_limits(min(0, *(self.axes.get_xlim() if side == "x" else self.axes.get_ylim())))
        if settings.autorange == "reversed":
            axis.set_inverted(True)
        if settings.tickvals is not None:
            ticks = list(settings.tickvals)
            low, high = sorted(self.axes.get_xlim() if side == "x" else self.axes.get_ylim())
            texts = list(settings.ticktext) if settings.ticktext is not None else [f"{tick:g}" for tick in ticks]
            shown = [(tick, text) for tick, text in zip(ticks, texts, strict=True) if low <= tick <= high]
            axis.set_ticks([tick for tick, _ in shown], [text for _, text in shown])
        if settings.title.text:
            axis.set_label_text(_plain(settings.title.text))
        if settings.showgrid is not False and settings.gridcolor:
            axis.grid(color=_LINE, linewidth=0.6)
            self.axes.set_axisbelow(True)


def _reach(error: Any) -> list[Sequence[float]] | None:
    """The lengths of an interval below and above a point."""
    if error.array is None:
        return None
    above = list(error.array)
    return [list(error.arrayminus) if error.arrayminus is not None else above, above]


def _colour(text: str | None) -> Any:
    """A colour as matplotlib takes it: plotly's ``rgba(r, g, b, a)`` too, with r, g and b up to 255."""
    if text is None:
        return _INK
    numbers = [float(number) for number in re.findall(r"[\d.]+", text)] if text.startswith("rgb") else []
    return (*(number / 255 for number in numbers[:3]), *numbers[3:]) if numbers else text


def _plain(text: str) -> str:
    """Text without plotly's markup: lines break, everything else is shown as it is."""
    return re.sub(r"<[^>]+>", "", text.replace("<br>", "\n")).replace("$", r"\$")
