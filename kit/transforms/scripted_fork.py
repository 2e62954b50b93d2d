"""TorchScript's fork and wait: historical."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar, List  # noqa: UP035 - TorchScript reads List
from unittest.mock import patch

import torch
from torch import Tensor, nn

from kit.equality import shapes
from kit.errors import KitError
from kit.executors.thread_counts import intra_op_threads
from kit.regions import Branches, Merge, outermost
from kit.transforms.base import Transform, become, oddity
from kit.transforms.copying import rewritable


@dataclass(frozen=True, kw_only=True)
class ScriptedFork(Transform):
    """Historical: ``torch.jit.fork`` and ``wait``, on TorchScript's own pool of inter-op threads.

    For years the documented approach to run branches at the same time; TorchScript is deprecated now. In eager mode
    ``fork`` runs its function at once, so branches and merge are traced. The thread that ends last merges. Each forked
    branch has one intra-op thread, unless this process has forked before. It has no spans: Python does not see the
    branches run.

    Source: `Dynamic Parallelism in TorchScript
    <https://docs.pytorch.org/tutorials/advanced/torch-script-parallelism.html>`_.
    """

    wants_regions: ClassVar[bool] = True
    opaque: ClassVar[str] = "regions in TorchScript, whose branches Python does not see"

    def rewrite(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        title, (model, _, given) = type(model).__name__, rewritable(model, args)
        found = outermost(model, given)
        _start_threads()
        for name, region in found.items():
            if odd := oddity(region, Branches):
                raise KitError(f"the region {name or title!r} {odd}, which TorchScript does not run: leave it out.")
            if not given[region] or not all(isinstance(x, Tensor) for x in given[region]):
                raise KitError(
                    f"the region {name or title!r} was given {shapes(given[region])}, but TorchScript traces only "
                    "tensors: give its branches at least one tensor, and nothing else, or leave scripted_fork out."
                )
            taken = region.taken(len(given[region]))
            branches = [_Branch(branch, taken[key]) for key, branch in region.branches.items()]
            become(region, _ScriptedRegion(branches, region.merge, [*given[region]]))
        return model


class _ScriptedRegion(nn.Module):
    def __init__(self, branches: list[_Branch], merge: Merge, inputs: list[Tensor]) -> None:
        super().__init__()
        trace: Any = partial(torch.jit.trace, check_trace=False, strict=False)  # strict: a merge gives no list or dict
        state, types = torch.jit._state, torch.jit._recursive
        # All of a process is compiled into one unit, which nothing ever leaves: 0.9 MB for each small region. What is
        # compiled into a unit of its own goes with the last module that runs it.
        unit = patch.object(state, "_python_cu", torch._C.CompilationUnit())
        with unit, patch.object(types, "concrete_type_store", types.ConcreteTypeStore()):
            traced = [trace(branch, (inputs,)) for branch in branches]
            outputs = [branch(inputs) for branch in traced]
            if not all(isinstance(output, Tensor) for output in outputs):
                raise KitError(f"a branch returns {shapes(outputs)}, but TorchScript's fork needs one tensor.")
            self.fork = torch.jit.script(_Fork(traced, trace(_Merge(merge), (outputs,))))

    def forward(self, *inputs: Tensor) -> Any:
        return self.fork(list(inputs))


class _Branch(nn.Module):
    """A branch as it is traced: a function of all inputs of its region."""

    def __init__(self, branch: nn.Module, taken: tuple[int, ...]) -> None:
        super().__init__()
        self.branch, self.taken = branch, taken

    def forward(self, inputs: list[Tensor]) -> Any:
        return self.branch(*(inputs[i] for i in self.taken))


class _Merge(nn.Module):
    """A callable as a module that can be traced."""

    def __init__(self, merge: Merge) -> None:
        super().__init__()
        self.merge = merge

    def forward(self, outputs: list[Tensor]) -> Any:
        return self.merge(outputs)


class _Fork(nn.Module):
    """TorchScript compiles this class: its loop is unrolled, so that each turn has its own branch."""

    def __init__(self, branches: list[nn.Module], merge: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.merge = merge

    def forward(self, inputs: List[Tensor]) -> Any:  # noqa: UP006
        futures: List[torch.jit.Future[Tensor]] = []  # noqa: UP006
        for branch in self.branches:
            futures.append(torch.jit.fork(branch, inputs))  # type: ignore[no-untyped-call]
        return self.merge([torch.jit.wait(future) for future in futures])  # type: ignore[no-untyped-call]


@cache
def _start_threads() -> None:
    """Start TorchScript's threads with one intra-op thread each, which they keep from their first operator on.

    With more intra-op threads there would be more OpenMP threads than cores. Then libgomp stops active waiting in the
    whole process, which would also slow the other approaches of a comparison.
    """
    x, count = torch.zeros(2**20), 4 * torch.get_num_interop_threads()  # enough for each thread to come by
    with intra_op_threads(1):
        _ScriptedRegion([_Branch(nn.ReLU(), (0,))] * count, lambda outputs: outputs[0], [x])(x)
