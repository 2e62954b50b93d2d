"""Regions: who gets which input, what is merged, and what a timeline sees of it."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from torch import Tensor, nn

import kit
from kit import spans
from kit.errors import KitError, ShapeError, TaskError
from kit.executors import Sequential, use
from kit.executors.threads import Threads
from kit.regions import Branches, Concat, Mean, regions

PAGE = Path(__file__).parents[1] / "docs/models.md"


class Times(nn.Module):
    """A branch without weights."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


class Boom(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("no such picture")


def region(**branches: nn.Module) -> Branches:
    return Branches(branches, Concat(1))


def test_one_input_goes_to_every_branch() -> None:
    assert region(a=Times(1), b=Times(10))(torch.ones(1, 1)).tolist() == [[1, 10]]


def test_several_inputs_go_each_to_its_own_branch_in_order() -> None:
    assert region(a=Times(1), b=Times(10))(torch.tensor([[2.0]]), torch.tensor([[3.0]])).tolist() == [[2, 30]]


@pytest.mark.parametrize("count", [0, 2, 4])
def test_any_other_number_of_inputs_is_refused(count: int) -> None:
    with pytest.raises(ShapeError, match=rf"region of a, b, c got {count} inputs: .* or 3"):
        region(a=Times(1), b=Times(1), c=Times(1))(*[torch.ones(1, 1)] * count)


class Call(nn.Module):
    """A branch that does what a function does."""

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self.call = call

    def forward(self, *inputs: Any) -> Any:
        return self.call(*inputs)


def digits(*inputs: Tensor) -> Tensor:
    """An answer that tells how many inputs came, and in which order."""
    return sum((x * 10**i for i, x in enumerate(inputs)), torch.zeros(1, 1))


TAKES = {"one": 0, "both": (0, 1), "swapped": [1, 0], "last": (2,), "twice": (2, 2), "none": ()}


def selecting() -> Branches:
    return Branches({name: Call(digits) for name in TAKES}, Concat(1), takes=TAKES)


def test_each_branch_takes_its_own_inputs_in_its_own_order() -> None:
    inputs = [torch.tensor([[x]]) for x in (1.0, 2.0, 3.0)]
    for make in (Sequential, lambda: Threads(2)):
        with make() as executor, use(executor):
            assert selecting()(*inputs).tolist() == [[1, 21, 12, 3, 33, 0]]
            assert selecting()(*inputs, None).tolist() == [[1, 21, 12, 3, 33, 0]]  # what nobody takes does not matter


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda region: pickle.loads(cloudpickle.dumps(region))])
def test_copies_take_what_the_region_takes_and_weights_do_not_depend_on_it(copied) -> None:
    inputs = [torch.tensor([[x]]) for x in (1.0, 2.0, 3.0)]
    twin = copied(selecting())
    assert torch.equal(twin(*inputs), selecting()(*inputs))
    layers = {"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)}
    swapped = Branches(layers, Concat(1), takes={"b": 0, "a": 1})
    assert swapped.state_dict().keys() == Branches(layers, Concat(1)).state_dict().keys()
    assert "takes={'a': (1,), 'b': (0,)}" in repr(swapped)
    assert "takes" not in repr(Branches(layers, Concat(1)))


@pytest.mark.parametrize(
    ("takes", "says"),
    [
        ([0, 1], r"takes=\[0, 1\] must name every branch, 'a', 'b', and no other: give a dict"),
        ({"a": 0}, r"takes=\{'a': 0\} must name every branch"),
        ({"a": 0, "b": 0, "c": 0}, "must name every branch, 'a', 'b', and no other"),
        ({"a": 0, "b": -1}, "branch 'b' takes -1: give the index of an input, a whole number from 0 on"),
        ({"a": 0, "b": (0, "x")}, "branch 'b' takes 'x'"),
        ({"a": True, "b": 0}, "branch 'a' takes True"),
        ({"a": 0, "b": None}, "branch 'b' takes None"),
    ],
)
def test_takes_that_name_no_inputs_are_refused_when_the_region_is_made(takes: Any, says: str) -> None:
    with pytest.raises(KitError, match=says):
        Branches({"a": nn.ReLU(), "b": nn.ReLU()}, Concat(1), takes=takes)


@pytest.mark.parametrize(("count", "given"), [(0, "0 inputs"), (1, "1 input,"), (2, "2 inputs")])
def test_an_input_that_is_not_there_is_named_with_the_branch_that_takes_it(count: int, given: str) -> None:
    region = Branches({"a": nn.ReLU(), "far": nn.ReLU()}, Concat(1), takes={"a": (), "far": (0, 2)})
    with pytest.raises(ShapeError, match=rf"region of a, far got {given}.* 'far' takes .* index 2, .*at least 3"):
        region(*[torch.ones(1, 1)] * count)


def test_outputs_and_inputs_of_branches_may_be_nested() -> None:
    region = Branches(
        {
            "pair": Call(lambda given, scale: (given["x"] * scale, {"rest": [given["y"], None, 3]})),
            "none": Call(lambda: None),
        },
        merge=lambda outputs: {"sum": outputs[0][0] + outputs[0][1]["rest"][0], "as they came": outputs},
        takes={"pair": (1, 0), "none": ()},
    )
    found = region(2, {"x": torch.ones(1), "y": torch.ones(1)})
    assert found["sum"].tolist() == [3]
    assert found["as they came"][0][1]["rest"][1:] == [None, 3]
    assert found["as they came"][1] is None


@pytest.mark.parametrize(
    "name",
    ["a.b", "", "keys", "values", "items", "pop", "update", "clear", "type", "forward", "training", "to", 3, None],
)
def test_a_name_that_torch_keeps_for_itself_is_refused_by_name(name: object) -> None:
    with pytest.raises(KitError, match=rf"a branch cannot be called {name!r}: .*Choose another name"):
        Branches({"a": nn.ReLU(), name: nn.ReLU()}, Concat(1))  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("branches", "merge", "says"),
    [
        ([nn.ReLU()], Concat(1), "needs a dict from names"),
        ({}, Concat(1), "needs a dict from names"),
        ({"a": nn.ReLU(), "b": torch.relu}, Concat(1), "branch 'b' is a builtin_function_or_method: a branch must be"),
        ({"a": nn.ReLU}, Concat(1), "branch 'a' is a type"),
        ({"a": nn.ReLU()}, "concat", "the merge 'concat' cannot be called"),
        ({"a": nn.ReLU()}, Concat, "cannot be called: give a function of the outputs, as in kit.Concat"),
    ],
)
def test_what_is_no_region(branches: object, merge: object, says: str) -> None:
    with pytest.raises(KitError, match=says):
        Branches(branches, merge)  # type: ignore[arg-type]


