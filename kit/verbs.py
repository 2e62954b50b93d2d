"""The verbs: compare approaches on one model, and record one of them.

Not ``compare.py``: importing a submodule of that name would put it in the place of the function ``kit.compare``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from kit import neighbours, spans
from kit.approaches import CATALOGUE, Approach, Runner, parse, split_names
from kit.comparison import Comparison, Ratio, Row, Timing
from kit.equality import Equality, as_args, compare_outputs, deaf_inputs, shapes
from kit.errors import KitError, MeasureError, ShapeError
from kit.executors import Sequential
from kit.executors.modes import intra_op_threads
from kit.hardware import detect
from kit.measure import TURN_NS, UNSTEADY, judged, least_rounds, measure
from kit.progress import progress_bar
from kit.recording import on_gpu, record_call, record_fresh
from kit.trace import Trace, stack

BASELINE = "sequential"
ALL = "all"  # stands for every approach of the catalogue
BUDGET_S = 60.0  # of a comparison of all


def compare(
    model: nn.Module,
    inputs: Any,
    approaches: str | Sequence[str] = ALL,
    *,
    rounds: int = 10,
    budget: float | None = None,
    width: float | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Comparison:
    """Measure approaches side by side on the same inputs, and check that each gives the baseline's output.

    >>> kit.compare(model, (frame, flow))
    >>> kit.compare(model, (frame, flow), ["sequential", "threads", "folded + channels_last + threads(workers=4)"])

    An approach that raises keeps its row, with the error as its reason, and the others go on.

    Args:
        model: in eval mode; it is not changed.
        inputs: a tensor, or a tuple of the model's arguments.
        approaches: names from the catalogue, or one string of them with commas between; ``all`` stands for every one.
            ``sequential`` leads, as the baseline of all others; it is added if it is not among them.
        rounds: interleaved rounds, at least 6. An approach that starts from nothing on every call has the fewest that
            can tell it from the others, by itself.
        budget: seconds for everything. When they run short there are fewer rounds, and what has not been prepared is
            left out with that as its reason; what has begun is not cut off, and verdicts get the rounds they need. By
            default 60 for ``all``, and no limit for approaches chosen by name.
        width: stop as soon as every interval is this narrow; 0.05 is from 0.98 to 1.03.
        progress: show a bar where tqdm is installed.

    Raises:
        UnknownNameError: an approach that is not in the catalogue.
        ShapeError: inputs that do not fit the model.
        KitError: a model in training mode, whose batch norm a measurement would change; steps that do not go together.
        TaskError: a branch raised on these inputs.
        MeasureError: fewer than 6 rounds, a budget too small for one of the baseline, or an output with NaN, with
            something that is no tensor, or another on every call.
    """
    names = split_names(approaches) if isinstance(approaches, str) else approaches
    if not names:
        raise KitError("there is no approach to compare: name some, as in 'sequential,threads'.")
    if budget is None and ALL in names:
        budget = BUDGET_S
    named = [each for name in names for each in (CATALOGUE if name == ALL else [name])]
    chosen = list({each.name: each for each in map(parse, named)}.values())  # 'threads()' is 'threads' again
    if not any(each.kind == BASELINE for each in chosen):
        chosen.insert(0, parse(BASELINE))
    chosen.sort(key=lambda each: each.kind != BASELINE)  # stable: the first sequential leads
    _check_eval(model)
    deadline = None if budget is None else spans.clock() + int(budget * 1e9)
    lead, *others = entrants = [_Entrant(each) for each in chosen]
    with ExitStack() as stack:
        baseline = lead.runner = stack.enter_context(lead.approach.prepare(model, inputs))
        with torch.inference_mode():
            expected = _first_call(baseline, model, inputs)
            lead.check(expected, inputs)
            if not (lead.equality and lead.equality.equal):
                raise MeasureError(
                    f"{type(model).__name__} gives another output on every call, so nothing can be said of equality: "
                    "take the random numbers out of its forward, or seed them there."
                )
            if budget is not None and lead.turn_ns > budget * 1e9:
                raise MeasureError(
                    f"one turn of {lead.approach.name} takes {lead.turn_ns / 1e9:.2g} s here: a budget of {budget:g} s "
                    "is too small. Give more, or leave it out."
                )
            deaf = deaf_inputs(baseline, inputs)
        spent = f"left out: the {budget or 0:g} s of this comparison were spent. Name it, or raise budget."
        with progress_bar(len(others), progress, "approaches") as advance:
            for done, each in enumerate(others, start=1):
                if deadline and spans.clock() + _least_ns(entrants) > deadline:
                    each.reason = spent
                else:
                    each.enter(stack, model, inputs, expected)
                # What a cold approach takes is known once it has run: minutes, where each of many regions starts anew.
                if deadline and each.cold and spans.clock() + _least_ns(entrants) > deadline:
                    each.reason, each.runner = spent, None
                advance(done)
        # A cold approach takes seconds a call: it has the fewest rounds that mean anything, against the baseline only.
        cold = [each for each in others if each.cold]
        warm = [each for each in entrants if each.runner and each not in cold]
        few = least_rounds(len(warm) + len(cold) - 1)
        alone = _yardsticks(stack, warm, model, inputs)
        if deadline:
            round_ns = sum(each.turn_ns for each in warm) + len(alone) * lead.turn_ns
            spare = deadline - spans.clock() - _least_ns(entrants)
            rounds = min(rounds, few + max(0, spare // round_ns))
        usage = neighbours.Usage.now()
        with progress_bar(rounds + few * len(cold), progress) as advance:
            solo = _measure(warm, alone, inputs, rounds, width, seed, advance)
            for each in cold:
                _measure([lead, each], {}, inputs, few, None, seed, advance)
        busy = neighbours.caveats(usage, neighbours.Usage.now())
    caveats = [
        f"the output hardly changes when input {i + 1} of {len(as_args(inputs))} does: that outputs are the same says "
        "nothing about the branch that it goes through."
        for i in deaf
    ]
    caveats += [
        f"{each.approach.name}: {said}" for each in entrants if each.timing for said in each.approach.remarks(inputs)
    ]
    caveats += [
        f"the rounds of {each.approach.name} scatter by {each.timing.scatter:.1f} times: something else was using the "
        "cores. Close it and measure again before believing a ratio."
        for each in entrants
        if each.timing and each.timing.scatter > UNSTEADY
    ]
    rows = judged([each.row(each is lead) for each in entrants])
    assert lead.timing
    rounds = len(lead.timing.samples_ns)  # fewer where the budget or the width says so
    return Comparison(tuple(rows), rounds, shapes(inputs), (*caveats, *busy), solo, detect().cores)


@dataclass(eq=False)
class _Entrant:
    """An approach on its way to a row of the table."""

    approach: Approach
    runner: Runner | None = None
    reason: str | None = None  # why it has no runner, or no more
    equality: Equality | None = None
    timing: Timing | None = None
    against: Timing | None = None  # the baseline's turns in the same rounds
    turn_ns: int = 0  # about how long its turn in a round takes

    def enter(self, stack: ExitStack, model: nn.Module, inputs: Any, expected: Any) -> None:
        """Prepare and check it; whatever it raises is its reason for not taking part."""
        try:
            self.reason = self.approach.unavailable_because(detect())
            if self.reason is None:
                self.runner = stack.enter_context(self.approach.prepare(model, inputs))
                with torch.inference_mode():
                    self.check(expected, inputs)
        except Exception as error:
            self.fail(error)

    def check(self, expected: Any, inputs: Any) -> None:
        """Compare its output; the last call, warm where it can be, tells how long a turn takes."""
        assert self.runner
        with intra_op_threads(self.runner.intra_op_threads):  # compiled code takes no others
            for _ in range(1 if self.runner.cold else 2):
                start = spans.clock()
                found = self.runner(*as_args(inputs))
                call_ns = spans.clock() - start
        self.turn_ns = call_ns if self.runner.cold else call_ns + max(call_ns, TURN_NS)
        self.equality = compare_outputs(expected, found)

    def fail(self, error: Exception) -> None:
        """Take it out of the comparison; its row says why."""
        self.reason = str(error) if isinstance(error, KitError) else f"{type(error).__name__}: {error}"
        self.runner = None

    def row(self, baseline: bool) -> Row:
        """What there is to say of it."""
        return Row(
            self.approach.name,
            self.reason,
            self.timing,
            Ratio(1, 1, 1) if baseline else None,
            self.equality,
            baseline,
            self.runner.prepare_s if self.runner else 0.0,
            self.against,
            self.lane_threads,
            rewritten=self.approach.rewrites,
        )

    @property
    def cold(self) -> bool:
        """Whether it starts anew on every call."""
        return self.runner is not None and self.runner.cold

    @property
    def lane_threads(self) -> int | None:
        """Intra-op threads of each of its lanes, where the kit sets them."""
        if self.runner is None:
            return None
        if isinstance(self.runner.executor, Sequential):
            return self.runner.intra_op_threads
        threads: int | None = getattr(self.runner.executor, "intra_op_threads", None)
        return threads


def _yardsticks(stack: ExitStack, warm: list[_Entrant], model: nn.Module, inputs: Any) -> dict[int, Runner]:
    """What a speed-up is explained by: the branches one by one at the lanes' thread counts, in the same rounds."""
    here = {each.lane_threads for each in warm if each.approach.kind == BASELINE}
    wanted = {1, *(each.lane_threads for each in warm)} - here if len(warm) > 1 else set()
    return {
        threads: stack.enter_context(parse(f"{BASELINE}(threads={threads})").prepare(model, inputs))
        for threads in sorted(filter(None, wanted))
    }


