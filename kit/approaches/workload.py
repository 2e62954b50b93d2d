"""A workload: what a comparison runs on, one request or many items, and the approaches that can run it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import nn

from kit.approaches.approach import Approach
from kit.approaches.names import parse, split_names
from kit.approaches.registry import ALL, REGISTRY, Entry
from kit.approaches.runner import Runner
from kit.equality import shapes
from kit.errors import KitError
from kit.inputs import Args, opened
from kit.reprs import one_line

OF_ITEMS = ("threads", "processes")  # what ``all`` adds to a workload's own approaches, where its items are branches


@one_line
@dataclass(frozen=True, eq=False)
class Workload:
    """A model with its inputs, or many items with approaches of their own.

    ``kit.compare(model, inputs)`` makes one for a single request. Where items are many, the model is a region with a
    branch for each item, so that every executor can run it.
    """

    name: str
    model: nn.Module | None  # in eval mode; None: only its own approaches can run it
    inputs: Args  # the positional arguments of a call
    items: int = 1  # in a call
    unit: str = "call"  # what the items are, as in "images"
    inputs_description: str = ""  # for people; empty: shapes, dtypes and devices, or the name
    approaches: Mapping[str, Entry] = field(default_factory=dict)  # its own, beside those of the registry
    baseline: str = "sequential"  # the approach that all others are compared with

    @property
    def description(self) -> str:
        """What the inputs are."""
        return self.inputs_description or (shapes(self.inputs) if self.inputs else self.name)

    def approach(self, name: str) -> Approach:
        """One of its approaches by name and options, as in ``threads(workers=2)``.

        Raises:
            UnknownNameError: no such approach, or none of its options.
            KitError: terms that do not go together, or an approach that runs models where there is none.
        """
        approach = parse(name, self.approaches)
        if self.model is None and approach.terms[0].kind not in self.approaches:
            raise KitError(
                f"{self.name} is no model, so {approach.name} cannot run it: choose from {', '.join(self.approaches)}."
            )
        return approach

    def chosen(self, names: str | Iterable[str]) -> list[Approach]:
        """Approaches by their names, the baseline first.

        Args:
            names: one text with commas or spaces between, or several. ``all`` stands for every one.

        Raises: as :meth:`approach`.
        """
        every = [*self.approaches, *(() if self.model is None else OF_ITEMS)] if self.approaches else list(REGISTRY)
        named = [each for name in split_names(names) for each in (every if name == ALL else [name])]
        found = list({each.name: each for each in map(self.approach, named)}.values())  # 'threads()' is 'threads' again
        if not any(map(self.is_baseline, found)):
            found.insert(0, self.approach(self.baseline))
        return sorted(found, key=lambda each: not self.is_baseline(each))  # stable: the first of its kind leads

    def is_baseline(self, approach: Approach) -> bool:
        """Whether this is the baseline's kind, with any options."""
        return approach.kind == self.baseline

    def prepare(self, name: str) -> Runner:
        """A runner of one approach.

        Raises: as :meth:`approach`, and :meth:`kit.approaches.Approach.prepare`.
        """
        return self.ready(self.approach(name))

    def ready(self, approach: Approach) -> Runner:
        """A runner of an approach that :meth:`chosen` gave."""
        if approach.calls or self.model is None:
            return approach.start()
        return approach.prepare(self.model, self.inputs)


def one_request(model: nn.Module, inputs: object) -> Workload:
    """A model on its inputs.

    Args:
        inputs: a tensor, a tuple of arguments or a dict of keyword arguments.

    Raises:
        KitError: a model that is no module, or that cannot be run as it is.
        ShapeError: keywords that the model does not have.
    """
    said = shapes(inputs)
    model, args = opened(model, inputs)
    return Workload(type(model).__name__, model, args, inputs_description=said)
