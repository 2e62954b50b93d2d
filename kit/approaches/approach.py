"""An approach: one or more entries of the registry with their options, and how it is prepared for a model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.jit._trace import TracerWarning

from kit.approaches.registry import Calls, Entry, Rewrites, Runs
from kit.approaches.runner import ModelRunner, Runner
from kit.equality import shapes
from kit.errors import KitError, UnavailableError, brief
from kit.executors import Executor, Sequential
from kit.executors.thread_counts import intra_op_threads
from kit.inputs import Args, opened
from kit.machine import hardware
from kit.regions import outermost, some_regions
from kit.reprs import one_line
from kit.spans import clock
from kit.transforms import Transform
from kit.transforms.copying import rewritable
from kit.transforms.proof import prove
from kit.transforms.undisturbed import undisturbed


@one_line
class Term(NamedTuple):
    """One entry of the registry with its options: ``threads(workers=2)``."""

    kind: str  # its name in the registry
    options: Mapping[str, Any]
    entry: Entry

    def __str__(self) -> str:
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.kind}({options})" if options else self.kind


@dataclass(frozen=True)
class Approach:
    """A named approach to running a model, with its options; :func:`parse` makes one from its name.

    Transforms rewrite the model one after the other; the last step may be an executor, which runs its regions. Without
    an executor, branches run one after the other in the calling thread, on all cores.

    >>> from kit import approaches
    >>> approach = approaches.parse("folded + threads(workers=2)")
    >>> approach.name, approach.rewrites
    ('folded + threads(workers=2)', True)

    Raises:
        KitError: steps that do not go together, with the reason.
    """

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        kinds = [term.kind for term in self.terms]
        if len(set(kinds)) < len(kinds):
            raise KitError(f"{self.name}: one step is named twice; name it once.")
        for term, following in pairwise(self.terms):
            if isinstance(term.entry, Calls) or isinstance(following.entry, Calls):
                alone = term if isinstance(term.entry, Calls) else following
                raise KitError(f"{self.name}: {alone.kind} runs the whole workload by itself: name it alone.")
            if not isinstance(term.entry, Rewrites):
                raise KitError(f"{self.name}: {term.kind} runs the regions, so it must be the last step that is named.")
            transform = term.entry.make
            gives = transform.opaque or transform.layers
            rewritten = isinstance(following.entry, Rewrites) and (
                transform.opaque or not following.entry.make.captures
            )
            if gives and rewritten:
                raise KitError(
                    f"{self.name}: {term.kind} gives {gives}, which {following.kind} cannot rewrite: write "
                    f"{term.kind} after the other transforms."
                )
            if transform.opaque and not transform.per_branch:
                raise KitError(
                    f"{self.name}: {term.kind} gives {transform.opaque}, so {following.kind} finds no branches to run: "
                    "leave one of them out."
                )
            last = self.terms[-1].entry
            if transform.not_picklable and isinstance(last, Runs) and last.sends:
                raise KitError(
                    f"{self.name}: {transform.not_picklable} cannot be sent to another process or device: run it on "
                    "threads instead."
                )

    @property
    def name(self) -> str:
        """The name as a user writes it: ``threads(workers=2)`` or ``channels_last + compiled + threads``."""
        return " + ".join(map(str, self.terms))

    @property
    def kind(self) -> str:
        """Its name without the options."""
        return " + ".join(term.kind for term in self.terms)

    def __repr__(self) -> str:
        return f"Approach({self.name})"

    @property
    def about(self) -> str:
        """One sentence about each of its steps."""
        return " ".join(term.entry.about for term in self.terms)

    def unavailable_because(self, machine: hardware.Hardware) -> str | None:
        """Why it cannot run on this machine, as a sentence; None if it can."""
        return next(filter(None, (term.entry.unavailable_because(machine) for term in self.terms)), None)

    def seconds(self, model: nn.Module | None) -> float:
        """Rough estimate of the seconds to prepare this model and make its first call, from six models on two cores.

        Args:
            model: None for a workload's own runner, which needs no model.

        Raises:
            KitError: the model has no region, and the executor needs one.
        """
        given = nn.Identity() if model is None else model
        if self._executor is not None and self._executor.kind != "sequential":
            some_regions(given)
        return sum(term.entry.seconds(given) for term in self.terms)

    @property
    def calls(self) -> bool:
        """Whether it is a workload's own runner, which :meth:`start` makes; all others :meth:`prepare` a model."""
        return isinstance(self.terms[0].entry, Calls)

    def start(self) -> Runner:
        """The runner of an approach that belongs to a workload, for the workload's items.

        Raises:
            KitError: the approach's function returned something that is not a runner.
        """
        runner = self.terms[0].entry.made(self.terms[0].options, cores=hardware.detect().cores)
        if not isinstance(runner, Runner):
            raise KitError(
                f"{self.name} made {shapes((runner,))}, which is not a runner: give the workload the function itself, "
                "or Calls of a function that makes a runner."
            )
        return runner

    def prepare(self, model: nn.Module, inputs: Any) -> ModelRunner:
        """A runner of this model on these inputs. The model is not changed; its weights are shared where possible.

        Args:
            model: in eval mode.
            inputs: a tensor, a tuple of arguments or a dict of keyword arguments. Every call of the runner works on
                them; a transform rewrites the model for their shapes.

        Raises:
            UnavailableError: the machine cannot do this; an approach is never replaced by another.
            KitError: the model has no region with branches, or nothing to rewrite; or a compiler or exporter failed
                (the message has its error).
        """
        machine = hardware.detect()
        if reason := self.unavailable_because(machine):
            raise UnavailableError(f"{self.name} cannot run here: {reason}")
        named = tuple(inputs) if isinstance(inputs, Mapping) else ()
        model, args = opened(model, inputs)
        start = clock()
        with warnings.catch_warnings():  # torch's compilers and exporters use parts of torch that are deprecated
            for category in (DeprecationWarning, FutureWarning, TracerWarning):
                warnings.simplefilter("ignore", category)
            try:
                runner = self._made(model, args, machine.cores)
            except KitError:
                raise
            except KeyboardInterrupt:  # a compiler's frames, dozens of them, would take a notebook seconds to print
                raise KeyboardInterrupt(f"while {self.name} was being prepared") from None
            except Exception as error:  # of a compiler or an exporter
                name = type(model).__name__
                raise KitError(f"{self.name} failed on {name} with {shapes(inputs)}: {brief(error)}") from error
        runner.keywords = named
        runner.prepare_s = (clock() - start) / 1e9 if self._transforms else 0.0
        return runner

    def _made(self, model: nn.Module, args: Args, cores: int) -> ModelRunner:
        with torch.inference_mode(False), torch.no_grad():  # new weights are to be ordinary tensors
            remarks = []
            for transform in self._transforms:
                each, given = transform.per_branch and self._executor, model
                model = _rewrite_branches(transform, model, args) if each else transform.apply(model, args)
                remarks.append(transform.remark(args, model))
        own = filter(None, (transform.runs_on(model) for transform in self._transforms))
        executor: Executor = next(own, Sequential(cores))
        if self._executor:
            executor = self._executor.entry.made(self._executor.options, model=model, cores=cores)
        runner = ModelRunner(model, args, executor, executor.caller_threads or cores)
        runner.remarks = tuple(filter(None, (*remarks, executor.remark)))
        if any(transform.not_picklable for transform in self._transforms):
            try:
                _freeze(runner, self._transforms[-1], given, args)
            except BaseException:
                runner.close()
                raise
        return runner

    @property
    def rewrites(self) -> bool:
        """Whether its operators differ from those of the model as given, by a transform or by a runner of its own."""
        entries = (term.entry for term in self.terms)
        return any(isinstance(entry, Rewrites) or (isinstance(entry, Calls) and entry.rewrites) for entry in entries)

    @property
    def whole(self) -> bool:
        """Whether it runs a model as one piece, with or without regions in it."""
        return self._executor is None and not any(transform.wants_regions for transform in self._transforms)

    @cached_property
    def _transforms(self) -> list[Transform]:
        return [term.entry.made(term.options) for term in self.terms if isinstance(term.entry, Rewrites)]

    @property
    def _executor(self) -> Term | None:
        return self.terms[-1] if isinstance(self.terms[-1].entry, Runs) else None


def _rewrite_branches(transform: Transform, model: nn.Module, args: Args) -> nn.Module:
    """Rewrite each branch of the outermost regions separately, so that an executor can still run the regions."""
    with undisturbed(model):
        model, _, given = rewritable(model, args)
    for region in outermost(model, given).values():
        for name, branch in region.branches.items():
            region.branches[name] = transform.apply(branch, args)
    return model


def _freeze(runner: ModelRunner, transform: Transform, given: nn.Module, args: Args) -> None:
    """Make the final rewrite of each branch, with the intra-op threads that it will have, and check its output."""
    threads = intra_op_threads(runner.lane_threads or runner.intra_op_threads)
    with threads, undisturbed(given):
        runner.model = transform.freeze(runner.model, args)
        prove(type(transform).__name__, given, runner.model, args)
