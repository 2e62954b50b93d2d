"""Models for which a graph of calls with data edges alone would be wrong, each with what must not happen.

``TRAPS`` maps a name to a :class:`Trap`. Whoever captures one of these may refuse it, with the reason. If not, outputs,
inputs, buffers and attributes must be those of the model as given, in whatever order the branches run.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.graphs.plain_models import conv, lively

Made = tuple[nn.Module, Any]
TRAPS: dict[str, Trap] = {}
CALLS = {"seen": 0}  # of :class:`Global`


@dataclass(frozen=True)
class Trap:
    """A model and what must not happen."""

    make: Callable[[], Made]  # (model, inputs)
    must_not: str
    more: Callable[[Any], list[Any]]  # other inputs that the model takes, for which a graph may be wrong


def trap(
    must_not: str, *, train: bool = False, inputs: Callable[[], Any] | None = None, more: Any = None
) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Put a class into ``TRAPS``, under its name in small letters."""

    def registered(kind: type[nn.Module]) -> type[nn.Module]:
        def make() -> Made:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(5)
                model = lively(kind()).train(train)
                return model, (inputs or x)()

        TRAPS[kind.__name__] = Trap(make, must_not, more or (lambda given: []))
        return kind

    return registered


def x() -> Tensor:
    return torch.randn(3, 8, 12, 12)


class Two(nn.Module):
    """Two branches, each with a convolution, and their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = conv(8, 8, inplace=False), conv(8, 8, 5, inplace=False)

    def forward(self, x: Tensor) -> Any:
        return self.left(x) + self.right(x)


# In-place operators and aliases


@trap("the right branch sees the input before the left one has overwritten it")
class InPlaceOnSharedInput(Two):
    def forward(self, x: Tensor) -> Tensor:
        left = self.left(x.relu_())
        return left + self.right(x)


@trap("the input is overwritten while its other reader, which comes first in the program, still reads it")
class InPlaceAfterRead(Two):
    def forward(self, x: Tensor) -> Tensor:
        left = self.left(x)
        right = self.right(x.mul_(-1))
        return left + right


@trap("a ReLU module with inplace=True, first in one branch, changes what its sibling reads")
class InPlaceModule(Two):
    def __init__(self) -> None:
        super().__init__()
        self.right = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, padding=1))


@trap("one branch reads its half before or while its sibling writes into it")
class ChunkWrittenBySibling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = conv(4, 8, inplace=False), conv(4, 8, inplace=False)

    def forward(self, x: Tensor) -> Tensor:
        whole = x * 1
        a, b = whole.chunk(2, 1)
        left = self.left(a)
        whole[:, 4:] += left.mean()
        return left + self.right(b)


@trap("F.relu in place on a view leaves the tensor behind the view as it was")
class ReluInPlaceOnView(Two):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 1
        left = self.left(y)
        F.relu(y.view(3, -1), inplace=True)
        return left + self.right(y)


@trap("a write through .data or .detach() goes unseen")
class WriteThroughDetach(Two):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 1
        left = self.left(y)
        y.detach().mul_(left.mean())
        return left + self.right(y)


@trap("an out= argument is written while a sibling reads it")
class OutArgument(Two):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 1
        left = self.left(y)
        torch.mul(x, left.mean(), out=y)
        return left + self.right(y)


class DoubleInPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 2


@trap("what a custom autograd.Function writes in place goes unseen")
class InPlaceInFunction(Two):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 1
        left = self.left(y)
        DoubleInPlace.apply(y)
        return left + self.right(y)


@trap(
    "two inputs that were distinct at capture are one tensor later, and the branch that writes it is still taken for "
    "independent of the one that reads it",
    inputs=lambda: (x(), x()),
    more=lambda given: [(given[0], given[0]), (given[0], given[0].flip(1)), (given[0], given[0].view_as(given[0]))],
)
class AliasedInputs(Two):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        left = self.left(a.relu_())
        return left + self.right(b)


# State


@trap("a model in training mode is captured as if its statistics stood still", train=True)
class SharedNormInTraining(Two):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8, momentum=0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.left(x)) + self.norm(self.right(x * 2) + 1)


@trap("a batch norm that two branches share is copied, so that the keys of state_dict or its weights differ")
class SharedNorm(SharedNormInTraining):
    pass


@trap("functional batch norm with training=True in an eval model updates the statistics in another order")
class FunctionalNormInTraining(Two):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("var", torch.ones(8))

    def norm(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.mean, self.var, training=True, momentum=0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.left(x)) - self.norm(self.right(x)) * 2 + self.mean.sum()


class Running(nn.Module):
    """A norm of one's own, with a running mean that moves in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        self.mean.mul_(0.5).add_(x.mean((0, 2, 3)).view(8, 1, 1), alpha=0.5)
        return x - self.mean


@trap("two branches that share a running mean update it in another order, or at the same time")
class SharedRunningMean(Two):
    def __init__(self) -> None:
        super().__init__()
        self.norm = Running()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.left(x)) * 2 + self.norm(self.right(x))


