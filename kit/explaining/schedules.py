"""A schedule beside what happened: predicted and recorded on one time axis, and what the prediction missed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from kit import spans
from kit.approaches.names import parse
from kit.approaches.runner import ModelRunner, Runner
from kit.equality import shapes
from kit.executors.thread_counts import intra_op_threads
from kit.graphs.costs import OperatorTimes
from kit.graphs.lanes import OnLanes
from kit.graphs.scheduled import body_of, said
from kit.graphs.values import form_of
from kit.machine import load
from kit.machine.about import about_here
from kit.machine.memory import peak_bytes
from kit.measuring.gate import BUSY
from kit.measuring.rounds import ROUNDS
from kit.profiler import span_events
from kit.progress import progress_bar
from kit.reprs import one_line
from kit.scheduling.plans import Forecast, Plan, ends
from kit.text import bytes_text, html_table, in_columns, milliseconds, times
from kit.trace import Event, Lane, Trace, stack

RECORDINGS = 7  # calls with a span for each operator; the one nearest their median is shown
MEANS = {  # cause -> what of the recorded call took longer than predicted
    "operators": "operators on the call's critical path, with the Python before each",
    "handing over": "the time from a result of another lane to the operator that waits for it",
    "phases": "beginning and ending phases and the call",
    "waiting": "less for what the prediction waits for off this path",
}


class Ran(NamedTuple):
    """One operator in a recorded call."""

    lane: int  # native thread id
    start_ms: float  # from the beginning of the call
    end_ms: float


@one_line
@dataclass(frozen=True, eq=False)
class Schedule:
    """How the operators of a model run on lanes, as predicted and as recorded; ``str()`` and notebooks show it as text.

    ``kit.timeline(schedule.trace)`` draws both on one time axis.
    """

    name: str  # the model's class
    inputs: str  # their shapes
    plan: Plan = field(repr=False)
    given_ms: float = field(repr=False)  # a call of the model as given: median of the rounds
    measured_ms: float = field(repr=False)  # a call with the schedule: median of the same rounds
    recorded_ms: float = field(repr=False)  # the call of the trace, which is longer by a span for each operator
    missed_ms: dict[str, float] = field(repr=False)  # cause -> recorded less predicted, which their sum is
    trace: Trace = field(repr=False)  # lanes in the groups "predicted" and "recorded"
    peak_bytes: tuple[int, int] | None = field(repr=False)  # of a call: as given, and with the schedule
    taken: load.Taken | None = field(repr=False)  # by other programs, meanwhile

    @property
    def error(self) -> float:
        """Of the prediction, relative: predicted / measured - 1."""
        return self.plan.best.predicted / self.measured_ms - 1

    @property
    def doubt(self) -> str:
        """Why nothing is concluded from these times, as a clause; "" if they allow conclusions."""
        busy = self.taken is not None and self.taken.share > BUSY
        return f"machine busy: {self.taken}" if busy else ""

    def what_if(self, cores: int) -> Forecast:
        """Predict a call on another number of cores; see :meth:`kit.scheduling.plans.Plan.what_if`.

        The error is that of the prediction for the cores that are here, against the median of the rounds.
        """
        return self.plan.what_if(cores)._replace(error=self.error)

    def table(self) -> list[tuple[str, ...]]:
        """The header, then a row for the model as given and for each schedule that was tried."""
        rows: list[tuple[str, ...]] = [("schedule", "predicted", "measured", "over the model as given", "")]
        rows.append(("the model as given", "-", milliseconds(self.given_ms), "1", ""))
        for name, tried in self.plan.tried.items():
            taken = name == self.plan.taken
            ms = self.measured_ms if taken else tried.measured
            predicted = milliseconds(tried.predicted)
            rows.append((name, predicted, milliseconds(ms), f"{times(self.given_ms / ms)}x", "taken" if taken else ""))
        return rows

    @property
    def caption(self) -> str:
        """What was scheduled, and what was taken, as text."""
        memory = ""
        if self.peak_bytes is not None:
            given, own = (bytes_text(each) for each in self.peak_bytes)
            memory = f" A call takes {own} of memory at its peak, of the model as given {given}."
        return f"{self.name} on {self.inputs}: {said(self.plan)}{memory}"

    @property
    def missed(self) -> str:
        """What the prediction missed, in sentences with numbers."""
        if self.doubt:
            return f"How good the prediction is, is not decided: {self.doubt}."
        predicted = self.plan.best.predicted
        parts = [f"{MEANS[name]}: {ms:+.3g} ms" for name, ms in self.missed_ms.items() if abs(ms) >= 0.01 * predicted]
        return (
            f"{milliseconds(predicted)} were predicted, the median of the calls is {milliseconds(self.measured_ms)}: "
            f"an error of {self.error:+.0%}. The recorded call took {milliseconds(self.recorded_ms)}, "
            f"{self.recorded_ms - predicted:+.3g} ms. {'; '.join(parts) or 'No cause has 1% of it'}."
        )

    def __str__(self) -> str:
        return "\n".join([self.caption, *in_columns(self.table()), self.missed])

    def _repr_html_(self) -> str:
        return html_table(self.table(), [self.caption, self.missed])


def schedule(
    model: nn.Module,
    inputs: Any,
    *,
    policy: str = "heft",
    lanes: int | None = None,
    rounds: int = ROUNDS,
    progress: bool = True,
) -> Schedule:
    """Schedule the operators of any model on lanes, and show the prediction beside a recording.

    Each operator is measured on one core and on all cores; the schedules made of these times are tried, and the fastest
    is taken, as the approach ``scheduled`` does. Then its calls are measured in rounds with the model as given, and one
    is recorded with a span for each operator. In the same rounds the operators are measured once more: the prediction
    is computed from these times, so that its error is its own, and none of a machine that has changed since.

    >>> block = kit.Branches({"1x1": nn.Conv2d(8, 8, 1), "3x3": nn.Conv2d(8, 8, 3, padding=1)}, kit.Concat(1)).eval()
    >>> plan = kit.schedule(block, torch.rand(1, 8, 16, 16), rounds=6, progress=False)
    >>> plan
    Schedule(name='Branches', inputs='(1, 8, 16, 16) float32 on cpu')
    >>> figure = kit.timeline(plan.trace)  # predicted above recorded
    >>> text = str(plan.what_if(cores=8))  # predicted for a larger machine

    Args:
        model: in eval mode; it is not changed.
        inputs: a tensor, a tuple of the model's arguments, or a dict of its keyword arguments.
        policy: how operators are placed on lanes: heft, stages or wavefront.
        lanes: threads, at least 2; by default as many as there are cores.
        rounds: at least 6.
        progress: show a bar where tqdm is installed.

    Raises: as :func:`kit.graph`, and:
        UnknownNameError: no such policy.
    """
    options = f"policy={policy}" + (f", lanes={lanes}" if lanes is not None else "")
    usage = load.Usage.now()
    with (
        progress_bar(rounds, progress) as advance,
        parse("sequential").prepare(model, inputs) as given,
        parse(f"scheduled({options})").prepare(model, inputs) as runner,
    ):
        took, plan = _measured({"given": given, "scheduled": runner}, body_of(runner.model), rounds, advance)
        log = _recorded(runner)
        peaks = [_peak_bytes(each) for each in (given, runner)]
    call = next(each for each in log if each.category == "call")
    recorded_ms = (call.end_ns - call.start_ns) / 1e6
    trace = stack({"predicted": Trace.build(_predicted_events(plan)), "recorded": Trace.build(span_events(log))})
    return Schedule(
        name=type(model).__name__,
        inputs=shapes(inputs),
        plan=plan,
        given_ms=took["given"],
        measured_ms=took["scheduled"],
        recorded_ms=recorded_ms,
        missed_ms=missed_ms(plan, ran(plan, log), recorded_ms),
        trace=replace(trace, about=about_here().to_dict()),
        peak_bytes=(peaks[0], peaks[1]) if peaks[0] is not None and peaks[1] is not None else None,
        taken=load.taken(usage, load.Usage.now()),
    )


def _measured(
    runners: dict[str, ModelRunner], body: OnLanes, rounds: int, advance: Callable[[int], None]
) -> tuple[dict[str, float], Plan]:
    """Milliseconds of a call of each, the median of the rounds; and the plan with the operators' times in them."""
    assert body.plan is not None
    plan, took = body.plan, {name: list[float]() for name in runners}
    with (
        OperatorTimes(body.found, 1, beside=plan.lanes) as one,
        OperatorTimes(body.found, plan.cores) as every,
        torch.inference_mode(),
    ):
        for done in range(1 + rounds):
            for name, runner in runners.items():
                with intra_op_threads(runner.intra_op_threads):
                    runner()
                    start = spans.clock()
                    runner()
                    ms = (spans.clock() - start) / 1e6
                took[name] += [ms] if done else []
            leaves, _ = form_of(runner.inputs)
            for times in (one, every):  # as the calls: a first run, after other work, is slower
                times.run(leaves, counts=False)
                times.run(leaves, counts=done > 0)
            advance(done)
        retimed = plan.retimed(one.ms(), every.ms())
    return {name: float(np.median(ms)) for name, ms in took.items()}, retimed


