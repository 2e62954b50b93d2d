"""Which part of a thing is to blame, when the thing as a whole cannot be pickled."""

from __future__ import annotations

import functools
import inspect
import itertools
import time
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

PATIENCE_S = 1.0  # a list of a million things is not looked through for the one


def culprit(thing: Any, fault: Callable[[Any], Exception | None]) -> tuple[str, Any]:
    """The innermost part with a ``fault``, after the names that lead to it; what encloses it, where that takes long."""
    deadline = time.monotonic() + PATIENCE_S
    path: list[str] = []
    chain = [thing]
    while True:
        inner = (
            (name, part)
            for name, part in _parts(chain[-1])
            if time.monotonic() < deadline
            and not any(part is other for other in chain)  # else a cycle
            and fault(part) is not None
        )
        name, part = next(inner, (None, None))
        if name is None:
            return ".".join(path), chain[-1]
        path.append(name)
        chain.append(part)


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
