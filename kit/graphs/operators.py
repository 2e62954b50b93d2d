"""A model as a graph of operators and their dependencies: how much of it could run at the same time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from kit.reprs import one_line
from kit.text import counted, html_table, in_columns, milliseconds, with_prefix

Unit = Literal["ms", "macs", "operators"]
WORTH_IT = 1.05  # times as fast, at best: less is not called a gain


@one_line
@dataclass(frozen=True)
class Operator:
    """One call of the captured graph: a layer of torch, or an operator between layers."""

    name: str  # unique in the graph
    kind: str  # what it computes, as in "Conv2d", "cat" or "relu"
    module: str  # qualified name of the module of the model that it belongs to; "" is the model itself
    shape: str  # of its output, as in "1x64x35x35"; of several, with commas between
    macs: int  # multiply-accumulates of convolutions and matrix products
    ms: float  # measured on one thread; NaN where nothing was measured
    data: tuple[int, ...]  # indices of the operators whose results it takes
    order: tuple[int, ...]  # indices of those that have to end before, although it takes nothing from them


@one_line
@dataclass(frozen=True)
class Branch:
    """Operators that do not depend on the region's other branches."""

    name: str
    operators: tuple[int, ...]  # indices, those of nested regions too
    regions: tuple[Region, ...] = ()  # nested


@one_line
@dataclass(frozen=True)
class Region:
    """Independent branches that begin after the same operator and join again."""

    name: str  # of the module that it is in
    branches: tuple[Branch, ...]


@one_line
@dataclass(frozen=True)
class Cost:
    """The cost of some operators: their sum (work), and the sum on the longest path (span)."""

    work: float
    span: float

    @property
    def parallelism(self) -> float:
        """Work / span: the speed-up with unlimited cores; 1 for a chain of operators."""
        return self.work / self.span if self.span else 1.0


@one_line
@dataclass(frozen=True)
class Worth:
    """How much time running the branches of a region at the same time could save on this machine, at best."""

    region: str
    one_by_one_ms: float  # all branches, on one thread
    least_ms: float  # the longest branch, or an equal share of the work for each core: the larger of the two
    handing_over_ms: float  # what it costs here to start the branches on threads and to join them

    @property
    def saves_ms(self) -> float:
        """Milliseconds saved at best; negative if the overhead of threads is larger than the gain."""
        return self.one_by_one_ms - self.least_ms - self.handing_over_ms

    @property
    def pays(self) -> bool:
        """Whether the region could gain at least ``WORTH_IT``."""
        return self.one_by_one_ms >= WORTH_IT * (self.least_ms + self.handing_over_ms)


