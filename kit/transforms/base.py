"""What a transform is: it rewrites a model, and says what may come after it."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import chain
from typing import Any, ClassVar

from torch import nn

from kit.hardware import Hardware
from kit.regions import Branches


class Transform(ABC):
    """A way to rewrite a model. Transforms are frozen dataclasses; their fields are their options."""

    closed: ClassVar[str] = ""  # what it gives, where that is no model that others could rewrite or an executor run
    each_branch: ClassVar[bool] = False  # although closed: before an executor it rewrites each branch by itself
    stays: ClassVar[str] = ""  # what it gives, where that cannot be sent to another process

    @abstractmethod
    def apply(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        """The rewritten model; the given one, and its weights, are left as they are.

        Args:
            model: in eval mode.
            args: example inputs. Where a transform depends on their shapes, it refuses others.

        Raises:
            KitError: there is nothing in this model to rewrite, and what would change that.
        """

    def settled(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        """The model after its first call, from when on it must not change any more; for what ``stays``."""
        return model

    def remark(self, args: tuple[Any, ...]) -> str:
        """What a reader of a comparison must know, as a sentence; mostly nothing."""
        return ""

    @classmethod
    def unavailable_because(cls, machine: Hardware) -> str | None:
        """Why it cannot run on this machine, as a sentence, or None when it can."""
        return None


def rewritable(model: nn.Module) -> nn.Module:
    """A copy whose modules may be exchanged; its weights are the original's own tensors."""
    tensors = chain(model.parameters(), model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def exchange(model: nn.Module, name: str, new: nn.Module) -> nn.Module:
    """The model with another module in the place of that name; ``""`` is the model itself."""
    if name:
        model.set_submodule(name, new)
        return model
    return new


def arguments_of(model: nn.Module, found: dict[str, Branches], args: tuple[Any, ...]) -> dict[str, tuple[Any, ...]]:
    """What these regions of a model are called with when the model is called: name -> arguments of the last call."""
    seen: dict[str, tuple[Any, ...]] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda module, given: seen.update({name: given})

    hooks = [region.register_forward_pre_hook(note(name)) for name, region in found.items()]
    try:
        model(*args)
    finally:
        for hook in hooks:
            hook.remove()
    return seen
