"""The verbs: compare approaches, record one of them, and see what any model is made of.

Not ``compare.py``: importing a submodule of that name would put it in the place of the function ``kit.compare``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from kit.approaches import ALL, Runs, Workload, one_request, split_names
from kit.approaches.builtin import sequential
from kit.approaches.workload import FOUND
from kit.equality import shapes
from kit.errors import KitError, ShapeError
from kit.graphs import Analysed, Branched, Graph, analysed, graph_of, measured
from kit.inputs import called_with, opened
from kit.measuring.candidates import compete
from kit.measuring.comparison import Comparison
from kit.measuring.rounds import ROUNDS
from kit.recorder import on_gpu, record_call, record_fresh
from kit.regions import regions
from kit.text import counted
from kit.trace import Trace, stack
from kit.transforms.base import check_eval

BUDGET_S = 60.0  # of a comparison of all


def compare(
    model: nn.Module | Workload,
    inputs: Any = None,
    approaches: str | Sequence[str] = ALL,
    *,
    rounds: int = ROUNDS,
    budget: float | None = None,
    width: float | None = None,
    seed: int = 0,
    progress: bool = True,
    patience: float = 0.0,
) -> Comparison:
    """Measure approaches side by side on the same inputs, and check that each gives the baseline's output.

    An approach that raises keeps its row, with the error as its reason, and the others go on.

    >>> from kit import models
    >>> model = models.toy_two_stream()
    >>> inputs = torch.rand(1, 3, 25, 25), torch.rand(1, 2, 25, 25)
    >>> kit.compare(model, inputs, "sequential, threads, folded + threads(workers=2)", rounds=6, progress=False)
    Comparison(sequential, threads, folded + threads(workers=2); 6 rounds)

    Args:
        model: in eval mode; it is not changed. Or a :class:`kit.Workload`, which brings its inputs.
        inputs: a tensor, a tuple of the model's arguments, or a dict of its keyword arguments.
        approaches: names from the registry, or one string of them with commas between; ``all`` stands for every one.
            ``sequential`` leads, as the baseline of all others; it is added if it is not among them.
        rounds: interleaved rounds, at least 6. A table of many rows needs more for its verdicts: it then takes that
            many, and says so. An approach that starts from nothing on every call has the fewest that a verdict needs.
        budget: seconds for everything. What is prepared quickly comes first, and what does not end within its share is
            cut off and left out, with that as its reason. When they run short there are fewer rounds; those that a
            verdict needs may take up to 1.4 times the budget, and six of the baseline whatever they take. Outside of
            the main thread, and on Windows, nothing can be cut off: there what would take too long by a rough estimate
            is not begun. By default 60 for ``all``, and no limit for approaches chosen by name.
        width: stop as soon as every interval is this narrow; 0.05 is from 0.98 to 1.03.
        progress: show a bar where tqdm is installed.
        patience: seconds to wait at most, before the rounds, until other programs leave the cores. The table says
            whether they did.

    Raises:
        UnknownNameError: an approach that is not in the registry.
        ShapeError: inputs that do not fit the model; the message says what would.
        KitError: a model that is no ``nn.Module``, is compiled already, has no weights yet, or is in training mode,
            where a measurement would change its batch norm; steps that do not go together.
        TaskError: a branch raised on these inputs.
        MeasureError: fewer than 6 rounds, a budget too small for one of the baseline, or an output with NaN, with
            something that is no tensor, or another on every call.
    """

    def call(patience: float) -> Comparison:
        work = as_workload(model, inputs)
        all_of_it = ALL in split_names(approaches) and (work.given or not work.approaches)
        work = with_branches(work, approaches)
        found = compete(
            work,
            work.chosen(approaches),
            rounds=rounds,
            budget=BUDGET_S if budget is None and all_of_it else budget,
            width=width,
            seed=seed,
            progress=progress,
            patience=patience,
        )
        _calls[found] = call
        return found

    return call(patience)


# How a comparison was measured, for as long as somebody has it: with patience of so many seconds.
_calls: WeakKeyDictionary[Comparison, Callable[[float], Comparison]] = WeakKeyDictionary()


def call_of(comparison: Comparison) -> Callable[[float], Comparison] | None:
    """What measures it once more, given the seconds of patience; None of one that was loaded, or made of another."""
    return _calls.get(comparison)


def record(
    model: nn.Module | Workload,
    inputs: Any = None,
    approach: str = "sequential",
    *,
    first: bool = False,
    operators: bool = True,
) -> Trace:
    """Record one call under an approach: spans of every thread and worker process, PyTorch's operators below them.

    The trace starts at 0, and its lanes are grouped under the approach's name.

    >>> from kit import models
    >>> model, inputs = models.toy_two_stream(), (torch.rand(1, 3, 25, 25), torch.rand(1, 2, 25, 25))
    >>> trace = kit.record(model, inputs, "threads", operators=False)
    >>> sorted(trace.names)
    ['call', 'merge', 'region', 'spatial', 'temporal']

    Args:
        first: record the very first call, in which threads or processes start and kernels are chosen, instead of a
            warm one. A cold approach has no other.
        operators: run torch.profiler, which makes the call longer; without, the spans have their true lengths.

    What runs on a GPU is recorded in a process of its own, started for it, to which model and inputs are copied: a
    second profile of CUDA in one process is not to be trusted.

    A model whose branches have to be found is captured for each recording, which may take seconds. To record several
    approaches of it, find them once: record ``kit.branched(model, inputs)``.

    Raises: as :func:`compare`, and:
        TraceError: a kernel starts before its launch.
        TransferError: a model on a GPU that cannot be sent to another process.
    """
    work = with_branches(as_workload(model, inputs), approach, told=False)
    call = partial(_record_here, work, approach, first, operators)
    return record_fresh(call) if operators and on_gpu(work.model, *work.inputs) else call()


def graph(model: nn.Module, inputs: Any) -> Graph:
    """What depends on what in any model, how long each operator takes, and which parts could run at the same time.

    The model is captured (``torch.fx``, else ``torch.export``), and each operator is measured on one thread. Operators
    that write into memory that others use, or that draw random numbers, keep their order.

    >>> from kit import models
    >>> graph = kit.graph(models.inception_block(8, 8), torch.rand(1, 8, 9, 9))
    >>> [branch.name for branch in graph.regions[0].branches]
    ['1x1', '5x5', 'double 3x3', 'pool']
    >>> graph.parallelism > 1  # work over span
    True

    Args:
        model: in eval mode; it is not changed.
        inputs: a tensor, a tuple of the model's arguments, or a dict of its keyword arguments.

    Raises:
        KitError: no ``nn.Module``, one in training mode, or one that cannot be captured; the message says where.
        ShapeError: inputs that the model does not take.
    """
    given, args = opened(model, inputs)
    return graph_of(measured(analysed(given, args), args), type(given).__name__, shapes(inputs))


def branched(model: nn.Module, inputs: Any) -> Branched:
    """The same network with its independent parts in :class:`kit.Branches`: a module to keep and to use.

    It is called as the model as given, computes the same, and holds that model's own modules and weights: nothing is
    copied. ``state_dict`` has the keys of the model as given.

    >>> from kit import models
    >>> model, images = models.plain.inception()  # ordinary PyTorch code
    >>> branched = kit.branched(model, images)
    >>> torch.allclose(branched(images), model(images), atol=1e-4)
    True
    >>> branched.state_dict().keys() == model.state_dict().keys()
    True

    Args:
        model: in eval mode; it is not changed.
        inputs: a tensor, a tuple of the model's arguments, or a dict of its keyword arguments.

    Raises: as :func:`kit.graph`.
    """
    given, args = opened(model, inputs)
    return analysed(given, args).branched


def as_workload(model: Any, inputs: Any) -> Workload:
    """A model and its inputs, checked, as one request; a workload as it is."""
    if isinstance(model, Workload):
        if inputs is not None:
            raise KitError(f"the workload {model.name} has its own inputs: name approaches as approaches='threads'.")
        return model
    if inputs is None:
        raise ShapeError("the inputs are missing: give a tensor, a tuple of arguments or a dict of keyword arguments.")
    work = one_request(model, inputs)
    if work.model is not None:
        check_eval(work.model)
    return work


def with_branches(work: Workload, names: str | Sequence[str], *, told: bool = True) -> Workload:
    """The workload with the branches that are found in its model, if it has no region and an approach wants one.

    What was looked for once is not looked for again: a caller with several recordings to make comes here first.

    Args:
        told: whether its caveats say what was found, for which each operator is measured.

    Raises:
        UnknownNameError: an approach that is not in the registry.
        KitError: ``branched`` was named, and there are no branches.
    """
    if work.model is None or work.no_branches or any(regions(work.model)) or not _want_regions(work, names):
        return work
    try:
        seen = analysed(work.model, work.inputs)
    except KitError as error:
        return _without(work, f"no branches could be looked for: {error}", names)
    caveats = _findings(work, seen) if told else ()
    if not any(regions(seen.branched)):
        return _without(work, f"no branches were found in {type(work.model).__name__}", names, caveats)
    return replace(
        work,
        model=seen.branched,
        given=work.model,
        approaches={FOUND: Runs(sequential)},
        baseline="sequential",
        caveats=caveats,
    )


def _without(work: Workload, why: str, names: str | Sequence[str], caveats: tuple[str, ...] = ()) -> Workload:
    if _named(FOUND, names):
        raise KitError(f"{FOUND} cannot run: {why.rstrip('.')}. Leave it out.")
    return replace(work, no_branches=why, caveats=caveats)


def _findings(work: Workload, seen: Analysed) -> tuple[str, ...]:
    """What a reader of a comparison must know of branches that were found, or that there are none."""
    found = graph_of(measured(seen, work.inputs), type(work.model).__name__, work.description)
    if not found.regions:
        return (found.answer,)
    return (
        f"branches were found by {seen.way} in {seen.seconds:.1f} s: {counted(len(found.regions), 'region')} with "
        f"{found.in_regions:.0%} of the work. sequential is the model as given; {FOUND} runs the branches one after "
        f"the other, so what it gains or loses is not due to concurrency. {found.answer}",
    )


def _want_regions(work: Workload, names: str | Sequence[str]) -> bool:
    return _named(FOUND, names) or any(not work.is_baseline(each) and not each.whole for each in work.chosen(names))


def _named(kind: str, names: str | Sequence[str]) -> bool:
    return any(each.partition("(")[0] == kind for each in split_names(names))


def _record_here(work: Workload, approach: str, first: bool, operators: bool) -> Trace:
    fits = nullcontext() if work.model is None else called_with(work.model, work.inputs)
    with fits, closing(work.prepare(approach)) as runner:
        trace = record_call(runner, warm=not (first or runner.cold), operators=operators)
    return stack({approach: trace})