@one_line
@dataclass(frozen=True)
class Graph:
    """The result of :func:`kit.graph`: operators, their dependencies, and the regions found among them."""

    name: str  # the model's class
    inputs: str  # their shapes, dtypes and devices
    captured_by: str  # "torch.fx" or "torch.export"
    seconds: float = field(repr=False)  # that capturing took
    operators: tuple[Operator, ...]  # in the order of the program, in which they can run one after the other
    regions: tuple[Region, ...]  # the outermost, in the order of the program
    # Operators that are neither a sequence nor a fork: not series-parallel.
    knots: tuple[tuple[int, ...], ...] = field(repr=False)
    cores: int = field(repr=False)  # of this machine
    # What it costs here to start a region of four empty branches on threads, and to join them.
    handing_over_ms: float = field(default=math.nan, repr=False)

    @cached_property
    def measured(self) -> bool:
        """Whether the operators' times are known."""
        return not any(math.isnan(each.ms) for each in self.operators)

    def cost(self, part: Region | Branch | None = None, by: Unit = "macs") -> Cost:
        """Work and span of a region, of a branch, or of the whole graph.

        Args:
            by: milliseconds of each operator on one thread (NaN if not measured), multiply-accumulates, or the number
                of operators that have multiply-accumulates, as if a small convolution took as long as a large one.
        """
        some = range(len(self.operators)) if part is None else _operators_of(part)
        cost = _COSTS[by]
        if by == "ms" and not self.measured:
            return Cost(math.nan, math.nan)
        path = self._longest_path(cost, some)
        return Cost(*(sum(cost(self.operators[i]) for i in indices) for indices in (some, path)))

    @cached_property
    def work_ms(self) -> float:
        """T1: milliseconds of all operators, one after the other on one thread; NaN if not measured."""
        return self.cost(by="ms").work

    @cached_property
    def span_ms(self) -> float:
        """Tinf: milliseconds of the operators on the critical path; NaN if not measured."""
        return self.cost(by="ms").span

    @property
    def parallelism(self) -> float:
        """Work / span: the speed-up of a call with unlimited cores; 1 for a chain of operators.

        By milliseconds if they were measured, else by MACs.
        """
        return self.work_ms / self.span_ms if self.measured and self.span_ms else self.parallelism_by_macs

    @cached_property
    def parallelism_by_macs(self) -> float:
        return self.cost(by="macs").parallelism

    @cached_property
    def critical_path(self) -> tuple[int, ...]:
        """Indices of the operators on the longest path, by milliseconds if measured, else by MACs."""
        return self._longest_path(_COSTS["ms" if self.measured else "macs"], range(len(self.operators)))

    @cached_property
    def not_series_parallel(self) -> float:
        """Share of the work, from 0 to 1, in operators that are neither a sequence nor a fork."""
        return self._share(i for knot in self.knots for i in knot)

    @cached_property
    def in_regions(self) -> float:
        """Share of the work, from 0 to 1, in the branches of regions."""
        return self._share(i for region in self.regions for branch in region.branches for i in branch.operators)

    def all_regions(self) -> Iterator[Region]:
        """Every region, an outer one before those within its branches."""
        yield from _with_nested(self.regions)

    def worth(self, region: Region) -> Worth:
        """What running its branches at the same time could save here, less the overhead of threads."""
        sides = [self.cost(branch, "ms").work for branch in region.branches]
        least = max(max(sides), sum(sides) / self.cores)
        return Worth(region.name, sum(sides), least, self.handing_over_ms)

    @property
    def pays(self) -> float:
        """The speed-up, at best, if the branches of all regions that pay run at the same time on this machine."""
        saved = sum(worth.saves_ms for region in self.regions if (worth := self.worth(region)).pays)
        return self.work_ms / (self.work_ms - saved) if self.work_ms > saved else 1.0

    @property
    def answer(self) -> str:
        """Whether running parts at the same time can make the model faster, in a sentence with numbers."""
        if not self.measured:
            return f"{self.name} has a parallelism of {self.parallelism:.2f} by MACs; its operators were not measured."
        chain = f"its critical path takes {milliseconds(self.span_ms)} of {milliseconds(self.work_ms)} on one thread"
        if self.parallelism < WORTH_IT:
            return (
                f"There is nothing to gain from running parts of {self.name} at the same time: {chain}, so even with "
                f"unlimited cores it would be at most {self.parallelism:.2f}x as fast."
            )
        if self.pays >= WORTH_IT:
            count = sum(self.worth(region).pays for region in self.regions)
            return (
                f"Running the branches of {counted(count, 'region')} of {self.name} at the same time, each on one "
                f"thread, can make it at best {self.pays:.2f}x as fast on {self.cores} cores as on one; {chain}. By "
                "default PyTorch splits each operator over all cores: only a measurement shows which is faster here."
            )
        if self.not_series_parallel > 0.5:
            return (
                f"{self.name} has a parallelism of {self.parallelism:.2f}, but {self.not_series_parallel:.0%} of its "
                "work is in parts that do not fork and join, so branches cannot use this parallelism."
            )
        return (
            f"There is little to gain from running parts of {self.name} at the same time: at best {self.pays:.2f}x as "
            f"fast on {counted(self.cores, 'core')}, where handing the branches of a region to threads costs "
            f"{milliseconds(self.handing_over_ms)}; {chain}."
        )

    def table(self) -> list[tuple[str, ...]]:
        """The header, then a row for each region."""
        rows: list[tuple[str, ...]] = [
            ("region", "branches", "MACs", "one by one", f"on {counted(self.cores, 'core')}", "saves", "worth a fork?")
        ]
        for region in self.all_regions():
            worth = self.worth(region)
            macs = int(self.cost(region).work)
            said = ["-", "-", "-", "-"]
            if self.measured:
                found = (worth.one_by_one_ms, worth.least_ms, max(0.0, worth.saves_ms))
                said = [
                    *map(milliseconds, found),
                    "could pay" if worth.pays and self.pays >= WORTH_IT else "found, not worth it",
                ]
            names = ", ".join(each.name for each in region.branches)
            rows.append((region.name or self.name, names, with_prefix(macs), *said))
        return rows

    @property
    def caption(self) -> str:
        """What was captured, and how much of it could run at the same time, as text."""
        return (
            f"{self.name} on {self.inputs}: {len(self.operators)} operators, captured by {self.captured_by} in "
            f"{self.seconds:.1f} s. Parallelism {self.parallelism:.2f}, by MACs {self.parallelism_by_macs:.2f}. "
            f"{self.in_regions:.0%} of the work is in {counted(len(self.regions), 'region')}, "
            f"{self.not_series_parallel:.0%} in parts that neither follow each other nor fork and join."
        )

    @property
    def legend(self) -> str:
        """How to read the table."""
        return (
            "A region is where branches begin after the same operator and join again. One by one: its branches on one "
            f"thread. On {counted(self.cores, 'core')}: the longest branch, or an equal share of the work for each "
            f"core, whichever is larger. Saves: the difference, less {milliseconds(self.handing_over_ms)} to hand the "
            f"branches to threads. A fork could pay where region and model gain {WORTH_IT - 1:.0%} or more."
        )

    def __str__(self) -> str:
        explained = [*in_columns(self.table()), *([self.legend] if self.measured else [])] if self.regions else []
        return "\n".join([self.caption, *explained, self.answer])

    def _repr_html_(self) -> str:
        legend = [self.legend] if self.regions and self.measured else []
        return html_table(self.table(), [self.caption, self.answer, *legend])

    def _share(self, indices: Iterator[int]) -> float:
        cost = _COSTS["ms" if self.measured else "macs"]
        whole = sum(map(cost, self.operators))
        return sum(cost(self.operators[i]) for i in indices) / whole if whole else 0.0

    def _longest_path(self, cost: Callable[[Operator], float], some: Sequence[int]) -> tuple[int, ...]:
        ends: dict[int, float] = {}
        before: dict[int, int | None] = {}
        for i in some:
            each = self.operators[i]
            last = max((j for j in (*each.data, *each.order) if j in ends), key=ends.__getitem__, default=None)
            before[i], ends[i] = last, cost(each) + (0.0 if last is None else ends[last])
        path: list[int] = []
        at = max(ends, key=ends.__getitem__, default=None)
        while at is not None:
            path.append(at)
            at = before[at]
        return tuple(reversed(path))


# What an operator counts.
_COSTS: dict[Unit, Callable[[Operator], float]] = {
    "ms": lambda each: each.ms,
    "macs": lambda each: each.macs,
    "operators": lambda each: float(each.macs > 0),
}


def _operators_of(part: Region | Branch) -> list[int]:
    if isinstance(part, Branch):
        return list(part.operators)
    return sorted(i for branch in part.branches for i in branch.operators)


def _with_nested(regions: tuple[Region, ...]) -> Iterator[Region]:
    for region in regions:
        yield region
        for branch in region.branches:
            yield from _with_nested(branch.regions)
