"""The Comparison as data: the timings of each approach, and the verdict on each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kit.equality import Equality
from kit.errors import UnknownNameError
from kit.machine.about import About, about_here
from kit.machine.load import Taken
from kit.measuring.breakdown import RoundBreakdown
from kit.measuring.records import Format, load_record, save_record
from kit.reprs import one_line
from kit.text import as_fast, html_table, in_columns, milliseconds, times
from kit.trace import Trace
from kit.trace.kernels import Kernels

SMALLEST_EFFECT = 0.01  # two copies of one network can differ by this much for reasons of memory layout

Verdict = Literal["baseline", "faster", "slower", "no difference found", "not decided", "wrong output", "not available"]


@one_line
class Ratio(NamedTuple):
    """Speed-up over the baseline: the baseline's time / this approach's time. Above 1 is faster."""

    estimate: float  # median of the rounds' ratios
    low: float  # interval of that median, such that all of a table's hold in at least 95% of tables
    high: float

    @property
    def verdict(self) -> Literal["faster", "slower", "no difference found"]:
        """Faster or slower only if the whole interval is more than 1% away from 1."""
        if self.low > 1 + SMALLEST_EFFECT:
            return "faster"
        return "slower" if self.high < 1 - SMALLEST_EFFECT else "no difference found"

    def __str__(self) -> str:
        """``1.63x [1.58, 1.7]``; below 0.1, ``36x slower [34, 39]``."""
        if 0 < self.low <= self.estimate < 0.1:
            fewest, most = (f"{1 / each:,.{0 if each < 0.1 else 2}f}" for each in (self.high, self.low))
            return f"{1 / self.estimate:,.0f}x slower [{fewest}, {most}]"
        return f"{times(self.estimate)}x [{times(self.low)}, {times(self.high)}]"


@dataclass(frozen=True, eq=False)
class Timing:
    """The timings of one runner, over all rounds."""

    samples_ns: NDArray[np.float64]  # (rounds,) mean time of a call within each round's turn
    calls: int  # calls per turn
    trace: Trace  # spans of one call: of those that ended a round, the one whose time is nearest the rounds' median
    turns: tuple[RoundBreakdown | None, ...] = ()  # a round each: where its time went; None where no task ran
    latencies_ns: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))  # (rounds * calls,) each call alone

    @property
    def median_ms(self) -> float:
        """Median over the rounds, in milliseconds."""
        return float(np.median(self.samples_ns)) / 1e6

    def __repr__(self) -> str:
        return f"Timing({len(self.samples_ns)} rounds)"

    def percentile_ms(self, percent: float) -> float | None:
        """The percentile of the times of single calls, in ms; None if too few calls were made to know it."""
        if len(self.latencies_ns) * (100 - percent) < 100:
            return None
        return float(np.percentile(self.latencies_ns, percent)) / 1e6

    @property
    def quartile_ratio(self) -> float:
        """Upper quartile of the rounds' times / the lower quartile; 1 means no variation."""
        low, high = np.quantile(self.samples_ns, [0.25, 0.75])
        return float(high / low)


