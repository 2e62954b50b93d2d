"""The catalogue: every named way to run a model, and what it needs from the machine."""

from __future__ import annotations

import inspect
import re
import socket
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, Self, get_args, get_type_hints

import torch
from torch import nn
from torch.jit._trace import TracerWarning

from kit import executors, hardware
from kit.equality import as_args, shapes
from kit.errors import KitError, UnavailableError, UnknownNameError
from kit.executors import Executor
from kit.executors.assignment import PolicyName
from kit.executors.cuda_streams import CudaStreams
from kit.executors.cuda_streams import unavailable_because as cuda_streams_unavailable
from kit.executors.cuda_streams_threads import CudaStreamsThreads
from kit.executors.devices import Devices
from kit.executors.devices import unavailable_because as devices_unavailable
from kit.executors.modes import intra_op_threads
from kit.executors.processes import Processes
from kit.executors.processes_cold import ProcessesCold
from kit.executors.threads import Threads
from kit.regions import outermost, some_regions
from kit.spans import clock
from kit.transforms import Transform
from kit.transforms.base import rewritable
from kit.transforms.channels_last import ChannelsLast
from kit.transforms.compiled import Compiled
from kit.transforms.folded import Folded
from kit.transforms.graphed import Graphed, GraphedStreams
from kit.transforms.merged import Merged
from kit.transforms.onnx_runtime import OnnxRuntime
from kit.transforms.replicated import Replicated
from kit.transforms.scripted_fork import ScriptedFork


class Runner:
    """A model made ready to run one way: call it like the model, and close it (or use it as a context manager)."""

    def __init__(self, model: nn.Module, executor: Executor, intra_op_threads: int, *, cold: bool = False) -> None:
        self.model = model
        self.executor = executor
        self.intra_op_threads = intra_op_threads  # of the calling thread while this runner has its turn
        self.cold = cold  # every call starts from nothing, so that no call can warm the next
        self.prepare_s = 0.0  # seconds that rewriting took: copying, exporting, compiling
        self.failure: Exception | None = None  # what a call raised last

    def __call__(self, *args: Any) -> Any:
        try:
            with executors.use(self.executor):
                return self.model(*args)
        except Exception as error:
            self.failure = error
            raise

    def close(self) -> None:
        """Let go of the executor's threads or processes."""
        self.executor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Runner({type(self.model).__name__} on {self.executor!r}, {self.intra_op_threads} intra-op threads)"


def sequential(model: nn.Module, cores: int, *, threads: int | None = None) -> Runner:
    """One branch after the other in the calling thread, each operator on all cores (or on ``threads`` of them)."""
    return Runner(model, executors.Sequential(), threads or cores)


