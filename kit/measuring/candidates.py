"""The candidates of a comparison: prepared, checked, and measured in the same rounds as the baseline, the first one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from kit import spans
from kit.approaches import Approach, ModelRunner, Runner, Workload
from kit.equality import Equality, compare_outputs, device_of, inputs_without_effect, tf32_rounding
from kit.errors import KitError, MeasureError
from kit.executors.thread_counts import intra_op_threads
from kit.executors.workers.reports import remedy, starting_is_possible
from kit.inputs import called_with
from kit.machine import load
from kit.machine.hardware import detect
from kit.measuring.budget import Budget, Overdue, can_interrupt, limited
from kit.measuring.comparison import Comparison, Ratio, Row, Timing
from kit.measuring.core_scaling import independent_load
from kit.measuring.gate import gated
from kit.measuring.rounds import TURN_NS, Reference, RunnerFailed, measure
from kit.measuring.statistics import MIN_ROUNDS, least_rounds, speed_up, with_verdicts
from kit.progress import checkpoint, progress_bar
from kit.recorder import record_kernels
from kit.reprs import one_line
from kit.text import counted
from kit.trace import kernels

WARM_TURNS = 4  # about as much as warming up takes
GRACE = 0.25  # of the budget, shared out: what each may try even when it is spent, so that those that refuse say why
WHOLE = 0.75  # a share of the cores below which a table says that they are not all there


@one_line
class Expected(NamedTuple):
    """The output that every candidate should give."""

    output: Any  # the baseline's
    rounding: dict[str, float]  # path of a tensor -> how far TF32 moves it


@dataclass(eq=False)
class Candidate:
    """One approach while it is prepared and measured; it becomes a row of the table."""

    work: Workload
    approach: Approach
    is_baseline: bool = False
    runner: Runner | None = None
    reason: str | None = None  # why it has no runner, or no more
    equality: Equality | None = None
    timing: Timing | None = None
    paired_baseline: Timing | None = None  # the baseline's turns in the same rounds
    one_by_one_timing: Timing | None = None  # and those of the branches one after the other, if the baseline has none
    cost_s: float = 0.0  # about how long preparing takes
    turn_ns: int = 0  # about how long its turn in a round takes
    kernels: kernels.Kernels | None = None  # of one call; None: not recorded
    stack: ExitStack = field(default_factory=ExitStack)  # closes its runner

    def estimate(self) -> None:
        """Estimate the seconds that preparing takes; some approaches that cannot run this model already fail here."""
        try:
            self.cost_s = self.work.seconds(self.approach)
        except Exception as error:
            self.drop(error)

    def start(self) -> Runner:
        """Prepare the runner; it is closed together with the stack."""
        self.runner = self.work.ready(self.approach)
        self.stack.callback(self.runner.close)
        return self.runner

    def prepare(self, expected: Expected, share: float, grace: float) -> None:
        """Prepare and check the approach within its share, in seconds; an error becomes the reason in its row.

        If the share is 0, it is only prepared, within ``grace`` seconds: some approaches that cannot run this model
        fail there, and the error says why.
        """
        most = max(share, grace)
        if self.cost_s > most and not can_interrupt():
            self.leave_out(f"preparing it takes about {self.cost_s:.2g} s, but its share of the budget is {most:.2g} s")
            return
        try:
            with limited(most):
                runner = self.start()
                if share > 0:
                    self.check(runner, expected)
        except Overdue:
            self.leave_out(f"preparing it took longer than its share of the budget ({most:.2g} s)")
        except Exception as error:
            self.drop(error)

    def check(self, runner: Runner, expected: Expected) -> None:
        """Compare its output with the baseline's; the last call, warm if possible, tells how long a turn takes."""
        with torch.inference_mode(), intra_op_threads(runner.intra_op_threads):  # compiled code takes no others
            for _ in range(1 if runner.cold else 2):
                checkpoint()
                start = spans.clock()
                output = runner()
                call_ns = spans.clock() - start
            if not runner.cold:
                self.kernels = record_kernels(runner)
        self.turn_ns = call_ns if runner.cold else call_ns + max(call_ns, TURN_NS)
        self.equality = compare_outputs(expected.output, output, expected.rounding)

    def drop(self, error: Exception) -> None:
        """Leave it out of the measurement; its row gives the error as the reason."""
        said = remedy(error)
        why = f"{type(error).__name__}: {error}" + (f": {said}" if said else "")
        self.reason = str(error) if isinstance(error, KitError) else why
        self.runner = None
        self.stack.close()

    def leave_out(self, why: str) -> None:
        """Leave it out because the budget is too small."""
        self.drop(MeasureError(f"left out: {why}. Raise the budget."))

    def row(self) -> Row:
        """Its row of the table."""
        return Row(
            self.approach.name,
            self.reason,
            self.timing,
            Ratio(1, 1, 1) if self.is_baseline else None,
            self.equality,
            self.is_baseline,
            self.runner.prepare_s if self.runner else 0.0,
            self.paired_baseline,
            self.runner.lane_threads if self.runner else None,
            rewritten=self.approach.rewrites,
            kernels=self.kernels,
            one_by_one=self.one_by_one_timing,
        )

    @property
    def cold(self) -> bool:
        """Whether every call starts from nothing."""
        return self.runner is not None and self.runner.cold

    @property
    def one_by_one(self) -> bool:
        """Whether it runs the branches unchanged, one after the other, so that it gives their times alone."""
        return self.approach.kind == self.work.one_by_one