def test_merges() -> None:
    parts = [torch.zeros(2, 3), torch.ones(2, 3)]
    assert Concat(1)(parts).shape == (2, 6)
    assert Concat(0)(parts).shape == (4, 3)
    assert Mean()(parts).tolist() == [[0.5] * 3] * 2


def test_the_merge_may_be_any_callable_and_a_modules_weights_are_the_regions() -> None:
    assert Branches({"a": Times(2)}, merge=lambda outputs: outputs[0] + 1)(torch.ones(1)).tolist() == [3]
    merge = nn.Sequential(Concat(1), nn.Linear(2, 1))
    assert len(list(Branches({"a": Times(1)}, merge).parameters())) == 2


def test_all_regions_are_found_with_their_names() -> None:
    inner = region(a=Times(1))
    model = nn.Sequential(nn.Identity(), region(deep=inner, b=Times(1)))
    assert [name for name, _ in regions(model)] == ["1", "1.branches.deep"]
    assert list(regions(inner)) == [("", inner)]
    assert list(regions(nn.Linear(1, 1))) == []


@pytest.mark.parametrize("make", [Sequential, lambda: Threads(1), lambda: Threads(2)])
def test_regions_inside_branches_run_on_the_same_executor(make) -> None:
    """With fewer threads than branches: parents must not wait for threads that they hold themselves."""
    inner = region(a=Times(1), b=Times(2), c=Times(3))
    outer = region(d=inner, e=region(f=inner, g=inner), h=inner)
    x = torch.ones(1, 1)
    with make() as executor, use(executor):
        assert torch.equal(outer(x), torch.tensor([[1.0, 2, 3] * 4]))


@pytest.mark.parametrize("make", [Sequential, lambda: Threads(2)])
def test_a_branch_that_raises_is_named(make) -> None:
    with make() as executor, use(executor), pytest.raises(TaskError, match="'temporal' raised ValueError") as caught:
        region(spatial=Times(1), temporal=Boom())(torch.ones(1, 1))
    cause = caught.value.__cause__
    assert isinstance(cause, ValueError)
    frames = []
    step = cause.__traceback__
    while step:
        frames.append(step.tb_frame.f_code.co_name)
        step = step.tb_next
    assert frames[-1] == "forward"


def test_spans_of_a_call() -> None:
    with spans.collect() as log:
        region(a=Times(1), b=Times(2))(torch.ones(1, 1))
    assert [(span.name, span.category) for span in log.spans] == [
        ("a", "task"),
        ("b", "task"),
        ("merge", "merge"),
        ("region", "region"),
    ]
    a, b, merge, whole = log.spans
    assert whole.start_ns <= a.start_ns <= a.end_ns <= b.start_ns <= b.end_ns <= merge.start_ns
    assert merge.end_ns <= whole.end_ns


def test_gradients_flow_through_a_region_on_threads() -> None:
    x = torch.ones(1, 1, requires_grad=True)
    with Threads(2) as executor, use(executor):
        region(a=Times(2), b=Times(3))(x).sum().backward()
    assert x.grad is not None
    assert x.grad.item() == 5


def test_the_recipe_for_somebody_elses_model(monkeypatch: pytest.MonkeyPatch) -> None:
    [recipe] = [block for block in PAGE.read_text().split("```")[1::2] if "set_submodule" in block]
    compared: list[nn.Module] = []
    monkeypatch.setattr(kit, "compare", lambda model, x, approaches: compared.append(model), raising=False)
    exec(recipe.removeprefix("python"), {"torch": torch, "kit": kit})
    assert [name for name, _ in regions(compared[0])] == ["0", "2"]
