"""Transforms on networks as people write them: as given, and captured for any shapes and for these."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kit
from kit.approaches import parse
from kit.equality import compare_outputs
from kit.errors import KitError
from kit.models.plain import lively
from kit.transforms.folded import Folded
from kit.transforms.merged import Merged


class Unit(nn.Module):
    """Convolution, batch norm and ReLU, which no nn.Sequential holds together."""

    def __init__(self, inputs: int, outputs: int, size: int = 1, **options: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False, **options)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.conv3, self.bn3 = nn.Conv2d(16, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.down = nn.Sequential(nn.Conv2d(8, 16, 1, 2, bias=False), nn.BatchNorm2d(16))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(x)))))
        y += self.down(x)
        return self.relu(y)


class Shuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = Unit(3, 16, 3, stride=2)
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        kept, x = self.stem(x).chunk(2, 1)
        x = torch.cat([kept, self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))], 1)
        n, c, h, w = x.size()
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Inceptive(nn.Module):
    """Three branches begin with a 1x1 convolution of the same input, one of them behind a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Unit(3, 8, 3)
        self.b1, self.b3 = Unit(8, 8), nn.ModuleList([Unit(8, 4), Unit(4, 8, 3)])
        self.pool = Unit(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return torch.cat([self.b1(x), self.b3[1](F.gelu(self.b3[0](x))), self.pool(F.avg_pool2d(x, 3, 1, 1))], 1)


class Knotted(nn.Module):
    """Neither a sequence nor a fork."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = Unit(3, 8), Unit(3, 8, 3), Unit(8, 8), Unit(8, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        return torch.cat([self.c(a + b), self.d(b)], 1) + torch.cat([a, a], 1)


NETWORKS = {Residual: 4, Shuffled: 3, Inceptive: 5, Knotted: 4}  # with how many batch norms
X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def made(kind: type[nn.Module], way: str) -> nn.Module:
    """The network as given, or captured; where a forward asks for shapes, for these only."""
    torch.manual_seed(0)
    model = lively(kind())
    if way == "as given":
        return model
    if way == "torch.fx":
        return kit.branched(model, X)
    decides = type(kind.__name__, (kind,), {"forward": lambda self, x: kind.forward(self, x if len(x) < 9 else x[:9])})
    model.__class__ = decides
    return kit.branched(model, X)


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def same(model: nn.Module, rewritten: nn.Module) -> bool:
    other = torch.randn(X.shape)
    with torch.inference_mode():
        return compare_outputs(model(other), rewritten(other)).equal


@pytest.mark.parametrize("way", ["as given", "torch.fx", "for these shapes"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_no_batch_norm_behind_a_convolution_is_left(kind: type[nn.Module], way: str) -> None:
    model = made(kind, way)
    assert norms(model) == NETWORKS[kind]
    folded = Folded().apply(model, (X,))
    assert norms(folded) == 0
    assert same(model, folded)
    assert norms(model) == NETWORKS[kind]


@pytest.mark.parametrize("way", ["torch.fx", "for these shapes"])
def test_convolutions_of_one_input_are_merged_in_what_was_captured(way: str) -> None:
    model = made(Inceptive, way)
    merged = Merged().apply(model, (X,))
    assert sorted(each.out_channels for each in merged.modules() if isinstance(each, nn.Conv2d)) == [8, 8, 16]
    assert same(model, merged)
    with parse("folded + merged").prepare(model, X) as runner:
        assert norms(runner.model) == 0
        assert 16 in [each.out_channels for each in runner.model.modules() if isinstance(each, nn.Conv2d)]


def first(net: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([net.one(x), F.gelu(net.two(x))], 1)


def shared(net: nn.Module, x: Tensor) -> Tensor:
    y = net.one(x)
    return torch.cat([y + F.gelu(net.three(y)), F.gelu(net.two(x))], 1)


class Heads(nn.Module):
    def __init__(self, run: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.run = run
        self.one, self.two, self.three = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


@pytest.mark.parametrize("run", [first, shared])
def test_what_functions_do_behind_a_head_stays_behind_it(run: Callable[[nn.Module, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model = kit.branched(Heads(run).eval(), X)
    merged = Merged().apply(model, (X,))
    assert 8 in [each.out_channels for each in merged.modules() if isinstance(each, nn.Conv2d)]
    assert same(model, merged)


def test_a_function_before_the_convolution_is_no_head() -> None:
    model = kit.branched(Heads(lambda net, x: net.one(F.gelu(x)) + net.two(x.abs())).eval(), X)
    with pytest.raises(KitError, match=r"merged cannot look into branch .* \(begins with a GraphModule\)"):
        Merged().apply(model, (X,))


def test_a_comparison_folds_a_plain_network_as_given() -> None:
    torch.manual_seed(0)
    comparison = kit.compare(lively(Residual()), X, "sequential,folded", rounds=6, progress=False)
    assert [row.name for row in comparison.rows] == ["sequential", "folded"]
    assert comparison["folded"].rewritten
    assert comparison["folded"].equality.equal


class Functional(nn.Module):
    """Weights that are computed, that lie in a module of another kind, and that two calls share."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(3, 3, 3, 3) / 3)
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x if len(x) < 9 else x[:9]
        x = self.norm(F.conv2d(x, self.kernel, padding=1)) + F.conv2d(x, self.kernel / 2, self.conv.bias, padding=1)
        x = self.conv(self.conv(x)) + F.conv2d(x, self.conv.weight, self.conv.bias, 1, 2, 2)
        return x + F.conv1d(x.flatten(2), self.conv.weight[..., 0], padding="same").view_as(x)


def test_a_network_captured_for_these_shapes_loads_what_the_model_saves_and_computes_the_same() -> None:
    torch.manual_seed(0)
    model, other = lively(Functional()), lively(Functional())
    branched = kit.branched(model, X)
    assert branched.state_dict().keys() == model.state_dict().keys()
    branched.load_state_dict(other.state_dict())
    assert same(other, branched)
    assert same(model, branched)  # whose weights they are
