"""Restores a model after it was called only to find out something about it."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """After this block, the model and the state of the random generators are as before.

    All attributes of its modules are the same objects as before, although a forward or a tracer may replace them.
    Dicts, lists and sets have the same contents, such as the hooks that a first call registers. Its buffers hold the
    same values, although a forward may write into them.
    """
    seen: set[int] = set()
    held = [(each, _contents(each)) for module in model.modules() for each in _containers(vars(module), seen)]
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(gpus):
            yield
    finally:
        for each, was in held:
            now = _contents(each)
            if len(now) == len(was) and all(map(operator.is_, now, was)):
                continue
            each.clear()
            if isinstance(each, dict):
                half = len(was) // 2
                each.update(zip(was[:half], was[half:], strict=True))
            else:
                (each.extend if isinstance(each, list) else each.update)(was)
        for buffer, value in before:
            if not torch.equal(buffer, value):
                buffer.copy_(value)


def _containers(value: Any, seen: set[int]) -> Iterator[Any]:
    """The dicts, lists and sets in a value, outer ones first, each once."""
    if not isinstance(value, dict | list | set | tuple) or id(value) in seen:
        return
    seen.add(id(value))
    if not isinstance(value, tuple):
        yield value
    for each in value.values() if isinstance(value, dict) else value:
        yield from _containers(each, seen)


def _contents(container: Any) -> list[Any]:
    """The contents of a dict, list or set; for a dict its keys, then its values."""
    return [*container, *(container.values() if isinstance(container, dict) else ())]
