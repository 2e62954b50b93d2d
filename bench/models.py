"""``python -m bench.models [NAME ...]``: what the kit finds in networks of other people, and whether it is right.

A row for each network of :mod:`bench.zoo`, or for those named (a network, or one of the groups ``pytorchcv``,
``transformers`` and ``plain``): what :func:`kit.graph` says of it, and whether :func:`kit.branched` gives the outputs
of the model as given on inputs that it has not seen. A network that cannot be built, captured or called has its reason
in the row, and the next one follows. Writes ``build/bench_models.json``.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from bench.zoo import Entry, entries
from kit.equality import compare_outputs
from kit.errors import KitError
from kit.graphs import Graph
from kit.graphs.operators import WORTH_IT
from kit.verbs import branched, graph

OUT = Path("build/bench_models.json")
HEADER = ("model", "captured by", "s", "operators", "regions", "parallelism", "not s.-p.", "worth it here?", "equal?")


@dataclass(frozen=True)
class Row:
    """What was found in one network; the last fields are None where it was not captured."""

    group: str
    name: str
    total_seconds: float  # of everything in this row, building the network included
    refused: str = ""  # why there is no graph
    captured_by: str = ""
    seconds: float | None = None  # that capturing took
    operators: int | None = None
    regions: int | None = None  # nested ones too
    parallelism: float | None = None  # work by span
    not_series_parallel: float | None = None  # share of the work
    worth_it: str = ""
    equal: bool | None = None
    equality: str = ""  # in words: how far off, or what went wrong

    def cells(self) -> tuple[str, ...]:
        if self.refused:
            return (self.name, self.refused)
        return (
            self.name,
            self.captured_by,
            f"{self.seconds:.1f}",
            f"{self.operators:,}",
            f"{self.regions}",
            f"{self.parallelism:.2f}",
            f"{self.not_series_parallel:.0%}",
            self.worth_it,
            self.equality,
        )


def another_draw(inputs: Any, seed: int = 1) -> Any:
    """Inputs of the same shapes, dtypes and ranges: random numbers of the same spread, whole numbers shuffled."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        if not x.is_floating_point() or bool(((x == 0) | (x == 1)).all()):  # ids and masks
            return x.flatten()[torch.randperm(x.numel(), generator=generator)].view(x.shape)
        noise = torch.randn(x.shape, generator=generator)
        return (noise * x.float().std() + x.float().mean()).to(x.dtype)

    return tree_map(drawn, inputs)


def called(model: nn.Module, inputs: Any) -> Any:
    """The outputs for inputs of their own, so that a model that overwrites its inputs harms nobody."""
    inputs = copy.deepcopy(inputs)
    with torch.inference_mode():
        if isinstance(inputs, dict):
            return model(**inputs)
        return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def same_outputs(model: nn.Module, branched: nn.Module, inputs: Any) -> tuple[bool, str]:
    """Whether both give the same on another draw, and that in words."""
    drawn = another_draw(inputs)
    expected, found = called(model, drawn), called(branched, drawn)
    if type(expected) is not type(found):
        return False, f"NO, a {type(found).__name__} for a {type(expected).__name__}"
    if compare_outputs(expected, called(model, inputs)).equal:
        return False, "outputs do not react to the input, so nothing is shown"
    equality = compare_outputs(expected, found)
    return equality.equal, str(equality)


def worth_it(found: Graph) -> str:
    """How much faster at best on this machine, and whether that is something."""
    return f"{'yes' if found.pays >= WORTH_IT else 'no'}, {found.pays:.2f}x"


def examined(
    entry: Entry,
    graph: Callable[[nn.Module, Any], Graph] = graph,
    branched: Callable[[nn.Module, Any], nn.Module] = branched,
) -> Row:
    """The row of one network; no exception leaves it."""
    start = time.perf_counter()

    def row(**found: Any) -> Row:
        return Row(entry.group, entry.name, time.perf_counter() - start, **found)

    try:
        model, inputs = entry.make()
    except Exception as error:
        return row(refused=f"cannot be built: {in_one_line(error)}")
    try:
        seen = graph(model, inputs)
    except Exception as error:
        return row(refused=in_one_line(error))
    facts = {
        "captured_by": seen.captured_by,
        "seconds": seen.seconds,
        "operators": len(seen.operators),
        "regions": len(list(seen.all_regions())),
        "parallelism": seen.parallelism,
        "not_series_parallel": seen.not_series_parallel,
        "worth_it": worth_it(seen),
    }
    try:
        equal, words = same_outputs(model, branched(model, inputs), inputs)
    except Exception as error:
        equal, words = False, in_one_line(error)
    return row(**facts, equal=equal, equality=words)


def in_one_line(error: Exception) -> str:
    """A refusal of the kit in its own words, anything else with the name of the exception."""
    words = " ".join(str(error).split())
    return words if isinstance(error, KitError) else f"{type(error).__name__}: {words}"


def totals(rows: Sequence[Row]) -> list[str]:
    """Captured, and equal among the captured, for each group and in all; then the refusals."""
    lines = []
    for group in [*dict.fromkeys(row.group for row in rows), "all"]:
        some = [row for row in rows if group in ("all", row.group)]
        captured = [row for row in some if not row.refused]
        equal = sum(row.equal is True for row in captured)
        ways = Counter(row.captured_by for row in captured)
        lines.append(
            f"{group}: captured {share(len(captured), len(some))}, outputs equal {share(equal, len(captured))}"
            f" ({', '.join(f'{count} by {way}' for way, count in ways.items())})"
        )
    refused = [f"  {row.name}: {row.refused}" for row in rows if row.refused]
    return [*lines, *(["refused:", *refused] if refused else [])]


def share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.0%})" if whole else "0 of 0"


def chosen(names: Sequence[str], zoo: Sequence[Entry]) -> list[Entry]:
    """The networks with these names or of these groups; all without names.

    Raises:
        SystemExit: a name that is neither.
    """
    known = {entry.name for entry in zoo} | {entry.group for entry in zoo}
    if wrong := [name for name in names if name not in known]:
        raise SystemExit(f"not in the zoo: {', '.join(wrong)}. There are: {', '.join(sorted(known))}.")
    return [entry for entry in zoo if not names or entry.name in names or entry.group in names]


def main(names: Sequence[str]) -> None:
    zoo = chosen(names, entries())
    widths = [max(len(entry.name) for entry in zoo), 12, 5, 9, 7, 11, 9, 14, 0]
    line = "  ".join(f"{{:{width}}}" for width in widths)
    print(line.format(*HEADER).rstrip())
    rows = []
    for entry in zoo:
        row = examined(entry)
        rows.append(row)
        cells = row.cells()
        text = line.format(*cells) if not row.refused else f"{row.name:{widths[0]}}  refused: {row.refused}"
        print(text.rstrip(), flush=True)
    print("", *totals(rows), sep="\n")
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
