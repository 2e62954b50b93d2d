"""The module that a rewritten model is: called, saved and loaded as the model as given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor, nn

from kit.errors import KitError, ShapeError
from kit.graphs.values import Form


class Branched(nn.Module):
    """A model that was rewritten: its regions are ``kit.Branches``, its modules and weights are the model's own.

    Called as the model as given. Its ``state_dict`` has the keys of the model as given, and it loads such a one.

    Raises:
        ShapeError: a call with inputs of other shapes, types or structure than those that it was proven on.
    """

    def __init__(
        self, body: nn.Module, inputs: Form, outputs: Form, given: Sequence[Tensor], keys: dict[str, str]
    ) -> None:
        super().__init__()
        self.body, self.keys = body, keys  # own key -> the key of the model as given
        self.inputs, self.outputs = inputs, outputs
        self.names: tuple[str, ...] = ()  # of the arguments, where the model was captured with keywords
        self.given = [(tuple(x.shape), x.dtype) for x in given]
        self.unused: frozenset[str] = frozenset()  # keys of the model as given that its forward does not need
        self.any_batch = False  # whether another size of the first dimension was proven right
        self.strides: list[tuple[int, ...]] | None = None  # of the inputs, where a decision may have hung on them
        self.shared: list[int] | None = None  # which inputs lie in the same memory, where it is written
        self.register_state_dict_post_hook(_given_keys)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_own_keys)  # type: ignore[no-untyped-call]

    def forward(self, *args: Any, **keywords: Any) -> Any:
        if keywords.keys() != set(self.names) and (keywords or len(args) != len(self.names or args)):
            raise ShapeError(
                f"{type(self).__name__} was captured with {', '.join(self.names) or 'positional arguments'}: "
                "call it so."
            )
        args = args or tuple(keywords[name] for name in self.names)
        leaves = self.inputs.leaves(args, type(self).__name__)
        first = 1 if self.any_batch else 0
        for x, (shape, dtype) in zip(leaves, self.given, strict=True):
            if len(x.shape) != len(shape) or x.shape[first:] != shape[first:] or x.dtype != dtype:
                raise ShapeError(
                    f"{type(self).__name__} was captured for an input {shape} {dtype}"
                    f"{', with any batch' if first else ''}, and gets {tuple(x.shape)} {x.dtype}: capture it again "
                    "with these inputs."
                )
        if self.strides is not None and [x.stride() for x in leaves] != self.strides:
            raise ShapeError(
                f"{type(self).__name__} was captured for inputs of another memory format: capture it again."
            )
        if self.shared is not None and shared_memory(leaves) != self.shared:
            raise ShapeError(
                f"{type(self).__name__} writes into its inputs, and was captured for others that share memory or do "
                "not: capture it again."
            )
        return self.outputs.rebuilt(self.body(*leaves))

    def train(self, mode: bool = True) -> Self:
        """As for any module, to eval mode only: a graph holds what the model does there.

        Raises:
            KitError: training mode.
        """
        if mode:
            raise KitError(
                f"{type(self).__name__} was captured in eval mode, and computes that: train the model as given."
            )
        return super().train(mode)


def _given_keys(module: Branched, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """The state's keys as the model as given has them."""
    for own, given in module.keys.items():
        if prefix + own in state:
            state[prefix + given] = state.pop(prefix + own)


def _own_keys(module: Branched, state: dict[str, Any], prefix: str, *others: Any) -> None:
    for own, given in module.keys.items():
        if prefix + given in state:
            state[prefix + own] = state[prefix + given]
    for given in {*module.keys.values(), *module.unused}:
        state.pop(prefix + given, None)


def shared_memory(tensors: Sequence[Tensor]) -> list[int]:
    """For each tensor, the first one that lies in the same memory."""
    memory = [x.untyped_storage().data_ptr() for x in tensors]
    return [memory.index(each) for each in memory]
