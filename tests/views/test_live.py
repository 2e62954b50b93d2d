"""The live view: it shows what comes out, stops when told, and leaves no thread."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from kit.approaches import Workload
from kit.measuring.comparison import Comparison, Ratio
from kit.models import trained_two_stream
from kit.views import grid
from kit.views.grid import Grid, alike, best, grid_html
from kit.views.live import Live
from kit.workloads import live


def endless() -> Iterator[np.ndarray]:
    while True:
        yield from live.frames(live.CLIP)


def line() -> live.Pipeline:
    return live.pipeline(trained_two_stream(), live=True)


def threads() -> list[str]:
    return [
        each.name for each in threading.enumerate() if each.name in ("live view", "1 decode", "2 flow", "3 two-stream")
    ]


def test_play_shows_the_frame_its_motion_and_what_is_seen() -> None:
    view = Live(lambda: live.pipeline(trained_two_stream()), lambda: live.frames(live.CLIP, 12))
    empty = view._frame.value
    figures = view.play()
    assert figures.done == 12
    assert empty not in (view._frame.value, view._flow.value)
    assert view._frame.value[:2] == view._flow.value[:2] == b"\xff\xd8"  # JPEG
    assert "frames/s, 0 of 12 dropped" in view._text.value, "also of frames after the last picture"
    assert not threads()


def test_the_hues_are_explained_beside_the_pictures_and_in_the_copy() -> None:
    view = Live(line, endless)
    key = view.children[0].children[2].value
    assert "hue: direction of motion" in key
    assert "rim: 8.0 px per frame" in key
    assert "data:image/png;base64," in key
    assert key in view.still()


def test_the_button_starts_and_stops() -> None:
    view = Live(line, endless)
    view._button.value = True
    assert view._button.description == "Stop"
    deadline, empty = time.monotonic() + 20, view._frame.value
    while view._frame.value == empty and time.monotonic() < deadline:
        time.sleep(0.01)
    assert view._frame.value != empty
    view._button.value = False
    assert view._button.description == "Start"
    assert not threads()


def test_a_source_that_fails_says_so_and_the_button_comes_back() -> None:
    view = Live(line, lambda: live.camera(99))
    view._button.value = True
    deadline = time.monotonic() + 20
    while view._button.value and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "camera 99 cannot be opened" in view._text.value
    assert not threads()


def test_the_grid_marks_the_best_cell_and_what_cannot_be_told_from_it() -> None:
    rates = {(1, 1): 10.0, (1, 2): 12.5, (2, 1): 20.0, (2, 2): 19.0}
    cells = {place: (rate, Ratio(rate / 10, rate / 10 - 0.1, rate / 10 + 0.1)) for place, rate in rates.items()}
    assert best(cells) == (2, 1)
    assert alike(cells) == [(2, 1), (2, 2)]
    table = grid_html(cells, "images")
    assert table.count("&#9733; 20.0") == 1
    assert table.count("~ 19.0") == 1
    assert table.count("scope='row'") == 2
    assert "2 OpenCV threads each" in table


def test_a_new_measurement_renews_the_copy_that_the_output_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    class Handle:
        def update(self, bundle: dict[str, str], raw: bool) -> None:
            copies.append(bundle["text/html"])

    def measured(work: Workload, approach: str, *sides: object) -> tuple[grid.Cells, Comparison]:
        cells = {(1, 1): (work.items + {"threads": 0.5, "processes": 0.25}[approach], Ratio(1, 1, 1))}
        return cells, Comparison((), 0, "")

    copies: list[str] = []
    monkeypatch.setattr(grid, "measured", measured)
    shown = Grid(lambda items: Workload("pictures", None, (), unit="images", items=items), items=(4, 8))
    shown._handle = Handle()
    shown._items.value = 8
    assert "8 images, threads" in copies[-1]
    assert "8.5" in copies[-1]
    shown._approach.value = "processes"
    assert "8 images, processes" in copies[-1]
    assert "8.2" in copies[-1]


def test_a_grid_that_was_measured_on_a_busy_machine_marks_no_cell() -> None:
    cells = {(1, 1): (10.0, Ratio(1, 0.9, 1.1)), (2, 1): (90.0, Ratio(9, 8, 10))}
    table = grid_html(cells, "images", "machine busy: other programs took 50% of the machine's CPU time")
    assert "not decided which cell is fastest: machine busy: other programs took 50%" in table
    assert "&#9733;" not in table
    assert "~" not in table
    assert "inset" not in table
    assert "90.0" in table
