"""Which part of a thing is to blame, when the thing as a whole cannot be pickled."""

from __future__ import annotations

import functools
import inspect
import itertools
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn


def culprit(
    thing: Any, fault: Callable[[Any], Exception | None], path: tuple[str, ...] = (), above: tuple[Any, ...] = ()
) -> tuple[str, Any]:
    """The innermost part with a ``fault``, after the names that lead to it."""
    for name, part in _parts(thing):
        if not any(part is other for other in above) and fault(part) is not None:  # else a cycle
            return culprit(part, fault, (*path, name), (*above, thing))
    return ".".join(path), thing


def _parts(thing: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(thing, nn.Module):
        own = {
            name: value for name, value in vars(thing).items() if name not in ("_modules", "_parameters", "_buffers")
        }
        return [*thing.named_children(), *own.items()]
    if isinstance(thing, Mapping):
        return [(str(key), value) for key, value in thing.items()]
    if isinstance(thing, tuple | list | set | frozenset):
        return [
            (str(name), value) for name, value in zip(getattr(thing, "_fields", itertools.count()), thing, strict=False)
        ]
    if isinstance(thing, types.MethodType):
        return [("self", thing.__self__)]
    if isinstance(thing, types.FunctionType):
        found = inspect.getclosurevars(thing)
        return [*found.nonlocals.items(), *found.globals.items()]
    if isinstance(thing, functools.partial):
        return [("func", thing.func), ("args", thing.args), ("keywords", thing.keywords)]
    return list(getattr(thing, "__dict__", {}).items())
