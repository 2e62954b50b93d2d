"""The cell that a playground stands for: its code, and what comes out when it runs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from kit.approaches import REGISTRY, split_names
from kit.errors import KitError
from kit.measuring.comparison import Comparison
from kit.reprs import one_line

MOST_BYTES = 2**31  # of inputs that are given by their shapes: more would fill a laptop's memory


@one_line
class BuiltIn(NamedTuple):
    """A network of the kit, for requests of any size."""

    code: str  # that makes it
    size: int  # its usual input, in pixels
    inputs: str  # code that makes them, for {n} requests of {s} pixels


_IMAGE = "torch.rand({n}, 3, {s}, {s})"
BUILT_IN = {
    "two streams": BuiltIn("models.two_stream()", 112, f"({_IMAGE}, torch.rand({{n}}, 20, {{s}}, {{s}}))"),
    "two streams, toy": BuiltIn("models.toy_two_stream()", 25, f"({_IMAGE}, torch.rand({{n}}, 2, {{s}}, {{s}}))"),
    "two streams, I3D": BuiltIn(
        "models.two_stream_i3d()", 224, "(torch.rand({n}, 3, 8, {s}, {s}), torch.rand({n}, 2, 8, {s}, {s}))"
    ),
    "Inception block": BuiltIn("models.inception_block()", 35, "torch.rand({n}, 192, {s}, {s})"),
    "GoogLeNet": BuiltIn("models.googlenet()", 224, _IMAGE),
    "Inception v3": BuiltIn("models.inception_v3()", 299, _IMAGE),
    "Inception, plain PyTorch": BuiltIn("models.plain.lively(models.plain.Inception())", 96, _IMAGE),
    "ResNet-18, plain PyTorch": BuiltIn("models.plain.lively(models.plain.ResNet())", 96, _IMAGE),
    "two towers, plain PyTorch": BuiltIn(
        "models.plain.lively(models.plain.TwoTowers())", 128, f"({_IMAGE}, torch.randint(1000, ({{n}}, 64)))"
    ),
}


@one_line
@dataclass(frozen=True)
class Cell:
    """One comparison as code. What runs is this code: the playground has no other way to measure."""

    model: str  # an expression
    inputs: str  # an expression
    approaches: Sequence[str]
    rounds: int

    @property
    def measuring(self) -> str:
        """The lines that make ``comparison``."""
        names = ", ".join(json.dumps(name, ensure_ascii=False) for name in self.approaches)
        imports = ["import kit", "import torch"] if "torch." in self.inputs else ["import kit"]
        imports += ["from kit import models"] if self.model.startswith("models.") else []
        arguments = (self.model, self.inputs, f"[{names}]", f"rounds={self.rounds}")
        return "\n".join([*imports, "", "comparison = kit.compare(", *(f"    {each}," for each in arguments), ")"])

    @property
    def code(self) -> str:
        """The whole cell: the comparison with its timeline and its explanation."""
        shown = "display(comparison, kit.timeline(comparison), kit.explain(comparison))"
        return f"from IPython.display import display\n{self.measuring}\n{shown}"

    def run(self, namespace: Mapping[str, Any]) -> Comparison:
        """Measure it with the variables of a namespace, which stays as it is.

        Raises: what the code raises; see :func:`kit.compare`.
        """
        variables = dict(namespace)
        exec(compile(self.measuring, "<playground>", "exec"), variables)
        found: Comparison = variables["comparison"]
        return found


def modules_in(namespace: Mapping[str, Any]) -> dict[str, str]:
    """Variables of a notebook that hold a network -> the name of its class; not those that begin with ``_``."""
    return {
        name: type(value).__name__
        for name, value in list(namespace.items())
        if isinstance(value, nn.Module) and not name.startswith("_")
    }


def inputs_code(text: str, namespace: Mapping[str, Any]) -> str:
    """Code for the inputs of the learner's own model: a variable's name, or shapes.

    >>> inputs_code("1x3x224x224; 1x20x112x112", {})
    '(torch.rand(1, 3, 224, 224), torch.rand(1, 20, 112, 112))'

    Raises:
        KitError: no such variable, no shapes, or inputs larger than ``MOST_BYTES``.
    """
    text = text.strip()
    if text in namespace:
        return text
    if text.isidentifier():
        raise KitError(f"there is no variable {text!r}: run the cell that makes it, or give shapes as in 1x3x224x224.")
    shapes = [_shape(each) for each in re.split(r";|\)\s*,\s*\(", text)]
    if any(shape is None or 0 in shape for shape in shapes):
        raise KitError(
            f"cannot read the inputs {text!r}: give the name of a variable, or shapes as in 1x3x224x224, with a "
            "semicolon between two inputs."
        )
    made = [f"torch.rand({', '.join(map(str, shape or ()))})" for shape in shapes]
    if (size := 4 * sum(math.prod(shape or ()) for shape in shapes)) > MOST_BYTES:
        raise KitError(f"inputs of {size / 1e9:,.0f} GB are too large for the playground: give smaller shapes.")
    return made[0] if len(made) == 1 else f"({', '.join(made)})"


def _shape(text: str) -> tuple[int, ...] | None:
    """The numbers of ``1x3x8x8`` or ``(1, 3, 8, 8)``; None if it is something else."""
    plain = text.strip().strip("()").rstrip(", ")
    if not re.fullmatch(r"\d+(\s*[x,\s]\s*\d+)*", plain):
        return None
    return tuple(map(int, re.findall(r"\d+", plain)))


def named(chosen: Sequence[str], others: str, threads: int | None) -> list[str]:
    """The names of the approaches to compare, the baseline first.

    Args:
        others: further names as text, with commas between.
        threads: intra-op threads of every chosen approach that has such an option; None leaves it to the approach.

    Raises:
        KitError: names that cannot be read.
    """
    names = list(chosen)
    if threads is not None:
        names = [
            f"{name}(threads={threads})" if "threads" in REGISTRY[name].options else name
            for name in ("sequential", *chosen)
        ]
    more = split_names(others) if others.strip() else []
    return list(dict.fromkeys(["sequential", *names, *more]))
