"""Programs on lanes compute what the model computes, wherever the operators are, and keep nothing that nobody needs."""

import copy
import gc
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import kit
from bench.models import another_draw
from kit import spans
from kit.equality import compare_outputs
from kit.errors import KitError, ShapeError, TaskError
from kit.executors.lanes import Lanes
from kit.graphs import analysed
from kit.graphs.found import Found
from kit.graphs.lanes import OnLanes, needed
from kit.graphs.rewriting import wrapped
from kit.graphs.values import form_of
from kit.inputs import opened
from tests.graphs import plain_models
from tests.graphs.test_traps import NotDifferentiable, called, others, same, state
from tests.graphs.traps import TRAPS


def in_turn(found: Found, lanes: int) -> list[list[list[int]]]:
    """One phase, in which every operator is on another lane than the one before it: as many waits as there can be."""
    count = range(len(found.nodes))
    return [[[i for i in count if i % lanes == lane] for lane in range(lanes)]]


def in_phases(found: Found, lanes: int) -> list[list[list[int]]]:
    """Phases of seven operators, on lanes by chance; every third phase on all cores."""
    chance = random.Random(0)
    phases: list[list[list[int]]] = []
    for begin in range(0, len(found.nodes), 7):
        some = range(begin, min(begin + 7, len(found.nodes)))
        if len(phases) % 3 == 2:
            phases.append([list(some)])
            continue
        places = {i: chance.randrange(lanes) for i in some}
        phases.append([[i for i in some if places[i] == lane] for lane in range(lanes)])
    return phases


def on_lanes(model: nn.Module, inputs: Any, place: Callable[[Found, int], Any], lanes: Lanes) -> nn.Module:
    model, args = opened(model, inputs)
    found = analysed(model, args).found
    return wrapped(found, OnLanes(found, place(found, lanes.workers), lanes), model, form_of(args)[0])


@pytest.mark.parametrize("place", [in_turn, in_phases])
@pytest.mark.parametrize("make", plain_models.MODELS.values(), ids=plain_models.MODELS)
def test_the_outputs_are_those_of_the_model(make: Callable[[], Any], place: Any) -> None:
    model, inputs = make()
    with Lanes(3) as lanes:
        found = on_lanes(model, inputs, place, lanes)
        for seed in range(3):
            drawn = another_draw(inputs, seed)
            call = (
                (lambda m, x: m(**x))
                if isinstance(drawn, dict)
                else (lambda m, x: m(*(x if isinstance(x, tuple) else (x,))))
            )
            with torch.inference_mode():
                assert compare_outputs(call(model, copy.deepcopy(drawn)), call(found, copy.deepcopy(drawn))).equal


@pytest.mark.parametrize("name", TRAPS)
def test_traps_are_refused_or_right_on_lanes_too(name: str) -> None:
    trap = TRAPS[name]
    torch.manual_seed(0)
    model, inputs = trap.make()
    given = copy.deepcopy(model)
    with Lanes(2) as lanes:
        try:
            found = on_lanes(model, inputs, in_turn, lanes)
        except KitError:
            return  # as kit.branched refuses it
        modes: list[Callable[[], AbstractContextManager[Any]]] = [torch.no_grad, nullcontext]
        for seed, drawn in enumerate((*others(inputs), *trap.more(inputs)), start=7):
            for mode in modes:
                try:
                    expected, left = called(given, drawn, mode(), seed)
                    output, left_by_it = called(found, drawn, mode(), seed)
                except (ShapeError, NotDifferentiable):
                    given.load_state_dict(model.state_dict())
                    continue
                assert same(expected, output), trap.must_not
                assert same(left, left_by_it), f"{trap.must_not}: the inputs afterwards"
                assert same(state(given), state(model)), f"{trap.must_not}: buffers and attributes afterwards"