def _least_ns(entrants: Sequence[_Entrant]) -> int:
    """What measuring those that are prepared takes at least; a cold one's rounds have the baseline beside it."""
    ready = [each for each in entrants if each.runner]
    cold = sum(each.cold for each in ready)
    return least_rounds(len(ready)) * (sum(each.turn_ns for each in ready) + cold * entrants[0].turn_ns)


def _measure(
    entrants: list[_Entrant],
    alone: dict[int, Runner],
    inputs: Any,
    rounds: int,
    width: float | None,
    seed: int,
    advance: Callable[[int], None],
) -> dict[int, Timing]:
    """Measure these against the first of them; where one of the others raises, once more without it.

    Returns the timings of the plain sequential ones by their intra-op threads, those of ``alone`` among them.
    """
    lead = entrants[0]
    yardsticks = {f"alone on {threads}": runner for threads, runner in alone.items()}
    while True:
        runners = {each.approach.name: each.runner for each in entrants if each.runner}
        try:
            timings = measure(runners | yardsticks, inputs, rounds=rounds, width=width, seed=seed, progress=advance)
            break
        except Exception as error:
            culprits = [each for each in entrants[1:] if each.runner and each.runner.failure]
            if not culprits:
                raise
            culprits[0].fail(error)
    solo = {threads: timings[f"alone on {threads}"] for threads in alone}
    for each in entrants:
        if each.runner:
            each.against, timing = timings[lead.approach.name], timings[each.approach.name]
            each.timing = each.timing or timing  # the baseline keeps those of the rounds with all
            if each.approach.kind == BASELINE:
                solo[each.runner.intra_op_threads] = timing
    return solo


