"""The verbs: compare approaches on one model, and record one of them.

Not ``compare.py``: importing a submodule of that name would put it in the place of the function ``kit.compare``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import nn

from kit.approaches import Runner, parse, split_names
from kit.comparison import Comparison, Row
from kit.equality import as_args, compare_outputs, deaf_inputs, shapes
from kit.errors import KitError, MeasureError, ShapeError
from kit.hardware import detect
from kit.measure import MIN_ROUNDS, UNSTEADY, measure, speed_up
from kit.progress import progress_bar
from kit.recording import on_gpu, record_call, record_fresh
from kit.trace import Trace, stack

BASELINE = "sequential"


def compare(
    model: nn.Module,
    inputs: Any,
    approaches: str | Sequence[str] = (BASELINE, "threads"),
    *,
    rounds: int = 10,
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
        rounds: interleaved rounds, at least 6. An approach that starts from nothing on every call has 6, by itself.
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
        # A cold approach takes seconds a call: it has the fewest rounds that mean anything, against the baseline only.
        leader = chosen[0].name
        cold = [name for name, runner in runners.items() if runner.cold]
        warm = {name: runner for name, runner in runners.items() if name not in cold}
        with progress_bar(rounds + MIN_ROUNDS * len(cold), progress) as advance:
            timings = measure(warm, inputs, rounds=rounds, seed=seed, progress=advance)
            ratios = {name: speed_up(timings[leader], timing) for name, timing in timings.items()}
            for name in cold:
                pair = {leader: baseline, name: runners[name]}
                few = measure(pair, inputs, rounds=MIN_ROUNDS, seed=seed, progress=advance)
                timings[name], ratios[name] = few[name], speed_up(few[leader], few[name])
    rows = [
        Row(
            each.name,
            reasons[each.name],
            timings.get(each.name),
            ratios.get(each.name),
            equalities.get(each.name),
            baseline=each.name == leader,
        )
        for each in chosen
    ]
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
    return Comparison(tuple(rows), rounds, shapes(inputs), tuple(caveats))


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
    with parse(approach).prepare(model) as runner:
        warm = not (first or runner.cold)
        if warm:
            with torch.inference_mode():
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