@dataclass(frozen=True, eq=False)
class Row:
    """One approach of a comparison."""

    name: str
    reason: str | None = None  # why it is not available here
    timing: Timing | None = None
    ratio: Ratio | None = None  # 1 for the baseline itself
    equality: Equality | None = None
    baseline: bool = False
    prepare_s: float = 0.0  # seconds of copying, exporting or compiling before the first call; in no timing
    paired_baseline: Timing | None = None  # the baseline's turns in the same rounds
    lane_threads: int | None = None  # intra-op threads of each lane; None: not known
    minimum_detectable_effect: float | None = None  # smallest relative change found with 90% power
    rewritten: bool = False  # whether it runs a rewritten model: its tasks are then not the baseline's
    decidable: bool = True  # whether so few rounds could tell so many rows apart
    doubt: str | None = None  # why its rounds decide nothing, or None: what :mod:`kit.measuring.gate` found
    kernels: Kernels | None = None  # that one call of it ran; None: not recorded
    # Where branches were found in the model: their turns one after the other in the same rounds; None: the baseline's.
    one_by_one: Timing | None = None

    @property
    def verdict(self) -> Verdict:
        """The verdict on this approach."""
        if self.timing is None or self.ratio is None or self.equality is None:
            return "not available"
        if self.baseline:
            return "baseline"
        if not self.equality.equal:
            return "wrong output"
        return self.ratio.verdict if self.decidable and self.doubt is None else "not decided"

    @property
    def ratio_text(self) -> str:
        """The speed-up as text, with its interval; without one if there were too few rounds."""
        if self.ratio is None or self.baseline:
            return "1" if self.baseline else "-"
        return str(self.ratio) if self.decidable else f"{times(self.ratio.estimate)}x"

    @property
    def speed_text(self) -> str:
        """The speed-up in words, or the verdict if it allows none: ``1.63x as fast``, ``36x slower``, "not decided"."""
        verdict = self.verdict
        return as_fast(self.ratio.estimate) if self.ratio and verdict in ("faster", "slower") else verdict

    @property
    def summary(self) -> str:
        """The verdict, with its reason; for no difference, the difference that would have been detected."""
        if self.verdict != "no difference found":
            why = self.reason or (self.doubt if self.verdict == "not decided" else None)
            return f"{self.verdict}: {why}" if why else self.verdict
        if (least := self.minimum_detectable_effect) is None:
            return self.verdict
        size = f"{least:.1%}" if least < 1 else f"a factor of {1 + least:.1f}"
        return f"{self.verdict}: {size} or more would have been detected"

    def __repr__(self) -> str:
        return f"Row({self.name})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "available": self.timing is not None,
            "reason": self.reason,
            "prepare_s": self.prepare_s,
            "median_ms": self.timing and self.timing.median_ms,
            "latency_ms": self.timing and {f"p{p}": self.timing.percentile_ms(p) for p in (50, 95, 99)},
            "ratio": self.ratio and self.ratio._asdict(),
            "equal": self.equality and self.equality.equal,
            "max_abs_error": self.equality and self.equality.max_abs_error,
            "verdict": self.verdict,
            "minimum_detectable_effect": self.minimum_detectable_effect,
        }


