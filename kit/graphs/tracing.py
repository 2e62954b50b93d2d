"""Following a model's Python with ``torch.fx``: with proxies alone, or beside a run on the example inputs.

Plain proxies stand for any input, so asking for a shape is an error. Beside a run, each proxy knows its value, and
answers questions about shape, dtype and memory format; such a graph is valid for these only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn
from torch.fx import node as fx_node
from torch.fx.proxy import Attribute, TraceError
from torch.utils._python_dispatch import TorchDispatchMode

from kit.transforms.base import Layer

_INDEX = torch.ops.aten.index.Tensor
_MEMORY_FORMAT = ("stride", "storage_offset", "is_contiguous")
_SIZES = ("shape", "size", "numel", "nelement", *_MEMORY_FORMAT)
# What one may ask of a tensor without asking for its numbers.
_ASKS = (
    *("shape", "size", "ndim", "dim", "ndimension", "numel", "nelement"),
    *("dtype", "itemsize", "element_size", "is_floating_point", "is_complex", "is_signed", "is_quantized"),
    *("device", "get_device", "is_cpu", "is_cuda", "is_mps", "is_meta"),
    *("layout", "is_sparse", *_MEMORY_FORMAT),
)


class Caught(Exception):
    """The model catches the errors of tracing, so no method can capture what it would do."""


def traced(root: nn.Module, count: int) -> fx.Graph:
    """The graph of a module that takes ``count`` tensors, by proxies alone."""
    return _Tracer(count).traced(root)


def traced_beside(root: nn.Module, given: Sequence[Tensor]) -> tuple[fx.Graph, bool]:
    """The graph of a module, traced beside a run on these inputs; the run may write into them.

    Returns:
        The graph, and whether the module asked for the memory format of a tensor.
    """
    tracer = _Beside(given)
    return tracer.traced(root), not tracer.asked.isdisjoint(_MEMORY_FORMAT)


class _Tracer(fx.Tracer):
    """Follows the Python of a model down to torch's own layers, with a proxy for each tensor of the arguments."""

    proxy_buffer_attributes = True  # else what is computed of a buffer would be a constant, and stay when it changes

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.stopped: Exception | None = None  # by a question for a number, which the model may have caught

    def traced(self, root: nn.Module) -> fx.Graph:
        """Trace the graph."""
        graph = self.trace(root)
        if self.stopped is not None:
            raise Caught(f"its forward catches an error of tracing: {self.stopped}") from self.stopped
        return graph

    def stop(self, error: Exception) -> NoReturn:
        """Remember an error, and raise it."""
        self.stopped = error
        raise error

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Layer) or super().is_leaf_module(m, module_qualified_name)

    def to_bool(self, obj: fx.Proxy) -> bool:
        self.stop(TraceError("Python asks for the value of a tensor, to decide what to do next"))

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Watched(node, self)

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        proxies = [self.create_proxy("placeholder", f"input_{i}", (), {}) for i in range(self.count)]
        return root_fn, [self.root, *proxies]


