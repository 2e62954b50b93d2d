"""The registry: every approach by its name, with its factory and its requirements on the machine."""

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
    """For approaches that need nothing from the machine: they are always available."""


def nothing(model: nn.Module) -> float:
    """For approaches that need no preparation: 0 seconds."""
    return 0.0


@one_line
@dataclass(frozen=True)
class Entry:
    """One approach of the registry. Its factory's parameters, except model and cores, are its options."""

    make: Callable[..., Any]  # called with the options, and with model and cores where it has such parameters
    unavailable_because: Callable[[Hardware], str | None] = always
    seconds: Callable[[nn.Module], float] = nothing  # about how long preparing and the first call take, where long

    least: ClassVar[int] = 1  # that an option which is a whole number may be

    def made(self, options: Mapping[str, Any], **given: Any) -> Any:
        """Call the factory with these options."""
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
    """An executor: it runs the branches of a model's regions.

    >>> from kit.approaches import REGISTRY, Runs
    >>> isinstance(REGISTRY["threads"], Runs), list(REGISTRY["threads"].options)
    (True, ['workers', 'threads'])
    """

    make: Callable[..., Executor]
    sends: bool = False  # whether tasks go to other processes or devices


@dataclass(frozen=True, repr=False)
class Rewrites(Entry):
    """A transform: it rewrites a model.

    >>> from kit.approaches import REGISTRY, Rewrites
    >>> isinstance(REGISTRY["folded"], Rewrites)
    True
    >>> REGISTRY["folded"].about
    'Folds batch norm, in eval mode a scale and a shift per channel, into the convolution before it.'
    """

    make: type[Transform]


@dataclass(frozen=True, repr=False)
class Calls(Entry):
    """A runner of its own, which belongs to a workload: it cannot be combined with other steps.

    >>> from kit.approaches import Calls, FunctionRunner, Workload
    >>> def multiplied(size: int = 8):
    ...     x = torch.rand(size, size)
    ...     return FunctionRunner(lambda: x @ x)
    >>> product = Workload("product", None, (), approaches={"matmul": Calls(multiplied)})
    >>> product.prepare("matmul(size=4)")().shape
    torch.Size([4, 4])
    """

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
    """Add your own approach under a name for ``kit.compare`` and ``kit.record``.

    It is treated like the built-in ones: in ``all``, in the check of outputs, in tables, timelines and explanations,
    and in combinations such as ``folded + name``. Registering a name again replaces it, so a notebook cell can run
    twice.

    >>> class Backwards(kit.Executor):
    ...     '''The branches one after the other, the last one first.'''
    ...
    ...     def run(self, tasks):
    ...         return [task() for task in reversed(tasks)][::-1]
    >>> kit.register("backwards", Backwards)
    >>> block = kit.Branches({"a": nn.Linear(8, 8), "b": nn.Linear(8, 8)}, kit.Concat(1)).eval()
    >>> kit.compare(block, torch.rand(1, 8), "sequential, backwards", rounds=6, progress=False)
    Comparison(sequential, backwards; 6 rounds)

    Args:
        name: letters, digits, ``_`` and ``-``.
        make: a subclass of :class:`kit.Executor`, or a function that returns an executor: parameters called ``model``
            and ``cores`` are given the model and the number of cores, all others are options. Or a subclass of
            :class:`kit.Transform`, a frozen dataclass whose fields are the options. An option is an int, a bool or a
            Literal, and has a default. The first sentence of the docstring says what the approach is.
        unavailable_because: called with the hardware; returns a sentence why the approach cannot run there, or None.

    Raises:
        KitError: the name is built in or has other characters, ``make`` gives neither an executor nor a transform, or
            an option has no type or no default.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name) or name == ALL:
        raise KitError(f"an approach cannot be called {name!r}: use letters, digits, _ and -, but not {ALL!r}.")
    if name in _BUILT_IN:
        raise KitError(f"{name} is a built-in approach: choose another name.")
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
            f"{name} cannot be registered: {make!r} is neither a subclass of kit.Executor or kit.Transform, nor a "
            "function that returns a kit.Executor."
        )
    return Runs(make, unavailable_because)


def build_in(entries: Mapping[str, Entry]) -> None:
    """Add the kit's own approaches to the registry; their names cannot be registered again."""
    REGISTRY.update(entries)
    _BUILT_IN.update(entries)
