"""What each call of a captured graph reads, writes and costs, observed by running the graph."""

from __future__ import annotations

import copy
import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from kit.errors import KitError
from kit.executors.thread_counts import intra_op_threads
from kit.macs import each_operator, macs_of
from kit.reprs import one_line
from kit.spans import clock

RANDOM = "random numbers"  # a resource that every call that draws some writes
RUNS = 3  # that are timed, of each operator, after one that is not


@one_line
@dataclass
class Effects:
    """The effects of one call of the graph when it ran."""

    reads: set[Any] = field(default_factory=set)  # memory, by identity
    writes: set[Any] = field(default_factory=set)  # memory, or RANDOM
    operators: int = 0  # of PyTorch, that it dispatched
    macs: int = 0
    shape: str = ""  # of its output
    tensors: bool = False  # whether its output holds any
    ns: list[int] = field(default_factory=list)  # of each timed run, on one thread

    @property
    def ms(self) -> float:
        return statistics.median(self.ns) / 1e6 if self.ns else float("nan")


class _Watched(fx.Interpreter):
    """Runs a graph node by node, and keeps all its tensors alive, so that no memory is used twice."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.now = Effects()  # of the call that runs now
        self.found: dict[fx.Node, Effects] = {}
        self.alive: list[Any] = []

    def run_node(self, n: fx.Node) -> Any:
        self.now = effects = Effects()
        buffers = self._buffers_of(n)
        before = [x.clone() for x in buffers]
        with each_operator(self._operator):
            result = super().run_node(n)
        # A batch norm writes its running statistics without any schema that says so.
        effects.writes |= {_memory(x) for x, was in zip(buffers, before, strict=True) if not _identical(x, was)}
        found = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        effects.tensors = bool(found)
        effects.shape = ", ".join("x".join(map(str, x.shape)) or "scalar" for x in found)
        if n.op == "placeholder":
            effects.reads = {_memory(x) for x in found}
        self.alive.append(result)
        self.found[n] = effects
        return result

    def _operator(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Adds the effects of one PyTorch operator to those of the call that is running."""
        now = self.now
        now.operators += 1
        read = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        self.alive.append(read)  # what lives within one call too
        now.reads |= {_memory(x) for x in read}
        for i, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = args[i] if i < len(args) else kwargs.get(argument.name)
                now.writes |= {_memory(x) for x in tree_leaves(value) if isinstance(x, Tensor)}
        draws = torch.Tag.nondeterministic_seeded in func.tags  # an attention too, which draws for its dropout, if any
        before = _random_state(args, kwargs) if draws else []
        result = func(*args, **kwargs)
        if draws and not all(map(torch.equal, before, _random_state(args, kwargs))):
            now.writes.add(RANDOM)
        now.macs += macs_of(func.overloadpacket, args, kwargs, result) or 0
        return result

    def _buffers_of(self, node: fx.Node) -> list[Tensor]:
        if node.op == "call_module":
            return list(self.fetch_attr(str(node.target)).buffers())
        args = (each for each in node.all_input_nodes if each.op == "get_attr")
        return [
            x for each in args if isinstance(x := self.env.get(each), Tensor) and not isinstance(x, torch.nn.Parameter)
        ]


class _Timed(fx.Interpreter):
    """Runs a graph node by node, and records the time of each."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.ns: dict[fx.Node, list[int]] = defaultdict(list)

    def run_node(self, n: fx.Node) -> Any:
        start = clock()
        result = super().run_node(n)
        self.ns[n].append(clock() - start)
        return result


def effects_of(module: fx.GraphModule, inputs: list[Tensor]) -> dict[fx.Node, Effects]:
    """Node -> its effects, observed by running the graph once on copies of these inputs.

    Raises:
        KitError: the graph writes into a constant that was created by capturing: the next call would start from the
            changed value.
    """
    watched = _Watched(module)
    with torch.no_grad():
        watched.run(*copy.deepcopy(inputs), enable_io_processing=False)  # what shares memory goes on sharing it
    made = {
        _memory(value): node.target
        for node in module.graph.nodes
        if node.op == "get_attr" and "_tensor_constant" in str(node.target)
        for value in [watched.fetch_attr(str(node.target))]
        if isinstance(value, Tensor)
    }
    for node, effects in watched.found.items():
        if written := effects.writes & made.keys():
            raise KitError(f"{node.name} writes into {made[written.pop()]}, a tensor that forward creates in each call")
    return watched.found


def measure(module: fx.GraphModule, inputs: list[Tensor], found: dict[fx.Node, Effects]) -> None:
    """Fill in the time of each node on one thread: the median of three runs after a warm-up run."""
    timed = _Timed(module)
    with torch.inference_mode(), intra_op_threads(1):
        for _ in range(1 + RUNS):
            timed.run(*copy.deepcopy(inputs), enable_io_processing=False)
    for node, ns in timed.ns.items():
        found[node].ns = ns[1:]


def _random_state(*values: Any) -> list[Tensor]:
    """The states of all random generators that an operator with these arguments could use."""
    own = [leaf.get_state() for leaf in tree_leaves(values) if isinstance(leaf, torch.Generator)]
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    return [torch.get_rng_state(), *gpus, *own]


def _memory(x: Tensor) -> Any:
    return x.untyped_storage()._cdata if x.layout is torch.strided else id(x)


def _identical(x: Tensor, y: Tensor) -> bool:
    return bool(((x == y) | ((x != x) & (y != y))).all())