@dataclass(frozen=True, eq=False)
class Comparison:
    """Approaches measured on the same inputs in interleaved rounds, the baseline first.

    >>> x = torch.rand(64, 64)
    >>> mine = {"matmul": lambda: x @ x, "einsum": lambda: torch.einsum("ij,jk->ik", x, x)}
    >>> comparison = kit.compare(kit.Workload("product", None, (), approaches=mine), rounds=6, progress=False)
    >>> [row.name for row in comparison.rows]
    ['matmul', 'einsum']
    >>> comparison["einsum"].equality.equal
    True
    >>> comparison.save("product.json")
    """

    rows: tuple[Row, ...]
    rounds: int
    inputs: str  # their shapes, dtypes and devices
    caveats: tuple[str, ...] = ()  # what a reader must know before believing the table
    branches_alone: Mapping[int, Timing] = field(default_factory=dict)  # one by one; by intra-op threads
    cores: int = 1  # that this process could use
    core_scaling: Ratio | None = None  # of independent work: the speed on all cores over that on one
    device: str = "cpu"  # or "cuda", where any of the inputs or outputs is on a GPU
    items: int = 1  # that one call gets through
    unit: str = "call"  # what the items are, as in "images"
    taken: Taken | None = None  # what others took of the cores during the rounds; None: not known
    about: About = field(default_factory=about_here)  # when, by which command, and on which machine it was measured

    def __getitem__(self, name: str) -> Row:
        """The row of that name.

        Raises:
            UnknownNameError: there is none; its text names those that there are.
        """
        rows = {row.name: row for row in self.rows}
        if name not in rows:
            raise UnknownNameError("row", name, rows)
        return rows[name]

    @property
    def baseline(self) -> Row:
        """The row with which all others are compared: the first."""
        return self.rows[0]

    @property
    def latency(self) -> bool:
        """Whether it measures the time of one request; otherwise it measures items per second."""
        return self.unit == "call"

    def per_second(self, name: str) -> float:
        """Items per second of one approach, from the median of its rounds; NaN if it could not run.

        Raises:
            KeyError: no such row.
        """
        timing = self[name].timing
        return self.items / timing.median_ms * 1000 if timing else float("nan")

    @property
    def traces(self) -> dict[str, Trace]:
        """Approach -> the spans of one of its measured calls, whose time is near the median of its rounds."""
        return {row.name: replace(row.timing.trace, about=self.about.to_dict()) for row in self.rows if row.timing}

    def save(self, path: str | Path) -> None:
        """Write the whole comparison as one JSON file, gzipped if the name ends in ``.gz``.

        Every sample is kept, so that :func:`kit.load_comparison` gives the same tables and explanations. An existing
        file of that name is replaced only when the new one is complete. ``docs/results.md`` describes the format.

        Raises:
            KitError: the file cannot be written.
        """
        save_record(self, path, FORMAT)

    def value_text(self, row: Row) -> str:
        """How fast a row is, as text: the time of a call, or items per second."""
        return f"{self._speed(row.timing)} {'a call' if self.latency else f'{self.unit}/s'}" if row.timing else "-"

    def _speed(self, timing: Timing) -> str:
        return milliseconds(timing.median_ms) if self.latency else f"{self.items / timing.median_ms * 1000:,.4g}"

    def table(self) -> list[tuple[str, ...]]:
        """The header, then a row per approach, as text."""
        speed = "median" if self.latency else f"{self.unit}/s"
        head = ("approach", speed, f"speed-up over {self.baseline.name} [95%]", "same output", "verdict")
        lines: list[tuple[str, ...]] = [head]
        for row in self.rows:
            if row.timing is None or row.equality is None:
                lines.append((row.name, "-", "-", "-", row.summary))
                continue
            same = "-" if row.baseline else str(row.equality)
            few = f" ({n} separate rounds)" if (n := len(row.timing.samples_ns)) != self.rounds else ""
            prepared = f", prepared in {row.prepare_s:.1f} s" if row.prepare_s >= 0.1 else ""
            lines.append((row.name, f"{self._speed(row.timing)}{few}{prepared}", row.ratio_text, same, row.summary))
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: a summary without samples; :meth:`save` keeps all."""
        rows = [row.to_dict() for row in self.rows]
        if not self.latency:
            for plain in rows:
                del plain["latency_ms"]  # which would be that of all items
                plain["per_second"] = self.per_second(plain["name"]) if plain["available"] else None
        return {
            "device": self.device,
            "items": self.items,
            "unit": self.unit,
            "rounds": self.rounds,
            "inputs": self.inputs,
            "caveats": list(self.caveats),
            "taken": self.taken and self.taken._asdict(),
            "cores": self.cores,
            "core_scaling": self.core_scaling and self.core_scaling._asdict(),
            "approaches": rows,
        }

    def __str__(self) -> str:
        return "\n".join([*in_columns(self.table()), self.caption, *(f"! {caveat}" for caveat in self.caveats)])

    @property
    def caption(self) -> str:
        """How to read the table."""
        cores, by = self.cores, self.core_scaling
        ran = f" Check: independent work ran {by} as fast on {cores} cores as on one." if by else ""
        return (
            f"{self.rounds} interleaved rounds on {self.inputs}. Speed-up: the median of the rounds' own ratios, not "
            "the ratio of the medians; above 1 is faster. The intervals are corrected for comparing several rows (95% "
            f"for the whole table).{ran}"
        )

    def __repr__(self) -> str:  # no times: a notebook's stored output must not change from run to run
        names = ", ".join(row.name for row in self.rows)
        return f"{type(self).__name__}({names if len(names) <= 80 else f'{len(self.rows)} rows'}; {self.rounds} rounds)"

    def _repr_html_(self) -> str:
        return html_table(self.table(), [self.caption, *(f"\N{WARNING SIGN} {caveat}" for caveat in self.caveats)])


FORMAT = Format("kit comparison", 1, Timing, "timings")


def load_comparison(path: str | Path) -> Comparison:
    """A comparison that :meth:`Comparison.save` wrote: the same table, chart, timeline and explanation.

    >>> layer, x = nn.Linear(8, 8).eval(), torch.rand(1, 8)
    >>> kit.compare(layer, x, "sequential", rounds=6, progress=False).save("before.json.gz")
    >>> kit.load_comparison("before.json.gz")
    Comparison(sequential; 6 rounds)

    Raises:
        ResultError: the file is missing, truncated or damaged, is no comparison, or is of a newer version of the kit.
    """
    return load_record(Comparison, path, FORMAT)
