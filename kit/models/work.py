"""What any network asks for: its work, its span, and so how much of it could run at the same time."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kit import executors
from kit.equality import as_args, shapes
from kit.errors import KitError
from kit.executors import Executor, Task
from kit.inputs import called_with, opened
from kit.macs import macs_of
from kit.regions import regions
from kit.reprs import one_line
from kit.text import with_prefix


@one_line
@dataclass(frozen=True)
class Part:
    """Something that runs: a branch, a region, or a whole network. An operator here is one with MACs.

    Its span is what its regions say. Of parts that are in no region it is not known whether they need each other: they
    count as a chain, and where there is no region at all, nothing is said.
    """

    name: str
    macs: int  # multiply-accumulates of convolutions and matrix products: the work
    span_macs: int  # of them on the longest path, where every region counts with its longest branch only
    operators: int  # convolutions and matrix products
    span_operators: int  # of them on the path with the most
    parameters: int  # that the call read, each counted once
    activations: int  # elements that the operators wrote
    branches: tuple[Part, ...] = ()  # of a region
    regions_known: bool = True  # whether anything is known of what could run at the same time

    @property
    def parallelism(self) -> float:
        """Work by span, by MACs: with cores without end, the call could be this many times as fast. 1 is a chain.

        NaN where no region is known: that is no statement about the network.
        """
        return self._by_span(self.macs, self.span_macs)

    @property
    def parallelism_by_operators(self) -> float:
        """The same if all operators took the same time."""
        return self._by_span(self.operators, self.span_operators)

    def _by_span(self, work: int, span: int) -> float:
        if not self.regions_known:
            return math.nan
        return work / span if span else 1.0

    @property
    def cells(self) -> tuple[str, ...]:
        """Its row of the table."""
        return (
            self.name,
            with_prefix(self.macs),
            with_prefix(self.span_macs) if self.regions_known else "-",
            f"{self.parallelism:.2f}" if self.regions_known else "-",
            str(self.operators),
            f"{self.parallelism_by_operators:.2f}" if self.regions_known else "-",
            with_prefix(self.parameters),
            with_prefix(self.activations),
        )


@dataclass(frozen=True)
class Description:
    """A network's regions, and the network as a whole."""

    whole: Part  # all that ran, in regions and between them
    regions: tuple[Part, ...]  # in the order in which they run; an outer one before those within its branches
    inputs: str  # their shapes, dtypes and devices

    def __getitem__(self, name: str) -> Part:
        for part in self.regions:
            if part.name == name:
                return part
        raise KeyError(f"there is no region {name!r}; there are {', '.join(part.name for part in self.regions)}")

    def table(self) -> list[tuple[str, ...]]:
        """The header, then a row for the whole, each region, and each of its branches."""
        head = ("part", "MACs", "on the span", "parallelism", "operators", "by operators", "parameters", "activations")
        lines = [head, self.whole.cells]
        for region in self.regions:
            lines += [region.cells, *((f"- {branch.name}", *branch.cells[1:]) for branch in region.branches)]
        return lines

    @property
    def caption(self) -> str:
        """How to read the table."""
        if not self.regions:
            return (
                f"One call on {self.inputs}. No kit.Branches ran in {self.whole.name}, so it is not known which of its "
                "parts could run at the same time: this says nothing of its parallelism."
            )
        return (
            f"One call on {self.inputs}. Parallelism is MACs by those on the span, the longest path; 'by operators' "
            "counts each convolution or matrix product as one. What is in no region counts as a chain."
        )

    def __str__(self) -> str:
        table = self.table()
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        lines = [
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in table
        ]
        return "\n".join([*lines, self.caption])

    def __repr__(self) -> str:
        start = f"Description({self.whole.name}: {with_prefix(self.whole.macs)}MACs"
        if not self.regions:
            return f"{start}, parallelism not known; regions: 0)"
        return (
            f"{start}, parallelism {self.whole.parallelism:.2f} by "
            f"MACs, {self.whole.parallelism_by_operators:.2f} by operators; regions: {len(self.regions)})"
        )

    def _repr_html_(self) -> str:
        rows = ""
        for line in self.table():
            tag = "td" if line[0].startswith("- ") else "th"
            sides = ("left", *["right"] * (len(line) - 1))
            cells = [
                f"<{tag} style='text-align:{side}'>{html.escape(cell)}" for cell, side in zip(line, sides, strict=True)
            ]
            rows += f"<tr>{''.join(cells)}</tr>"
        return f"<table>{rows}</table><p>{html.escape(self.caption)}</p>"