def record(
    model: nn.Module, inputs: Any, approach: str = BASELINE, *, first: bool = False, operators: bool = True
) -> Trace:
    """Record one call under an approach: spans of every thread and worker process, PyTorch's operators below them.

    The trace starts at 0, and its lanes are grouped under the approach's name.

    Args:
        first: record the very first call, in which threads or processes start and kernels are chosen, instead of a
            warm one. A cold approach has no other.
        operators: run torch.profiler, which makes the call longer; without, the spans have their true lengths.

    What runs on a GPU is recorded in a process of its own, started for it, to which model and inputs are copied: a
    second profile of CUDA in one process is not to be trusted.

    Raises: as :func:`compare`, and:
        TraceError: a kernel starts before its launch.
        TransferError: a model on a GPU that cannot be sent to another process.
    """
    _check_eval(model)
    call = partial(_record_here, model, inputs, approach, first, operators)
    return record_fresh(call) if operators and on_gpu(model, *as_args(inputs)) else call()


def _record_here(model: nn.Module, inputs: Any, approach: str, first: bool, operators: bool) -> Trace:
    with parse(approach).prepare(model, inputs) as runner:
        warm = not (first or runner.cold)
        if warm:
            with torch.inference_mode(), intra_op_threads(runner.intra_op_threads):
                _first_call(runner, model, inputs)
        trace = record_call(runner, inputs, intra_op_threads=runner.intra_op_threads, warm=warm, operators=operators)
    return stack({approach: trace})


def _first_call(runner: Runner, model: nn.Module, inputs: Any) -> Any:
    """The call in which unsuitable inputs show: say which they were."""
    try:
        return runner(*as_args(inputs))
    except KitError as error:
        error.add_note(f"{type(model).__name__} was given {shapes(inputs)}")
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ShapeError(
            f"{type(model).__name__} does not take these inputs, {shapes(inputs)}: {error}. "
            "Give a tensor, or a tuple with one entry for each argument of its forward."
        ) from error


def _check_eval(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if module.training and isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)):
            raise KitError(
                f"{type(model).__name__} is in training mode, and its {name or type(module).__name__} gives another "
                "output on every call: call model.eval() first."
            )