@starting_is_possible("this comparison")
def compete(
    work: Workload,
    approaches: Sequence[Approach],
    *,
    rounds: int,
    budget: float | None,
    width: float | None,
    seed: int,
    progress: bool,
    patience: float,
) -> Comparison:
    """Measure approaches of a workload as :func:`kit.compare` describes; the first approach is the baseline."""
    machine = detect()
    candidates = [Candidate(work, each, reason=each.unavailable_because(machine)) for each in approaches]
    baseline, *others = candidates
    baseline.is_baseline, limit = True, Budget(budget)
    with ExitStack() as stack:
        for each in candidates:
            stack.enter_context(each.stack)
        expected = _baseline(baseline, budget)
        caveats = [*work.caveats, *_without_effect(baseline)]
        _prepare(others, baseline, expected, limit, progress)
        # A cold approach takes seconds a call: it has the fewest rounds that mean anything, against the baseline only.
        cold = [each for each in others if each.cold]
        warm = [each for each in candidates if each.runner and each not in cold]
        few = least_rounds(len(warm) + len(cold) - 1)
        if MIN_ROUNDS <= rounds < few:
            caveats.append(
                f"{rounds} rounds were requested, but a table of {counted(len(warm) + len(cold), 'row')} needs {few} "
                f"for a verdict: {few} rounds were planned."
            )
            rounds = few
        references = _references(stack, warm) if len(warm) > 1 else {}
        caveats += _waited(patience)
        usage = load.Usage.now()
        with progress_bar(rounds + few * len(cold), progress) as advance:
            later = few * sum(each.turn_ns + baseline.turn_ns for each in cold) / 1e9
            found = _measure(warm, references, rounds, limit.enough(few, later), width, seed, advance)
            for each in cold:
                _measure([baseline, each], {}, few, limit.enough(few), None, seed, advance)
        taken = load.taken(usage, load.Usage.now())
    measured = [(each.approach.name, each.kernels, each.approach.rewrites) for each in others if each.timing]
    caveats += kernels.caveats(baseline.approach.name, baseline.kernels, measured)
    core_scaling = _core_scaling(found, machine.cores)
    if taken and taken.share > load.NOTABLE:
        caveats.append(
            f"{taken} (load average {load.load_average():.1f}). This slows approaches that use many cores most: "
            "measure again when the other programs have ended."
        )
    elif core_scaling and core_scaling.high < WHOLE * machine.cores:
        caveats.append(
            f"independent work ran {core_scaling} as fast on the {machine.cores} cores together as on one. Either some "
            "of these cores are hyper-threads that share a physical core, or the host of this virtual machine gives "
            "CPU time to others. An approach that uses all cores gains less here."
        )
    remarks = [
        f"{each.approach.name}: {said}"
        for each in candidates
        if each.timing and isinstance(each.runner, ModelRunner)
        for said in each.runner.remarks
    ]
    assert baseline.timing
    comparison = Comparison(
        tuple(with_verdicts([each.row() for each in candidates])),
        len(baseline.timing.samples_ns),  # fewer where the budget or the width says so
        work.description,
        (*caveats, *remarks),
        {key.threads: timing for key, timing in found.items() if key.kind == "branches alone"},
        machine.cores,
        core_scaling,
        items=work.items,
        unit=work.unit,
        device=device_of(work.inputs),
        taken=taken,
    )
    return gated(comparison)


def _waited(patience: float) -> list[str]:
    """Wait for other programs to leave the cores free; returns a caveat that says whether they did."""
    if patience <= 0:
        return []
    waited = load.wait_for_calm(patience)
    if waited is None:
        return [f"waited {patience:g} s for other programs to leave the cores free, but they did not."]
    return [f"waited {waited:.0f} s until other programs had left the cores free."] if waited else []


def _baseline(baseline: Candidate, budget: float | None) -> Expected:
    """Prepare and call the baseline; the comparison raises the baseline's errors."""
    runner, work = baseline.start(), baseline.work
    with torch.inference_mode():
        if work.model is None:
            output = runner()
        else:
            with called_with(work.model, work.inputs):
                output = runner()
        expected = Expected(output, tf32_rounding(runner, output))
    baseline.check(runner, expected)
    name = baseline.approach.name
    if not (baseline.equality and baseline.equality.equal):
        raise MeasureError(
            f"{name} gives a different output on every call, so outputs cannot be compared: remove random numbers from "
            "the model's forward, or seed them there."
        )
    if budget is not None and baseline.turn_ns > budget * 1e9:
        raise MeasureError(
            f"one turn of {name} takes {baseline.turn_ns / 1e9:.2g} s here: a budget of {budget:g} s is too small. "
            "Raise the budget, or leave out budget=."
        )
    return expected


