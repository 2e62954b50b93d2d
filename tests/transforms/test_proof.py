"""The proof of a rewrite: other inputs of the same kind, and what is refused on them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from kit.approaches import parse
from kit.errors import KitError, MeasureError
from kit.machine.hardware import detect
from kit.regions import Branches, Concat
from kit.transforms import Transform
from kit.transforms.proof import nearby, noise, other_inputs
from kit.transforms.undisturbed import undisturbed

X = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Swapped(Transform):
    """A transform that gives another model than it should."""

    new: nn.Module

    def rewrite(self, model: nn.Module, args: tuple[Any, ...]) -> nn.Module:
        return self.new


class Calls(nn.Module):
    """A convolution and a function of it."""

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.table = nn.Embedding(6, 6)
        self.call = call
        self.eval()

    def forward(self, *args: Any) -> Any:
        return self.call(self, *args)


def conv(model: Calls, x: Tensor) -> Tensor:
    return model.conv(x)


@pytest.mark.parametrize(
    ("new", "says"),
    [
        (lambda model, x: model.conv(x) + 0.01, "Swapped changes the output of Calls.*error is 0.01"),
        (
            lambda model, x: model.conv(x) if x.sum() * X.sum() > 0 else model.conv(x).abs(),
            "the largest absolute error is",
        ),
        (lambda model, x: model.conv(x) * (X.max() / x.max()), "the largest absolute error is"),
        (lambda model, x: model.conv(x) if torch.equal(x, X) else model.conv(x)[:1], r"ShapeError: output is \(1, 4"),
        (lambda model, x: model.conv(x) if torch.equal(x, X) else model.missing, "fails with AttributeError"),
        (lambda model, x: (model.conv(x),), "ShapeError: outputs differ in structure"),
        (lambda model, x: model.conv(x) * float("nan"), "MeasureError: output contains NaN"),
    ],
)
def test_another_model_is_refused_also_where_it_agrees_on_the_example(new: Callable[..., Any], says: str) -> None:
    with pytest.raises(KitError, match=says):
        Swapped(Calls(new)).apply(Calls(conv), (X,))


def test_the_same_model_passes_and_so_does_one_that_sums_in_another_order() -> None:
    for new in (conv, lambda model, x: model.conv(x * 3) / 3 + model.conv.bias.view(-1, 1, 1) * 2 / 3):
        assert isinstance(Swapped(Calls(new)).apply(Calls(conv), (X,)), Calls)


def test_deep_networks_in_coarse_types_are_judged_by_their_own_rounding() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(24)]).eval()
    for module in layers.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 2 / 8)
    x, exact = torch.randn(2, 64).bfloat16(), Calls(lambda model, x: layers.float()(x.float()).bfloat16())
    coarse = Calls(lambda model, x: layers.bfloat16()(x))
    assert Swapped(exact).apply(coarse, (x,)) is exact
    wrong = Calls(lambda model, x: layers.bfloat16()(x).neg())
    with pytest.raises(KitError, match="the largest absolute error is"):
        Swapped(wrong).apply(coarse, (x,))


@pytest.mark.parametrize(
    ("call", "inputs"),
    [
        (lambda model, x: model.conv(x.log()), (X.abs() + 0.1,)),  # no noise
        (lambda model, x: model.conv(x) if (x >= 0).all() else 1 / 0, (X.abs(),)),
        (lambda model, x: model.table(x), (torch.tensor([[1, 5, 2], [0, 3, 3]]),)),
        (lambda model, x, mask: model.conv(x).masked_fill(mask, 0), (X, X > 0)),
        (lambda model, x: model.conv(x).argmax(1), (X,)),
        (lambda model, x: {"a": model.conv(x.mul_(2)), "b": [x]}, (X.clone(),)),  # writes into its input
        (lambda model, x, times: model.conv(x["image"]) * times, ({"image": X}, 3)),
        (lambda model, x: torch.stack(x), ([X, X],)),
        (lambda model, x: model.conv.double()(x), (X.double(),)),
        (lambda model: model.conv(X), ()),
        (lambda model, x: x[:0], (X,)),
    ],
)
def test_models_take_the_inputs_that_are_drawn(call: Callable[..., Any], inputs: tuple[Any, ...]) -> None:
    model = Calls(call)
    assert Swapped(model).apply(model, inputs) is model


def test_other_inputs_are_of_the_same_kind_and_other_values() -> None:
    window = torch.randn(1, 3, 9, 5).unfold(2, 4, 1)  # overlaps
    shown = torch.randn(1, 3).expand(2, 3)
    ids, mask = torch.tensor([7, 3, 9, 3]), torch.tensor([True, False, True])
    args = (X[:, 1:3, ::2], window, shown, X.to(memory_format=torch.channels_last), ids, mask, {"twice": [X, X]}, 3)
    numbers = torch.get_rng_state()
    for draw in (noise, nearby):
        others, again = other_inputs(args, draw), other_inputs(args, draw)
        for old, new, same in zip(args[:6], others, again, strict=False):
            assert (old.shape, old.stride(), old.dtype) == (new.shape, new.stride(), new.dtype)
            assert torch.equal(new, same)
            assert old.data_ptr() != new.data_ptr()
            if old.is_floating_point():
                assert not torch.isclose(old, new).all()
        assert set(others[4].tolist()) <= {7, 3, 9}
        assert others[6]["twice"][0] is others[6]["twice"][1]
        assert others[7] == 3
    drawn = other_inputs((X, X + 1, torch.zeros(3)), noise)
    assert all(new.sum() * old.sum() <= 0 for new, old in zip(drawn, (X, X + 1, torch.zeros(3)), strict=True))
    assert drawn[2].abs().sum() > 0
    assert torch.equal(torch.get_rng_state(), numbers)


def test_what_cannot_be_proven_says_why() -> None:
    random = Calls(lambda model, x: functional.dropout(model.conv(x)))
    with pytest.raises(KitError, match=r"Calls as given gives a different output on every call.*random numbers"):
        Swapped(random).apply(random, (X,))
    nothing = Calls(lambda model, x: (model.conv(x), "text"))
    with pytest.raises(MeasureError, match=r"output\[1\] is a str"):
        Swapped(nothing).apply(nothing, (X,))
    training = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    with pytest.raises(KitError, match=r"training mode, and its 1 changes its running statistics on every call"):
        Swapped(training).apply(training, (X,))


@pytest.mark.parametrize(
    ("approach", "call", "says"),
    [
        (
            "channels_last",
            lambda model, x: model.conv(x).view(2, -1),
            r"RuntimeError: view size is not compatible.*reshape",
        ),
        (
            "channels_last",
            lambda model, x: model.conv(x).as_strided((2, 4), (144, 36)),
            "the largest absolute error is",
        ),
        ("channels_last", lambda model, x: model.conv(x) * model.conv(x).stride(1), "the largest absolute error is"),
        ("onnxruntime", lambda model, x: functional.dropout(model.conv(x)), "gives a different output on every call"),
        ("compiled", lambda model, x: model.conv(x) * float(x.sum()), "would compile the model again"),
    ],
)
def test_what_depends_on_values_or_memory_format_is_refused(approach: str, call: Callable[..., Any], says: str) -> None:
    if reason := parse(approach).unavailable_because(detect()):
        pytest.skip(reason)
    with pytest.raises(KitError, match=says):
        parse(approach).prepare(Calls(call), X)


def test_a_branch_on_values_that_tracing_would_burn_in_is_refused() -> None:
    branch = Calls(lambda model, x: model.conv(x) if x.sum() * X.sum() > 0 else -model.conv(x))
    with pytest.raises(KitError, match="ScriptedFork changes the output of Branches"):
        parse("scripted_fork").prepare(Branches({"a": branch, "b": nn.Conv2d(4, 4, 1)}, Concat(0)).eval(), X)


def test_tensors_of_a_layout_without_strides_stay() -> None:
    sparse = torch.eye(3).to_sparse()
    assert other_inputs((sparse,), noise)[0] is sparse


def test_what_a_forward_exchanges_and_writes_is_as_before() -> None:
    model = nn.BatchNorm2d(4)
    norm, mean, kept = model.running_mean, model.running_mean.clone(), [1]
    model.kept = kept
    with undisturbed(model):
        model.running_mean.add_(1)
        model.running_mean, model.kept, model.new = torch.ones(4), [], 2
        model.add_module("inner", nn.Identity())
        del model.bias
        drawn = torch.rand(3)
    assert model.running_mean is norm
    assert torch.equal(norm, mean)
    assert model.kept is kept
    assert not hasattr(model, "new")
    assert [*model.children()] == []
    assert [name for name, _ in model.named_parameters()] == ["weight", "bias"]
    assert torch.equal(torch.rand(3), drawn)


class Steps(nn.Module):
    """Counts its calls in a buffer, and adds the number to its output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("valid", torch.tensor([True]))
        self.register_buffer("never", torch.tensor(float("nan")))

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        y: Tensor = self.conv(x)
        return y


def test_state_that_a_rewrite_leaves_out_is_missed() -> None:
    model = Steps().eval()
    stateless = Steps().eval()
    stateless.load_state_dict(model.state_dict())
    with pytest.raises(KitError, match="Swapped leaves out that each call of Steps writes into its buffer 'steps'"):
        Swapped(stateless.conv).apply(model, (X,))
    assert float(model.steps) == 0
    assert Swapped(model).apply(model, (X,)) is model
    assert float(model.steps) == 0
    with pytest.raises(KitError, match="OnnxRuntime leaves out that each call of Steps"):
        parse("onnxruntime").prepare(model, X)
