"""Any model: captured, its branches found, and never a silent wrong answer."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kit
import kit.verbs
from kit.equality import compare_outputs
from kit.errors import KitError, ShapeError
from kit.executors import use
from kit.executors.threads import Threads
from kit.graphs import Graph, analysed
from kit.graphs.capture import EXPORT, FX_FOR_SHAPES
from kit.inputs import opened
from kit.measuring.comparison import Comparison
from kit.regions import regions
from tests.graphs.traps import TRAPS


def conv(inputs: int, outputs: int, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2)


class Net(nn.Module):
    """Whatever ``run`` does with two convolutions of eight channels."""

    def __init__(self, run: Callable[[Net, Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b, self.norm = conv(8, 8), conv(8, 8, 5), nn.BatchNorm2d(8)
        self.run = run
        self.register_buffer("level", torch.zeros(8, 1, 1))
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


X = torch.randn(2, 8, 12, 12, generator=torch.Generator().manual_seed(3))


def found(run: Callable[[Net, Tensor], Any]) -> Graph:
    torch.manual_seed(0)
    return kit.graph(Net(run), X.clone())


def plain(net: Net, x: Tensor) -> Tensor:
    return torch.cat([net.a(x), net.b(x)], 1)


def in_place_on_the_shared_input(net: Net, x: Tensor) -> Tensor:
    x = x * 2
    return net.a(x.relu_()) + net.b(x)


def in_place_after_the_sibling(net: Net, x: Tensor) -> Tensor:
    x = x * 2
    first = net.b(x)
    return net.a(x.relu_()) + first


def view_written_by_a_sibling(net: Net, x: Tensor) -> Tensor:
    x = x.clone()
    left, right = x.chunk(2, 2)
    left.mul_(2)
    return net.a(left) + net.b(torch.cat([right, x[:, :, :6]], 2)[:, :, :6])


def hidden_in_out(net: Net, x: Tensor) -> Tensor:
    x = x.clone()
    torch.relu(net.a(x)).sum(0, keepdim=True)
    torch.abs(x, out=x)
    return net.a(x) + net.b(x)


def buffer_read_by_a_sibling(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    net.level.copy_(y.mean((0, 2, 3)).reshape(8, 1, 1))
    return y + net.b(x * net.level)


class Squared(torch.autograd.Function):
    """An in-place operator where no schema and no name shows it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x.pow_(2)
        return x + 0

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads


def in_a_function(net: Net, x: Tensor) -> Tensor:
    x = x * 2
    return net.a(Squared.apply(x)) + net.b(x)


def two_calls_of_one_buffer(net: Net, x: Tensor) -> Tensor:
    net.level.add_(x.mean())
    y = net.a(x + net.level)
    net.level.mul_(0)
    return y + net.b(x + net.level)


def dictionary(net: Net, x: Tensor) -> dict[str, Tensor]:
    held = {"x": x}
    first = net.a(held["x"])
    held["x"] = first.relu()
    held["second"] = net.b(held["x"])
    return held


def list_between_branches(net: Net, x: Tensor) -> Tensor:
    seen = [x]
    seen.append(net.a(x))
    return net.b(seen[-1]) + seen[0]