@trap("a branch reads a buffer before or after its sibling wrote it, unlike the program")
class BufferWrittenBySibling(Two):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        left = self.left(x)
        self.scale.copy_(left.mean().view(1))
        return left + self.right(x) * self.scale


@trap("a buffer that is assigned anew keeps its old value after the call")
class BufferAssigned(Two):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x) + self.last
        self.last = y.mean().view(1)
        return y


@trap("an attribute that every call writes is lost, or stays as it was at capture")
class AttributeWritten(Two):
    count, cache = 0, None

    def forward(self, x: Tensor) -> Tensor:
        self.cache = x
        self.count += 1
        return super().forward(x) * self.count


@trap("a list of the model that every call lengthens stays as long as it was at capture")
class ListAttribute(Two):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        self.seen.append(y.mean())
        return y + sum(self.seen)


@trap("a number that lives outside of the model is frozen at its value of the capture")
class Global(Two):
    def forward(self, x: Tensor) -> Tensor:
        CALLS["seen"] += 1
        return super().forward(x) * CALLS["seen"]


@trap(
    "a grid that is made for the first shape is used for another one",
    more=lambda given: [given[:, :, :6, :6], given[:2], torch.cat([given, given])],
)
class LazyGrid(Two):
    _grid: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self._grid is None or self._grid.shape != x.shape:
            self._grid = torch.linspace(0, 1, x.numel()).view(x.shape)
        return super().forward(x + self._grid)


# Random numbers


@trap("the two masks are drawn in another order, or once for all calls", train=True)
class DropoutInTraining(Two):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.left(x), 0.5, self.training) + F.dropout(self.right(x), 0.5, self.training)


@trap("dropout that is always on draws its masks in another order, or once for all calls")
class DropoutAlwaysOn(Two):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.left(x), 0.5, True) - F.dropout(self.right(x), 0.5, True)


@trap("nn.Dropout modules left in training mode in two branches of an eval model draw in another order")
class DropoutLeftOn(Two):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Dropout(0.5), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        self.first.train(), self.second.train()
        return self.first(self.left(x)) - self.second(self.right(x))


@trap("noise in two branches is drawn in another order")
class RandLike(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.left(x + torch.rand_like(x)) + self.right(x - torch.rand_like(x))


@trap("noise that depends on no input is drawn once at capture, and is a constant from then on")
class FrozenNoise(Two):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + torch.randn(1, 8, 1, 1))


@trap("a random number of Python is frozen at its value of the capture")
class PythonRandom(Two):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * random.random()


@trap("a tensor that forward makes anew in each call, and adds to, goes on growing from call to call")
class Accumulator(Two):
    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(1, 8, 1, 1)
        total += self.left(x).mean((0, 2, 3), keepdim=True)
        total += self.right(x).mean((0, 2, 3), keepdim=True)
        return x + total


# Python


@trap("a dictionary that is changed on the way holds the values of the wrong moment")
class DictOnTheWay(Two):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = {"x": x}
        found["left"] = self.left(found["x"])
        found["x"] = found["x"] * 2
        found["right"] = self.right(found.pop("x"))
        return found


@trap("the caller's own dictionary is not changed as the model as given changes it", inputs=lambda: ({"x": x()},))
class CallersDict(Two):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        batch["left"] = self.left(batch["x"])
        batch["x"] = batch["x"] * 2
        return batch["left"] + self.right(batch["x"])


@trap("a branch that reads a list runs before its sibling has appended to it")
class ListBetweenBranches(Two):
    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        left = self.left(x)
        skips.append(left)
        right = self.right(x + skips[-1].mean())
        skips.append(right)
        return torch.stack(skips).sum(0)


@trap("the way that the example inputs took is taken for other values too")
class IfSum(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) + self.right(x) if x.sum() > 0 else self.left(x) - self.right(x)


@trap("a number read with .item() is frozen at its value of the capture")
class Item(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) * x.mean().item() + self.right(x)


@trap("a way that only rare values take is forgotten", more=lambda given: [given * 1000])
class RareValues(Two):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y.clamp(max=1) if x.abs().max() > 100 else y


@trap("an exception of the capture is caught by the model, which then takes its way out for good")
class CatchesEverything(Two):
    def forward(self, x: Tensor) -> Tensor:
        try:
            positive = bool(x.mean() > -1)
        except Exception:
            positive = False
        return self.left(x) + self.right(x) if positive else self.left(x)


@trap("what the model does while it is traced is kept for when it is not")
class OtherWhileTraced(Two):
    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or isinstance(x, torch.fx.Proxy):
            return self.left(x)
        return super().forward(x)


@trap("a way that a single picture takes is forgotten, or taken for several", more=lambda given: [given[:1], given[:2]])
class BatchOfOne(Two):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y * 2 if x.shape[0] == 1 else y


@trap(
    "the size of the batch is frozen, or glues the branches together",
    more=lambda given: [given[:1], given[:2], torch.cat([given, given])],
)
class SharedSizes(Two):
    def forward(self, x: Tensor) -> Tensor:
        n, c = x.size(0), x.size(1)
        left = self.left(x).reshape(n, c, -1).sum(-1) / n
        right = self.right(x).reshape(n, c, -1).amax(-1)
        return left + right