def _peak_bytes(runner: Runner) -> int | None:
    with intra_op_threads(runner.intra_op_threads), torch.inference_mode():
        runner()
        return peak_bytes(runner)


def _recorded(runner: Runner) -> list[spans.Span]:
    """The spans of a call, with one for each operator: of several calls the one nearest their median."""
    logs = []
    with intra_op_threads(runner.intra_op_threads), torch.inference_mode():
        for _ in range(1 + RECORDINGS):
            runner()
            with spans.collect(operators=True) as log, spans.span("call", "call"):
                runner()
            logs.append(log.spans)
    took = [next(each.end_ns - each.start_ns for each in log if each.category == "call") for log in logs[1:]]
    return logs[1 + int(np.argmin(np.abs(np.array(took) - np.median(took))))]


def ran(plan: Plan, log: Iterable[spans.Span]) -> dict[int, Ran]:
    """For each operator of a plan, where and when it ran in a recorded call."""
    log = list(log)
    begin = next(each.start_ns for each in log if each.category == "call")
    index = {name: i for i, name in enumerate(plan.names)}
    return {
        index[each.name]: Ran(each.thread, (each.start_ns - begin) / 1e6, (each.end_ns - begin) / 1e6)
        for each in log
        if each.category == "part" and each.name in index
    }


