"""Where the time of a call goes, by the kind of what ran: from several recorded calls, never from one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kit.machine.load import Taken, Usage, taken
from kit.measuring.comparison import Comparison, Ratio, Row, Timing
from kit.measuring.gate import gated
from kit.measuring.statistics import MIN_ROUNDS, with_verdicts
from kit.reprs import one_line
from kit.text import markdown_table
from kit.trace import Trace, by_name, wall_ns
from kit.verbs import record
from kit.workloads.continual import Side
from kit.workloads.medians import Median
from kit.workloads.step_parts import ONE_THREAD

CALLS = MIN_ROUNDS + 1  # an odd number: the median is then one of the calls
KINDS = {  # of what ran -> in its name; the first that fits
    "convolutions": r"^aten::.*conv",
    "pooling": r"^aten::.*pool",
    "copying data": r"^aten::.*(cat|copy|clone|contiguous|index|pad|roll|stack|to$|zero|fill)",
    "other operators": "^aten::",
    "outside operators (Python)": "",
}


@one_line
@dataclass(frozen=True)
class Recorded:
    """Several recorded calls of each of some modules, in turns."""

    traces: Mapping[str, Sequence[Trace]]  # name -> its calls, at least 6
    taken: Taken | None  # what others took of the cores meanwhile; None: not known

    def typical(self, name: str) -> Trace:
        """The call whose time is nearest the median."""
        walls = [wall_ns(trace) for trace in self.traces[name]]
        return self.traces[name][int(np.argmin(np.abs(np.array(walls) - np.median(walls))))]

    def ms(self, name: str) -> dict[str, Median]:
        """Milliseconds by the kind of what ran, KINDS: medians over the calls."""
        calls = [ms_by_kind(trace) for trace in self.traces[name]]
        return {kind: Median.of(np.array([call[kind] for call in calls])) for kind in KINDS}

    @property
    def doubt(self) -> str:
        """Why these calls decide nothing, by the rules of every comparison; nothing where they may be believed."""
        timings = {
            name: Timing(np.array([wall_ns(trace) for trace in traces], float), 1, traces[0])
            for name, traces in self.traces.items()
        }
        lead = next(iter(timings.values()))
        rows = [Row(name, timing=timing, paired_baseline=lead) for name, timing in timings.items()]
        rows[0] = Row(rows[0].name, timing=lead, ratio=Ratio(1, 1, 1), baseline=True)
        found = gated(Comparison(tuple(with_verdicts(rows)), len(lead.samples_ns), "", taken=self.taken))
        return next((row.doubt for row in found.rows if row.doubt), "")


def recorded(sides: Mapping[str, Side]) -> Recorded:
    """Record calls of these modules in turns, on one thread, with PyTorch's operators."""
    traces: dict[str, list[Trace]] = {name: [] for name in sides}
    before = Usage.now()
    for _ in range(CALLS):
        for name, (module, inputs) in sides.items():
            traces[name].append(record(module, tuple(inputs), ONE_THREAD))
    return Recorded(traces, taken(before, Usage.now()))


def ms_by_kind(trace: Trace) -> dict[str, float]:
    """Milliseconds of a recorded call by the kind of what ran; they add up to the call."""
    found = dict.fromkeys(KINDS, 0.0)
    for row in by_name(trace):
        found[next(kind for kind, names in KINDS.items() if re.search(names, row.name))] += row.self_ns / 1e6
    return found


def kinds_table(columns: Mapping[str, Mapping[str, Median]]) -> str:
    """A row for each kind of work and a column for each of these, in milliseconds with intervals, as Markdown."""
    rows = [(kind, *(str(column[kind]) for column in columns.values())) for kind in KINDS]
    return markdown_table(("ms [95%]", *columns), f"l{'r' * len(columns)}", rows)


def gap_told(calls: Recorded, counted: float) -> str:
    """Where a step takes more time than its MACs would, by the kind of what ran, as Markdown.

    Args:
        calls: of "window" and of "step".
        counted: the window's MACs by the step's.
    """
    window, step = calls.ms("window"), calls.ms("step")
    due = {kind: Median(*(each / counted for each in ms)) for kind, ms in window.items()}
    table = kinds_table({"window": window, f"window / {counted:.0f}": due, "step": step})
    said = f"If time were MACs, a step would take 1/{counted:.0f} of each line of the window.\n\n{table}\n\n"
    if calls.doubt:
        return f"{said}**Nothing is decided by this table: {calls.doubt}.**"
    over = {kind: step[kind].estimate - due[kind].estimate for kind in KINDS if step[kind].low > due[kind].high}
    if not over:
        return f"{said}In no line does the step clearly take more: the intervals overlap."
    most = max(over, key=over.__getitem__)
    return (
        f"{said}The step takes clearly more time than that in: {', '.join(over)}; most in **{most}**. The profiler "
        "makes every operator a little longer: read here where the time goes, not how much it is."
    )
