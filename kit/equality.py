"""Checks whether two approaches give the same output, and whether the check could notice a difference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from kit.errors import MeasureError, ShapeError

RTOL = 1e-4  # relative to the largest magnitude of the tensor: other kernels sum in another order
ROUNDINGS = 4  # two right outputs are each one rounding from the exact one, and the largest of many is not the same


class Equality(NamedTuple):
    """Whether an output equals the baseline's, and its largest absolute error."""

    equal: bool  # max_abs_error <= tolerance(dtype) * max finite |baseline|, by tensor; or within TF32's rounding
    max_abs_error: float

    def __str__(self) -> str:
        if not self.equal:
            return f"NO, off by {self.max_abs_error:.1g}"
        return f"yes, within {self.max_abs_error:.1g}" if self.max_abs_error else "yes, identical"


def tolerance(dtype: torch.dtype) -> float:
    """Largest allowed error, relative to the largest magnitude: 1e-4, or four times the epsilon of a coarser type.

    Fused kernels keep values in float32 that other kernels round to bfloat16 after each operator.
    """
    return max(RTOL, 4 * torch.finfo(dtype).eps) if dtype.is_floating_point else RTOL


def as_args(inputs: Any) -> tuple[Any, ...]:
    """Inputs as the arguments of a call: a tuple or list is spread, anything else is one argument."""
    return tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)


def shapes(inputs: Any) -> str:
    """The inputs as text: ``(1, 3, 112, 112) float32 on cpu, ...``; those of a dict with their names."""
    if isinstance(inputs, Mapping):
        return ", ".join(f"{name} {shapes((x,))}" for name, x in inputs.items())
    args = as_args(inputs)
    if not args:
        return "nothing"
    return ", ".join([*map(_shape, args[:4]), *([f"... {len(args)} in all"] if len(args) > 4 else [])])


def _shape(x: Any) -> str:
    if isinstance(x, Tensor):
        return f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')} on {x.device}"
    return f"numpy array {x.shape} {x.dtype}" if isinstance(x, np.ndarray | np.generic) else type(x).__name__


def device_of(*values: Any) -> str:
    """``"cuda"`` where a tensor in these nested values is on a GPU, else ``"cpu"``."""
    return "cuda" if any(isinstance(leaf, Tensor) and leaf.is_cuda for leaf in tree_leaves(values)) else "cpu"


def tensors(value: Any, path: str = "output") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested tuples, lists, mappings and dataclasses, with its path; None is skipped.

    A number counts as a tensor with 0 dimensions.

    Raises:
        MeasureError: a leaf that is neither a tensor nor a number.
    """
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, int | float | complex):
        yield path, torch.from_numpy(np.asarray(value))  # in Python's own precision
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors(item, f"{path}[{key!r}]")
    elif isinstance(value, tuple | list):
        for i, item in enumerate(value):
            yield from tensors(item, f"{path}[{i}]")
    elif is_dataclass(value):
        for each in fields(value):
            yield from tensors(getattr(value, each.name), f"{path}.{each.name}")
    elif value is not None or path == "output":  # an output may leave parts of it out
        raise MeasureError(
            f"{path} is a {type(value).__name__}, which cannot be compared: return tensors and numbers, or tuples, "
            "lists, dicts and dataclasses of them."
        )


@contextmanager
def without_tf32() -> Iterator[None]:
    """In this block, GPUs compute float32 convolutions and products in float32, not in 10-bit TF32."""
    backends: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = False
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def tf32_rounding(call: Callable[[], Any], output: Any) -> dict[str, float]:
    """For each float32 tensor of an output on a GPU: its largest change due to TF32; empty if there is none.

    PyTorch lets cuDNN use TF32 by default, and each algorithm rounds in its own places. So two correct outputs of a
    deep network differ by as much as each differs from the output in float32.

    Args:
        call: computes the output again.
    """
    found = dict(tensors(output))
    if not any(x.is_cuda and x.dtype is torch.float32 for x in found.values()):
        return {}
    with without_tf32():
        exact = dict(tensors(call()))
    return {path: float((exact[path].double() - x.double()).abs().max()) for path, x in found.items() if x.numel()}


def compare_outputs(baseline: Any, other: Any, rounding: Mapping[str, float] = {}) -> Equality:
    """Compare two outputs of the same structure, tensor by tensor.

    Args:
        rounding: path -> absolute error of the baseline itself, from :func:`tf32_rounding`; up to four times this error
            counts as equal.

    Raises:
        ShapeError: structures, shapes or dtypes that differ.
        MeasureError: NaN in either, a leaf that is not a tensor, or no tensor at all.
    """
    expected, found = dict(tensors(baseline)), dict(tensors(other))
    if not expected:
        raise MeasureError(
            f"the output is {shapes((baseline,))}, without a tensor to compare: return the computed tensors."
        )
    if expected.keys() != found.keys():
        raise ShapeError(f"outputs differ in structure: {', '.join(expected)} against {', '.join(found)}.")
    equal, worst = True, 0.0
    for path, want in expected.items():
        got = found[path]
        if want.shape != got.shape or want.dtype != got.dtype:
            raise ShapeError(
                f"{path} is {tuple(got.shape)} {got.dtype}, the baseline's is {tuple(want.shape)} {want.dtype}."
            )
        if want.isnan().any() or got.isnan().any():
            raise MeasureError(f"{path} contains NaN, so outputs cannot be compared. Check the model on these inputs.")
        if want.numel() == 0:
            continue
        wide = torch.promote_types(want.dtype, torch.float64)  # complex128 where the output is complex
        rtol = tolerance(want.dtype)
        want, got = want.to("cpu", wide), got.to("cpu", wide)
        error = float((want - got).abs().masked_fill(want == got, 0).max())  # inf agrees with inf
        scale = float(want.abs().masked_fill(want.isinf(), 0).max())
        equal &= error <= max(rtol * scale, ROUNDINGS * rounding.get(path, 0.0))
        worst = max(worst, error)
    return Equality(equal, worst)


def inputs_without_effect(call: Callable[..., Any], inputs: Any, seed: int = 0) -> list[int]:
    """Indices of inputs that hardly change the output; equal outputs say nothing about how such an input is used.

    Noise with the standard deviation of the tensor is added to each floating-point tensor in turn. An input is without
    effect if no output changes by more than ten times the tolerance of :func:`compare_outputs` (twice, for types
    coarser than float32).
    """
    args = as_args(inputs)
    generator = torch.Generator().manual_seed(seed)
    baseline = dict(tensors(call(*args)))
    deaf = []
    for i, x in enumerate(args):
        if not (isinstance(x, Tensor) and x.is_floating_point()):
            continue
        noise = torch.randn(x.shape, generator=generator).to(x)
        spread = x.std() if x.numel() > 1 else x.abs().max()
        moved = dict(tensors(call(*args[:i], x + noise * spread.clamp(min=1e-3), *args[i + 1 :])))
        reacts = any(
            (moved[path].double() - want.double()).abs().max()
            > max(10 * RTOL, 2 * tolerance(want.dtype)) * want.double().abs().max()
            for path, want in baseline.items()
            if want.numel()
        )
        if not reacts:
            deaf.append(i)
    return deaf