def threads(model: nn.Module, cores: int, *, workers: int | None = None, threads: int | None = None) -> Runner:
    """A persistent thread per branch, at most one per core, the cores shared out among their operators."""
    workers = workers or min(_widest(model), cores)
    return Runner(model, Threads(workers, threads or max(1, cores // workers)), cores)


def processes(
    model: nn.Module, cores: int, *, workers: int | None = None, threads: int | None = None, timeout: int = 60
) -> Runner:
    """A persistent process per branch, at most one per core, pinned to its share of them; tensors in shared memory."""
    workers = workers or min(_widest(model), cores)
    return Runner(model, Processes(workers, threads or max(1, cores // workers), timeout), cores)


def processes_cold(model: nn.Module, cores: int, *, timeout: int = 120) -> Runner:
    """A new process per branch and per call, with a queue each: the published recipe."""
    _widest(model)
    return Runner(model, ProcessesCold(timeout), cores, cold=True)


def cuda_streams(
    model: nn.Module, cores: int, *, policy: PolicyName = "one_per_branch", streams: int | None = None
) -> Runner:
    """A CUDA stream per branch, launched from the calling thread."""
    _widest(model)
    return Runner(model, CudaStreams(policy, streams), cores)


def cuda_streams_threads(model: nn.Module, cores: int) -> Runner:
    """A CUDA stream per branch, and a thread for each that launches onto it."""
    return Runner(model, CudaStreamsThreads(_widest(model)), cores)


def one_device_each(model: nn.Module, cores: int) -> Runner:
    """A device per branch: all GPUs in turn, or the one GPU and the CPU; inputs are moved without waiting."""
    _widest(model)
    return Runner(model, Devices(), cores)


def _widest(model: nn.Module) -> int:
    """The most branches that a region of the model has."""
    return max(len(region.branches) for region in some_regions(model).values())


def _needs_descriptors(machine: hardware.Hardware) -> str | None:
    if hasattr(socket, "AF_UNIX") and hasattr(socket.socket, "sendmsg"):
        return None
    return "this system cannot pass memory between processes without naming it. On Windows, use WSL."


@dataclass(frozen=True)
class _Entry:
    """A row of the catalogue. The keywords of what it makes are the approach's options."""

    make: Callable[..., Any]  # a Transform, or (model, cores, **options) -> Runner on an executor
    unavailable_because: Callable[[hardware.Hardware], str | None] = lambda machine: None
    sends: bool = False  # an executor whose tasks go to other processes

    @property
    def rewrites(self) -> bool:
        """Whether this is a transform."""
        return isinstance(self.make, type)

    @property
    def options(self) -> dict[str, Any]:
        """Option -> its type."""
        hints = get_type_hints(self.make)
        parameters = inspect.signature(self.make).parameters
        return {name: hints[name] for name in parameters if name not in ("model", "cores")}


def _rewriting(transform: type[Transform]) -> _Entry:
    return _Entry(transform, transform.unavailable_because)


CATALOGUE: dict[str, _Entry] = {  # what takes long to prepare comes last: a comparison of all has a budget
    "sequential": _Entry(sequential),
    "threads": _Entry(threads),
    "channels_last": _rewriting(ChannelsLast),
    "folded": _rewriting(Folded),
    "merged": _rewriting(Merged),
    "scripted_fork": _rewriting(ScriptedFork),
    "replicated": _rewriting(Replicated),
    "cuda_streams": _Entry(cuda_streams, cuda_streams_unavailable),
    "cuda_streams_threads": _Entry(cuda_streams_threads, cuda_streams_unavailable),
    "devices": _Entry(one_device_each, devices_unavailable),
    "graphed": _rewriting(Graphed),
    "graphed_streams": _rewriting(GraphedStreams),
    "processes": _Entry(processes, _needs_descriptors, sends=True),
    "onnxruntime": _rewriting(OnnxRuntime),
    "compiled": _rewriting(Compiled),
    "processes_cold": _Entry(processes_cold, sends=True),
}


class Step(NamedTuple):
    """One transform or executor with its options."""

    kind: str  # its name in the catalogue
    options: Mapping[str, Any]

    @property
    def entry(self) -> _Entry:
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

    @property
    def about(self) -> str:
        """What each step is, in one sentence."""
        docs = [inspect.getdoc(step.entry.make) or "" for step in self.steps]
        return " ".join(doc.partition("\n\n")[0].replace("\n", " ") for doc in docs)

    def unavailable_because(self, machine: hardware.Hardware) -> str | None:
        """Why it cannot run on this machine, as a sentence, or None when it can."""
        return next(filter(None, (step.entry.unavailable_because(machine) for step in self.steps)), None)

    def remarks(self, inputs: Any) -> list[str]:
        """What a reader of its results must know."""
        return list(filter(None, (transform.remark(as_args(inputs)) for transform in self._transforms)))

    def prepare(self, model: nn.Module, inputs: Any = None) -> Runner:
        """A runner for this model. The model is not changed; the runner works with its weights where it can.

        Args:
            model: in eval mode.
            inputs: examples, a tensor or a tuple of arguments: what a transform rewrites the model for.

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
        args, start = as_args(inputs), clock()
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
                said = " ".join(str(error).split())[:400]
                name = type(model).__name__
                raise KitError(f"{self.name} failed on {name} with {shapes(inputs)}: {said}") from error
        runner.prepare_s = (clock() - start) / 1e9 if self._transforms else 0.0
        return runner

    def _made(self, model: nn.Module, args: tuple[Any, ...], cores: int) -> Runner:
        with torch.inference_mode(False), torch.no_grad():  # new weights are to be ordinary tensors
            for transform in self._transforms:
                each = transform.each_branch and self._executor
                model = _rewrite_branches(transform, model, args) if each else transform.apply(model, args)
        make, options = (self._executor.entry.make, self._executor.options) if self._executor else (sequential, {})
        runner: Runner = make(model, cores, **options)
        if any(transform.stays for transform in self._transforms):
            try:
                _settle(runner, self._transforms[-1], args)
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
    model = rewritable(model)
    for region in outermost(model).values():
        for name, branch in region.branches.items():
            region.branches[name] = transform.apply(branch, args)
    return model


def _settle(runner: Runner, transform: Transform, args: tuple[Any, ...]) -> None:
    """Let branch after branch change for the last time, with the intra-op threads that it will have."""
    with intra_op_threads(getattr(runner.executor, "intra_op_threads", runner.intra_op_threads)):
        runner.model = transform.settled(runner.model, args)


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
    return Approach(tuple(_step(part, text) for part in text.split("+")))


def _step(part: str, text: str) -> Step:
    match = re.fullmatch(r"\s*([\w-]+)\s*(?:\((.*)\))?\s*", part)
    if not match:
        raise KitError(
            f"cannot read the approach {text!r}: write it as 'threads', 'threads(workers=2)' or 'folded + threads'."
        )
    kind, arguments = match.group(1), match.group(2) or ""
    if kind not in CATALOGUE:
        raise UnknownNameError("approach", kind, CATALOGUE)
    known = CATALOGUE[kind].options
    options: dict[str, Any] = {}
    for each in filter(None, (each.strip() for each in arguments.split(","))):
        option, _, value = (side.strip() for side in each.partition("="))
        if option not in known:
            raise UnknownNameError(f"option of {kind}", option, known)
        choices = {
            str(choice): choice for choice in ((True, False) if known[option] is bool else get_args(known[option]))
        }
        if int in (known[option], *choices.values()):
            if not value.isdecimal() or int(value) < 1:
                raise KitError(f"{kind}({option}={value}): {option} must be a whole number of at least 1.")
            options[option] = int(value)
        elif value in choices:
            options[option] = choices[value]
        else:
            raise KitError(f"{kind}({option}={value}): {option} is one of {', '.join(choices)}.")
    return Step(kind, options)


def split_names(text: str) -> list[str]:
    """Names separated by commas, as a command line gives them; commas in parentheses do not separate."""
    return [name.strip() for name in re.split(r",(?![^()]*\))", text) if name.strip()]
