"""The base class of transforms: a transform rewrites a model, and the result is checked on other inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import Any, ClassVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from kit.errors import KitError
from kit.executors import Executor
from kit.machine.hardware import Hardware
from kit.transforms.proof import prove
from kit.transforms.undisturbed import undisturbed


class Transform(ABC):
    """Rewrites a model. Transforms are frozen dataclasses; their fields are their options.

    >>> import copy
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class WithoutDropout(kit.Transform):
    ...     '''Leaves out dropout, which does nothing in eval mode.'''
    ...
    ...     def rewrite(self, model, args):
    ...         return nn.Sequential(*(copy.deepcopy(layer) for layer in model if not isinstance(layer, nn.Dropout)))
    >>> model = nn.Sequential(nn.Linear(8, 8), nn.Dropout()).eval()
    >>> WithoutDropout().apply(model, (torch.rand(1, 8),))  # checked on other inputs
    Sequential(
      (0): Linear(in_features=8, out_features=8, bias=True)
    )
    >>> kit.register("without_dropout", WithoutDropout)
    """

    opaque: ClassVar[str] = ""  # what it gives, where that is no model that others could rewrite or an executor run
    per_branch: ClassVar[bool] = False  # although opaque: before an executor it rewrites each branch by itself
    layers: ClassVar[str] = ""  # what its layers are, where no other transform knows them but one that captures a graph
    captures: ClassVar[bool] = False  # whether it captures a graph, in which such a layer is an operator
    wants_regions: ClassVar[bool] = False  # whether it rewrites regions, so that a model needs some
    not_picklable: ClassVar[str] = ""  # what it gives, where that cannot be sent to another process

    def apply(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        """The rewritten model, checked on other inputs; the given model and its weights are not changed.

        A model that is ``not_picklable`` is checked after :meth:`freeze`.

        Args:
            model: in eval mode.
            args: example inputs. If a transform depends on their shapes, its model raises on other shapes.

        Raises:
            KitError: this model has nothing to rewrite (the message says what is needed), is in training mode, or
                cannot be copied; or the rewritten model gives another output.
        """
        check_eval(model)
        with undisturbed(model):
            rewritten = self.rewrite(model, args)
            if not isinstance(rewritten, nn.Module):
                raise KitError(f"{type(self).__name__}.rewrite returned {rewritten!r}: return an nn.Module.")
            with ExitStack() as undo:
                if executor := self.runs_on(rewritten):
                    undo.callback(executor.close)
                if not self.not_picklable:
                    prove(type(self).__name__, model, rewritten, args)
                undo.pop_all()
        return rewritten

    @abstractmethod
    def rewrite(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        """The rewritten model, as in :meth:`apply`, but not checked yet."""

    def freeze(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        """The model after its first call; it must not change any more. Used for ``not_picklable`` models."""
        return model

    def runs_on(self, rewritten: nn.Module) -> Executor | None:
        """The executor that the rewritten model brings, and which is to be closed after it; mostly none."""
        return None

    def remark(self, args: tuple[Any, ...], rewritten: nn.Module) -> str:
        """A caveat for the comparison, as a sentence; empty by default."""
        return ""

    @classmethod
    def unavailable_because(cls, machine: Hardware) -> str | None:
        """Why it cannot run on this machine, as a sentence; None if it can."""
        return None


class Layer(nn.Module):
    """A layer that a transform puts into a model, and which a captured graph keeps as one operator."""


def check_eval(model: nn.Module) -> None:
    """Raise unless batch norm and dropout are in eval mode: otherwise each call changes the model or its output.

    Raises:
        KitError: a batch norm or dropout layer is in training mode.
    """
    for name, module in model.named_modules():
        if module.training and isinstance(module, _BatchNorm | _DropoutNd):
            does = "drops other values" if isinstance(module, _DropoutNd) else "changes its running statistics"
            raise KitError(
                f"{type(model).__name__} is in training mode, and its {name or type(module).__name__} {does} on every "
                "call: call model.eval() first."
            )


def become(old: nn.Module, new: nn.Module) -> None:
    """Replace a module of a copy in place, so that every reference to it sees the new one, even in a plain list."""
    old.__class__, old.__dict__ = new.__class__, new.__dict__


def oddity(module: nn.Module, *kinds: type[nn.Module]) -> str:
    """Why a module may compute something else than these classes, so that it must not be rewritten; else "".

    >>> oddity(nn.Conv2d(1, 1, 1), nn.Conv2d)
    ''
    """
    if type(module) not in kinds:
        return f"is a {type(module).__name__}"
    if module._forward_hooks or module._forward_pre_hooks:
        return "has forward hooks"
    own = [key for key, value in vars(module).items() if callable(value) and hasattr(type(module), key)]
    return f"overrides {own[0]}" if own else ""
