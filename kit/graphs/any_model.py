"""Any model: captured as a graph, rewritten into branches, and checked to compute the same output."""

from __future__ import annotations

import copy
import statistics
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.fx.proxy import TraceError

from kit.equality import compare_outputs
from kit.errors import KitError, line_of
from kit.executors import Task
from kit.executors.thread_counts import intra_op_threads
from kit.executors.threads import Threads
from kit.graphs.branched import Branched
from kit.graphs.capture import FX, FX_FOR_SHAPES, WAYS, call_unchanged, captured
from kit.graphs.effects import effects_of, measure
from kit.graphs.found import Found, found_in
from kit.graphs.operators import Graph
from kit.graphs.rewriting import rewritten
from kit.graphs.tracing import Caught
from kit.graphs.values import form_of
from kit.inputs import Args, called_with
from kit.machine import hardware
from kit.reprs import one_line
from kit.spans import clock
from kit.transforms.base import check_eval
from kit.transforms.proof import prove
from kit.transforms.quiet import quiet
from kit.transforms.undisturbed import undisturbed


@one_line
@dataclass(frozen=True, eq=False)
class Analysed:
    """A captured model: its graph and regions, and the checked module that was made of them."""

    found: Found
    branched: Branched
    seconds: float  # that this took

    @property
    def way(self) -> str:
        return self.found.captured.way


def analysed(model: nn.Module, args: Args) -> Analysed:
    """Capture a model, find its regions, rewrite it, and check the new module on other inputs.

    Raises:
        KitError: the model is in training mode, cannot be captured by any method, or its rewritten module gives another
            output; the message says for each method why it failed, and in which line.
    """
    check_eval(model)
    start = clock()
    refusals: dict[str, KitError] = {}  # of fx the last one: it asks for less than the first
    with intra_op_threads(1):  # beside other programs, threads that wait for each other take many times as long
        with called_with(model, args), torch.no_grad(), undisturbed(model):
            model(*_copied(args))
            call_unchanged(model, _copied(args))
        for way in WAYS:
            try:
                found, new = _by(way, model, args)
            except KitError as error:
                if way == FX_FOR_SHAPES and isinstance(error.__cause__, Caught):  # export would not see it
                    raise
                refusals[way.partition(" ")[0]] = error
                continue
            return Analysed(found, new, (clock() - start) / 1e9)
    raise KitError(f"{type(model).__name__} cannot be captured. {_told(list(refusals.values()))}")


def _told(refusals: list[KitError]) -> str:
    """Why no method can capture a model; one sentence if all stop at the same line, for a tensor's value."""
    causes = [each.__cause__ for each in refusals]
    lines = [line and (line.filename, line.lineno) for each in causes if each for line in [line_of(each)]]
    if len(lines) == len(refusals) and len({*lines}) == 1 and isinstance(causes[0], TraceError):
        return f"{refusals[0]}; torch.export stops there too. Use torch.where, or mark branches with kit.Branches."
    return " ".join(f"{str(each).rstrip('.')}." for each in refusals)


def _by(way: str, model: nn.Module, args: Args) -> tuple[Found, Branched]:
    leaves, _ = form_of(args)
    kept = captured(model, args, way)
    try:
        with quiet(), undisturbed(model):
            torch.rand(())  # else the model would draw the same numbers again as when it was captured
            found = found_in(kept, effects_of(kept.module, leaves))
            new = rewritten(found, model, leaves)
            prove(f"capturing by {way}", model, new, args)
            _prove_with_gradients(model, new, args)
            with torch.inference_mode():
                # The other ways have taken every decision on shapes already; plain fx refuses to take one.
                new.any_batch = way == FX and _takes_any_batch(model, new, args)
    except KitError:
        raise
    except Exception as error:
        raise KitError(f"the graph of {type(model).__name__} that {way} captured does not run: {error}") from error
    return found, new


def _prove_with_gradients(model: nn.Module, new: Branched, args: Args) -> None:
    """Check the outputs with gradients enabled too: a forward may call ``torch.is_grad_enabled()``.

    Raises:
        KitError: the output differs from that of the model as given.
    """
    with torch.enable_grad(), undisturbed(model):
        try:
            expected = model(*_copied(args))
        except RuntimeError:  # it cannot be differentiated: inference is all that it is for
            return
        if not compare_outputs(_detached(expected), _detached(new(*_copied(args)))).equal:
            raise KitError(
                f"{type(model).__name__} computes another output when gradients are enabled, but a graph can hold only "
                "one of the two: remove torch.is_grad_enabled() from its forward"
            )


def _detached(value: Any) -> Any:
    leaves, form = form_of(value)
    return form.rebuilt([x.detach() for x in leaves])


def _takes_any_batch(model: nn.Module, new: Branched, args: Args) -> bool:
    """Whether both give the same output for another batch size (the first dimension of all input tensors)."""
    leaves, form = form_of(args)
    sizes = {x.shape[0] if x.ndim else 0 for x in leaves}
    if len(sizes) != 1 or 0 in sizes:
        return False
    given = [torch.cat([x, x[:1]]) for x in leaves]
    new.any_batch = True
    try:
        with undisturbed(model):
            expected = model(*form.rebuilt([x.clone() for x in given]))
        return compare_outputs(expected, new(*form.rebuilt(given))).equal
    except Exception:  # the model as given, or what was made of it, holds for this batch only
        return False
    finally:
        new.any_batch = False


def measured(seen: Analysed, args: Args) -> Analysed:
    """The analysed model with the time of each operator on one thread, measured if it is not known yet."""
    module = seen.found.captured.module
    with undisturbed(module):  # its buffers are the model's own
        measure(module, form_of(args)[0], seen.found.effects)
    return seen


def graph_of(seen: Analysed, name: str, inputs: str) -> Graph:
    """The graph of an analysed model, as data."""
    found = seen.found
    return Graph(
        name,
        inputs,
        seen.way,
        seen.seconds,
        found.operators(),
        found.regions(found.blocks),
        tuple(found.knots(found.blocks)),
        hardware.detect().cores,
        handing_over_ms(),
    )


@cache
def handing_over_ms() -> float:
    """The milliseconds that it takes on this machine to start four empty branches on threads and to join them."""
    tasks = [Task(str(i), _nothing, ()) for i in range(4)]
    took = []
    with Threads(hardware.detect().cores) as executor:
        for _ in range(200):
            start = clock()
            executor.run(tasks)
            took.append(clock() - start)
    return statistics.median(took) / 1e6


def _nothing() -> None:
    return None


def _copied(args: Args) -> Args:
    """Copies of all tensors, in copied lists and dicts; tensors that share memory still share it."""
    leaves, form = form_of(args)
    copied: Args = form.rebuilt(copy.deepcopy(leaves))
    return copied
