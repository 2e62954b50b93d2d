"""The check of a rewritten model: it must give the same output as the model as given, on new inputs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from kit.equality import compare_outputs, tensors
from kit.errors import KitError
from kit.executors import Sequential, use


def prove(kind: str, given: nn.Module, rewritten: nn.Module, args: tuple[Any, ...]) -> None:
    """Compare both models on other inputs of these shapes; each is called once.

    Args:
        kind: the transform's name, for the message.
        given: the model before rewriting.
        args: example inputs.

    Raises:
        KitError: outputs differ, only the rewritten model raises, or it leaves out what the model as given writes into
            its buffers.
        MeasureError: outputs that cannot be compared: of another type than tensors, or NaN.
    """
    title = type(given).__name__
    with torch.inference_mode(), use(Sequential()):
        held = _state(given)
        draw, expected = _accepted(given, args)
        compare_outputs(expected, expected)  # whether it can be compared at all
        after = _state(given)
        if written := _changed(held, after):  # both begin with the same state
            _set(given, held)
            expected, after = given(*other_inputs(args, draw)), _state(given)
            _set(given, held)
        try:
            found = rewritten(*other_inputs(args, draw))
            same = compare_outputs(expected, found)
        except Exception as error:
            raise KitError(
                f"{kind} cannot be checked: on other inputs of the same shapes, which {title} as given takes, the "
                f"rewritten model fails with {type(error).__name__}: {error}"
            ) from error
        if left_out := written and _changed(after, _state(given)):
            raise KitError(
                f"{kind} leaves out that each call of {title} writes into its buffer {left_out[0]!r}: return what it "
                f"writes as an output, or leave {kind} out."
            )
        if same.equal:
            return
        if not compare_outputs(expected, given(*other_inputs(args, draw))).equal:
            raise KitError(
                f"{kind} cannot be checked: {title} as given gives a different output on every call. Remove random "
                "numbers, and state from earlier calls, from its forward."
            )
        if _within_rounding(expected, found, given(*other_inputs(args, _one_step_from(draw)))):
            return
    raise KitError(
        f"{kind} changes the output of {title}: on other inputs of the same shapes, the largest absolute error is "
        f"{same.max_abs_error:.2g}. Look for code that depends on the inputs' values or memory format (an if, .item(), "
        f".stride()), for layers that write into their input, and for hooks; or leave {kind} out."
    )


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def _set(model: nn.Module, state: dict[str, Tensor]) -> None:
    for name, buffer in model.named_buffers():
        buffer.copy_(state[name])


def _changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    """The names of the buffers whose values differ; NaN agrees with NaN."""
    return [name for name, x in before.items() if not ((y := after[name]) == x).logical_or((x != x) & (y != y)).all()]


def _within_rounding(expected: Any, found: Any, moved: Any) -> bool:
    """Whether every output's error is at most twice the change due to rounding the inputs once: deep networks in coarse
    types round on from layer to layer, and no tolerance of the last one covers that."""
    return all(
        (off := compare_outputs(want, got)).equal or off.max_abs_error <= 2 * compare_outputs(want, step).max_abs_error
        for (_, want), (_, got), (_, step) in zip(*map(tensors, (expected, found, moved)), strict=True)
    )


def _accepted(model: nn.Module, args: tuple[Any, ...]) -> tuple[Draw, Any]:
    """The first method of drawing inputs that the model accepts, and its output on them; the last method may raise."""
    with suppress(Exception):  # whatever a model says to values that it is not made for
        found = model(*other_inputs(args, noise))
        if not any(output.isnan().any() for _, output in tensors(found)):
            return noise, found
    return nearby, model(*other_inputs(args, nearby))


Draw = Callable[[Tensor, torch.Generator], Tensor]  # values in memory order, seeded -> as many others of their kind


def other_inputs(args: tuple[Any, ...], draw: Draw) -> tuple[Any, ...]:
    """Inputs of the same structure, shapes, strides and dtypes; other values are kept. The same on every call."""
    drawn: dict[int, Tensor] = {}  # an input that is given twice is given twice

    def other(x: Tensor) -> Tensor:
        if x.layout is not torch.strided or not x.numel():
            return x
        if id(x) not in drawn:
            # All memory from the first element to the last, so that strides stay as they are, overlaps too.
            extent = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
            generator = torch.Generator().manual_seed(len(drawn))
            memory = draw(x.detach().as_strided((extent,), (1,)), generator)
            drawn[id(x)] = memory.to(x.device, x.dtype).as_strided(x.shape, x.stride())
        return drawn[id(x)]

    with torch.inference_mode(False), torch.no_grad():
        return tuple(pytree.tree_map_only(Tensor, other, args))


def noise(values: Tensor, generator: torch.Generator) -> Tensor:
    """Normal noise as large as the values, with a sum of opposite sign; for integers, some of the same values.

    So indices stay valid, and an ``if`` on the sign, the mean or the largest value takes the other branch.
    """
    if not (values.is_floating_point() or values.is_complex()):
        chosen = torch.randint(len(values), values.shape, generator=generator)
        return values[chosen.to(values.device)]
    wide = values.cpu().to(torch.promote_types(values.dtype, torch.float32))
    found = torch.randn(wide.shape, dtype=wide.dtype, generator=generator)
    size = wide[wide.isfinite()].abs().square().mean().sqrt().nan_to_num()
    return found * (size or 1) * (-1 if (found.sum() * wide.sum()).real > 0 else 1)


def nearby(values: Tensor, generator: torch.Generator) -> Tensor:
    """The same values, slightly smaller; integers unchanged: for models that do not accept noise, as a logarithm."""
    return values * 0.9 if values.is_floating_point() or values.is_complex() else values.clone()


def _one_step_from(draw: Draw) -> Draw:
    """The same draw, each number rounded to a neighbour of its type."""

    def stepped(values: Tensor, generator: torch.Generator) -> Tensor:
        drawn = draw(values, generator)
        if not values.is_floating_point():
            return drawn
        up = torch.randint(2, drawn.shape, generator=generator).to(drawn.device) * 2 - 1
        tf32 = values.is_cuda and values.dtype is torch.float32  # to which a GPU may round what it convolves
        return drawn.to(values.dtype) * (1 + up * (2**-10 if tf32 else torch.finfo(values.dtype).eps))

    return stepped