@trap(
    "what holds for contiguous memory is done to memory in another format",
    more=lambda given: [given.to(memory_format=torch.channels_last)],
)
class ByMemoryFormat(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) + self.right(x) if x.is_contiguous() else self.left(x) - self.right(x)


@trap("the way without gradients is taken with them too")
class ByGradMode(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) - self.right(x) if torch.is_grad_enabled() else super().forward(x)


@trap("autocast within forward is lost")
class Autocast(Two):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            left = self.left(x)
        return left.float() + self.right(x)


# Modules that are shared or watched


@trap("a hook that changes the output of a layer, of a block or of the whole model is left out or called twice")
class Hooks(Two):
    def __init__(self) -> None:
        super().__init__()
        self.left.register_forward_hook(lambda module, args, out: out * 2)
        self.right[0].register_forward_hook(lambda module, args, out: out + 1)
        self.right.register_forward_pre_hook(lambda module, args: (args[0] - 1,))
        self.register_forward_hook(lambda module, args, out: out * 3)


@trap(
    "a model that catches every error goes on without the branch that it asked for",
    more=lambda given: [given * 300 + 1000],
)
class CatchesTheQuestion(Two):
    def forward(self, x: Tensor) -> Tensor:
        try:
            if x.mean() > 100:
                x = x / x.mean()
        except Exception:
            pass
        return super().forward(x)


@trap("hooks that the first call registers are registered once more in each later call")
class HooksOnFirstCall(Two):
    _ready = False

    def forward(self, x: Tensor) -> Tensor:
        if not self._ready:
            self.right.register_forward_hook(lambda module, args, out: out + 1)
            self._ready = True
        return super().forward(x)


@trap("a list that the first call fills is filled once more in each later call")
class FilledOnFirstCall(Two):
    def __init__(self) -> None:
        super().__init__()
        self._ready, self._found = False, {"scales": [1.0]}

    def forward(self, x: Tensor) -> Tensor:
        if not self._ready:
            self._found["scales"].append(2.0)
            self._ready = True
        return super().forward(x * sum(self._found["scales"]))


@trap("an attention is captured for the strides that one kernel gives, so that with gradients it fails or differs")
class AttentionAndGradients(Two):
    def forward(self, x: Tensor) -> Tensor:
        if x.size(0) > 1:  # torch.fx does not follow this
            x = x + 1
        heads = x.flatten(2).view(x.size(0), 2, 4, -1).transpose(2, 3)  # (N, heads, pixels, 4)
        mask = torch.zeros(x.size(0), 2, heads.size(2), heads.size(2))
        found = F.scaled_dot_product_attention(heads, heads, heads, mask)  # a mask chooses the kernel
        return super().forward(found.transpose(1, 2).contiguous().view(x.size(0), -1, 8).mT.reshape(x.shape))


@trap("a hook that writes into its input in place goes unseen by the other branch")
class HookInPlace(Two):
    def __init__(self) -> None:
        super().__init__()
        self.right[0].register_forward_pre_hook(lambda module, args: (args[0].mul_(2),))

    def forward(self, x: Tensor) -> Tensor:
        y = x * 1
        right = self.right(y)
        return self.left(y) + right


@trap("weights that two branches share are copied, so that training or loading changes only one of them")
class TiedWeights(Two):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = conv(8, 8), conv(8, 8)
        self.right[0].weight = self.left[0].weight


@trap("a module that is called twice is called once, or with the wrong one of its two inputs")
class CalledTwice(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) - 2 * self.left(x.flip(-1)) + self.left(self.right(x))


class Remembers(nn.Module):
    """A layer that subtracts what it gave in the call before."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)
        self.register_buffer("before", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x) - self.before
        self.before.copy_(y.mean().view(1))
        return y


@trap("a layer with a memory, called in two branches, is called in the other order")
class SharedMemory(Two):
    def __init__(self) -> None:
        super().__init__()
        self.remembers = Remembers()

    def forward(self, x: Tensor) -> Tensor:
        return self.remembers(self.left(x)) * 2 + self.remembers(self.right(x))


def large(given: Tensor) -> list[Tensor]:
    """Inputs of which some numbers are larger than any that is drawn."""
    more = given.clone()
    more[0, 0, 0, :3] = 9
    return [more]


@trap("how many numbers are large is taken from the example, where none is", more=large)
class CountsTheLarge(Two):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + len((x > 8).nonzero())


@trap("a loop over the large numbers runs as often as for the example, which has none", more=large)
class LoopsOverTheLarge(Two):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        for each in x[x > 8].unbind():
            y = y * each
        return y


@trap("a size that is asked of what a mask left is that of the example, two calls later too", more=large)
class SizeOfWhatIsLeft(Two):
    def forward(self, x: Tensor) -> Tensor:
        left = torch.relu(x.masked_select(x < 8))
        return super().forward(x) + left.shape[0]


@trap("a model that catches that a number is refused goes on with another number", more=large)
class CatchesTheNumber(Two):
    def forward(self, x: Tensor) -> Tensor:
        try:
            repeats = int((x > 8).sum())
        except Exception:
            repeats = 0
        return super().forward(x) + repeats
