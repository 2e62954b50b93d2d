"""Approaches: what the catalogue has, with options and in combination, by name."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, get_args

import torch
from torch import nn
from torch.jit._trace import TracerWarning

from kit import hardware
from kit.catalogue import CATALOGUE, Entry, Runner, sequential
from kit.equality import as_args, shapes
from kit.errors import KitError, UnavailableError, UnknownNameError, brief
from kit.executors.thread_counts import intra_op_threads
from kit.inputs import opened
from kit.regions import outermost, some_regions
from kit.reprs import one_line
from kit.spans import clock
from kit.transforms import Transform
from kit.transforms.copying import rewritable
from kit.transforms.proof import prove, undisturbed


@one_line
class Step(NamedTuple):
    """One transform or executor with its options."""

    kind: str  # its name in the catalogue
    options: Mapping[str, Any]

    @property
    def entry(self) -> Entry:
        """Its row of the catalogue."""
        return CATALOGUE[self.kind]

    def __str__(self) -> str:
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.kind}({options})" if options else self.kind


@dataclass(frozen=True)
class Approach:
    """A named, parameterised way to run a model; :func:`parse` makes one from its name.

    Transforms rewrite the model one after the other; the last step may be an executor, which runs its regions. Without
    one they run one after the other in the calling thread, on all cores.

    Raises:
        KitError: steps that do not go together, with the reason.
    """

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        kinds = [step.kind for step in self.steps]
        if len(set(kinds)) < len(kinds):
            raise KitError(f"{self.name}: a step is there twice; once is enough.")
        for step, following in pairwise(self.steps):
            if not step.entry.rewrites:
                raise KitError(
                    f"{self.name}: {step.kind} runs the regions, so nothing comes after it: write it last, and alone."
                )
            transform: type[Transform] = step.entry.make  # type: ignore[assignment]
            if following.entry.rewrites and transform.closed:
                raise KitError(
                    f"{self.name}: {step.kind} gives {transform.closed}, which {following.kind} cannot rewrite: write "
                    f"{step.kind} after the other transforms."
                )
            if transform.closed and not transform.each_branch:
                raise KitError(
                    f"{self.name}: {step.kind} gives {transform.closed}, so {following.kind} finds nothing that it "
                    "could run: leave one of them out."
                )
            if transform.stays and self.steps[-1].entry.sends:
                raise KitError(
                    f"{self.name}: {transform.stays} cannot be sent to another process: run it on threads instead."
                )

    @property
    def name(self) -> str:
        """As people write it: ``threads(workers=2)`` or ``channels_last + compiled + threads``."""
        return " + ".join(map(str, self.steps))

    @property
    def kind(self) -> str:
        """Its name without the options."""
        return " + ".join(step.kind for step in self.steps)

    def __repr__(self) -> str:
        return f"Approach({self.name})"

    @property
    def about(self) -> str:
        """What each step is, in one sentence."""
        docs = [inspect.getdoc(step.entry.make) or "" for step in self.steps]
        return " ".join(doc.partition("\n\n")[0].replace("\n", " ") for doc in docs)

    def unavailable_because(self, machine: hardware.Hardware) -> str | None:
        """Why it cannot run on this machine, as a sentence, or None when it can."""
        return next(filter(None, (step.entry.unavailable_because(machine) for step in self.steps)), None)

    def seconds(self, model: nn.Module) -> float:
        """About how long preparing this model and its first call take: by the half dozen models timed on two cores.

        Raises:
            KitError: the model has no region, and the executor wants one.
        """
        if self._executor is not None and self._executor.kind != "sequential":
            some_regions(model)
        return sum(step.entry.seconds(model) for step in self.steps)

    def remarks(self, inputs: Any) -> list[str]:
        """What a reader of its results must know."""
        return list(filter(None, (transform.remark(as_args(inputs)) for transform in self._transforms)))

    def prepare(self, model: nn.Module, inputs: Any = None) -> Runner:
        """A runner for this model. The model is not changed; the runner works with its weights where it can.

        Args:
            model: in eval mode.
            inputs: examples, a tensor, a tuple of arguments or a dict of keyword arguments: what a transform rewrites
                the model for.

        Raises:
            UnavailableError: the machine cannot do this; an approach is never replaced by another.
            KitError: the model has no region whose branches could run at the same time, or nothing to rewrite; a
                transform without inputs; or what a compiler or exporter said of the model.
        """
        machine = hardware.detect()
        if reason := self.unavailable_because(machine):
            raise UnavailableError(f"{self.name} cannot run here: {reason}")
        if self._transforms and inputs is None:
            raise KitError(f"{self.name} rewrites the model for its inputs: give prepare some, as kit.compare does.")
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

    def _made(self, model: nn.Module, args: tuple[Any, ...], cores: int) -> Runner:
        with torch.inference_mode(False), torch.no_grad():  # new weights are to be ordinary tensors
            for transform in self._transforms:
                each, given = transform.each_branch and self._executor, model
                model = _rewrite_branches(transform, model, args) if each else transform.apply(model, args)
        make, options = (self._executor.entry.make, self._executor.options) if self._executor else (sequential, {})
        runner: Runner = make(model, cores, **options)
        if any(transform.stays for transform in self._transforms):
            try:
                _settle(runner, self._transforms[-1], given, args)
            except BaseException:
                runner.close()
                raise
        return runner

    @property
    def rewrites(self) -> bool:
        """Whether any of its steps is a transform."""
        return bool(self._transforms)

    @cached_property
    def _transforms(self) -> list[Transform]:
        return [step.entry.make(**step.options) for step in self.steps if step.entry.rewrites]

    @property
    def _executor(self) -> Step | None:
        return None if self.steps[-1].entry.rewrites else self.steps[-1]


def _rewrite_branches(transform: Transform, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
    """Each branch of the outermost regions by itself, so that an executor still runs the regions."""
    with undisturbed(model):
        model, _, given = rewritable(model, args)
    for region in outermost(model, given).values():
        for name, branch in region.branches.items():
            region.branches[name] = transform.apply(branch, args)
    return model


def _settle(runner: Runner, transform: Transform, given: nn.Module, args: tuple[Any, ...]) -> None:
    """Let branch after branch change for the last time, with the intra-op threads that it will have, and prove it."""
    threads = intra_op_threads(getattr(runner.executor, "intra_op_threads", runner.intra_op_threads))
    with threads, undisturbed(given):
        runner.model = transform.settled(runner.model, args)
        prove(type(transform).__name__, given, runner.model, args)


def available(machine: hardware.Hardware | None = None) -> dict[str, str | None]:
    """Every approach of the catalogue, with the sentence why it cannot run on this machine (default: here) or None."""
    machine = machine or hardware.detect()
    return {kind: entry.unavailable_because(machine) for kind, entry in CATALOGUE.items()}


def parse(text: str) -> Approach:
    """An approach from its name and options, as in ``threads(workers=2)`` or ``channels_last + compiled + threads``.

    Raises:
        UnknownNameError: no such approach, or none of its options; the message names the near ones.
        KitError: the text is not names with ``option=value`` in parentheses, a value that the option does not take, or
            steps that do not go together.
    """
    return Approach(tuple(_step(part, text) for part in str(text).split("+")))


def _step(part: str, text: str) -> Step:
    match = re.fullmatch(r"\s*([\w-]+)\s*(?:\((.*)\))?\s*", part)
    if meant(part):
        raise UnknownNameError("approach", part.strip(), CATALOGUE, meant(part))
    if not match:
        raise KitError(
            f"cannot read the approach {text!r}: write it as 'threads', 'threads(workers=2)' or 'folded + threads'."
        )
    kind, arguments = match.group(1), match.group(2) or ""
    if kind not in CATALOGUE:
        raise UnknownNameError("approach", kind, CATALOGUE)
    return Step(kind, read_options(kind, arguments, CATALOGUE[kind].options))


def read_options(kind: str, text: str, known: Mapping[str, Any], least: int = 1) -> dict[str, Any]:
    """Values from ``option=value``, with commas between.

    Args:
        known: option -> its type: int, bool, or a Literal.
        least: that a whole number may be.

    Raises:
        UnknownNameError: an option that is not known.
        KitError: a value that it does not take.
    """
    options: dict[str, Any] = {}
    for each in filter(None, (each.strip() for each in text.split(","))):
        option, _, value = (side.strip() for side in each.partition("="))
        if option not in known:
            raise UnknownNameError(f"option of {kind}", option, known)
        choices = {
            str(choice): choice for choice in ((True, False) if known[option] is bool else get_args(known[option]))
        }
        if int in (known[option], *choices.values()):
            if not value.isdecimal() or int(value) < least:
                raise KitError(f"{kind}({option}={value}): {option} must be a whole number of at least {least}.")
            options[option] = int(value)
        elif value in choices:
            options[option] = choices[value]
        else:
            raise KitError(f"{kind}({option}={value}): {option} is one of {', '.join(choices)}.")
    return options


# What others call it, as far as it is no name of the catalogue itself; without capitals, spaces and signs.
_ALSO_CALLED = {
    "sequential": "baseline eager serial plain",
    "threads": "threading threadpool threadpoolexecutor multithreading",
    "processes": "multiprocessing mp fork spawn torchmultiprocessing processpool processpoolexecutor",
    "ranks": "distributed torchdistributed ddp distributeddataparallel gloo torchrun mpi",
    "channels_last": "nhwc memoryformat",
    "folded": "fuse fused fusion fold bnfolding batchnormfolding",
    "compiled": "compile torchcompile inductor torchinductor dynamo torchdynamo",
    "cuda_streams": "stream cudastream torchcudastream",
    "graphed": "cudagraph cudagraphs torchcudagraph torchcudagraphs",
    "scripted_fork": "fork jit jitfork torchjitfork torchscript script torchjit torchjitscript",
    "replicated": "dp dataparallel nndataparallel torchnndataparallel",
    "onnxruntime": "onnx ort",
    "devices": "multigpu modelparallel",
}


def meant(text: str) -> list[str]:
    """The approaches of the catalogue that are elsewhere called this: ``torch.compile`` is ``compiled``."""
    plain = re.sub(r"[\W_]", "", text.partition("(")[0].lower())
    return [] if text.strip() in CATALOGUE else [kind for kind, also in _ALSO_CALLED.items() if plain in also.split()]


def split_names(names: str | Iterable[str]) -> list[str]:
    """Names with commas or spaces between, as a command line gives them, or several such texts; all in one list.

    Neither separates within parentheses, nor spaces around a ``+``, nor in what others call it (``cuda graphs``).

    Raises:
        KitError: there is no name, or something that is no text.
    """
    found: list[str] = []
    for text in names if isinstance(names, Iterable) and not isinstance(names, str) else [names]:
        if not isinstance(text, str):
            raise KitError(
                f"an approach is named by a string, as in 'threads', and this is {shapes((text,))}: several inputs of "
                "a model go into one tuple, and approaches after it."
            )
        for part in re.split(r",(?![^()]*\))", text):
            glued = re.sub(r"\s*([+(])\s*", r"\1", part.strip())
            found += [part.strip()] if meant(part) else re.split(r"\s+(?![^()]*\))", glued)
    if not any(found):
        raise KitError("there is no approach to compare: name some, as in 'sequential,threads'.")
    return list(filter(None, found))