class Chain(nn.Module):
    """Operators of which each needs the one before it alone; notes which of its values are alive."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(Noted() for _ in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Noted(nn.Identity):
    alive: ClassVar[list[weakref.ref[Tensor]]] = []
    most = 0

    def forward(self, x: Tensor) -> Tensor:
        y = x + 1
        Noted.alive.append(weakref.ref(y))
        Noted.most = max(Noted.most, sum(each() is not None for each in Noted.alive))
        return y


@pytest.mark.parametrize("place", [in_turn, in_phases, lambda found, lanes: [[list(range(len(found.nodes)))]]])
def test_a_value_is_freed_when_its_last_user_has_run(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.fx.Tracer.is_leaf_module", lambda self, module, name: isinstance(module, Noted))
    with Lanes(2) as lanes:
        found = on_lanes(Chain(20).eval(), torch.ones(4), place, lanes)
        gc.disable()
        try:
            Noted.alive, Noted.most = [], 0
            found(torch.ones(4))
            assert Noted.most <= 3, "the value, what it is made of, and at most what another lane is about to let go"
        finally:
            gc.enable()


class Fails(nn.Module):
    """Two branches, of which one fails when it is told to."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.sides = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.armed = False
        self.sides[side].register_forward_hook(self.maybe)

    def maybe(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.armed:
            raise ZeroDivisionError("on purpose")

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.sides[0](x), self.sides[1](x)
        for _ in range(5):
            a, b = a + b, b * a
        return a - b


@pytest.mark.parametrize("side", [0, 1])
def test_where_a_lane_fails_the_other_ends_too_and_the_next_call_is_right(side: int) -> None:
    model, x = Fails(side).eval(), torch.randn(2, 4)
    with Lanes(2) as lanes, torch.no_grad():
        found = on_lanes(model, x, in_turn, lanes)
        expected = model(x)
        for _ in range(20):
            model.armed = True
            with pytest.raises(TaskError, match=r"lane \d") as caught:
                found(x)
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
            model.armed = False
            assert torch.equal(found(x), expected)


def test_a_recording_has_a_span_for_each_operator_and_each_wait_and_a_measured_round_has_none() -> None:
    model, x = plain_models.MODELS["siamese"]()
    with Lanes(2) as lanes:
        found = on_lanes(model, x, in_turn, lanes)
        with spans.collect() as plain:
            found(*x)
        with spans.collect(operators=True) as log:
            found(*x)
    assert {each.category for each in plain.spans} == {"task"}
    names = [each.name for each in log.spans if each.category == "part"]
    seen = kit.graph(model, x)
    assert sorted(names) == sorted(each.name for each in seen.operators)
    assert any(each.category == "wait" and each.name.startswith("for ") for each in log.spans)
    assert len({each.thread for each in log.spans if each.category == "part"}) == 2


def test_its_state_is_that_of_the_model_and_it_follows_new_weights() -> None:
    model, x = plain_models.MODELS["siamese"]()
    with Lanes(2) as lanes, torch.no_grad():
        found = on_lanes(model, x, in_turn, lanes)
        assert found.state_dict().keys() == model.state_dict().keys()
        other = {key: value + 0.1 if value.is_floating_point() else value for key, value in model.state_dict().items()}
        found.load_state_dict(copy.deepcopy(other))
        model.load_state_dict(other)
        assert torch.equal(found(*x), model(*x))
        with pytest.raises(ShapeError):
            found(*(each[:, :, :-1] for each in x))


class Slow(list[Any]):
    """A list that takes its time, so that others come in between."""

    def __iter__(self) -> Iterator[Any]:
        time.sleep(0.003)
        return super().__iter__()


def test_callers_at_the_same_time_each_get_their_own_output_even_where_some_fail() -> None:
    model = Fails(1).eval()
    wrong: list[str] = []

    def call(seed: int) -> None:
        x = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))
        for _ in range(50):
            with torch.no_grad():
                try:
                    if not torch.equal(found(x), expected[seed]):
                        wrong.append(f"the output of caller {seed}")
                except TaskError as error:
                    if not isinstance(error.__cause__, ZeroDivisionError):
                        wrong.append(repr(error.__cause__))
            model.armed = not model.armed

    with Lanes(2) as lanes, torch.no_grad():
        found = on_lanes(model, torch.randn(2, 4), in_turn, lanes)
        found.body.phases[0].locks = Slow(found.body.phases[0].locks)
        expected = [model(torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))) for seed in range(3)]
        callers = [threading.Thread(target=call, args=(seed,)) for seed in range(3)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(60)
        assert not any(caller.is_alive() for caller in callers)
    assert not wrong


class Asks(nn.Module):
    """The second layer takes nothing of the first one, but what follows it asks for the first one's size."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(x).reshape(y.shape[0], -1)


def test_who_asks_for_the_size_of_a_value_comes_after_it() -> None:
    model, args = opened(Asks().eval(), torch.randn(2, 6))
    found = analysed(model, args).found
    names = [str(node.target) for node in found.nodes]
    assert needed(found)[names.index("reshape")] == (names.index("model.a"), names.index("model.b"))
