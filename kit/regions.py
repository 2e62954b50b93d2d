"""The fork-join region as a torch module: independent branches, and their merge."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from kit.errors import KitError, ShapeError
from kit.executors import Sequential, Task, current
from kit.spans import span

Merge = Callable[[list[Any]], Any]
Takes = Mapping[str, int | Sequence[int]]  # branch -> the indices of the inputs that it takes
_ONE_BY_ONE = Sequential()


class Concat(nn.Module):
    """Merge by concatenation along ``dim``: ``[(N, Ci, ...)] -> (N, sum Ci, ...)``.

    >>> kit.Concat(1)([torch.zeros(1, 2, 8), torch.zeros(1, 3, 8)]).shape
    torch.Size([1, 5, 8])
    """

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, outputs: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(outputs), self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Mean(nn.Module):
    """Merge by the mean: ``[(N, C), ...] -> (N, C)``.

    >>> kit.Mean()([torch.tensor([[1.0, 3.0]]), torch.tensor([[3.0, 5.0]])])
    tensor([[2., 4.]])
    """

    def forward(self, outputs: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(outputs)).mean(0)


class Product(nn.Module):
    """Merge by the product, as where one branch gives factors for the other: ``[(N, C, 1, 1), (N, C, H, W)]``."""

    def forward(self, outputs: Sequence[Tensor]) -> Tensor:
        return reduce(torch.mul, outputs)


class Branches(nn.Module):
    """A region: run independent branches, then merge their outputs.

    Which inputs a branch gets is said by ``takes``. Without it there are two cases. Called with one input, every branch
    gets it (an Inception block). Called with as many inputs as branches, each branch gets its own, in order (a
    two-stream network). Inputs and outputs may be anything: tensors, tuples, lists and dicts of them, numbers, None.

    The model does not decide how the branches run: they run on the executor of the innermost :func:`kit.executors.use`,
    and one after the other if there is none.

    >>> block = kit.Branches({"1x1": nn.Conv2d(3, 4, 1), "3x3": nn.Conv2d(3, 8, 3, padding=1)}, merge=kit.Concat(1))
    >>> block(torch.rand(1, 3, 16, 16)).shape  # 4 + 8 channels
    torch.Size([1, 12, 16, 16])
    >>> left, both = nn.Linear(2, 4), nn.Bilinear(2, 2, 4)
    >>> two = kit.Branches({"left": left, "both": both}, merge=kit.Mean(), takes={"left": 0, "both": (1, 0)})
    >>> two(torch.rand(1, 2), torch.rand(1, 2)).shape
    torch.Size([1, 4])

    Args:
        branches: name -> module; the order is the order of the merge.
        merge: called with the list of outputs. A module's parameters become the region's. Keep it cheap: if the
            branches run on workers, the merge runs on a single core.
        takes: name of a branch -> the index of the input that it takes, from 0, or a tuple of indices in the order of
            its arguments, ``()`` for a branch without arguments. Names every branch. The region may be called with more
            inputs than its branches take.

    Raises:
        KitError: ``branches`` is not a dict of modules, PyTorch does not allow a name (``keys``, or one with a dot),
            ``merge`` cannot be called, or ``takes`` has other names or something that is not an index.
        ShapeError: in a call with a wrong number of inputs, or if the merge does not take the branches' outputs.
    """

    def __init__(self, branches: Mapping[str, nn.Module], merge: Merge, takes: Takes | None = None) -> None:
        super().__init__()
        if not isinstance(branches, Mapping) or not branches:
            raise KitError(
                "a region needs a dict from names to nn.Modules, as in Branches({'a': ..., 'b': ...}, merge)."
            )
        if not callable(merge) or (isinstance(merge, type) and issubclass(merge, nn.Module)):
            raise KitError(
                f"the merge {merge!r} cannot be called: give a function of the outputs, as in kit.Concat(1)."
            )
        self.branches = nn.ModuleDict()
        for name, branch in branches.items():
            if not isinstance(branch, nn.Module):
                raise KitError(f"branch {name!r} is a {type(branch).__name__}: a branch must be an nn.Module.")
            try:
                self.branches[name] = branch
            except (KeyError, TypeError) as error:  # the names of its methods, dots, what is no string
                raise KitError(
                    f"a branch cannot be called {name!r}: PyTorch says {error.args[0]}. Choose another name."
                ) from None
        self.merge: Merge = merge
        self.takes = None if takes is None else _checked(takes, list(branches))

    def forward(self, *inputs: Any) -> Any:
        tasks = self.tasks(*inputs)
        if torch.compiler.is_compiling():  # a compiler wants the plain graph; spans and pools would break it
            return self.merge([task.call(*task.args) for task in tasks])
        with span("region", "region"):
            return (current() or _ONE_BY_ONE).fork_join(tasks, self._merged)

    def _merged(self, outputs: list[Any]) -> Any:
        try:
            with span("merge", "merge"):
                return self.merge(outputs)
        except RuntimeError as error:
            given = ", ".join(
                f"{name} {tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__}"
                for name, output in zip(self.branches, outputs, strict=True)
            )
            raise ShapeError(
                f"the merge {self.merge} does not take the outputs of the branches, {given}: {error}"
            ) from error

    def tasks(self, *inputs: Any) -> list[Task]:
        """The branches as tasks on these inputs, for an executor."""
        taken = self.taken(len(inputs))
        return [Task(name, self.branches[name], tuple(inputs[i] for i in taken[name])) for name in self.branches]

    def taken(self, count: int) -> dict[str, tuple[int, ...]]:
        """The indices of the inputs that each branch takes, in the order of its arguments, in a call with ``count``.

        Raises:
            ShapeError: the region does not take so many inputs.
        """
        return taken(self.takes, list(self.branches), count, f"the region of {', '.join(self.branches)}")

    def extra_repr(self) -> str:
        return "" if self.takes is None else f"takes={self.takes}"


def taken(
    takes: dict[str, tuple[int, ...]] | None, branches: Sequence[str], count: int, region: str
) -> dict[str, tuple[int, ...]]:
    """The indices of the inputs that each branch takes, of ``count`` inputs of a region.

    Args:
        takes: as :class:`Branches` has checked it.
        branches: their names, in order.
        region: its name, for the message.

    Raises:
        ShapeError: the region does not take so many inputs.
    """
    if takes is None:
        if count not in (1, len(branches)):
            raise ShapeError(
                f"{region} got {count} inputs: give one for all of {', '.join(branches)}, or {len(branches)}, one for "
                "each. Where branches take other inputs, say so with takes=."
            )
        return {name: (0 if count == 1 else i,) for i, name in enumerate(branches)}
    for name, indices in takes.items():
        if (most := max(indices, default=-1)) >= count:
            raise ShapeError(
                f"{region} got {count} input{'s' * (count != 1)}, and its branch {name!r} takes the one with index "
                f"{most}, counted from 0: give at least {most + 1}, or correct takes=."
            )
    return takes


def _checked(takes: Takes, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """``takes`` with a tuple for every branch, in the order of the branches.

    Raises:
        KitError: as :class:`Branches`.
    """
    if not isinstance(takes, Mapping) or set(takes) != set(names):
        raise KitError(
            f"takes={takes!r} must name every branch, {', '.join(map(repr, names))}, and no other: give a dict, as "
            "in takes={'a': 0, 'b': (0, 1), 'c': ()}."
        )
    found = {name: tuple(x) if isinstance(x := takes[name], tuple | list) else (x,) for name in names}
    for name, indices in found.items():
        if wrong := [i for i in indices if type(i) is not int or i < 0]:
            raise KitError(
                f"branch {name!r} takes {wrong[0]!r}: give the index of an input, a whole number from 0 on, or a tuple "
                "of such indices."
            )
    return found


def regions(model: nn.Module) -> Iterator[tuple[str, Branches]]:
    """Every region of a model with its qualified name (``""`` for the model itself)."""
    for name, module in model.named_modules():
        if isinstance(module, Branches):
            yield name, module


def some_regions(model: nn.Module) -> dict[str, Branches]:
    """The regions of a model; raises if it has none.

    Raises:
        KitError: it has none; the message shows how to make one.
    """
    found = dict(regions(model))
    if not found:
        raise KitError(
            f"{type(model).__name__} has no region: its independent parts are not marked. Put them into one, as in "
            "kit.Branches({'a': self.a, 'b': self.b}, merge=kit.Concat(1)), and call that in forward."
        )
    return found


def outermost(model: nn.Module, ran: Container[Branches]) -> dict[str, Branches]:
    """The regions of a model that ran and are not inside a branch of another region.

    Raises:
        KitError: the model has no region, or none that ran.
    """
    found = {name: region for name, region in some_regions(model).items() if region in ran}
    if not found:
        raise KitError(
            f"no region of {type(model).__name__} is called on these inputs: call its kit.Branches in forward, as in "
            "self.region(x)."
        )
    return {
        name: region
        for name, region in found.items()
        if not any(other != name and name.startswith(f"{other}." if other else "") for other in found)
    }
