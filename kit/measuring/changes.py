"""What changed between two saved comparisons. They were measured at different times, so their rounds are not paired."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kit.errors import MeasureError
from kit.machine.about import About
from kit.measuring.comparison import Comparison, Ratio, Row
from kit.measuring.statistics import ALPHA, median_interval
from kit.reprs import one_line
from kit.text import html_table, in_columns

ChangeVerdict = Literal["faster", "slower", "no difference found", "only in one"]
Samples = NDArray[np.float64]


@one_line
class Change(NamedTuple):
    """What changed for one approach. A ratio above 1 means that the new run is better."""

    name: str
    old: str  # its time of a call or items a second, or why it was not measured
    new: str
    time: Ratio | None  # median time of the old run / median time of the new run; None: only in one
    speed_up: Ratio | None  # new speed-up over the baseline / old one; None: it is the baseline, or not known

    @property
    def verdict(self) -> ChangeVerdict:
        """Whether its time changed, for any reason, such as the machine's load."""
        return "only in one" if self.time is None else self.time.verdict

    @property
    def speed_up_verdict(self) -> ChangeVerdict | None:
        """Whether its speed-up over the baseline changed; a slower machine does not change it. None: not known."""
        return self.speed_up and self.speed_up.verdict


@dataclass(frozen=True, eq=False)
class Changes:
    """What changed between two runs: one row per approach, in the order of the new run."""

    rows: tuple[Change, ...]
    baseline: str  # of the new run
    old: About
    new: About
    caveats: tuple[str, ...]  # what differs between the runs beside the approaches, and what each run said of itself

    def __getitem__(self, name: str) -> Change:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"{name!r} is in neither run; there are {', '.join(row.name for row in self.rows)}")

    def table(self) -> list[tuple[str, ...]]:
        """The header, then a row per approach, as text."""
        relative = f"speed-up over {self.baseline}: new / old [95%]"
        lines: list[tuple[str, ...]] = [
            ("approach", "old", "new", "time: old / new [95%]", "verdict", relative, "verdict")
        ]
        for row in self.rows:
            time, speed_up = (str(ratio or "-") for ratio in (row.time, row.speed_up))
            lines.append((row.name, row.old, row.new, time, row.verdict, speed_up, row.speed_up_verdict or "-"))
        return lines

    @property
    def caption(self) -> str:
        """How to read the table."""
        return (
            "Ratios above 1: the new run is faster. The two runs are not paired. Each interval is that of a ratio of "
            "two medians; it is corrected for comparing several rows (95% for the whole table), and assumes nothing "
            "about the distribution of the times. A change in time includes all differences of the runs, such as the "
            "machine's load. A speed-up is measured within one run, so the machine's speed cancels."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an interval's end is None if there were too few rounds to know it."""
        return {
            "baseline": self.baseline,
            "old": self.old.to_dict(),
            "new": self.new.to_dict(),
            "caveats": list(self.caveats),
            "approaches": [
                {
                    "name": row.name,
                    "old": row.old,
                    "new": row.new,
                    "time": _plain(row.time),
                    "verdict": row.verdict,
                    "speed_up": _plain(row.speed_up),
                    "speed_up_verdict": row.speed_up_verdict,
                }
                for row in self.rows
            ],
        }

    @property
    def _runs(self) -> list[str]:
        return [f"{name}: {about}" for name, about in (("old", self.old), ("new", self.new)) if str(about)]

    def __str__(self) -> str:
        notes = [self.caption, *self._runs, *(f"! {caveat}" for caveat in self.caveats)]
        return "\n".join([*in_columns(self.table()), *notes])

    def __repr__(self) -> str:  # no times: a notebook's stored output must not change from run to run
        return f"Changes({len(self.rows)} rows)"

    def _repr_html_(self) -> str:
        caveats = [f"\N{WARNING SIGN} {caveat}" for caveat in self.caveats]
        return html_table(self.table(), [self.caption, *self._runs, *caveats])


def compare_results(old: Comparison, new: Comparison) -> Changes:
    """For each approach of two comparisons, say whether it became faster or slower from the old one to the new one.

    The runs were made at different times, so their rounds are not paired. The interval of a ratio of two medians comes
    from the exact intervals of both medians: where each holds with probability 1 - e / 2, both hold with 1 - e, and
    then the ratio lies between low / high and high / low. With k ratios in the table, e is 5% / k (Bonferroni). With
    too few rounds for that, the interval has no finite ends, and no difference is found. As in a comparison, a
    difference within 1% counts as none.

    The rounds within a run do not show how the machine changes from run to run. Therefore the table shows the change of
    the speed-up over the baseline beside the change of the time.

    >>> layer, x = nn.Linear(8, 8).eval(), torch.rand(1, 8)
    >>> kit.compare(layer, x, "sequential", rounds=6, progress=False).save("before.json")
    >>> now = kit.compare(layer, x, "sequential", rounds=6, progress=False)
    >>> kit.compare_results(kit.load_comparison("before.json"), now)
    Changes(1 rows)
    """
    before, after = ({row.name: row for row in each.rows} for each in (old, new))
    names = list(dict.fromkeys([*after, *before]))
    both = [name for name in names if _measured(before.get(name)) and _measured(after.get(name))]
    same_baseline = old.baseline.name == new.baseline.name
    relative = [name for name in both if same_baseline and name != new.baseline.name]
    error = ALPHA / max(1, len(both) + len(relative))
    changes = []
    for name in names:
        one, other = before.get(name), after.get(name)
        if not (_measured(one) or _measured(other)):
            continue
        time = speed_up = None
        if name in both:
            time = _ratio(_times(old, before[name]), _times(new, after[name]), error)
        if name in relative:
            speed_up = _ratio(_speed_ups(after[name]), _speed_ups(before[name]), error)
        changes.append(Change(name, _text(old, one), _text(new, other), time, speed_up))
    return Changes(tuple(changes), new.baseline.name, old.about, new.about, tuple(_caveats(old, new, names)))


def _measured(row: Row | None) -> bool:
    return row is not None and row.timing is not None


def _text(comparison: Comparison, row: Row | None) -> str:
    if row is None:
        return "not compared"
    return comparison.value_text(row) if row.timing else f"not measured: {row.reason}"


def _times(comparison: Comparison, row: Row) -> Samples:
    """Nanoseconds per item, of each round."""
    assert row.timing is not None
    return row.timing.samples_ns / comparison.items


def _speed_ups(row: Row) -> Samples:
    """The speed-up over the baseline of each round."""
    assert row.timing is not None
    assert row.paired_baseline is not None
    return row.paired_baseline.samples_ns / row.timing.samples_ns


def _ratio(one: Samples, other: Samples, error: float) -> Ratio:
    """Median of ``one`` / median of ``other``, with its interval at confidence ``1 - error``."""
    (low, high), (least, most) = (_interval(each, error / 2) for each in (one, other))
    estimate = float(np.median(one) / np.median(other))
    return Ratio(estimate, low / most, high / least if least > 0 else math.inf)


def _interval(samples: Samples, error: float) -> tuple[float, float]:
    try:
        low, high = median_interval(len(samples), 1 - error)
    except MeasureError:  # too few rounds: it may be anything
        return 0.0, math.inf
    ordered = np.sort(samples)
    return float(ordered[low]), float(ordered[high])


def _caveats(old: Comparison, new: Comparison, names: list[str]) -> Iterator[str]:
    """What a reader must know: how the runs differ, which outputs are wrong, and the caveats of the runs themselves."""
    yield from _differences("machines", old.about.machine, new.about.machine)
    yield from _differences("versions", old.about.versions, new.about.versions)
    kinds = ("inputs", "device", "items", "unit", "cores")
    yield from _differences("runs", *({kind: getattr(each, kind) for kind in kinds} for each in (old, new)))
    if old.baseline.name != new.baseline.name:
        yield (
            f"the baselines differ: {old.baseline.name} in the old run, {new.baseline.name} in the new one, so "
            "speed-ups are not compared."
        )
    for which, each in (("old", old), ("new", new)):
        wrong = [row.name for row in each.rows if row.verdict == "wrong output"]
        if wrong:
            yield f"in the {which} run the output of {', '.join(wrong)} is wrong: ignore its time."
    neither = [name for name in names if not any(_measured(r) for e in (old, new) for r in e.rows if r.name == name)]
    if neither:
        yield f"measured in neither run: {', '.join(neither)}."
    yield from (f"{which} run: {said}" for which, each in (("old", old), ("new", new)) for said in each.caveats)


def _differences(what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    found = [f"{k} {old.get(k)!r} -> {new.get(k)!r}" for k in {**old, **new} if old.get(k) != new.get(k)]
    if found:
        yield f"the {what} differ: {', '.join(found)}. This may be the cause of a change."


def _plain(ratio: Ratio | None) -> dict[str, float | None] | None:
    return ratio and {name: value if math.isfinite(value) else None for name, value in ratio._asdict().items()}
