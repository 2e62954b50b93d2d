"""Checks a model and its inputs as given by the user, and turns them into a module and positional arguments."""

from __future__ import annotations

import inspect
import operator
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain, combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves, tree_map_only

from kit.equality import as_args, shapes
from kit.errors import KitError, ShapeError, brief

Args = tuple[Any, ...]
ARRAYS = (np.ndarray, np.generic)


class ByKeyword(nn.Module):
    """A model with keyword arguments, called by position in a fixed order, as the code that runs models does.

    Its only submodule is the model as given.
    """

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names, self.training = model, names, model.training

    def forward(self, *args: Any) -> Any:
        return self.model(**dict(zip(self.names, args, strict=True)))


def opened(model: Any, inputs: Any) -> tuple[nn.Module, Args]:
    """A module, and the positional arguments of its call.

    A dict gives keyword arguments: the module is then a :class:`ByKeyword` around the model. A tuple or list has an
    entry for each argument; a dict in it is an argument like any other. Tensors are detached.

    Raises:
        KitError: a model that is no module, or one that cannot be run as it is.
        ShapeError: keywords that its forward does not have.
    """
    _check_module(model, inputs)
    if isinstance(inputs, Mapping):
        _check_keywords(model, inputs)
        # Named after the model, so that whatever is said of it later says the name that the reader knows.
        model = type(type(model).__name__, (ByKeyword,), {})(model, tuple(inputs))
        inputs = tuple(inputs.values())
    args: Args = tree_map_only(Tensor, lambda x: x.detach() if x.requires_grad else x, as_args(inputs))
    weights = [*model.parameters(), *model.buffers()]
    if any(isinstance(x, Tensor) and x.is_meta for x in (*weights, *tree_leaves(args))):
        where = type(model).__name__ if any(weight.is_meta for weight in weights) else f"an input, {shapes(inputs)},"
        raise KitError(
            f"{where} is on the device meta, which computes nothing: move model and inputs to a real device, for "
            "example with model.to_empty(device='cpu'), and load the weights."
        )
    return model, args


def _check_module(model: Any, inputs: Any = None) -> None:
    """Raise an error unless this is a model that can be run.

    Raises:
        KitError: it is not a module (the message says what to give), has no weights yet, has no forward, or is
            compiled.
    """
    if not isinstance(model, nn.Module):
        raise KitError(_no_module(model, inputs))
    name = type(model).__name__
    if getattr(model.forward, "__func__", None) is nn.Module.forward:
        raise KitError(f"{name} has no forward, so it cannot be called: give the module whose forward calls its parts.")
    for part, module in model.named_modules():
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None):
            raise KitError(
                f"{f'{part} of {name}' if part else name} is already compiled, so it cannot be compared with the "
                "uncompiled model: give the model before torch.compile, and name 'compiled' as an approach."
            )
    lazy = [part for part, weight in model.named_parameters() if is_lazy(weight)]
    if lazy:
        raise KitError(f"{lazy[0]} of {name} has no shape before its first call: call model(*inputs) first.")


def _no_module(model: Any, inputs: Any) -> str:
    """An error text: what was given instead of a model, and what to give."""
    owner, name = getattr(model, "__self__", None), getattr(model, "__name__", type(model).__name__)
    if isinstance(inputs, nn.Module):
        return f"the model comes first, then its inputs: swap {shapes((model,))} and {type(inputs).__name__}."
    if isinstance(model, type):
        return f"{name} is a class: give an instance of it in eval mode, as in {name}(...).eval()."
    if isinstance(owner, nn.Module):
        return f"{name} is a method of {type(owner).__name__}: give the {type(owner).__name__} itself."
    if inspect.isroutine(model):
        return f"{name} is a function: call it in the forward of an nn.Module, and give an instance of that module."
    given = f"the string {model!r}" if isinstance(model, str) else shapes((model,))
    return f"the model is {given}: give an nn.Module, such as kit.models.googlenet(), and its inputs after it."


def _check_keywords(model: nn.Module, inputs: Mapping[Any, Any]) -> None:
    if not inputs or not all(isinstance(name, str) for name in inputs):
        raise ShapeError("a dict of inputs must hold keyword arguments: give names and values, or (inputs,).")
    if fault := _binding(model, **inputs):
        raise ShapeError(
            f"{type(model).__name__} does not take these keyword arguments, {', '.join(map(repr, inputs))}: {fault}. "
            "To give the dict itself as one argument, write (inputs,)."
        )


def _binding(model: nn.Module, /, *args: Any, **keywords: Any) -> str:
    """Why a call with these arguments does not fit the model's forward; empty if it fits."""
    with suppress(ValueError):  # traced TorchScript has no signature
        signature = inspect.signature(model.forward)
        try:
            signature.bind(*args, **keywords)
        except TypeError as error:
            return f"its forward takes ({', '.join(signature.parameters)}), and Python says: {error}"
    return ""


