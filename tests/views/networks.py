"""Graphs of the shape that ``kit.graph`` gives, built by code: an Inception of 300 operators, a NASNet of 1,000."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Operator:
    name: str
    kind: str
    module: str
    shape: str
    macs: int
    ms: float
    data: tuple[int, ...]
    order: tuple[int, ...] = ()


@dataclass(frozen=True)
class Branch:
    name: str
    operators: tuple[int, ...]
    regions: tuple[Region, ...] = ()


@dataclass(frozen=True)
class Region:
    name: str
    branches: tuple[Branch, ...]


@dataclass(frozen=True)
class Graph:
    name: str
    inputs: str
    operators: tuple[Operator, ...]
    regions: tuple[Region, ...] = ()
    knots: tuple[tuple[int, ...], ...] = ()
    captured_by: str = "torch.fx"
    seconds: float = 0.5
    answer: str = "There is an answer."

    def all_regions(self) -> Iterator[Region]:
        waiting = list(self.regions)
        for region in waiting:
            yield region
            waiting += [each for branch in region.branches for each in branch.regions]

    @property
    def critical_path(self) -> tuple[int, ...]:
        end: list[float] = []
        before: list[int] = []
        for operator in self.operators:
            ends = [(end[i], i) for i in (*operator.data, *operator.order)]
            latest, which = max(ends, default=(0.0, -1))
            cost = operator.macs / 1e6 if math.isnan(operator.ms) else operator.ms
            end.append(latest + cost + 1e-9)
            before.append(which)
        path = [max(range(len(end)), key=end.__getitem__)] if end else []
        while path and before[path[-1]] >= 0:
            path.append(before[path[-1]])
        return tuple(reversed(path))

    def __str__(self) -> str:
        return f"{self.name}: {len(self.operators)} operators"


class Builder:
    """Operators one after the other; each method returns the index of what it added."""

    def __init__(self, measured: bool = True) -> None:
        self.operators: list[Operator] = []
        self.regions: list[Region] = []
        self.measured = measured

    def add(
        self,
        kind: str,
        module: str,
        *data: int,
        ms: float = 0.05,
        shape: str = "1x64x35x35",
        order: tuple[int, ...] = (),
    ) -> int:
        name = f"{module}.{kind.lower()}_{len(self.operators)}".lstrip(".").replace(".", "_")
        measured = ms if self.measured else math.nan
        self.operators.append(Operator(name, kind, module, shape, int(ms * 1e6), measured, tuple(data), order))
        return len(self.operators) - 1

    def conv(self, module: str, source: int, ms: float = 0.4, shape: str = "1x64x35x35") -> int:
        """A convolution, its normalisation and its activation, as pytorchcv's ConvBlock."""
        made = self.add("Conv2d", f"{module}.conv", source, ms=ms, shape=shape)
        made = self.add("BatchNorm2d", f"{module}.bn", made, ms=ms / 10, shape=shape)
        return self.add("ReLU", f"{module}.activ", made, ms=ms / 20, shape=shape)


def inception(measured: bool = True) -> Graph:
    """Inception v3 in pytorchcv's modules: 11 units of up to 6 branches, 300 operators."""
    build = Builder(measured)
    at = build.add("input", "", ms=0.0, shape="1x3x299x299")
    for i, ms in enumerate((0.9, 2.6, 4.1)):
        at = build.conv(f"features.init_block.conv{i + 1}", at, ms, f"1x{32 * (i + 1)}x147x147")
    stages = {1: (3, "1x288x35x35", 1.0), 2: (5, "1x768x17x17", 0.7), 3: (3, "1x2048x8x8", 0.5)}
    for stage, (units, shape, scale) in stages.items():
        for unit in range(1, units + 1):
            here = f"features.stage{stage}.unit{unit}"
            branches = []
            lengths = (1, 2, 3, 0) if stage == 1 else (1, 3, 5, 0) if stage == 2 else (1, 2, 4, 2)
            for number, length in enumerate(lengths, 1):
                first, end = len(build.operators), at
                where = f"{here}.branches.branch{number}"
                if not length or number == 4:
                    end = build.add("AvgPool2d", f"{where}.pool", end, ms=0.2 * scale, shape=shape)
                for k in range(max(1, length)):
                    end = build.conv(f"{where}.conv{k + 1}", end, (0.3 + 0.2 * number) * scale, shape)
                branches.append((f"branch{number}", tuple(range(first, len(build.operators))), end))
            at = build.add("cat", f"{here}.branches", *(end for *_, end in branches), ms=0.1, shape=shape)
            build.regions.append(Region(f"{here}.branches", tuple(Branch(n, inside) for n, inside, _ in branches)))
    at = build.add("AvgPool2d", "features.final_pool", at, shape="1x2048x1x1")
    at = build.add("view", "", at, ms=0.001, shape="1x2048")
    at = build.add("Dropout", "output.dropout", at, ms=0.001, shape="1x2048")
    build.add("Linear", "output.fc", at, ms=0.6, shape="1x1000")
    return Graph("InceptionV3", "1x3x299x299", tuple(build.operators), tuple(build.regions))


def nasnet(cells: int = 21) -> Graph:
    """A NASNet of 1,000 operators: each cell takes the two before it, sums pairs, joins them. Not series-parallel."""
    build = Builder()
    before = at = build.conv("features.init_block", build.add("input", "", ms=0.0, shape="1x3x224x224"), 2.0)
    for cell in range(cells):
        stage, unit = divmod(cell, 7)
        here = f"features.stage{stage + 1}.unit{unit + 1}"
        left, right = build.conv(f"{here}.conv1x1_prev", before, 0.2), build.conv(f"{here}.conv1x1", at, 0.2)
        sums = []
        for pair in range(5):
            ends = []
            for side, source in (("left", left), ("right", right if pair < 3 or not sums else sums[pair - 3])):
                where = f"{here}.comb{pair}_{side}"
                for k in range(2 if side == "left" else 1):
                    relu = build.add("ReLU", f"{where}.activ{k}", source, ms=0.02)
                    source = build.add("Conv2d", f"{where}.dw{k}", relu, ms=0.1 + 0.03 * pair)
                ends.append(build.add("BatchNorm2d", f"{where}.bn", source, ms=0.02))
            sums.append(build.add("add", here, *ends, ms=0.02))
        before, at = at, build.add("cat", here, *sums, ms=0.05, order=(left,))
    at = build.add("AvgPool2d", "features.final_pool", at)
    build.add("Linear", "output", build.add("view", "", at, ms=0.0), ms=0.3)
    knot = tuple(range(4, len(build.operators) - 3))  # from the first convolution to what follows the last cell
    return Graph("NASNet", "1x3x224x224", tuple(build.operators), knots=(knot,))
