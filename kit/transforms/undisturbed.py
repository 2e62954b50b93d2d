"""A model that is called to find something out about it, and is afterwards as it was."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """After this block the model and the random numbers are as before.

    All attributes of its modules are the same objects, which a forward or a tracer may exchange. They have the same
    contents: else a flag would be as before, but not what it stands for, as hooks that a first call registers. And its
    buffers, into which a forward may write, hold the same values.
    """
    seen: set[int] = set()
    held = [
        (each, list(each), list(each.values()) if isinstance(each, dict) else [])
        for module in model.modules()
        for each in _containers(vars(module), seen)
    ]
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(gpus):
            yield
    finally:
        for each, keys, values in held:
            now = [*each, *(each.values() if isinstance(each, dict) else ())]
            if len(now) == len(keys) + len(values) and all(map(operator.is_, now, (*keys, *values))):
                continue
            each.clear()
            if isinstance(each, dict):
                each.update(zip(keys, values, strict=True))
            else:
                (each.extend if isinstance(each, list) else each.update)(keys)
        for buffer, was in before:
            if not torch.equal(buffer, was):
                buffer.copy_(was)


def _containers(value: Any, seen: set[int]) -> Iterator[Any]:
    """The dicts, lists and sets in a value, outer ones first, each once."""
    if not isinstance(value, dict | list | set | tuple) or id(value) in seen:
        return
    seen.add(id(value))
    if not isinstance(value, tuple):
        yield value
    for each in value.values() if isinstance(value, dict) else value:
        yield from _containers(each, seen)
