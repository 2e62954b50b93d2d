"""The module of a rewritten model: it is called, saved and loaded like the model as given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from torch import Tensor, nn

from kit.errors import KitError, ShapeError
from kit.graphs.values import Form


class Branched(nn.Module):
    """A rewritten model: its regions are ``kit.Branches``, its modules and weights are those of the model as given.

    It is called like the model as given. Its ``state_dict`` has the same keys, and it loads such a ``state_dict``. Its
    parameters are those of the model as given, but ``named_parameters`` gives them other names.

    Raises:
        ShapeError: a call with inputs whose shapes, dtypes or structure differ from those it was captured with.
    """

    def __init__(
        self, body: nn.Module, inputs: Form, outputs: Form, given: Sequence[Tensor], state: Mapping[str, Tensor]
    ) -> None:
        super().__init__()
        self.body, self.unused = body, nn.Module()  # unused: weights that its forward does not need
        self.inputs, self.outputs = inputs, outputs
        self.names: tuple[str, ...] = ()  # of the arguments, where the model was captured with keywords
        self.given = [(tuple(x.shape), x.dtype) for x in given]
        self._hold(state)
        self.any_batch = False  # whether another size of the first dimension was proven right
        self.strides: list[tuple[int, ...]] | None = None  # of the inputs, where a decision may have hung on them
        self.shared: list[int] | None = None  # which inputs lie in the same memory, where it is written
        self.register_state_dict_post_hook(_given_keys)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_own_keys)  # type: ignore[no-untyped-call]

    def _hold(self, state: Mapping[str, Tensor]) -> None:
        """Keep the tensors of a state that the body does not hold, and map all names: a tensor may have several."""
        held = {id(x) for x in (*self.body.parameters(), *self.body.buffers())}
        for i, x in enumerate(state.values()):
            if id(x) not in held:
                held.add(id(x))
                if isinstance(x, nn.Parameter):
                    self.unused.register_parameter(f"x{i}", x)
                else:
                    self.unused.register_buffer(f"x{i}", x)
        theirs = {id(x): key for key, x in state.items()}
        tensors = (*self.named_parameters(remove_duplicate=False), *self.named_buffers(remove_duplicate=False))
        self.loaded = {key: theirs[id(x)] for key, x in tensors if id(x) in theirs}  # own key -> the model's
        ours = {id(x): key for key, x in tensors}
        self.saved = {key: ours[id(x)] for key, x in state.items()}  # key of the model as given -> own

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickling: its class is created at run time, with the model's class name, and again when it is loaded."""
        return _empty, (type(self).__name__,), self.__dict__

    def forward(self, *args: Any, **keywords: Any) -> Any:
        if keywords.keys() != set(self.names) and (keywords or len(args) != len(self.names or args)):
            raise ShapeError(
                f"{type(self).__name__} was captured with {', '.join(self.names) or 'positional arguments'}: call it "
                "with these."
            )
        args = args or tuple(keywords[name] for name in self.names)
        leaves = self.inputs.leaves(args, type(self).__name__)
        first = 1 if self.any_batch else 0
        for x, (shape, dtype) in zip(leaves, self.given, strict=True):
            if len(x.shape) != len(shape) or x.shape[first:] != shape[first:] or x.dtype != dtype:
                raise ShapeError(
                    f"{type(self).__name__} was captured for an input {shape} "
                    f"{dtype}{' with any batch size' if first else ''}, but was given {tuple(x.shape)} {x.dtype}: "
                    "capture it again with these inputs."
                )
        if self.strides is not None and [x.stride() for x in leaves] != self.strides:
            raise ShapeError(
                f"{type(self).__name__} was captured for inputs in another memory format: capture it again."
            )
        if self.shared is not None and shared_memory(leaves) != self.shared:
            raise ShapeError(
                f"{type(self).__name__} writes into its inputs, and was captured for inputs that share memory "
                "differently: capture it again with these inputs."
            )
        return self.outputs.rebuilt(self.body(*leaves))

    def train(self, mode: bool = True) -> Self:
        """As for any module, but only eval mode is possible: the graph holds the operators of eval mode.

        Raises:
            KitError: ``mode`` is True.
        """
        if mode:
            raise KitError(
                f"{type(self).__name__} was captured in eval mode and cannot be trained: train the model as given."
            )
        return super().train(mode)


def class_named(name: str) -> type[Branched]:
    """A class for a rewritten model, with the class name of the model as given."""
    return type(name, (Branched,), {"__doc__": Branched.__doc__})


def _empty(name: str) -> Branched:
    kind = class_named(name)
    return kind.__new__(kind)


def _given_keys(module: Branched, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """A ``state_dict`` with the keys of the model as given, without the constants of the graph.

    A transform may have removed weights, as ``folded`` does with batch norms.
    """
    own = {key: state.pop(key) for key in list(state) if key.startswith((f"{prefix}body.", f"{prefix}unused."))}
    state.update({prefix + given: own[prefix + key] for given, key in module.saved.items() if prefix + key in own})


def _own_keys(
    module: Branched, state: dict[str, Any], prefix: str, metadata: Any, strict: bool, missing: list[str], *others: Any
) -> None:
    """Load a ``state_dict`` of the model as given; missing tensors are reported by the keys of that model."""
    missing += [prefix + given for given in module.saved if prefix + given not in state]
    tensors = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    for own, x in tensors:
        if own in module.loaded:
            state[prefix + own] = state.get(prefix + module.loaded[own], x)
    for given in module.saved:
        state.pop(prefix + given, None)


def shared_memory(tensors: Sequence[Tensor]) -> list[int]:
    """For each tensor, the index of the first tensor in the same memory."""
    memory = [x.untyped_storage().data_ptr() for x in tensors]
    return [memory.index(each) for each in memory]
