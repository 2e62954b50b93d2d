"""A copy that may be rewritten: seen to run on its own, or refused with what holds the original."""

import functools
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from kit.approaches import parse
from kit.equality import compare_outputs
from kit.errors import KitError
from kit.machine.hardware import detect
from kit.regions import Branches, Concat
from kit.transforms.copying import rewritable

X = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
REWRITES = ("folded", "merged", "channels_last", "scripted_fork")


def unit(kernel: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(4, 4, kernel, padding=kernel // 2), nn.BatchNorm2d(4), nn.ReLU(inplace=True))


class Net(nn.Module):
    """What each of the rewrites finds something to do in."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = Branches({"a": unit(), "b": nn.Sequential(unit(), unit(3))}, Concat(1))
        self.extra = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.nets(x)


class InAList(Net):
    def __init__(self) -> None:
        super().__init__()
        self.steps = [lambda x: self.nets(x)]

    def forward(self, x: Tensor) -> Tensor:
        return self.steps[0](x)


class ByWeakReference(Net):
    def __init__(self) -> None:
        super().__init__()
        self.reference = weakref.ref(self.nets)

    def forward(self, x: Tensor) -> Tensor:
        found = self.reference()
        assert found is not None
        return found(x)


class OnlyOne(Net):
    def __deepcopy__(self, memo: object) -> "OnlyOne":
        return self


REGISTRY: dict[str, nn.Module] = {}


class ByRegistry(Net):
    def forward(self, x: Tensor) -> Tensor:
        return REGISTRY["nets"](x)


def registered() -> Net:
    model = ByRegistry()
    REGISTRY["nets"] = model.nets
    return model


def with_forward(forward: Callable[[Net, Tensor], Tensor]) -> Net:
    model = Net()
    model.forward = lambda x: forward(model, x)  # type: ignore[method-assign]
    return model


def with_partial() -> Net:
    model = Net()
    model.forward = functools.partial(lambda times, x: times * model.nets(x), 2)  # type: ignore[method-assign]
    return model


def with_hook() -> Net:
    model = Net()
    model.nets.register_forward_hook(lambda module, args, output: model.extra(output))
    return model


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: with_forward(lambda model, x: model.nets(x)), r"'nets' \(Branches\).*attribute 'forward'"),
        (lambda: with_forward(lambda model, x: model.nets.branches["a"](x)), r"'nets\.branches\.a' \(Sequential\)"),
        (lambda: with_forward(lambda model, x: model.nets.branches["a"][0].forward(x)), r"'nets\.branches\.a\.0\.w"),
        (lambda: with_forward(lambda model, x: functional.conv2d(model.nets(x), model.extra.weight)), "'nets'"),
        (with_partial, "attribute 'forward'"),
        (with_hook, r"'extra' \(Conv2d\).*attribute 'nets\._forward_hooks'"),
        (InAList, "attribute 'steps'"),
        (ByWeakReference, "attribute 'reference'"),
        (registered, r"in forward, line \d+ of .*test_copying\.py"),
        (OnlyOne, "copy.deepcopy gives it the same module again"),
    ],
)
@pytest.mark.parametrize("approach", [*REWRITES, "compiled + threads"])
def test_a_copy_that_uses_its_original_is_refused_by_name(
    make: Callable[[], Net], says: str, approach: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kit.transforms.compiled.Compiled.unavailable_because", lambda machine: None)
    refusal = rf"cannot be rewritten: a copy of it still uses .*{says}.*move that code into the forward of an nn.Module"
    with pytest.raises(KitError, match=refusal):
        parse(approach).prepare(make().eval(), X)


class Rebound(Net):
    """All that deepcopy does see to: bound methods, partials of them, aliases, properties, tensors that lie about."""

    def __init__(self) -> None:
        super().__init__()
        self.aliases = [self.nets]
        self.first = self.nets.branches["a"][0].weight
        self.scale = torch.full((1,), 2.0)
        self.run = functools.partial(self.go, 3)
        self.forward = self.other  # type: ignore[method-assign]

    @property
    def region(self) -> nn.Module:
        return self.aliases[0]

    def go(self, times: int, x: Tensor) -> Tensor:
        return times * self.region(x) * self.scale + self.first.sum()

    def other(self, x: Tensor) -> Tensor:
        return self.run(x)


@pytest.mark.parametrize("approach", REWRITES)
def test_what_deepcopy_rebinds_is_rewritten_wherever_it_is_held(approach: str) -> None:
    model = Rebound().eval()
    ran: list[nn.Module] = []
    with parse(approach).prepare(model, X) as runner, torch.inference_mode():
        assert compare_outputs(model(X), runner()).equal
        hook = nn.modules.module.register_module_forward_pre_hook(lambda module, args: ran.append(module))
        try:
            runner()
        finally:
            hook.remove()
    assert not set(ran) & set(model.modules())
    names = {type(module).__name__ for module in ran}
    new = {"folded": "Identity", "merged": "_SharedHead", "scripted_fork": "_ScriptedRegion"}
    assert new.get(approach, "_ChannelsLastIn") in names  # what was exchanged did run


def test_the_copys_weights_lie_in_the_memory_of_the_original_and_stay_tied() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()
    model[1].weight = model[0].weight
    twin, calls, given = rewritable(model, (torch.ones(2, 3),))
    assert twin[1].weight is twin[0].weight
    pairs = zip(model.state_dict().values(), twin.state_dict().values(), strict=True)
    assert all(a.data_ptr() == b.data_ptr() for a, b in pairs)
    assert not {id(each) for each in model.parameters()} & {id(each) for each in twin.parameters()}
    assert [calls[each] for each in twin] == [1, 1, 1]
    assert given == {}


class Writes(nn.Module):
    """Writes into its input and its buffer, draws a random number, and notes each call."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        torch.rand(1)
        return self.net(x.mul_(2))


@pytest.mark.parametrize("approach", [*REWRITES, "onnxruntime", "openvino"])
def test_preparing_leaves_model_inputs_and_random_numbers_as_they_were(approach: str) -> None:
    if reason := parse(approach).unavailable_because(detect()):
        pytest.skip(reason)
    model, x = Writes().eval(), X.clone()
    model.net.extra.train()
    hooks = model.net.register_forward_hook(lambda module, args, output: None)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    layouts = [value.stride() for value in model.parameters()]
    flags, modules = [each.training for each in model.modules()], list(model.modules())
    numbers = torch.get_rng_state()
    try:
        parse(approach).prepare(model, x).close()
    except KitError as error:  # an exporter has no word for a buffer that counts
        assert approach in ("onnxruntime", "openvino"), error  # noqa: PT017
    assert torch.equal(torch.get_rng_state(), numbers)
    assert torch.equal(x, X)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [value.stride() for value in model.parameters()] == layouts
    assert ([each.training for each in model.modules()], list(model.modules())) == (flags, modules)
    assert list(model.net._forward_hooks) == [hooks.id]
