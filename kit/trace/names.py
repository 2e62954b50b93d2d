"""The events of a trace by name: the table of operators by self time, with shapes if asked, and what two traces change.

Self time is that of :func:`kit.trace.metrics.self_ns`: the time in which an event is the innermost work of its lane, as
"Self CPU" in `torch.profiler's table <https://docs.pytorch.org/docs/stable/profiler.html>`_.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kit.reprs import one_line
from kit.text import time_text
from kit.trace.categories import DEVICE, Role, having
from kit.trace.columns import Interner, Trace
from kit.trace.metrics import self_ns, sums
from kit.trace.tables import Rows, named, share


@one_line
class NameRow(NamedTuple):
    """All events of one name, or of one name and the same input shapes."""

    name: str
    category: str
    events: int
    total_ns: int  # all durations added up
    self_ns: int  # without what runs inside them on the same lane; 0 for what is no work
    shapes: str = ""  # of the inputs, where they are asked for and recorded


class Names(Rows[NameRow]):
    """Rows by self time, the largest first.

    >>> from kit.trace import Event, Lane, Trace, by_name
    >>> main = Lane(1, 1, "main")
    >>> names = by_name(Trace.build([Event("outer", "task", 0, 300, main), Event("inner", "task", 100, 150, main)]))
    >>> [(row.name, row.total_ns, row.self_ns) for row in names]
    [('inner', 150, 150), ('outer', 300, 150)]
    """

    SHOWN = 10
    __slots__ = ()

    def table(self) -> list[tuple[str, ...]]:
        """The header, then a line for each row that is shown: self time, its share of all, and so on."""
        whole, shaped = sum(row.self_ns for row in self), any(row.shapes for row in self)
        head = ("self", "share", "total", "events", "name", *(("input shapes",) if shaped else ()))
        return [
            head,
            *(
                (time_text(row.self_ns), share(row.self_ns, whole), time_text(row.total_ns), f"{row.events:,}")
                + ((named(row.name), named(row.shapes)) if shaped else (named(row.name),))
                for row in self[: self.SHOWN]
            ),
        ]


def by_name(trace: Trace, shapes: bool = False) -> Names:
    """Number, total and self time of each name and category, the largest self time first.

    >>> from kit.trace import Event, Lane, Trace, by_name
    >>> main = Lane(1, 1, "main")
    >>> trace = Trace.build([Event("conv", "cpu_op", 0, 300, main), Event("conv", "cpu_op", 300, 200, main)])
    >>> print(by_name(trace))
    self    share   total   events  name
    500 ns  100.0%  500 ns  2       conv

    Args:
        shapes: tell operators apart by the shapes of their inputs too (``Input Dims`` of a recording that was made with
            ``record_shapes=True``). This reads the arguments of all operators: about a second for 100,000 of them.
    """
    key = trace.category.astype(np.int64) * len(trace.names) + trace.name
    texts: Interner | None = Interner() if shapes else None
    if texts is not None:
        shape = np.full(len(trace), texts[""], np.int64)
        operators = having(trace, Role.OPERATOR)
        shape[operators] = texts.of(map(_shapes, trace.args_of(operators)))
        key += shape * len(trace.names) * len(trace.categories)
    kinds, kind = np.unique(key, return_inverse=True)
    counts = np.bincount(kind, minlength=len(kinds)).tolist()
    total, own = (sums(kind, column, len(kinds)).tolist() for column in (trace.duration_ns, self_ns(trace)))
    known = list(texts) if texts is not None else [""]
    rows = []
    for place, n, all_ns, own_ns in zip(kinds.tolist(), counts, total, own, strict=True):
        place, name = divmod(place, len(trace.names))
        of_shape, category = divmod(place, len(trace.categories))
        rows.append(NameRow(trace.names[name], trace.categories[category], n, all_ns, own_ns, known[of_shape]))
    return Names(sorted(rows, key=lambda row: (-row.self_ns, row.name, row.category, row.shapes)))


def _shapes(args: dict[str, Any]) -> str:
    """``4x3x224x224, 64x3x7x7``: the inputs that are tensors; a list of tensors is in brackets."""
    dims = args.get("Input Dims", [])
    return ", ".join(filter(None, map(_shape, dims))) if isinstance(dims, list) else str(dims)


def _shape(dims: Any) -> str:
    if isinstance(dims, list) and dims and all(isinstance(each, list) for each in dims):
        return f"[{', '.join(map(_shape, dims))}]"
    return "x".join(map(str, dims)) if isinstance(dims, list) else str(dims)


@one_line
class Change(NamedTuple):
    """All events of one name, in two traces."""

    name: str
    before: int  # events
    before_ns: int  # their self time
    after: int
    after_ns: int

    @property
    def change_ns(self) -> int:
        """What the second trace takes more; negative: less."""
        return self.after_ns - self.before_ns


class Changes(Rows[Change]):
    """What changed from one trace to another, from the largest loss to the largest gain.

    >>> from kit.trace import Event, Lane, Trace, changes
    >>> main = Lane(1, 1, "main")
    >>> before = Trace.build([Event("aten::conv2d", "cpu_op", 0, 300, main)])
    >>> after = Trace.build([Event("aten::conv2d", "cpu_op", 0, 200, main)])
    >>> [(row.name, row.change_ns) for row in changes(before, after)]
    [('aten::conv2d', -100)]
    """

    SHOWN = 12
    __slots__ = ()

    def table(self) -> list[tuple[str, ...]]:
        """The header, then the losses, the gains and the sum. What does not change is only in the sum."""
        moved = sum(abs(row.change_ns) for row in self)
        told = self._told()
        columns = [sum(column) for column in zip(*(row[1:] for row in self), strict=True)] or [0] * 4
        return [
            ("name", "events", "self time", "change", "share of change"),
            *(_line(row, share(abs(row.change_ns), moved)) for row in told),
            _line(Change("together", *columns), ""),
        ]

    def notes(self) -> list[str]:
        """How many rows are not shown, or that there are none."""
        if not self:
            return ["nothing of this kind in either trace"]
        left = len(self) - len(self._told())
        return [f"and {left:,} more, which changed less or not at all"] if left > 0 else []

    def _told(self) -> list[Change]:
        """The rows that changed most, in order."""
        moved = [row for row in self if row.change_ns or row.before != row.after]
        least = sorted(moved, key=lambda row: -abs(row.change_ns))[: self.SHOWN]
        return [row for row in self if row in least]


def _line(row: Change, of_all: str) -> tuple[str, ...]:
    counts = f"{row.before:,} -> {row.after:,}"
    sign = "+" if row.change_ns > 0 else ""
    times = f"{time_text(row.before_ns)} -> {time_text(row.after_ns)}"
    return (named(row.name), counts, times, f"{sign}{time_text(row.change_ns)}", of_all)


def changes(before: Trace, after: Trace, *, kernels: bool = False) -> Changes:
    """How the operators of two traces differ, by name: number, self time, and the change of it.

    The rows are sorted from the largest loss (the second trace takes more) to the largest gain. The changes add up to
    the difference of all self times. Here calls into CUDA count for the operator that makes them, so its self time can
    be longer than in :func:`by_name`.

    >>> from kit.trace import Event, Lane, Trace, changes
    >>> main = Lane(1, 1, "main")
    >>> before = Trace.build([Event("conv", "cpu_op", 0, 300, main)])
    >>> after = Trace.build([Event("conv", "cpu_op", 0, 200, main), Event("relu", "cpu_op", 200, 50, main)])
    >>> print(changes(before, after))
    name      events  self time         change   share of change
    relu      0 -> 1  0 ns -> 50 ns     +50 ns   33.3%
    conv      1 -> 1  300 ns -> 200 ns  -100 ns  66.7%
    together  1 -> 2  300 ns -> 250 ns  -50 ns

    Args:
        kernels: compare what ran on GPUs, copies included, in place of operators.
    """
    wanted = DEVICE if kernels else (Role.OPERATOR,)
    sides = [_self_times(trace.take(having(trace, *wanted))) for trace in (before, after)]
    rows = [Change(name, *sides[0].get(name, (0, 0)), *sides[1].get(name, (0, 0))) for name in {**sides[0], **sides[1]}]
    return Changes(sorted(rows, key=lambda row: (-row.change_ns, row.name)))


def _self_times(trace: Trace) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for row in by_name(trace):
        events, own = found.get(row.name, (0, 0))
        found[row.name] = (events + row.events, own + row.self_ns)
    return found
