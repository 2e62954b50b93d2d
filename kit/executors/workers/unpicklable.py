"""Finds the part of an object that cannot be pickled, such as a lock in an attribute of a submodule."""

from __future__ import annotations

import functools
import inspect
import itertools
import time
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

SEARCH_LIMIT_S = 1.0  # a list of a million items is not searched to its end


def unpicklable_part(whole: Any, fault: Callable[[Any], Exception | None]) -> tuple[str, Any]:
    """The innermost part with a ``fault``, and the dotted names that lead to it (``""`` for the whole object).

    When the search takes longer than ``SEARCH_LIMIT_S``, the part is the innermost one found until then.

    Args:
        whole: an object with a fault.
        fault: returns the exception that pickling a part raises, or None.
    """
    deadline = time.monotonic() + SEARCH_LIMIT_S
    path: list[str] = []
    chain = [whole]
    while True:
        faulty = (
            (name, part)
            for name, part in _parts(chain[-1])
            if time.monotonic() < deadline
            and not any(part is other for other in chain)  # else a cycle
            and fault(part) is not None
        )
        name, part = next(faulty, (None, None))
        if name is None:
            return ".".join(path), chain[-1]
        path.append(name)
        chain.append(part)


def _parts(whole: Any) -> Iterable[tuple[str, Any]]:
    """The parts of an object that pickling visits, by name."""
    if isinstance(whole, nn.Module):
        registries = ("_modules", "_parameters", "_buffers")
        attributes = [(name, value) for name, value in vars(whole).items() if name not in registries]
        return [*whole.named_children(), *attributes]
    if isinstance(whole, Mapping):
        return [(str(key), value) for key, value in whole.items()]
    if isinstance(whole, tuple | list | set | frozenset):
        names = getattr(whole, "_fields", itertools.count())
        return [(str(name), value) for name, value in zip(names, whole, strict=False)]
    if isinstance(whole, types.MethodType):
        return [("self", whole.__self__)]
    if isinstance(whole, types.FunctionType):
        variables = inspect.getclosurevars(whole)
        return [*variables.nonlocals.items(), *variables.globals.items()]
    if isinstance(whole, functools.partial):
        return [("func", whole.func), ("args", whole.args), ("keywords", whole.keywords)]
    return list(getattr(whole, "__dict__", {}).items())
