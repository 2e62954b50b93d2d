"""The catalogue: every named way to run a model, and what it needs from the machine."""

from __future__ import annotations

import inspect
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from torch import nn

from kit import executors, hardware
from kit.errors import KitError, UnavailableError, UnknownNameError
from kit.executors import Executor
from kit.executors.processes import Processes
from kit.executors.processes_cold import ProcessesCold
from kit.executors.threads import Threads
from kit.regions import regions


class Runner:
    """A model made ready to run one way: call it like the model, and close it (or use it as a context manager)."""

    def __init__(self, model: nn.Module, executor: Executor, intra_op_threads: int, *, cold: bool = False) -> None:
        self.model = model
        self.executor = executor
        self.intra_op_threads = intra_op_threads  # of the calling thread while this runner has its turn
        self.cold = cold  # every call starts from nothing, so that no call can warm the next

    def __call__(self, *args: Any) -> Any:
        with executors.use(self.executor):
            return self.model(*args)

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


def _widest(model: nn.Module) -> int:
    """The most branches that a region of the model has."""
    widest = max((len(region.branches) for _, region in regions(model)), default=0)
    if widest == 0:
        raise KitError(
            f"{type(model).__name__} has no region, so nothing in it can run at the same time: wrap the siblings, as "
            "in kit.Branches({'a': self.a, 'b': self.b}, merge=kit.Concat(1))."
        )
    return widest


def _needs_descriptors(machine: hardware.Hardware) -> str | None:
    if hasattr(socket, "AF_UNIX") and hasattr(socket.socket, "sendmsg"):
        return None
    return "this system cannot pass memory between processes without naming it. On Windows, use WSL."


@dataclass(frozen=True)
class _Entry:
    """A row of the catalogue."""

    prepare: Callable[..., Runner]  # (model, cores, **options); its keywords are the approach's options
    unavailable_because: Callable[[hardware.Hardware], str | None] = lambda machine: None


CATALOGUE: dict[str, _Entry] = {
    "sequential": _Entry(sequential),
    "threads": _Entry(threads),
    "processes": _Entry(processes, _needs_descriptors),
    "processes_cold": _Entry(processes_cold),
}


@dataclass(frozen=True)
class Approach:
    """A named, parameterised way to run a model; :func:`parse` makes one from its name."""

    kind: str  # its name in the catalogue
    options: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As people write it: ``threads`` or ``threads(workers=2)``."""
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.kind}({options})" if options else self.kind

    @property
    def about(self) -> str:
        """What it is, in one sentence."""
        return inspect.getdoc(CATALOGUE[self.kind].prepare) or ""

    def unavailable_because(self, machine: hardware.Hardware) -> str | None:
        """Why it cannot run on this machine, as a sentence, or None when it can."""
        return CATALOGUE[self.kind].unavailable_because(machine)

    def prepare(self, model: nn.Module) -> Runner:
        """A runner for this model. The model is not changed; the runner works with its weights, not with a copy.

        Raises:
            UnavailableError: the machine cannot do this; an approach is never replaced by another.
            KitError: the model has no region whose branches could run at the same time.
        """
        machine = hardware.detect()
        if reason := self.unavailable_because(machine):
            raise UnavailableError(f"{self.name} cannot run here: {reason}")
        return CATALOGUE[self.kind].prepare(model, machine.cores, **self.options)


def parse(text: str) -> Approach:
    """An approach from its name and options, as in ``threads(workers=2)``.

    Raises:
        UnknownNameError: no such approach, or none of its options; the message names the near ones.
        KitError: the text is not a name with ``option=whole number`` in parentheses, or a number below 1.
    """
    match = re.fullmatch(r"\s*([\w-]+)\s*(?:\((.*)\))?\s*", text)
    if not match:
        raise KitError(f"cannot read the approach {text!r}: write it as 'threads' or 'threads(workers=2)'.")
    kind, arguments = match.group(1), match.group(2) or ""
    if kind not in CATALOGUE:
        raise UnknownNameError("approach", kind, CATALOGUE)
    known = [
        name
        for name, parameter in inspect.signature(CATALOGUE[kind].prepare).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    options: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in arguments.split(","))):
        option, _, value = (side.strip() for side in part.partition("="))
        if option not in known:
            raise UnknownNameError(f"option of {kind}", option, known)
        if not value.isdecimal() or int(value) < 1:
            raise KitError(f"{kind}({option}={value}): {option} must be a whole number of at least 1.")
        options[option] = int(value)
    return Approach(kind, options)


def split_names(text: str) -> list[str]:
    """Names separated by commas, as a command line gives them; commas in parentheses do not separate."""
    return [name.strip() for name in re.split(r",(?![^()]*\))", text) if name.strip()]