def sizes_shared(net: Net, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return torch.cat([net.a(x).view(n, -1), net.b(x).reshape(x.size(0), c * h * w)], 1)


def same_norm_twice(net: Net, x: Tensor) -> Tensor:
    return torch.cat([net.norm(net.a(x)), net.norm(net.b(x))], 1)


def loop_over_shapes(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    for _ in range(x.shape[-1] // 6):
        y = net.b(y)
    return y if x.shape[-1] > 16 else y.relu()


def fresh_tensor_filled(net: Net, x: Tensor) -> Tensor:
    total = torch.zeros(2, 8, 12, 12)
    total += net.a(x)
    total += net.b(x)
    return total


CHAINS = [buffer_read_by_a_sibling, dictionary, list_between_branches]
BRANCHES = [plain, sizes_shared, same_norm_twice, in_place_on_the_shared_input, in_a_function, hidden_in_out]
OTHERS = [
    in_place_after_the_sibling,
    view_written_by_a_sibling,
    loop_over_shapes,
    two_calls_of_one_buffer,
    fresh_tensor_filled,
]


@pytest.fixture(scope="module")
def threads() -> Iterator[Threads]:
    with Threads(2) as executor:
        yield executor


@pytest.mark.parametrize("run", [*CHAINS, *BRANCHES, *OTHERS], ids=lambda run: run.__name__)
def test_the_same_output_on_threads_again_and_again(run: Callable[[Net, Tensor], Any], threads: Threads) -> None:
    torch.manual_seed(0)
    net = Net(run)
    before = copy.deepcopy(net.state_dict())
    try:
        branched = kit.branched(net, X.clone())
    except KitError as error:
        assert re.search(r"cannot be captured|cannot be checked", str(error))  # noqa: PT017 - a refusal is right too
        return
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    for seed in range(20):
        x = torch.randn(X.shape, generator=torch.Generator().manual_seed(seed))
        net.load_state_dict(before)
        with torch.inference_mode():
            expected, given = net(x.clone()), x.clone()
            net.load_state_dict(before)
            with use(threads):
                assert compare_outputs(expected, branched(given)).equal
            state = copy.deepcopy(net.state_dict())
            net.load_state_dict(before)
            net(x.clone())
        assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("run", CHAINS, ids=lambda run: run.__name__)
def test_what_needs_its_sibling_is_no_branch(run: Callable[[Net, Tensor], Any]) -> None:
    graph = found(run)
    convolutions = [i for i, each in enumerate(graph.operators) if each.macs]
    assert len(convolutions) == 2
    assert not any({*convolutions} <= {i for b in r.branches for i in b.operators} for r in graph.all_regions())


@pytest.mark.parametrize("run", BRANCHES, ids=lambda run: run.__name__)
def test_what_does_not_need_its_sibling_is_a_branch(run: Callable[[Net, Tensor], Any]) -> None:
    (region,) = found(run).regions
    assert len(region.branches) == 2


@pytest.mark.parametrize("run", [in_place_on_the_shared_input, in_a_function], ids=lambda run: run.__name__)
def test_what_reads_memory_comes_after_what_wrote_it(run: Callable[[Net, Tensor], Any]) -> None:
    graph = found(run)
    (writes,) = (i for i, each in enumerate(graph.operators) if each.kind in ("relu_", "pow_"))
    memory = {writes, *graph.operators[writes].data}
    readers = [each for each in graph.operators[writes + 1 :] if memory & {*each.data}]
    assert len(readers) == 2
    assert all(writes in (*each.data, *each.order) for each in readers)


def attribute_written(net: Net, x: Tensor) -> Tensor:
    net.cache = net.a(x)
    return net.b(x)


def counted(net: Net, x: Tensor) -> Tensor:
    net.calls = getattr(net, "calls", 0) + 1
    return net.a(x) * net.calls


def remembered(net: Net, x: Tensor) -> Tensor:
    net.__dict__.setdefault("seen", []).append(x)
    return net.a(x) + net.b(x)


def on_its_values(net: Net, x: Tensor) -> Tensor:
    return net.a(x) if x.sum() > 0 else net.b(x)


def by_an_item(net: Net, x: Tensor) -> Tensor:
    return net.a(x)[: int(x.abs().max().item() > 0.1) + 1]


def random_in_forward(net: Net, x: Tensor) -> Tensor:
    return net.a(x + torch.rand_like(x)) + net.b(x * torch.rand_like(x))


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (attribute_written, "writes its attribute 'cache'"),
        (counted, "writes its attribute 'calls'"),
        (remembered, "writes its attribute 'seen'"),
        (on_its_values, r"on_its_values, line \d+ of .*test_any_model.py"),
        (by_an_item, r"by_an_item, line \d+ of .*test_any_model.py"),
        (random_in_forward, "a different output on every call"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_no_graph_can_hold_is_refused_with_the_place(run: Callable[[Net, Tensor], Any], said: str) -> None:
    with pytest.raises(KitError, match=said):
        found(run)


def test_dropout_and_a_shared_norm_in_training_mode_are_refused() -> None:
    with pytest.raises(KitError, match="training mode"):
        kit.graph(Net(same_norm_twice).train(), X)
    dropping = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)).train()
    with pytest.raises(KitError, match="training mode"):
        kit.graph(dropping, torch.randn(2, 8))


def test_the_weights_are_the_models_own_and_so_are_the_keys() -> None:
    net = Net(same_norm_twice)
    branched = kit.branched(net, X)
    theirs = {x.data_ptr() for x in (*net.parameters(), *net.buffers())}
    assert {x.data_ptr() for x in (*branched.parameters(), *branched.buffers())} <= theirs
    assert list(branched.state_dict()) == list(net.state_dict())
    other = Net(same_norm_twice)
    branched.load_state_dict(other.state_dict())
    assert torch.equal(net.a.weight, other.a.weight)
    assert {id(x) for x in branched.parameters()} == {id(x) for x in net.parameters()}


class Tied(nn.Module):
    """Two heads of one weight, positions that are no state, and a layer that its forward does not need."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head, self.other, self.spare = (nn.Linear(8, 8) for _ in range(4))
        self.other.weight = self.head.weight
        self.register_buffer("positions", torch.arange(8.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.stem(x + self.positions))
        return torch.cat([self.head(y), self.other(y)], 1)


def test_states_go_both_ways_with_tied_weights_spare_layers_and_buffers_that_are_no_state() -> None:
    net, other, x = Tied().eval(), Tied().eval(), torch.randn(2, 8)
    branched = kit.branched(net, x)
    assert list(branched.state_dict()) == list(net.state_dict())
    other.load_state_dict(branched.state_dict())
    assert torch.equal(other(x), branched(x))
    branched.load_state_dict(Tied().state_dict())
    assert torch.equal(branched(x), net(x)), "the weights are the model's own"
    assert not torch.equal(branched(x), other(x))
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "head.weight"\. $'):
        branched.load_state_dict({key: value for key, value in other.state_dict().items() if key != "head.weight"})


def test_a_captured_model_is_saved_whole_and_copied(tmp_path: Path) -> None:
    net, x = Tied().eval(), torch.randn(2, 8)
    branched = kit.branched(net, x)
    torch.save(branched, tmp_path / "branched.pt")
    loaded = torch.load(tmp_path / "branched.pt", weights_only=False)
    copied = copy.deepcopy(branched)
    for each in (loaded, copied):
        assert type(each).__name__ == "Tied"
        assert torch.equal(each(x), net(x))
        assert list(each.state_dict()) == list(net.state_dict())
        each.load_state_dict(Tied().state_dict())
        assert not torch.equal(each(x), net(x)), "its weights are its own"
        with pytest.raises(KitError, match="captured in eval mode"):
            each.train()


def test_other_shapes_than_those_that_were_proven_are_refused() -> None:
    branched = kit.branched(Net(plain), X)
    assert branched.any_batch
    assert branched(torch.randn(5, 8, 12, 12)).shape[0] == 5
    with pytest.raises(ShapeError, match="captured for an input"):
        branched(torch.randn(2, 8, 14, 14))
    with pytest.raises(ShapeError, match="captured for an input"):
        branched(X.double())
    assert not kit.branched(Net(fresh_tensor_filled), X).any_batch


def test_a_branched_model_is_a_module_like_any_other() -> None:
    branched = kit.branched(Net(plain), X)
    for other in (copy.deepcopy(branched), cloudpickle.loads(cloudpickle.dumps(branched))):
        with torch.no_grad():
            assert compare_outputs(branched(X), other(X)).equal
        assert len(list(regions(other))) == 1
    branched(X.clone().requires_grad_()).sum().backward()
    assert all(weight.grad is not None for weight in branched.parameters() if weight.ndim == 4)


def test_hooks_of_layers_go_on_running() -> None:
    net = Net(plain)
    net.a.register_forward_hook(lambda module, args, output: output * 3)
    with torch.no_grad():
        assert compare_outputs(net(X), kit.branched(net, X)(X)).equal


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor, *, scale: float, more: dict[str, Any]) -> dict[str, Any]:
        return {"a": self.a(x) * scale, "b": (self.b(more["y"][0]), None)}


def test_keywords_nested_inputs_and_nested_outputs() -> None:
    inputs = {"x": torch.randn(3, 8), "scale": 2.0, "more": {"y": [torch.randn(3, 8)], "name": "other"}}
    net = Keywords().eval()
    graph = kit.graph(net, inputs)
    assert [region.name for region in graph.regions] == [""]
    assert {each.module for each in graph.operators} >= {"a", "b"}
    seen = analysed(*opened(net, inputs))
    assert seen.branched.state_dict().keys() == net.state_dict().keys()
    with torch.no_grad():
        expected, output = net(**inputs), seen.branched(**dict(reversed(inputs.items())))
    assert compare_outputs(expected, output).equal
    assert output["b"][1] is None
    with pytest.raises(ShapeError, match="captured with x, scale, more: call it with these"):
        seen.branched(x=inputs["x"])
    with pytest.raises(ShapeError, match="other values"):
        seen.branched(inputs["x"], 3.0, inputs["more"])


def test_a_chain_is_told_that_there_is_nothing_to_gain() -> None:
    graph = kit.graph(nn.Sequential(conv(8, 8), nn.ReLU(), conv(8, 8)).eval(), X)
    assert graph.regions == ()
    assert graph.answer.startswith("There is nothing to gain")
    assert len(graph.critical_path) == len(graph.operators) == 3


def test_compare_finds_branches_and_keeps_the_model_as_given_for_a_baseline() -> None:
    torch.manual_seed(0)
    net = Net(plain)
    comparison = kit.compare(net, X, ["sequential", "threads", "merged", "folded"], rounds=6, progress=False)
    assert [row.name for row in comparison.rows] == ["sequential", "branched", "threads", "merged", "folded"]
    assert any("branches were found by torch.fx" in caveat for caveat in comparison.caveats)
    assert comparison["branched"].equality.equal
    assert comparison["threads"].equality.equal
    assert comparison["threads"].one_by_one is comparison["branched"].timing
    assert comparison.branches_alone.keys() >= {1}
    assert kit.explain(comparison, "threads").factors is not None
    lanes = kit.record(net, X, "threads").lanes
    assert any("worker" in str(lane) for lane in lanes)


def test_compare_of_a_chain_says_why_there_are_no_branches() -> None:
    comparison = kit.compare(nn.Sequential(conv(8, 8)).eval(), X, "threads", rounds=6, progress=False)
    assert comparison["threads"].reason == "no branches were found in Sequential"
    assert any("nothing to gain" in caveat for caveat in comparison.caveats)


def test_branches_one_after_the_other_are_recorded_by_the_name_of_their_row() -> None:
    names = kit.record(Net(plain), X, "branched", operators=False).names
    assert {"a", "b"} <= set(names)
    for run in (kit.compare, kit.record):
        with pytest.raises(KitError, match="branched cannot run: no branches were found in Sequential"):
            run(nn.Sequential(conv(8, 8)).eval(), X, "branched")


def test_functions_between_layers_are_layers_to_transforms() -> None:
    def run(net: Net, x: Tensor) -> Tensor:
        return torch.cat([F.relu(net.a(x)), net.b(F.avg_pool2d(x, 3, 1, 1))], 1)

    ((_, region),) = regions(kit.branched(Net(run), X))
    assert [[type(layer) for layer in branch] for branch in region.branches.values()] == [
        [nn.Conv2d, nn.ReLU],
        [nn.AvgPool2d, nn.Conv2d],
    ]


def test_all_approaches_of_any_model_have_the_usual_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float | None] = []

    def compete(work: Any, approaches: Any, *, budget: float | None, **others: Any) -> Comparison:
        given.append(budget)
        return Comparison((), 0, "")

    monkeypatch.setattr(kit.verbs, "compete", compete)
    kit.compare(Net(plain), X)
    kit.compare(kit.branched(Net(plain), X), X)
    kit.compare(Net(plain), X, "threads")
    assert given == [60.0, 60.0, None]


def test_a_recording_does_not_measure_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit.verbs, "measured", lambda *args: pytest.fail("nobody reads the times"))
    assert kit.record(Net(plain), X, "threads", operators=False).lanes


def test_branches_are_found_in_inference_mode_too() -> None:
    with torch.inference_mode():  # in which operators come whole, and whose tensors are of their own kind
        net, x = Net(plain), torch.randn(2, 8, 12, 12)
        inside = kit.graph(net, x), kit.graph(Net(plain), X)
    outside = kit.graph(net, x), kit.graph(Net(plain), x)
    expected = found(plain)
    for graph in (*inside, *outside):
        assert len(graph.regions) == 1
        assert graph.cost().work == expected.cost().work
        assert [each.order for each in graph.operators] == [each.order for each in expected.operators]


def test_what_asks_for_gradients_is_refused_in_inference_mode_too() -> None:
    def run(net: Net, x: Tensor) -> Tensor:
        return net.a(x) if torch.is_grad_enabled() else net.b(x)

    with torch.inference_mode(), pytest.raises(KitError, match="when gradients are enabled"):
        kit.graph(Net(run), X)


def test_export_writes_no_view_that_only_one_kernel_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kit.graphs.any_model.WAYS", (EXPORT,))
    model, x = TRAPS["AttentionAndGradients"].make()
    branched, given = kit.branched(model, x), x.clone().requires_grad_()
    assert torch.allclose(branched(given), model(given), atol=1e-5)


def by_shape(net: Net, x: Tensor) -> Tensor:
    n, c, *sides = x.shape
    if x.dim() != 4 or len(x) != n or c != 8:
        raise ValueError("another shape")
    rows = [net.a(row[None]) for row in x]  # a loop over the batch
    return torch.cat([torch.cat(rows), net.b(x.view(n, c, *sides))], 1)


def test_python_that_asks_for_shapes_is_followed_layer_by_layer() -> None:
    net = Net(by_shape)
    branched = kit.branched(net, X)
    assert kit.graph(net, X).captured_by == FX_FOR_SHAPES
    assert {net.a, net.b} <= set(branched.modules())
    other = X.flip(-1).contiguous(memory_format=torch.channels_last)  # nobody asked for the memory format
    assert torch.allclose(branched(other), net(other), atol=1e-6)
    with pytest.raises(ShapeError, match="captured for an input"):
        branched(X[:1])


def test_a_write_by_index_is_seen_and_kept() -> None:
    def writes(net: Net, x: Tensor) -> Tensor:
        y = net.a(x)
        y[:, 0] = net.b(x).mean(1)
        return y

    net = Net(writes)
    assert kit.graph(net, X).captured_by == FX_FOR_SHAPES
    assert torch.allclose(kit.branched(net, X)(-X), net(-X), atol=1e-6)


def test_a_way_that_does_not_do_is_left_without_a_word_on_the_screen(capfd: pytest.CaptureFixture[str]) -> None:
    class Halves(torch.autograd.Function):
        """Writes into a view, which only a function of one's own may do where there are gradients."""

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            first, second = x.chunk(2, 1)
            return torch.cat([first.add_(1), second], 1)

    assert kit.graph(Net(lambda net, x: Halves.apply(net.a(x))), X).captured_by == EXPORT
    assert capfd.readouterr().err == ""


def test_a_captured_model_stays_in_eval_mode_and_takes_a_state_with_more_than_it_needs() -> None:
    class Counts(Net):
        def forward(self, x: Tensor) -> Any:
            self.level += 1
            return plain(self, x)

    net = Counts(plain)
    kit.graph(net, X)
    assert net.level.eq(0).all(), "measuring leaves buffers as they were"
    branched = kit.branched(net, X)
    branched.load_state_dict(net.state_dict())  # the norm is in no call
    with pytest.raises(KitError, match="captured in eval mode"):
        branched.train()
    assert not branched.eval().training
