"""The verbs: compare approaches on one model, and record one of them.

Not ``compare.py``: importing a submodule of that name would put it in the place of the function ``kit.compare``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from kit.approaches import Runner, parse, split_names
from kit.equality import as_args, compare_outputs, deaf_inputs, shapes
from kit.errors import KitError, ShapeError
from kit.hardware import detect
from kit.measure import Comparison, Row, measure, speed_up
from kit.recording import record_call
from kit.trace import Trace

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
        rounds: interleaved rounds, at least 6.
        progress: show a bar where tqdm is installed.

    Raises:
        UnknownNameError: an approach that is not in the catalogue.
        ShapeError: inputs that do not fit the model.
        KitError: a model in training mode, whose batch norm a measurement would change.
        TaskError: a branch raised on these inputs.
        MeasureError: fewer than 6 rounds, or an output with NaN or with something that is no tensor.
    """
    names = split_names(approaches) if isinstance(approaches, str) else approaches
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
            equalities = {
                name: compare_outputs(expected, expected if runner is baseline else runner(*as_args(inputs)))
                for name, runner in runners.items()
            }
            deaf = deaf_inputs(baseline, inputs)
        with _bar(rounds, progress) as advance:
            timings = measure(runners, inputs, rounds=rounds, seed=seed, progress=advance)
    first = timings[chosen[0].name]
    rows = [
        Row(
            each.name,
            reasons[each.name],
            timings.get(each.name),
            speed_up(first, timings[each.name]) if each.name in timings else None,
            equalities.get(each.name),
            baseline=each is chosen[0],
        )
        for each in chosen
    ]
    caveats = [
        f"the output does not react to input {i}: that outputs agree says nothing about what this input goes through."
        for i in deaf
    ]
    return Comparison(tuple(rows), rounds, shapes(inputs), tuple(caveats))


def record(model: nn.Module, inputs: Any, approach: str = BASELINE) -> Trace:
    """Record one call of the model under an approach: spans of every thread, with PyTorch's operators below them.

    Raises: as :func:`compare`.
    """
    _check_eval(model)
    with parse(approach).prepare(model) as runner:
        with torch.inference_mode():
            _first_call(runner, model, inputs)
        return record_call(runner, inputs, intra_op_threads=runner.intra_op_threads)


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


@contextmanager
def _bar(rounds: int, wanted: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar over the rounds, or silence where tqdm is not installed."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        wanted = False
    if not wanted:
        yield lambda done: None
        return
    with tqdm(total=rounds, desc="rounds", leave=False) as bar:
        yield lambda done: bar.update(done - bar.n)
