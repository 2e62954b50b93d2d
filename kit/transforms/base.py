"""What a transform is: it rewrites a model, proves that on other inputs, and says what may come after it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from kit.errors import KitError
from kit.machine.hardware import Hardware
from kit.transforms.proof import prove
from kit.transforms.undisturbed import undisturbed


class Transform(ABC):
    """A way to rewrite a model. Transforms are frozen dataclasses; their fields are their options."""

    opaque: ClassVar[str] = ""  # what it gives, where that is no model that others could rewrite or an executor run
    per_branch: ClassVar[bool] = False  # although opaque: before an executor it rewrites each branch by itself
    wants_regions: ClassVar[bool] = False  # whether it rewrites regions, so that a model needs some
    not_picklable: ClassVar[str] = ""  # what it gives, where that cannot be sent to another process

    def apply(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        """The rewritten model, proven on other inputs; the given one, and its weights, are left as they are.

        What is ``not_picklable`` is proven after :meth:`freeze`.

        Args:
            model: in eval mode.
            args: example inputs. Where a transform depends on their shapes, it refuses others.

        Raises:
            KitError: there is nothing in this model to rewrite, and what would change that; a model in training mode,
                or one of which no copy can be made; a rewritten model that computes something else.
        """
        check_eval(model)
        with undisturbed(model):
            rewritten = self.rewrite(model, args)
            if not isinstance(rewritten, nn.Module):
                raise KitError(f"{type(self).__name__}.rewrite gave {rewritten!r} in place of a model: return one.")
            if not self.not_picklable:
                prove(type(self).__name__, model, rewritten, args)
        return rewritten

    @abstractmethod
    def rewrite(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        """The rewritten model, as :meth:`apply` says, not proven yet."""

    def freeze(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        """The model after its first call, from when on it must not change any more; for what is ``not_picklable``."""
        return model

    def remark(self, args: tuple[Any, ...]) -> str:
        """What a reader of a comparison must know, as a sentence; mostly nothing."""
        return ""

    @classmethod
    def unavailable_because(cls, machine: Hardware) -> str | None:
        """Why it cannot run on this machine, as a sentence, or None when it can."""
        return None


def check_eval(model: nn.Module) -> None:
    """Refuse a model that a call changes, or that gives another output on every call.

    Raises:
        KitError: a batch norm or a dropout in training mode.
    """
    for name, module in model.named_modules():
        if module.training and isinstance(module, _BatchNorm | _DropoutNd):
            does = "drops other values" if isinstance(module, _DropoutNd) else "changes its running statistics"
            raise KitError(
                f"{type(model).__name__} is in training mode, and its {name or type(module).__name__} {does} on every "
                "call: call model.eval() first."
            )


def become(old: nn.Module, new: nn.Module) -> None:
    """Let a module of a copy be another one from now on, wherever it is held, as in a plain list beside the tree."""
    old.__class__, old.__dict__ = new.__class__, new.__dict__


def oddity(module: nn.Module, *kinds: type[nn.Module]) -> str:
    """Why a module may do something else than these classes, so that it must be left alone; nothing where it cannot.

    >>> oddity(nn.Conv2d(1, 1, 1), nn.Conv2d)
    ''
    """
    if type(module) not in kinds:
        return f"is a {type(module).__name__}"
    if module._forward_hooks or module._forward_pre_hooks:
        return "has forward hooks"
    own = [key for key, value in vars(module).items() if callable(value) and hasattr(type(module), key)]
    return f"has a {own[0]} of its own" if own else ""