def missed_ms(plan: Plan, ran: dict[int, Ran], call_ms: float) -> dict[str, float]:
    """Recorded less predicted milliseconds of a call, by cause; they add up to the difference.

    The call's critical path is followed from its end: before an operator comes the one that ended last of those that it
    had to wait for, on its own lane or, where it needs their result, on another. An operator's cost contains the Python
    before it, and its results of other lanes.

    Args:
        ran: every operator of the plan.
        call_ms: how long the recorded call took; it began at 0.
    """
    phase = {slot.node: p for p, each in enumerate(plan.best.phases) for slot in each.slots}
    predicted = {slot.node: slot.end - slot.start for each in plan.best.phases for slot in each.slots}
    before = _before_on_lane(ran)
    end = max(ran, key=lambda i: ran[i].end_ms)
    found = dict.fromkeys(MEANS, 0.0) | {"phases": call_ms - ran[end].end_ms}
    on_path = 0.0
    at: int | None = end
    while at is not None:
        here = ran[at]
        others = [i for i in plan.after[at] if phase[i] == phase[at] and ran[i].lane != here.lane]
        on_path += predicted[at]
        own = before.get(at)
        causes = dict.fromkeys(others, "handing over")
        if own is not None and phase[own] == phase[at]:
            causes[own] = "operators"
        if not causes:
            causes = {i: "phases" for i in ran if phase[i] < phase[at]}
        last = max(causes, key=lambda i: ran[i].end_ms, default=None)
        found["operators"] += here.end_ms - here.start_ms - predicted[at]
        found["phases" if last is None else causes[last]] += here.start_ms - (0.0 if last is None else ran[last].end_ms)
        at = last
    allowed = sum(plan.overheads.fork for each in plan.best.phases if each.lanes > 1)
    found["phases"] -= allowed
    return found | {"waiting": on_path + allowed - ends(plan.best.phases)}


def _before_on_lane(ran: dict[int, Ran]) -> dict[int, int]:
    """For each operator but the first of a lane, the one that ran before it there."""
    last: dict[int, int] = {}
    before: dict[int, int] = {}
    for i in sorted(ran, key=lambda i: ran[i].start_ms):
        lane = ran[i].lane
        if lane in last:
            before[i] = last[lane]
        last[lane] = i
    return before


def _predicted_events(plan: Plan) -> list[Event]:
    """The chosen schedule as the events of a call, in lanes that are called as those of a recording."""
    events = [Event("call", "call", 0, _ns(ends(plan.best.phases)), _lane(plan, None))]
    begin = 0.0
    for phase in plan.best.phases:
        for lane in range(phase.lanes):
            slots = [slot for slot in phase.slots if slot.lane == lane]
            place = _lane(plan, lane if phase.lanes > 1 else None)
            if slots:
                name = f"lane {lane}" if phase.lanes > 1 else "all cores"
                events.append(_event(name, "task", min(begin, slots[0].start), slots[-1].end, place))
            events += [_event(plan.names[slot.node], "part", slot.start, slot.end, place) for slot in slots]
        begin = phase.end
    return events


def _lane(plan: Plan, lane: int | None) -> Lane:
    return Lane("predicted", "caller" if lane is None else f"lane {lane}", "caller" if lane is None else f"lane {lane}")


def _event(name: str, category: str, start_ms: float, end_ms: float, lane: Lane) -> Event:
    return Event(name, category, _ns(start_ms), _ns(end_ms) - _ns(start_ms), lane)


def _ns(ms: float) -> int:
    return round(ms * 1e6)