def _without_effect(baseline: Candidate) -> list[str]:
    """Caveats: inputs of a single request that hardly change the output; equal outputs say nothing about them."""
    work, runner = baseline.work, baseline.runner
    if work.items > 1 or work.model is None or not isinstance(runner, ModelRunner):
        return []
    with torch.inference_mode():
        deaf = inputs_without_effect(lambda *args: runner.run(args), work.inputs)
    return [
        f"the output hardly changes when input {i + 1} of {len(work.inputs)} changes: equal outputs say nothing about "
        "the branch that takes this input."
        for i in deaf
    ]


def _prepare(
    others: Sequence[Candidate], baseline: Candidate, expected: Expected, limit: Budget, progress: bool
) -> None:
    """Prepare the others, the quickest ones first, each within its share of the budget that is left."""
    for each in others:
        if each.reason is None:
            each.estimate()
    queue = sorted((each for each in others if each.reason is None), key=lambda each: each.cost_s)
    with progress_bar(len(queue), progress, "approaches") as advance:
        for done, each in enumerate(queue):
            # Measuring one takes as long as the baseline, until more is known; what is dearer has no claim yet.
            claims = [baseline for other in queue[done:] if other.cost_s <= each.cost_s]
            share = limit.left - _least_s([baseline, *others, *claims], baseline)
            each.prepare(expected, share, GRACE * limit.seconds / len(others))
            if each.runner and (share <= 0 or _least_s([baseline, *others], baseline) > limit.left):
                each.leave_out(f"the budget of {limit.seconds:g} s is too small to measure it")
            advance(done + 1)


def _least_s(candidates: Sequence[Candidate], baseline: Candidate) -> float:
    """The least seconds to measure the prepared candidates; a cold approach is measured beside the baseline only."""
    ready = [each for each in candidates if each.runner]
    cold = [each for each in ready if each.cold]
    # The branches one by one on a thread, measured beside them, take about two of the baseline's turns.
    warm_ns = sum(each.turn_ns for each in ready if each not in cold) + 2 * baseline.turn_ns
    cold_ns = sum(each.turn_ns + baseline.turn_ns for each in cold)
    rounds = least_rounds(len(ready) - 1)
    return ((rounds + WARM_TURNS) * warm_ns + rounds * cold_ns) / 1e9


def _references(stack: ExitStack, warm: Sequence[Candidate]) -> dict[Reference, Runner]:
    """References that explain a speed-up: the cores alone, and branches one by one at the lanes' thread counts."""
    cores, work, found = detect().cores, warm[0].work, dict[Reference, Runner]()
    if cores > 1:
        found |= {Reference("independent load", threads): independent_load(threads) for threads in (1, cores)}
    if work.model is not None:
        here = {each.runner.lane_threads for each in warm if each.runner and each.one_by_one}
        wanted = {1, *(each.runner.lane_threads for each in warm if each.runner)} - here
        found |= {
            Reference("branches alone", threads): work.branches_alone(threads)
            for threads in sorted(filter(None, wanted))
        }
    for runner in found.values():
        stack.callback(runner.close)
    return found


def _measure(
    candidates: Sequence[Candidate],
    references: dict[Reference, Runner],
    rounds: int,
    enough: Callable[[int], bool],
    width: float | None,
    seed: int,
    advance: Callable[[int], None],
) -> dict[Reference, Timing]:
    """Measure these in the same rounds as the first; if one of the others raises, measure again without it.

    Returns the timings of the references, and of the candidates that serve as a reference.
    """
    baseline = candidates[0]
    while True:
        ready = {each.approach.name: each for each in candidates if each.runner}
        runners = {name: each.runner for name, each in ready.items() if each.runner}
        try:
            timings = measure(
                runners, references=references, rounds=rounds, enough=enough, width=width, seed=seed, progress=advance
            )
            break
        except RunnerFailed as failed:
            if not isinstance(failed.key, str) or ready[failed.key] is baseline:
                raise failed.error from None
            ready[failed.key].drop(failed.error)
    for name, each in ready.items():
        if each.timing is None:  # the baseline keeps those of the rounds with all
            each.paired_baseline, each.timing = timings[baseline.approach.name], timings[name]
            if baseline.work.given is not None and not each.one_by_one:
                each.one_by_one_timing = timings.get(baseline.work.one_by_one)
    alone: dict[str | Reference, Timing] = {
        Reference("branches alone", runners[name].intra_op_threads): timings[name]
        for name, each in ready.items()
        if each.one_by_one
    }
    return {key: timing for key, timing in (timings | alone).items() if isinstance(key, Reference)}


def _core_scaling(found: dict[Reference, Timing], cores: int) -> Ratio | None:
    """How much faster independent work ran on all cores than on one; None if that was not measured."""
    one, all_cores = (found.get(Reference("independent load", threads)) for threads in (1, cores))
    return None if one is None or all_cores is None else Ratio(*(cores * each for each in speed_up(one, all_cores)))
