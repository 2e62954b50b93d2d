"""The verbs: compare approaches on one model, and record one of them.

Not ``compare.py``: importing a submodule of that name would put it in the place of the function ``kit.compare``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from kit import neighbours
from kit.approaches import Runner, parse, split_names
from kit.comparison import Comparison, Ratio, Row
from kit.equality import as_args, compare_outputs, deaf_inputs, shapes
from kit.errors import KitError, MeasureError, ShapeError
from kit.executors import Sequential
from kit.hardware import detect
from kit.measure import UNSTEADY, judged, least_rounds, measure
from kit.progress import progress_bar
from kit.recording import record_call
from kit.trace import Trace, stack

BASELINE = "sequential"


def compare(
    model: nn.Module,
    inputs: Any,
    approaches: str | Sequence[str] = (BASELINE, "threads"),
    *,
    rounds: int = 10,
    budget: float | None = None,
    width: float | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Comparison:
    """Measure approaches side by side on the same inputs, and check that each gives the baseline's output.

    >>> kit.compare(model, (frame, flow), ["sequential", "threads", "threads(workers=4)"])

    Args:
        model: in eval mode; it is not changed.
        inputs: a tensor, or a tuple of the model's arguments.
        approaches: names from the catalogue, or one string of them with commas between. ``sequential`` leads, as the
            baseline of all others; it is added if it is not among them.
        rounds: interleaved rounds, at least 6. An approach that starts from nothing on every call has
            the fewest that can tell it from the others, by itself.
        budget: seconds to measure at most; ``rounds`` is then the most. See :func:`kit.measure.measure`.
        width: stop as soon as every interval is this narrow; 0.05 is from 0.98 to 1.03.
        progress: show a bar where tqdm is installed.

    Raises:
        UnknownNameError: an approach that is not in the catalogue.
        ShapeError: inputs that do not fit the model.
        KitError: a model in training mode, whose batch norm a measurement would change.
        TaskError: a branch raised on these inputs.
        MeasureError: fewer than 6 rounds, or an output with NaN, with something that is no tensor, or another on
            every call.
    """
    names = split_names(approaches) if isinstance(approaches, str) else approaches
    if not names:
        raise KitError("there is no approach to compare: name some, as in 'sequential,threads'.")
    chosen = list({each.name: each for each in map(parse, names)}.values())  # 'threads()' is 'threads' again
    if not any(each.kind == BASELINE for each in chosen):
        chosen.insert(0, parse(BASELINE))
    chosen.sort(key=lambda each: each.kind != BASELINE)  # stable: the first sequential leads
    _check_eval(model)
    machine = detect()
    reasons = {each.name: each.unavailable_because(machine) for each in chosen}
    with ExitStack() as stack:
        runners = {each.name: stack.enter_context(each.prepare(model)) for each in chosen if reasons[each.name] is None}
        baseline = runners[chosen[0].name]
        with torch.inference_mode():
            expected = _first_call(baseline, model, inputs)
            if not compare_outputs(expected, baseline(*as_args(inputs))).equal:
                raise MeasureError(
                    f"{type(model).__name__} gives another output on every call, so nothing can be said of equality: "
                    "take the random numbers out of its forward, or seed them there."
                )
            equalities = {
                name: compare_outputs(expected, expected if runner is baseline else runner(*as_args(inputs)))
                for name, runner in runners.items()
            }
            deaf = deaf_inputs(baseline, inputs)
        # What a speed-up is explained by: in the same rounds, the branches one by one at the lanes' thread counts.
        lanes = {name: _lane_threads(runner) for name, runner in runners.items()}
        one_by_one = {runner.intra_op_threads: name for name, runner in runners.items() if _is_sequential(runner)}
        alone = {
            f"alone on {threads}": stack.enter_context(parse(f"{BASELINE}(threads={threads})").prepare(model))
            for threads in sorted({1, *filter(None, lanes.values())} - one_by_one.keys())
            if len(runners) > 1
        }
        # A cold approach takes seconds a call: it has the fewest rounds that mean anything, against the baseline only.
        leader = chosen[0].name
        cold = [name for name, runner in runners.items() if runner.cold]
        few = least_rounds(len(runners) - 1)
        warm = {name: runner for name, runner in runners.items() if name not in cold}
        usage = neighbours.Usage.now()
        with progress_bar(rounds + few * len(cold), progress) as advance:
            timings = measure(
                warm | alone, inputs, rounds=rounds, budget=budget, width=width, seed=seed, progress=advance
            )
            solo = {threads: timings[name] for threads, name in one_by_one.items()}
            solo |= {runner.intra_op_threads: timings.pop(name) for name, runner in alone.items()}
            rounds = len(timings[leader].samples_ns)  # fewer where the budget or the width says so
            against = dict.fromkeys(warm, timings[leader])
            for name in cold:
                pair = {leader: baseline, name: runners[name]}
                both = measure(pair, inputs, rounds=few, seed=seed, progress=advance)
                timings[name], against[name] = both[name], both[leader]
        busy = neighbours.caveats(usage, neighbours.Usage.now())
    rows = judged(
        [
            Row(
                each.name,
                reasons[each.name],
                timings.get(each.name),
                Ratio(1, 1, 1) if each.name == leader else None,
                equalities.get(each.name),
                each.name == leader,
                against.get(each.name),
                lanes.get(each.name),
            )
            for each in chosen
        ]
    )
    caveats = [
        f"the output hardly changes when input {i + 1} of {len(as_args(inputs))} does: that outputs are the same says "
        "nothing about the branch that it goes through."
        for i in deaf
    ]
    caveats += [
        f"the rounds of {name} scatter by {timing.scatter:.1f} times: something else was using the cores. Close it and "
        "measure again before believing a ratio."
        for name, timing in timings.items()
        if timing.scatter > UNSTEADY
    ]
    return Comparison(tuple(rows), rounds, shapes(inputs), (*caveats, *busy), solo, machine.cores)


def record(
    model: nn.Module, inputs: Any, approach: str = BASELINE, *, first: bool = False, operators: bool = True
) -> Trace:
    """Record one call under an approach: spans of every thread and worker process, PyTorch's operators below them.

    The trace starts at 0, and its lanes are grouped under the approach's name.

    Args:
        first: record the very first call, in which threads or processes start and kernels are chosen, instead of a
            warm one. A cold approach has no other.
        operators: run torch.profiler, which makes the call longer; without, the spans have their true lengths.

    Raises: as :func:`compare`.
    """
    _check_eval(model)
    with parse(approach).prepare(model) as runner:
        warm = not (first or runner.cold)
        if warm:
            with torch.inference_mode():
                _first_call(runner, model, inputs)
        trace = record_call(runner, inputs, intra_op_threads=runner.intra_op_threads, warm=warm, operators=operators)
    return stack({approach: trace})


def _is_sequential(runner: Runner) -> bool:
    return isinstance(runner.executor, Sequential)


def _lane_threads(runner: Runner) -> int | None:
    """Intra-op threads of each of its lanes, where the kit sets them."""
    if _is_sequential(runner):
        return runner.intra_op_threads
    threads: int | None = getattr(runner.executor, "intra_op_threads", None)
    return threads


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
