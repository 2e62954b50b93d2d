"""A copy of a model whose modules can be replaced, checked to be independent of the original."""

from __future__ import annotations

import copy
import sys
import threading
import weakref
from collections import Counter
from itertools import chain
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from kit.errors import KitError
from kit.executors import Sequential, use
from kit.regions import Branches

_NOT_THE_CALLER = (str(Path(torch.__file__).parent), __file__)


class Observed(NamedTuple):
    """A copy, and the calls of its modules when it was called once."""

    model: nn.Module  # with parameters and buffers of its own, which lie in the original's memory
    calls: Counter[nn.Module]  # how often each of its modules ran
    given: dict[Branches, tuple[Any, ...]]  # what each region that ran was called with last


def rewritable(model: nn.Module, args: tuple[Any, ...]) -> Observed:
    """A copy whose modules can be replaced, called once on copies of these inputs.

    ``copy.deepcopy`` does not copy functions and weak references. If a model's ``forward``, a hook or an entry of a
    list is a function that refers to the model, the copy would call modules of the original.

    Raises:
        KitError: the copy uses a module or a weight of the original; the message says which, and through what.
    """
    tensors = chain(model.parameters(), model.buffers())
    twin = copy.deepcopy(model, {id(tensor): _in_the_same_memory(tensor) for tensor in tensors})
    watch = _Watch(model)
    hook = register_module_forward_pre_hook(watch.called)  # for all modules: nothing is registered with the model
    try:
        with use(Sequential()), watch:
            twin(*pytree.tree_map_only(Tensor, torch.clone, args))
    finally:
        hook.remove()
    if watch.strays:
        raise KitError(
            f"{type(model).__name__} cannot be rewritten: a copy of it still uses {watch.strays[0]} of the model as "
            f"given, {watch.place(twin)}. Objects that a function or a weak reference refers to are not copied with "
            "the model: move that code into the forward of an nn.Module, which calls modules of self."
        )
    return Observed(twin, watch.calls, watch.given)


def _in_the_same_memory(tensor: Tensor) -> Tensor:
    new = tensor.detach()
    return nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new


class _Watch(TorchFunctionMode):
    """Records which modules are called, and every use of a module or weight of the original."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.calls: Counter[nn.Module] = Counter()
        self.given: dict[Branches, tuple[Any, ...]] = {}
        self.strays: list[str] = []
        self._modules = {
            module: f"{name!r} ({type(module).__name__})" if name else type(module).__name__
            for name, module in original.named_modules()
        }
        named = chain(original.named_parameters(), original.named_buffers())
        self._tensors = {id(tensor): repr(name) for name, tensor in named}
        self._thread = threading.get_ident()
        self._stack: list[tuple[CodeType, int]] = []  # code and line of the first stray use, the innermost first

    def called(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A hook that runs before every call of every module in this process."""
        if threading.get_ident() != self._thread:
            return
        self.calls[module] += 1
        if isinstance(module, Branches):
            self.given[module] = args
        if module in self._modules:
            self._note(self._modules[module])

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in pytree.tree_leaves((args, kwargs)):
            if id(leaf) in self._tensors:
                self._note(self._tensors[id(leaf)])
        return func(*args, **(kwargs or {}))

    def _note(self, what: str) -> None:
        frame: FrameType | None = None if self.strays else sys._getframe()
        while frame and frame.f_code is not rewritable.__code__:
            self._stack.append((frame.f_code, frame.f_lineno))
            frame = frame.f_back
        self.strays.append(what)

    def place(self, twin: nn.Module) -> str:
        """How the original was reached: an attribute of the copy, or else the line of code."""
        codes = {code for code, _ in self._stack}
        for name, module in twin.named_modules():
            for attribute, value in vars(module).items():
                for leaf in pytree.tree_leaves(value):
                    function = getattr(leaf, "func", leaf)  # of a partial
                    held = isinstance(leaf, weakref.ref) and leaf() in self._modules
                    if held or (isinstance(function, FunctionType) and function.__code__ in codes):
                        return f"through the attribute {'.'.join(filter(None, (name, attribute)))!r}"
        for code, line in self._stack:
            if not code.co_filename.startswith(_NOT_THE_CALLER):
                return f"in {code.co_name}, line {line} of {code.co_filename}"
        return "since copy.deepcopy gives it the same module again"
