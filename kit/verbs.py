"""The verbs: compare approaches on one model, and record one of them.

Not ``compare.py``: importing a submodule of that name would put it in the place of the function ``kit.compare``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from kit.approaches import Approach, parse, split_names
from kit.catalogue import CATALOGUE, Runner
from kit.comparison import Comparison
from kit.contest import Entrant, contest
from kit.equality import deaf_inputs, shapes
from kit.executors.thread_counts import intra_op_threads
from kit.hardware import detect
from kit.inputs import called_with, opened
from kit.measure import ROUNDS
from kit.recording import on_gpu, record_call, record_fresh
from kit.trace import Trace, stack
from kit.transforms.base import check_eval

BASELINE = "sequential"
ALL = "all"  # stands for every approach of the catalogue
BUDGET_S = 60.0  # of a comparison of all


def compare(
    model: nn.Module,
    inputs: Any,
    approaches: str | Sequence[str] = ALL,
    *,
    rounds: int = ROUNDS,
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
        inputs: a tensor, a tuple of the model's arguments, or a dict of its keyword arguments.
        approaches: names from the catalogue, or one string of them with commas between; ``all`` stands for every one.
            ``sequential`` leads, as the baseline of all others; it is added if it is not among them.
        rounds: interleaved rounds, at least 6. An approach that starts from nothing on every call has the fewest that
            can tell it from the others, by itself.
        budget: seconds for everything. What is prepared quickly comes first, and what does not end within its share is
            cut off and left out, with that as its reason. When they run short there are fewer rounds; those that a
            verdict needs may take up to 1.4 times the budget, and six of the baseline whatever they take. Outside of
            the main thread, and on Windows, nothing can be cut off: there what would take too long by a rough estimate
            is not begun. By default 60 for ``all``, and no limit for approaches chosen by name.
        width: stop as soon as every interval is this narrow; 0.05 is from 0.98 to 1.03.
        progress: show a bar where tqdm is installed.

    Raises:
        UnknownNameError: an approach that is not in the catalogue.
        ShapeError: inputs that do not fit the model; the message says what would.
        KitError: a model that is no ``nn.Module``, is compiled already, has no weights yet, or is in training mode,
            where a measurement would change its batch norm; steps that do not go together.
        TaskError: a branch raised on these inputs.
        MeasureError: fewer than 6 rounds, a budget too small for one of the baseline, or an output with NaN, with
            something that is no tensor, or another on every call.
    """
    names = split_names(approaches)
    if budget is None and ALL in names:
        budget = BUDGET_S
    named = [each for name in names for each in (CATALOGUE if name == ALL else [name])]
    chosen = list({each.name: each for each in map(parse, named)}.values())  # 'threads()' is 'threads' again
    if not any(each.kind == BASELINE for each in chosen):
        chosen.insert(0, parse(BASELINE))
    said = shapes(inputs)
    model, args = opened(model, inputs)
    check_eval(model)
    comparison = contest(
        [
            Entrant(
                each.name,
                partial(_ready, each, model, args),
                each.kind == BASELINE,
                each.rewrites,
                partial(each.seconds, model),
                reason=each.unavailable_because(detect()),
            )
            for each in chosen
        ],
        args,
        said,
        rounds=rounds,
        budget=budget,
        width=width,
        seed=seed,
        progress=progress,
        alone=lambda threads: parse(f"{BASELINE}(threads={threads})").prepare(model, args),
        remarks=lambda lead: [
            f"the output hardly changes when input {i + 1} of {len(args)} does: that outputs are the same says nothing "
            "about the branch that it goes through."
            for i in deaf_inputs(lead, args)
        ],
    )
    remarks = [f"{each.name}: {said}" for each in chosen if comparison[each.name].timing for said in each.remarks(args)]
    return replace(comparison, caveats=(*comparison.caveats, *remarks))


def _ready(approach: Approach, model: nn.Module, args: tuple[Any, ...]) -> Runner:
    """Its runner; that of a baseline has been called, so that the model is known to take these inputs."""
    with ExitStack() as stack:
        runner = stack.enter_context(approach.prepare(model, args))
        if approach.kind == BASELINE:
            with called_with(model, args), torch.inference_mode():
                runner(*args)
        stack.pop_all()
    return runner


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
    model, args = opened(model, inputs)
    check_eval(model)
    call = partial(_record_here, model, args, approach, first, operators)
    return record_fresh(call) if operators and on_gpu(model, *args) else call()


def _record_here(model: nn.Module, args: tuple[Any, ...], approach: str, first: bool, operators: bool) -> Trace:
    chosen = parse(approach)
    with called_with(model, args), chosen.prepare(model, args) as runner:
        warm = not (first or runner.cold)
        if warm:
            with torch.inference_mode(), intra_op_threads(runner.intra_op_threads):
                runner(*args)
        trace = record_call(runner, args, intra_op_threads=runner.intra_op_threads, warm=warm, operators=operators)
    return stack({approach: trace})
