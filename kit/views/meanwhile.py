"""How long cells of the same kernel ran during a measurement: they share its cores and its GIL."""

from __future__ import annotations

import time
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from kit.machine.load import NOTABLE
from kit.measuring.comparison import Comparison


class Meanwhile:
    """Notes in its block when cells run; outside of IPython there are none."""

    def __init__(self) -> None:
        self._shell: Any = None
        self._cells_s, self._began = 0.0, time.monotonic()
        self._cell: float | None = None  # when the cell began that runs now

    def __enter__(self) -> Self:
        from IPython import get_ipython

        self._shell = get_ipython()
        if self._shell is not None:
            self._shell.events.register("pre_run_cell", self._begin)
            self._shell.events.register("post_run_cell", self._end)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()
        if self._shell is not None:
            self._shell.events.unregister("pre_run_cell", self._begin)
            self._shell.events.unregister("post_run_cell", self._end)

    def _begin(self, _info: object) -> None:
        self._cell = time.monotonic()

    def _end(self, _result: object = None) -> None:
        if self._cell is not None:
            self._cells_s += time.monotonic() - self._cell
            self._cell = None

    @property
    def share(self) -> float:
        """Share of the time, from 0 to 1, during which a cell ran."""
        return self._cells_s / max(time.monotonic() - self._began, 1e-9)

    def doubted(self, comparison: Comparison) -> Comparison:
        """The comparison as it is; with a doubt in each row if cells ran for more than a tenth of the time."""
        if self.share <= NOTABLE:
            return comparison
        why = f"cells of this notebook ran for {self.share:.0%} of the time: run it again while no cell runs"
        rows = (row if row.baseline or row.timing is None else replace(row, doubt=why) for row in comparison.rows)
        return replace(comparison, rows=tuple(rows))
