"""What transforms to another runtime share: a graph of arrays as a module that takes and gives what the model did."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only, tree_unflatten

from kit.equality import shapes
from kit.errors import KitError, ShapeError
from kit.transforms.base import Transform

Graph = Callable[[list[NDArray[Any]]], Iterable[NDArray[Any]]]  # all inputs -> all outputs, which are the caller's


class OtherRuntime(Transform):
    """The model as a graph of another runtime, on the CPU and for inputs of these shapes and dtypes."""

    opaque: ClassVar[str] = "an exported graph without regions"
    runtime: ClassVar[str]  # its name, for messages

    def rewrite(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        if not all(
            isinstance(x, Tensor) and x.device.type == "cpu" and x.dtype != torch.bfloat16 for x in tree_leaves(args)
        ):
            raise KitError(f"{self.runtime} takes CPU tensors of a dtype that numpy has, but was given {shapes(args)}.")
        example = model(*tree_map_only(Tensor, torch.clone, args))
        if other := [type(x).__name__ for x in tree_leaves(example) if not (x is None or isinstance(x, Tensor))]:
            raise KitError(
                f"a graph of {self.runtime} returns only tensors, but {type(model).__name__} also returns a {other[0]}."
            )
        return _Session(self.graph(model, args), args, example)

    @abstractmethod
    def graph(self, model: nn.Module, args: tuple[Any, ...]) -> Graph:
        """The model's graph, ready to run.

        Args:
            args: nested as the model takes them; the graph takes their tensors as one flat list.
        """


class _Session(nn.Module):
    def __init__(self, graph: Graph, args: tuple[Any, ...], example: Any) -> None:
        super().__init__()
        self.graph = graph
        self.given, self.kinds = shapes(args), _kinds(args)
        leaves, self.gives = tree_flatten(example)
        self.left_out = [leaf is None for leaf in leaves]

    def forward(self, *args: Any) -> Any:
        if _kinds(args) != self.kinds:
            raise ShapeError(f"exported for {self.given}, but was given {shapes(args)}: prepare it again.")
        outputs = map(torch.from_numpy, self.graph([x.contiguous().numpy() for x in tree_leaves(args)]))
        return tree_unflatten([None if none else next(outputs) for none in self.left_out], self.gives)


def _kinds(args: tuple[Any, ...]) -> Any:
    """The structure of inputs, and what each of them is, without its values."""
    leaves, structure = tree_flatten(args)
    return structure, [(x.shape, x.dtype, x.device) if isinstance(x, Tensor) else type(x) for x in leaves]
