"""A grid of measurements, workers x threads, with the best cell marked."""

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


def measured(
    work: Workload, approach: str, workers: Sequence[int], threads: Sequence[int], rounds: int = 0
) -> tuple[Cells, Comparison]:
    """Measure ``approach`` for all numbers of workers and of threads per worker, in the same interleaved rounds.

    Args:
        rounds: least number of rounds; never fewer than a verdict on this many cells needs.
    """
    names = {(w, t): f"{approach}(workers={w}, threads={t})" for w in workers for t in threads}
    count = max(rounds, least_rounds(len(names)))
    rates = compare(work, approaches=list(names.values()), rounds=count, progress=False)
    cells = {place: (rates.per_second(name), rates[name].ratio or Ratio(1, 1, 1)) for place, name in names.items()}
    return cells, rates


def best(cells: Cells) -> Setting:
    """The setting with the highest rate; the first one if several are equal."""
    return max(cells, key=lambda place: cells[place][0])


def alike(cells: Cells) -> list[Setting]:
    """The best setting, and all settings whose intervals overlap its interval: the rounds cannot rank these."""
    return [place for place, (_rate, ratio) in cells.items() if ratio.high >= cells[best(cells)][1].low]


def grid_html(cells: Cells, unit: str, doubt: str | None = None, kind: str = "OpenCV thread") -> str:
    """The grid as an HTML table: a row for each number of workers; the best in a frame, with a star.

    Args:
        doubt: why the rounds allow no verdict; then no cell is marked.
        kind: of the threads that each worker has, in the singular.
    """
    workers, threads = (list(dict.fromkeys(side)) for side in zip(*cells, strict=True))
    top, near = best(cells), alike(cells)
    legend = (
        f"not decided which cell is fastest: {doubt}"
        if doubt
        else "&#9733; highest in these rounds, ~ not decided whether slower than that"
    )
    head = "".join(f"<th scope='col' style='padding:6px'>{t} {kind}{'s' * (t > 1)} each</th>" for t in threads)
    rows = ""
    for w in workers:
        rows += f"<tr><th scope='row'>{w} worker{'s' * (w > 1)}</th>"
        for t in threads:
            first = (w, t) == top and not doubt
            mark = "&#9733; " if first else "~ " if (w, t) in near and not doubt else ""
            frame = f"inset 0 0 0 2px {OKABE_ITO[5]}" if first else "none"
            length = f"{cells[w, t][0] / cells[top][0]:.0%}"
            bar = f"linear-gradient(to right, {OKABE_ITO[0]}55 {length}, transparent {length})"
            style = f"padding:6px 12px;text-align:right;box-shadow:{frame};background:{bar}"
            rows += f"<td style='{style}'>{mark}{cells[w, t][0]:,.1f}</td>"
        rows += "</tr>"
    caption = f"<caption style='color:{NEUTRAL}'>{unit} a second; {legend}.</caption>"
    return f"<table style='font-size:13px'>{caption}<tr><td></td>{head}</tr>{rows}</table>"


class Grid(Still):
    """Choose the number of items and the approach, and measure workers x threads; the best cell is marked.

    Args:
        make: makes the workload with a given number of items.
        items: numbers of items to choose from; the first is measured when the grid is created.
        workers, threads: numbers of the grid's rows and columns.
        approaches: names to choose from; their options must be workers and threads.
        label: name of the items.
        kind: of the threads that each worker has, in the singular.
        rounds: least number of rounds of a measurement.
    """

    def __init__(
        self,
        make: Callable[[int], Workload],
        *,
        items: Sequence[int] = (4, 8, 16),
        workers: Sequence[int] = (1, 2, 4),
        threads: Sequence[int] = (1, 2),
        approaches: Sequence[str] = ("threads", "processes"),
        label: str = "images",
        kind: str = "OpenCV thread",
        rounds: int = 0,
    ) -> None:
        self._make, self._workers, self._threads = make, workers, threads
        self._label, self._kind, self._rounds = label, kind, rounds
        wide = {"description_width": "initial"}
        self._items = widgets.Dropdown(options=list(items), value=items[0], description=label, style=wide)
        self._approach = widgets.Dropdown(
            options=list(approaches), value=approaches[0], description="approach", style=wide
        )
        self._table = widgets.HTML()
        self.cells: Cells = {}
        self.comparison: Comparison  # that the cells were measured in
        self.doubt: str | None = None  # why its rounds decide nothing
        super().__init__(widgets.HBox([self._items, self._approach]), self._table)
        self._measure()
        for control in (self._items, self._approach):
            control.observe(self._measure, "value")

    def _measure(self, change: object = None) -> None:
        self._table.value = "<i>measuring ...</i>"
        work = self._make(self._items.value)
        found = measured(work, self._approach.value, self._workers, self._threads, self._rounds)
        self.cells, self.comparison = found
        self.doubt = next((row.doubt for row in self.comparison.rows if row.doubt), None)
        self._table.value = grid_html(self.cells, work.unit, self.doubt, self._kind)
        self.renew()  # the copy that the output holds is of what was measured before

    def still(self) -> str:
        """The last measured table as HTML, under its number of items and its approach."""
        return f"<p>{self._items.value} {self._label}, {self._approach.value}</p>{self._table.value}"

    def __repr__(self) -> str:
        return f"Grid({len(self._workers)} x {len(self._threads)})"
