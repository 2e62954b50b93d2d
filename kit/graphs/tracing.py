"""Following a model's Python with ``torch.fx``: with proxies alone, or beside a run on the example inputs.

Plain proxies stand for any input, and so refuse each question for a shape. Beside a run, each proxy knows the value
that it stands for, and answers what follows from shape, type and memory format: such a graph holds for these only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, fx, nn
from torch.fx import node as fx_node
from torch.fx.proxy import Attribute

_MEMORY_FORMAT = ("stride", "storage_offset", "is_contiguous")
# What one may ask of a tensor without asking for its numbers.
_ASKS = (
    *("shape", "size", "ndim", "dim", "ndimension", "numel", "nelement"),
    *("dtype", "itemsize", "element_size", "is_floating_point", "is_complex", "is_signed", "is_quantized"),
    *("device", "get_device", "is_cpu", "is_cuda", "is_mps", "is_meta"),
    *("layout", "is_sparse", *_MEMORY_FORMAT),
)


class Caught(Exception):
    """A model that catches what tracing raises: no way of capturing can tell what it would do."""


def traced(root: nn.Module, count: int) -> fx.Graph:
    """The graph of a module that takes so many tensors, by proxies alone."""
    return _Tracer(count).traced(root)


def traced_beside(root: nn.Module, given: Sequence[Tensor]) -> tuple[fx.Graph, bool]:
    """The graph of a module, beside a run on these inputs; the run may write into them.

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
        """The graph, unless a question for a number of the data was asked on the way."""
        graph = self.trace(root)
        if self.stopped is not None:
            raise Caught(f"its forward catches what tracing raises: {self.stopped}") from self.stopped
        return graph

    def to_bool(self, obj: fx.Proxy) -> bool:
        try:
            return super().to_bool(obj)
        except Exception as error:
            self.stopped = error
            raise

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        proxies = [self.create_proxy("placeholder", f"input_{i}", (), {}) for i in range(self.count)]
        return root_fn, [self.root, *proxies]


class _Beside(_Tracer):
    """Runs what it follows, so that every proxy knows its value."""

    def __init__(self, given: Sequence[Tensor]) -> None:
        super().__init__(len(given))
        self.given = list(given)
        self.values: dict[fx.Node, Any] = {}
        self.asked: set[str] = set()  # what was asked of tensors
        self.running = False  # whether a layer computes now, whose calls are no part of the graph

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, name: Any = None, type_expr: Any = None, *others: Any
    ) -> Any:
        asked = str(getattr(target, "__name__", target))
        if kind in ("call_function", "call_method") and asked in _ASKS:
            self.asked.add(asked)
            return self._run(kind, target, *fx_node.map_aggregate((args, kwargs), _value_of))
        found = super().create_proxy(kind, target, args, kwargs, name, type_expr)
        return None if self.values[found.node] is None else found

    def proxy(self, node: fx.Node) -> fx.Proxy:
        args, kwargs = fx_node.map_arg((node.args, node.kwargs), self._value)
        self.values[node] = value = self._run(node.op, node.target, args, kwargs)
        return _Known(node, self, value)

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


class _Known(fx.Proxy):
    """A proxy with the value that it stands for: of a tensor, all may be asked but its numbers."""

    def __init__(self, node: fx.Node, tracer: _Beside, value: Any) -> None:
        super().__init__(node, tracer)
        self.tracer: _Beside = tracer
        self.value = value

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.value, name)  # raises what the value itself would
        if name in _ASKS and isinstance(self.value, Tensor):
            self.tracer.asked.add(name)
            return found
        if callable(found):
            return Attribute(self, name)
        return self.tracer.create_proxy("call_function", getattr, (self, name), {})

    def __iter__(self) -> Iterator[Any]:
        return iter([self[i] for i in range(len(self))])  # type: ignore[index]

    def __len__(self) -> int:
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
    """What lies in a module, or in one of its submodules, under this qualified name."""
    owner, _, name = path.rpartition(".")
    return getattr(root.get_submodule(owner), name)
