"""The registry: every approach by its name, what makes it, and what it needs from the machine."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, get_args, get_type_hints

from torch import nn

from kit.approaches.runner import Runner
from kit.errors import KitError
from kit.executors import Executor
from kit.machine.hardware import Hardware
from kit.reprs import one_line
from kit.transforms import Transform

ALL = "all"  # stands for every approach


def always(machine: Hardware) -> None:
    """What needs nothing from the machine is never unavailable."""


def nothing(model: nn.Module) -> float:
    """Seconds of preparing what is ready at once."""
    return 0.0


@one_line
@dataclass(frozen=True)
class Entry:
    """One approach by its name. The parameters of what makes it are the approach's options, but for model and cores."""

    make: Callable[..., Any]  # called with the options, and with model and cores where it has such parameters
    unavailable_because: Callable[[Hardware], str | None] = always
    seconds: Callable[[nn.Module], float] = nothing  # about how long preparing and the first call take, where long

    least: ClassVar[int] = 1  # that an option which is a whole number may be

    def made(self, options: Mapping[str, Any], **given: Any) -> Any:
        """What it makes with these options."""
        parameters = inspect.signature(self.make).parameters
        return self.make(**{name: value for name, value in given.items() if name in parameters}, **options)

    @property
    def options(self) -> dict[str, Any]:
        """Option -> its type."""
        hints = get_type_hints(vars(self.make).get("__init__", self.make))
        parameters = inspect.signature(self.make).parameters
        return {name: hints[name] for name in parameters if name in hints and name not in ("model", "cores")}

    @property
    def about(self) -> str:
        """What it is, in one sentence."""
        return (inspect.getdoc(self.make) or "").partition("\n\n")[0].replace("\n", " ")


@dataclass(frozen=True, repr=False)
class Runs(Entry):
    """An executor: it runs the branches of a model's regions."""

    make: Callable[..., Executor]
    sends: bool = False  # whether tasks go to other processes or devices


@dataclass(frozen=True, repr=False)
class Rewrites(Entry):
    """A transform: it rewrites a model."""

    make: type[Transform]


@dataclass(frozen=True, repr=False)
class Calls(Entry):
    """A runner of its own, which a workload brings: it goes together with nothing else."""

    make: Callable[..., Runner]
    rewrites: bool = False  # whether it computes in another way than the baseline, so that their tasks differ

    least: ClassVar[int] = 0


REGISTRY: dict[str, Entry] = {}  # ordered by the cost of preparing: of a budget, the last ones are skipped first
_BUILT_IN: set[str] = set()


def register(
    name: str,
    make: Callable[..., Executor] | type[Transform],
    *,
    unavailable_because: Callable[[Hardware], str | None] = always,
) -> None:
    """Add an approach of your own, under a name that ``kit.compare`` and ``kit.record`` then know.

    It takes part like the others: in ``all``, in the check of outputs, in tables, timelines and explanations, and
    together with others, as in ``folded + name``. A name that you registered before is replaced, so that a notebook
    cell can run twice.

    >>> class Backwards(kit.Executor):
    ...     '''The branches one after the other, the last one first.'''
    ...     def run(self, tasks):
    ...         return [task() for task in reversed(tasks)][::-1]
    >>> kit.register("backwards", Backwards)

    Args:
        name: letters, digits, ``_`` and ``-``.
        make: a subclass of :class:`kit.Executor`, or a function that returns an executor: parameters called ``model``
            and ``cores`` are given the model and the number of cores, all others are options. Or a subclass of
            :class:`kit.Transform`, a frozen dataclass whose fields are the options. An option is an int, a bool or a
            Literal, and has a default. The first sentence of the docstring says what the approach is.
        unavailable_because: gives the sentence why it cannot run on a machine, or None where it can.

    Raises:
        KitError: a name that is built in or cannot be written in a list of names, something that makes neither, or an
            option without a type or default.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name) or name == ALL:
        raise KitError(f"an approach cannot be called {name!r}: take letters, digits, _ and -, and not {ALL!r}.")
    if name in _BUILT_IN:
        raise KitError(f"{name} is built in: choose another name.")
    entry = _entry(name, make, unavailable_because)
    parameters = inspect.signature(make).parameters.values()
    wrong = [each.name for each in parameters if each.name not in ("model", "cores") and not _is_option(each, entry)]
    if wrong:
        raise KitError(
            f"option {wrong[0]} of {name} cannot be written in a name: give it a type, int, bool or a Literal, and a "
            f"default, as in {wrong[0]}: int = 4."
        )
    REGISTRY[name] = entry


def _is_option(parameter: inspect.Parameter, entry: Entry) -> bool:
    try:
        kind = entry.options[parameter.name]
    except (KeyError, NameError):
        return False
    return parameter.default is not parameter.empty and (kind in (int, bool) or bool(get_args(kind)))


def _entry(name: str, make: Any, unavailable_because: Callable[[Hardware], str | None]) -> Entry:
    if lacks := sorted(getattr(make, "__abstractmethods__", ())):
        raise KitError(f"{name} cannot be registered: {make.__name__} does not define {', '.join(lacks)}.")
    if isinstance(make, type) and issubclass(make, Transform):
        return Rewrites(make, make.unavailable_because if unavailable_because is always else unavailable_because)
    if not callable(make) or (isinstance(make, type) and not issubclass(make, Executor)):
        raise KitError(
            f"{name} cannot be registered: {make!r} is no subclass of kit.Executor or kit.Transform, and no function "
            "that returns a kit.Executor."
        )
    return Runs(make, unavailable_because)


def build_in(entries: Mapping[str, Entry]) -> None:
    """Fill the registry with the kit's own approaches, whose names are taken from then on."""
    REGISTRY.update(entries)
    _BUILT_IN.update(entries)
