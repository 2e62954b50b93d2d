"""Still pictures: what plotly draws from a figure's data, matplotlib draws too."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

import kit
from kit.views.chart import Chart
from kit.views.figures import confusion_chart, line_chart
from kit.views.pictures import clip_figure


def texts(figure: Chart) -> list[str]:
    """The pieces of text of the picture, in order."""
    return [line.strip() for line in re.findall(r"<text[^>]*>([^<]*)</text>", figure.still())]


def test_a_figure_carries_its_picture_and_nothing_that_loads_a_script() -> None:
    from IPython.core.formatters import DisplayFormatter

    data, _ = DisplayFormatter().format(line_chart([1, 10], {"a": [1, 2]}, x_title="MB", y_title="ms"))
    assert sorted(data) == ["application/vnd.plotly.v1+json", "image/svg+xml", "text/plain"]
    assert data["text/plain"] == "Chart(MB, ms)"


def test_lines_have_their_axes_and_their_legend() -> None:
    drawn = texts(line_chart([1, 10, 100], {"pool": [1, 2, 3], "loop": [3, 5, 100]}, x_title="MB", y_title="ms"))
    assert {"MB", "ms", "pool", "loop"} <= set(drawn)


def test_a_heat_map_has_every_number_in_its_place() -> None:
    drawn = texts(confusion_chart(np.array([[3, 1], [0, 4]]), ["up", "down"], "network"))
    assert [text for text in drawn if text.isdigit()] == ["75", "25", "0", "100"]
    assert {"up", "down", "true", "told", "network"} <= set(drawn)


def test_bars_of_a_waterfall_begin_where_the_last_one_ended() -> None:
    figure = Chart(
        go.Waterfall(
            x=["ideal", "lost", "won", "measured"],
            y=[2.0, -1.5, 0.25, 0],
            measure=["absolute", "relative", "relative", "total"],
            text=["2.00x", "0.50x", "0.75x", "0.75x"],
            decreasing={"marker": {"color": "#D55E00"}},
            increasing={"marker": {"color": "#009E73"}},
            totals={"marker": {"color": "#8A8F98"}},
        )
    )
    bars = list(corners(figure, "#8a8f98", "#d55e00", "#009e73"))
    (ideal, total), (lost,), (won,) = bars
    assert lost[0] == ideal[0]  # tops, in pixels from above
    assert won[1] == lost[1]
    assert total[0] == won[0]
    assert ideal[1] == total[1] > lost[1]


def test_bars_of_a_waterfall_begin_at_its_base() -> None:
    """On a logarithmic axis there is no 0 to begin from."""
    figure = Chart(
        go.Waterfall(
            base=1,
            x=["ideal", "lost", "measured"],
            y=[1.0, -1.5, 0],
            measure=["absolute", "relative", "total"],
            text=["2x", "0.5x", "0.5x"],
            decreasing={"marker": {"color": "#D55E00"}},
            totals={"marker": {"color": "#8A8F98"}},
        )
    )
    figure.update_yaxes(type="log", range=[-1, 1])
    (ideal, total), (lost,) = corners(figure, "#8a8f98", "#d55e00")
    assert ideal[1] == total[0]  # 1, below the ideal and above a result that is slower
    assert total[1] == lost[1]
    assert lost[0] == ideal[0]
    assert ideal[1] - ideal[0] == pytest.approx(total[1] - total[0], abs=0.01)  # of 2 and of 1 / 2


def corners(figure: Chart, *colours: str) -> Iterator[list[tuple[float, float]]]:
    """Of the bars of each colour, from left to right, where they begin and end from above."""
    svg = figure.still()
    for colour in colours:
        paths = re.findall(rf'd="([^"]*)"[^>]*style="fill: {colour}', svg)
        heights = [[float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", path)] for path in paths]
        yield [(min(ys), max(ys)) for ys in heights]


def test_a_picture_has_the_colours_of_its_page_and_its_own_where_the_page_names_none() -> None:
    svg = line_chart([1, 10], {"a": [1, 2]}, x_title="x", y_title="y").still()
    for colour in ("#ffffff", "#1a1a1a", "#d0d4da"):
        alone = re.findall(rf"(?:fill|stroke): {colour}(?!; (?:fill|stroke): var\(--jp-[\w-]+, {colour}\))", svg)
        assert f"{colour}; " in svg
        assert alone == []
    assert all("fill: var(" in style for style in re.findall(r"<text([^>]*)>[xy]<", svg))


def test_numbers_on_coloured_cells_follow_no_page() -> None:
    svg = confusion_chart(np.array([[3, 1], [0, 4]]), ["up", "down"]).still()
    (cell,) = re.findall(r"<text([^>]*)>75<", svg)
    assert "var(" not in cell


def test_pictures_stand_beside_each_other_and_stay_small() -> None:
    frames = np.zeros((5, 32, 32, 3), np.uint8)
    svg = clip_figure(frames, np.zeros((4, 32, 32, 2), np.float32), picks=2).still()
    images = re.findall(r'<image [^>]*?transform="([^"]*)"', re.sub(r'xlink:href="[^"]*"', "", svg))
    assert svg.count("<image ") == 5  # two frames, their motion, the wheel
    assert len(set(images)) == 5  # each at a place of its own
    assert len(svg) < 60_000


@pytest.mark.parametrize("text", ["a $5 & <b>bold</b> name", "x < 3"])
def test_text_is_shown_as_it_is(text: str) -> None:
    svg = line_chart([1, 10], {text: [1, 2]}, x_title="x", y_title="y").still()
    shown = re.sub(r"</?b>", "", text).replace("&", "&amp;").replace("<", "&lt;")
    assert shown in svg


def test_every_figure_of_the_kit_is_a_chart() -> None:
    sources = {path: path.read_text() for path in Path(kit.__file__).parent.rglob("*.py") if path.name != "chart.py"}
    assert [path.name for path, text in sources.items() if re.search(r"go\.Figure\b", text)] == []
