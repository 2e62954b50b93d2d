"""Converts a model's nested inputs and outputs to flat lists of tensors, and back."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from kit.errors import ShapeError
from kit.reprs import one_line


@one_line
@dataclass(frozen=True)
class Form:
    """The structure of a nested value, and its values other than tensors."""

    template: Any  # the nested value with the numbers of its leaves in their places; torch's own TreeSpec pickles badly
    constants: tuple[tuple[int, Any], ...]  # (position among the leaves, value)
    nested: tuple[tuple[int, Any, tuple[tuple[str, Form], ...]], ...]  # (position, a dataclass, its fields' forms)
    count: int  # tensors in it

    def rebuilt(self, leaves: Sequence[Any]) -> Any:
        """The nested value with these tensors in place of the original ones."""
        given = iter(leaves)
        constants = dict(self.constants)
        nested = {position: (value, forms) for position, value, forms in self.nested}
        flat: list[Any] = []
        numbers, spec = pytree.tree_flatten(self.template)
        for position in numbers:
            if position in constants:
                flat.append(constants[position])
            elif position in nested:
                value, forms = nested[position]
                flat.append(
                    _filled(value, {key: form.rebuilt([next(given) for _ in range(form.count)]) for key, form in forms})
                )
            else:
                flat.append(next(given))
        return pytree.tree_unflatten(flat, spec)

    def leaves(self, value: Any, name: str) -> list[Any]:
        """The tensors of another value of the same form.

        Raises:
            ShapeError: the structure, or a value other than a tensor, differs.
        """
        found, form = form_of(value, (torch.Tensor, fx.Proxy))  # it can be captured again
        same = pytree.tree_structure(form.template) == pytree.tree_structure(self.template)
        if not same or form.count != self.count or not _agree(form.constants, self.constants):
            raise ShapeError(
                f"{name} was captured for arguments of another structure, or with other values of arguments that are "
                "not tensors: capture it again with these inputs."
            )
        return found


def form_of(value: Any, tensors: tuple[type, ...] = (torch.Tensor,)) -> tuple[list[Any], Form]:
    """The tensors in a nested value, and the value's form.

    Args:
        tensors: the types that count as tensors.
    """
    flat, spec = pytree.tree_flatten(value)
    leaves: list[Any] = []
    constants, nested = [], []
    for position, leaf in enumerate(flat):
        if isinstance(leaf, tensors):
            leaves.append(leaf)
        elif is_dataclass(leaf) and not isinstance(leaf, type):
            forms = []
            for each in fields(leaf):
                inner, form = form_of(getattr(leaf, each.name), tensors)
                leaves += inner
                forms.append((each.name, form))
            nested.append((position, _emptied(leaf), tuple(forms)))
        else:
            constants.append((position, leaf))
    template = pytree.tree_unflatten(range(len(flat)), spec)
    return leaves, Form(template, tuple(constants), tuple(nested), len(leaves))


def _emptied(value: Any) -> Any:
    """A copy without its fields, so that it keeps no tensors or proxies alive."""
    empty = copy.copy(value)
    for each in fields(value):
        object.__setattr__(empty, each.name, None)
    return empty


def _filled(value: Any, parts: Mapping[str, Any]) -> Any:
    whole = copy.copy(value)
    for key, part in parts.items():
        object.__setattr__(whole, key, part)
    return whole


def _agree(these: tuple[tuple[int, Any], ...], those: tuple[tuple[int, Any], ...]) -> bool:
    """Whether the values are identical, or are equal plain values."""
    return len(these) == len(those) and all(
        i == j and (a is b or (type(a) is type(b) and isinstance(a, str | int | float | bool | torch.dtype) and a == b))
        for (i, a), (j, b) in zip(these, those, strict=True)
    )
