"""A grid of measurements: workers x threads, with the best one marked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets

from kit.approaches import Workload
from kit.measuring.comparison import Comparison, Ratio
from kit.measuring.statistics import least_rounds
from kit.verbs import compare
from kit.views.palette import NEUTRAL, OKABE_ITO
from kit.views.still import Still

Setting = tuple[int, int]  # workers, threads of each
Cells = Mapping[Setting, tuple[float, Ratio]]  # items a second, and how many times as fast as a loop


def measured(work: Workload, approach: str, workers: Sequence[int], threads: Sequence[int]) -> tuple[Comparison, Cells]:
    """``approach`` for every number of workers and of threads each, in the same interleaved rounds."""
    names = {(w, t): f"{approach}(workers={w}, threads={t})" for w in workers for t in threads}
    rates = compare(work, approaches=list(names.values()), rounds=least_rounds(len(names)), progress=False)
    cells = {place: (rates.per_second(name), rates[name].ratio or Ratio(1, 1, 1)) for place, name in names.items()}
    return rates, cells


def best(cells: Cells) -> Setting:
    """The place of the highest rate; of equal ones the first."""
    return max(cells, key=lambda place: cells[place][0])


def alike(cells: Cells) -> list[Setting]:
    """The best place, and those whose intervals reach that of the best: a few rounds cannot tell which is first."""
    return [place for place, (_rate, ratio) in cells.items() if ratio.high >= cells[best(cells)][1].low]


def grid_html(cells: Cells, unit: str) -> str:
    """The grid as an HTML table: a row for each number of workers; the best in a frame, with a star."""
    workers, threads = (list(dict.fromkeys(side)) for side in zip(*cells, strict=True))
    top, near = best(cells), alike(cells)
    head = "".join(f"<th scope='col' style='padding:6px'>{t} OpenCV thread{'s' * (t > 1)} each</th>" for t in threads)
    rows = ""
    for w in workers:
        rows += f"<tr><th scope='row'>{w} worker{'s' * (w > 1)}</th>"
        for t in threads:
            mark = "&#9733; " if (w, t) == top else "~ " if (w, t) in near else ""
            frame = f"inset 0 0 0 2px {OKABE_ITO[5]}" if (w, t) == top else "none"
            length = f"{cells[w, t][0] / cells[top][0]:.0%}"
            bar = f"linear-gradient(to right, {OKABE_ITO[0]}55 {length}, transparent {length})"
            style = f"padding:6px 12px;text-align:right;box-shadow:{frame};background:{bar}"
            rows += f"<td style='{style}'>{mark}{cells[w, t][0]:,.1f}</td>"
        rows += "</tr>"
    caption = f"<caption style='color:{NEUTRAL}'>{unit} a second; &#9733; the most, ~ cannot be told from it.</caption>"
    return f"<table style='font-size:13px'>{caption}<tr><td></td>{head}</tr>{rows}</table>"


class Grid(Still):
    """Workers x threads x items: choose how many items and which approach, and measure; the best cell is marked.

    Args:
        make: the workload of so many items.
        items: to choose from; the first is measured when the grid is made.
        workers, threads: of the grid's rows and columns.
        approaches: to choose from; their options must be workers and threads.
    """

    def __init__(
        self,
        make: Callable[[int], Workload],
        *,
        items: Sequence[int] = (4, 8, 16),
        workers: Sequence[int] = (1, 2, 4),
        threads: Sequence[int] = (1, 2),
        approaches: Sequence[str] = ("threads", "processes"),
    ) -> None:
        self._make, self._workers, self._threads = make, workers, threads
        wide = {"description_width": "initial"}
        self._items = widgets.Dropdown(options=list(items), value=items[0], description="images", style=wide)
        self._approach = widgets.Dropdown(
            options=list(approaches), value=approaches[0], description="approach", style=wide
        )
        self._table = widgets.HTML()
        self.cells: Cells = {}
        self.rates: Comparison  # what the cells are of
        super().__init__(widgets.HBox([self._items, self._approach]), self._table)
        self._measure()
        for control in (self._items, self._approach):
            control.observe(self._measure, "value")

    def _measure(self, change: object = None) -> None:
        self._table.value = "<i>measuring ...</i>"
        work = self._make(self._items.value)
        self.rates, self.cells = measured(work, self._approach.value, self._workers, self._threads)
        self._table.value = grid_html(self.cells, work.unit)

    def still(self) -> str:
        """The table as it was measured last, under what it was measured for."""
        return f"<p>{self._items.value} images, {self._approach.value}</p>{self._table.value}"

    def __repr__(self) -> str:
        return f"Grid({len(self._workers)} x {len(self._threads)})"