@contextmanager
def called_with(model: nn.Module, args: Args) -> Iterator[None]:
    """For the first call of the model with these inputs: an error in this block is raised again with the reason.

    Raises:
        ShapeError: the model does not take these inputs; if possible, the message says which inputs it takes.
        KitError: memory ran out; or an error of the kit, with a note that names model and inputs.
    """
    try:
        yield
    except Exception as error:
        cause: Exception | None = error
        if isinstance(error, KitError):
            error.add_note(f"{type(model).__name__} was given {shapes(args)}")
            cause = _raised(model, args) if error.__cause__ else None
        told = cause and _told(model, args, cause)
        if not told:
            raise
        raise told from error


def _raised(model: nn.Module, args: Args) -> Exception | None:
    """The exception of a plain call of the model; None if it raises none."""
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model(*args)
    except Exception as error:
        return error
    return None


def _told(model: nn.Module, args: Args, error: Exception) -> KitError | None:
    """A clearer error for an error in a call; None if the error itself is clear."""
    name, given = type(model).__name__, shapes(args)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
        return KitError(f"memory ran out while {name} was called with {given}: give a smaller batch or model.")
    begin = f"{name} does not take these inputs, {given}"
    if remedy := _remedy(model, args):
        why, instead = remedy
        return ShapeError(f"{begin}: {why}. Give {instead} for each such input x: tried, and it works.")
    if isinstance(error, KitError):
        return None
    count = _binding(model, *args)
    if not count and (kind := _kind(args)):
        return ShapeError(f"{begin}: {kind}.")
    return ShapeError(
        f"{begin}: {count or _innermost(model, error)}. Give one tensor (torch.stack makes one of several), a tuple "
        "with one entry for each argument of its forward, or a dict of its keyword arguments."
    )


def _remedy(model: nn.Module, args: Args) -> tuple[str, str] | None:
    """The fewest changes of the inputs that make a call succeed: why, and how. It calls the model to find out."""
    weights = [*model.parameters(), *model.buffers()]
    dtype = next((weight.dtype for weight in weights if weight.is_floating_point()), None)
    device = weights[0].device if len({weight.device for weight in weights}) == 1 else None

    def last(x: Tensor) -> bool:
        return x.dim() > 2 and x.shape[-1] in (1, 3, 4)

    def castable(x: Tensor) -> bool:  # integers beside other inputs may be an index
        return not x.is_complex() and (x.is_floating_point() or x.dtype == torch.uint8 or len(args) == 1)

    changes: list[tuple[str, str, Callable[[Any], Any]]] = [  # why, how, and the input itself where it stays
        (
            "a numpy array is not a tensor",
            "torch.from_numpy({})",
            lambda x: x if isinstance(x, Tensor) else torch.tensor(x.copy()),
        ),
        (f"its weights are on {device}", f"{{}}.to('{device}')", lambda x: x.to(device) if device else x),
        ("its channels come last", "{}.movedim(-1, -3)", lambda x: x.movedim(-1, -3) if last(x) else x),
        ("the batch dimension is missing", "{}[None]", lambda x: x[None]),
        (f"its weights are {dtype}", f"{{}}.to({dtype})", lambda x: x.to(dtype) if dtype and castable(x) else x),
    ]
    for chosen in chain.from_iterable(combinations(changes, count) for count in range(1, len(changes) + 1)):
        tried, how, useful = args, "x", True
        with suppress(AttributeError, TypeError, RuntimeError):  # no tensor yet, an array of objects, a device full
            for _, written, change in chosen:
                before, how = tried, written.format(how)
                tried = tuple(change(x) if isinstance(x, (Tensor, *ARRAYS)) else x for x in before)
                useful &= any(map(operator.is_not, before, tried))
            if useful and _raised(model, tried) is None:
                return " and ".join(why for why, _, _ in chosen), how
    return None


def _kind(args: Args) -> str:
    """The first input that no layer can take, and how to make a tensor of it; empty if there is none."""
    for i, x in enumerate(args, start=1):
        if isinstance(x, torch.utils.data.DataLoader | torch.utils.data.Dataset | Iterator):
            return f"input {i} is a {type(x).__name__}: take one batch out of it, as in next(iter(loader))"
        if (
            isinstance(x, ARRAYS)
            or type(x).__module__.startswith("PIL.")
            or not any(isinstance(x, Tensor) for x in args)
        ):
            return f"input {i} is a {type(x).__name__}: give a tensor, as in torch.from_numpy(numpy.array(x))"
    return ""


def _innermost(model: nn.Module, error: Exception) -> str:
    """The innermost layer that raised, the inputs that it was given, and the error."""
    names = {id(module): name for name, module in model.named_modules()}
    layer = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module = frame.f_locals.get("self")
        if frame.f_code.co_name == "_call_impl" and names.get(id(module)):
            written = repr(module) if "\n" not in repr(module) else type(module).__name__
            layer = f"its {names[id(module)]}, {written}, was given {shapes(frame.f_locals.get('args', ()))}: "
    return layer + brief(error).rstrip(".")