class _Beside(_Tracer):
    """Runs the operators while it traces them, so that every proxy knows its value."""

    def __init__(self, given: Sequence[Tensor]) -> None:
        super().__init__(len(given))
        self.given = list(given)
        self.values: dict[fx.Node, Any] = {}
        self.asked: set[str] = set()  # what was asked of tensors
        self.running = False  # whether a layer computes now, whose calls are no part of the graph
        self.sizes = _Sizes()  # type: ignore[no-untyped-call]
        self.unsized: set[fx.Node] = set()  # whose sizes depend on the numbers of the data
        self.of_unsized: set[fx.Node] = set()  # tuples of such

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, name: Any = None, type_expr: Any = None, *others: Any
    ) -> Any:
        asked = str(getattr(target, "__name__", target))
        if kind in ("call_function", "call_method") and asked in _ASKS:
            self.ask(asked, args)
            return self._run(kind, target, *fx_node.map_aggregate((args, kwargs), _value_of))
        found = super().create_proxy(kind, target, args, kwargs, name, type_expr)
        return None if self.values[found.node] is None else found

    def proxy(self, node: fx.Node) -> fx.Proxy:
        args, kwargs = fx_node.map_arg((node.args, node.kwargs), self._value)
        with self.sizes:
            self.values[node] = value = self._run(node.op, node.target, args, kwargs)
        if self.sizes.found and not isinstance(value, Tensor):
            self.of_unsized.add(node)
        elif self.sizes.found or not {*node.all_input_nodes}.isdisjoint(self.unsized | self.of_unsized):
            self.unsized.add(node)
        return _Known(node, self, value)

    def ask(self, what: str, of: Iterable[Any]) -> None:
        """Record a question; raise for a size that may differ for other data.

        Raises:
            TraceError: the size depends on the values of the input tensors.
        """
        self.asked.add(what)
        if what in _SIZES and any(isinstance(each, _Known) and each.node in self.unsized for each in of):
            self.stop(TraceError("Python asks for a size that depends on the values of a tensor"))

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return forward(*args, **kwargs) if self.running else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self.running else super().getattr(attr, attr_val, parameter_proxy_cache)

    def _value(self, node: fx.Node) -> Any:
        if node not in self.values:  # a weight, for which fx makes no proxy
            self.values[node] = self._run(node.op, node.target, (), {})
        return self.values[node]

    def _run(self, op: str, target: Any, args: Any, kwargs: Any) -> Any:
        self.running, before = True, self.running
        try:
            if op == "placeholder":
                return self.given[int(str(target).rpartition("_")[2])]
            if op == "get_attr":
                return fetched(self.root, str(target))
            if op == "call_method":
                return getattr(args[0], target)(*args[1:], **kwargs)
            call = self.root.get_submodule(str(target)) if op == "call_module" else target
            return call(*args, **kwargs)
        finally:
            self.running = before


class _Sizes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Detects an operator whose output size depends on the values of its inputs."""

    found = False

    def __enter__(self) -> Any:
        self.found = False
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.dynamic_output_shape in func.tags:
            # Indexing has the tag, and only a mask gives another size on other data.
            masks = [each for each in args[1] if each is not None] if func is _INDEX else []
            self.found |= func is not _INDEX or any(each.dtype in (torch.bool, torch.uint8) for each in masks)
        return func(*args, **(kwargs or {}))


class _Watched(fx.Proxy):
    """A proxy whose tracer remembers each question for a tensor's value, since the model may catch the error."""

    tracer: _Tracer

    def _no_number(self, *others: Any) -> NoReturn:
        self.tracer.stop(TraceError("Python asks for the value of a tensor as a number"))

    __int__ = __float__ = __complex__ = __index__ = _no_number


class _Known(_Watched):
    """A proxy with its value: everything about a tensor may be asked except its numbers."""

    def __init__(self, node: fx.Node, tracer: _Beside, value: Any) -> None:
        super().__init__(node, tracer)
        self.tracer: _Beside = tracer
        self.value = value

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.value, name)  # raises what the value itself would
        if name in _ASKS and isinstance(self.value, Tensor):
            self.tracer.ask(name, [self])
            return found
        if callable(found):
            return Attribute(self, name)
        return self.tracer.create_proxy("call_function", getattr, (self, name), {})

    def __iter__(self) -> Iterator[Any]:
        return iter([self[i] for i in range(len(self))])  # type: ignore[index]

    def __len__(self) -> int:
        self.tracer.ask("size", [self])
        return len(self.value)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", _set_item, (self, key, value), {})


def _set_item(x: Tensor, key: Any, value: Any) -> Tensor:
    """``x[key] = value`` as a call with a result: x itself."""
    x[key] = value
    return x


def _value_of(x: Any) -> Any:
    return x.value if isinstance(x, _Known) else x


def fetched(root: nn.Module, path: str) -> Any:
    """The attribute of a module, or of one of its submodules, with this qualified name."""
    owner, _, name = path.rpartition(".")
    return getattr(root.get_submodule(owner), name)
