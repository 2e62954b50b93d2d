"""A workload: one request or many items to compute, and the approaches that can run it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from inspect import signature

from torch import nn

from kit.approaches.approach import Approach
from kit.approaches.names import parse, split_names
from kit.approaches.registry import ALL, REGISTRY, Calls, Entry
from kit.approaches.runner import FunctionRunner, Runner
from kit.equality import shapes
from kit.errors import KitError, UnknownNameError
from kit.inputs import Args, opened
from kit.reprs import one_line

FOUND = "branched"  # the model with its branches as they were found, one after the other
OF_ITEMS = ("threads", "processes")  # what ``all`` adds to a workload's own approaches, where its items are branches


@one_line
@dataclass(frozen=True, eq=False)
class Workload:
    """A model with its inputs, or many items together with the approaches that run them.

    ``kit.compare(model, inputs)`` makes one for a single request. For many items, the model is a region with one branch
    per item, so that every executor can run it.

    >>> x = torch.rand(64, 64)
    >>> mine = {"matmul": lambda: x @ x, "einsum": lambda: torch.einsum("ij,jk->ik", x, x)}
    >>> product = kit.Workload("product", None, (), approaches=mine)
    >>> product.baseline
    'matmul'
    >>> kit.compare(product, approaches="all", rounds=6, progress=False)
    Comparison(matmul, einsum; 6 rounds)
    """

    name: str
    model: nn.Module | None  # in eval mode; None: only its own approaches can run it
    inputs: Args  # the positional arguments of a call
    items: int = 1  # in a call
    unit: str = "call"  # what the items are, as in "images"
    inputs_description: str = ""  # for people; empty: shapes, dtypes and devices, or the name
    # Its own, beside those of the registry: entries, or functions without arguments, whose outputs are compared.
    approaches: Mapping[str, Entry] = field(default_factory=dict)
    # The approach that all others are compared with; empty: sequential, or where there is none the first of its own.
    baseline: str = ""
    # The model as it was given, where ``model`` is the one in which its branches were found: the baseline runs it.
    given: nn.Module | None = None
    no_branches: str = ""  # why there are none, where they were looked for
    caveats: tuple[str, ...] = ()  # what a reader of any comparison of it must know

    def __post_init__(self) -> None:
        own = {name: _entry(name, each) for name, each in self.approaches.items()}
        plain = self.model is not None or "sequential" in own or not own
        object.__setattr__(self, "approaches", own)
        object.__setattr__(self, "baseline", self.baseline or ("sequential" if plain else next(iter(own))))

    @property
    def description(self) -> str:
        """The inputs as text, with shapes and dtypes."""
        return self.inputs_description or (shapes(self.inputs) if self.inputs else self.name)

    def approach(self, name: str) -> Approach:
        """One of its approaches by name and options, as in ``threads(workers=2)``.

        Raises:
            UnknownNameError: no such approach or no such option.
            KitError: steps that do not go together, or an approach that runs models where there is none.
        """
        if self.model is not None:
            return parse(name, {**REGISTRY, **self.approaches})
        try:
            return parse(name, self.approaches)
        except UnknownNameError:
            kinds = [part.partition("(")[0].strip() for part in name.split("+")]
            if not any(kind in REGISTRY for kind in kinds):
                raise
            raise KitError(
                f"{self.name} is not a model, so {name} cannot run it: choose from {', '.join(self.approaches)}, and "
                "give the workload one of them as its baseline."
            ) from None

    def chosen(self, names: str | Iterable[str]) -> list[Approach]:
        """Approaches by their names, the baseline first.

        Args:
            names: names in one string, separated by commas or spaces, or several strings. ``all`` stands for every one.

        Raises: as :meth:`approach`.
        """
        every = list(REGISTRY)
        if self.approaches and self.given is None:
            every = [*self.approaches, *(() if self.model is None else OF_ITEMS)]
        named = [each for name in split_names(names) for each in (every if name == ALL else [name])]
        found = list({each.name: each for each in map(self.approach, named)}.values())  # 'threads()' is 'threads' again
        if not any(map(self.is_baseline, found)):
            found.insert(0, self.approach(self.baseline))
        if self.given is not None and not any(each.name == FOUND for each in found):
            found.insert(1, self.approach(FOUND))
        return sorted(found, key=lambda each: not self.is_baseline(each))  # stable: the first of its kind leads

    def is_baseline(self, approach: Approach) -> bool:
        """Whether this is the baseline's kind, with any options."""
        return approach.kind == self.baseline

    def prepare(self, name: str) -> Runner:
        """A runner of one approach.

        Raises: as :meth:`approach`, and :meth:`kit.approaches.Approach.prepare`.
        """
        return self.ready(self.approach(name))

    def seconds(self, approach: Approach) -> float:
        """Rough estimate of the seconds that preparing an approach takes.

        Raises:
            KitError: the approach needs branches, and the model has none.
        """
        if self.no_branches and not approach.whole and not self.is_baseline(approach):
            raise KitError(self.no_branches)
        return approach.seconds(self.model)

    def ready(self, approach: Approach) -> Runner:
        """A runner of an approach that :meth:`chosen` gave."""
        if approach.calls or self.model is None:
            return approach.start()
        if self.given is not None and self.is_baseline(approach):
            return approach.prepare(self.given, self.inputs)
        return approach.prepare(self.model, self.inputs)

    def branches_alone(self, threads: int) -> Runner:
        """The model's branches one after the other, with this many intra-op threads."""
        assert self.model is not None  # it has branches
        return self.approach(f"{self.one_by_one}(threads={threads})").prepare(self.model, self.inputs)

    @property
    def one_by_one(self) -> str:
        """The kind of approach that runs the branches one after the other."""
        return "sequential" if self.given is None else FOUND


def _entry(name: str, given: Entry | Callable[[], object]) -> Entry:
    """A function without arguments, made into a registry entry; an entry is returned unchanged.

    Raises:
        KitError: it is neither a function nor an entry.
    """
    if isinstance(given, Entry):
        return given
    needs = False
    with suppress(ValueError):  # what is built into Python may have no signature
        needs = callable(given) and any(
            each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
            for each in signature(given).parameters.values()
        )
    if not callable(given) or needs:
        raise KitError(
            f"approach {name!r} is {shapes((given,))}: give a function without arguments, as in lambda: x @ x, whose "
            "result is its output."
        )

    def make() -> Runner:
        return given if isinstance(given, FunctionRunner) else FunctionRunner(given)

    return Calls(make)


def one_request(model: nn.Module, inputs: object) -> Workload:
    """The workload of one request: a model on its inputs.

    >>> from kit import approaches
    >>> approaches.one_request(nn.Linear(8, 4).eval(), torch.rand(1, 8)).description
    '(1, 8) float32 on cpu'

    Args:
        inputs: a tensor, a tuple of arguments or a dict of keyword arguments.

    Raises:
        KitError: the model is not a module, or cannot be run as it is.
        ShapeError: keyword arguments that the model does not take.
    """
    said = shapes(inputs)
    model, args = opened(model, inputs)
    return Workload(type(model).__name__, model, args, inputs_description=said)