@dataclass
class _Tally:
    """What has run so far in one branch, or in the network outside of branches."""

    work: Counter[str] = field(default_factory=Counter)  # macs, operators, activations
    span: Counter[str] = field(default_factory=Counter)
    parameters: dict[int, int] = field(default_factory=dict)  # id -> elements

    def join(self, branches: Sequence[_Tally]) -> None:
        """After a region: its branches' work adds up, of their spans the longest counts."""
        for branch in branches:
            self.work += branch.work
            self.parameters |= branch.parameters
        for unit in ("macs", "operators"):
            self.span[unit] += max(branch.span[unit] for branch in branches)

    def part(self, name: str, branches: tuple[Part, ...] = ()) -> Part:
        work, span = self.work, self.span
        counts = work["macs"], span["macs"], work["operators"], span["operators"]
        return Part(name, *counts, sum(self.parameters.values()), work["activations"], branches)


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator that PyTorch dispatches, and adds it to the innermost tally."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tally = _Tally()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with self:  # in inference mode operators come whole, before they become the ones that the registry knows
            out = func.decompose(*args, **(kwargs or {}))
        if out is not NotImplemented:
            return out
        out = func(*args, **(kwargs or {}))
        self.tally.parameters |= {id(x): x.numel() for x in tree_leaves(args) if isinstance(x, nn.Parameter)}
        if (macs := macs_of(func.overloadpacket, args, kwargs or {}, out)) is not None:
            written = sum(x.numel() for x in as_args(out) if isinstance(x, Tensor))
            operator = Counter(macs=macs, operators=1, activations=written)
            self.tally.work += operator
            self.tally.span += operator
        return out


@contextmanager
def _in_plain_operators() -> Iterator[None]:
    """Without the fused transformer layer of inference, one operator in which nothing can be counted."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Regions(Executor):
    """Runs branches one after the other, each with a tally of its own; nested regions come here too."""

    def __init__(self, counter: _Counting, names: dict[nn.Module, str]) -> None:
        self.counter = counter
        self.names = names  # of those that are modules of the model; a plain list may hold more
        self.found: list[Part] = []

    def fork_join(self, tasks: Sequence[Task], merge: Any) -> Any:
        region = merge.__self__  # it is a method of the region
        return merge(self._counted(tasks, self.names.get(region, type(region).__name__)))

    def run(self, tasks: Sequence[Task]) -> list[Any]:
        return self._counted(tasks, "tasks")

    def _counted(self, tasks: Sequence[Task], name: str) -> list[Any]:
        outside, place = self.counter.tally, len(self.found)
        outputs, tallies = [], []
        for task in tasks:
            self.counter.tally = _Tally()
            outputs.append(task())
            tallies.append(self.counter.tally)
        region = _Tally()
        region.join(tallies)
        outside.join(tallies)
        self.counter.tally = outside
        branches = tuple(tally.part(task.name) for task, tally in zip(tasks, tallies, strict=True))
        self.found.insert(place, region.part(name, branches))
        return outputs


def describe(model: nn.Module, inputs: Any) -> Description:
    """Count what one call of any model asks for, by running it once on its device (``meta`` computes nothing).

    Work is what all branches do together; the span is what the longest path does, where a region counts with its
    longest branch, and a region within a branch likewise. A merge counts to what is around its region. Operators are
    those that PyTorch's own counter of FLOPs knows: convolutions, matrix products, attention.

    >>> describe(inception_v3(), torch.rand(1, 3, 299, 299)).whole.parallelism

    Args:
        model: in eval mode.
        inputs: a tensor, a tuple of the model's arguments, or a dict of its keyword arguments.

    Raises:
        KitError: no ``nn.Module``, or one in training mode, whose batch norm the call would change.
        ShapeError: inputs that the model does not take.
        TaskError: a branch raised on these inputs.
    """
    call, args = opened(model, inputs, computes=False)
    if model.training:
        raise KitError(
            f"{type(model).__name__} is in training mode, which a call would change: call model.eval() first."
        )
    title = type(model).__name__
    names: dict[nn.Module, str] = {region: name or title for name, region in regions(model)}
    counter = _Counting()
    executor = _Regions(counter, names)
    with called_with(call, args), torch.no_grad(), executors.use(executor), _in_plain_operators(), counter:
        call(*args)
    whole = replace(counter.tally.part(title), regions_known=bool(executor.found))
    return Description(whole, tuple(executor.found), shapes(inputs))
