"""Never a silent wrong answer: each trap is refused with a reason, or does what the model does, in any order."""

import copy
import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

import kit
from bench.models import another_draw
from kit.equality import compare_outputs
from kit.errors import KitError, ShapeError
from kit.executors import Sequential, Task, use
from kit.executors.threads import Threads
from kit.graphs.capture import EXPORT, FX_FOR_SHAPES, WAYS
from kit.verbs import branched
from tests.graphs import traps
from tests.graphs.traps import TRAPS

SOAK = os.environ.get("KIT_SOAK") == "1"


class NotDifferentiable(Exception):
    """The model as given does not run with gradients."""


class Backwards(kit.Executor):
    """The last branch first: what depends on the order of the program comes to light every time."""

    def run(self, tasks: list[Task]) -> list[Any]:
        return [task() for task in reversed(tasks)][::-1]


def others(given: Any) -> Iterator[Any]:
    """The example inputs, others of the same shapes, and such as take the other side of an ``if``."""
    yield given
    yield another_draw(given)
    yield tree_map(lambda x: -x, given)


def state(model: nn.Module) -> dict[str, Any]:
    """Buffers, and what the model remembers in attributes that are numbers, tensors and lists of them."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        own = {key: value for key, value in vars(module).items() if not key.startswith("_") and key != "training"}
        for key, value in (*own.items(), *module.named_buffers(recurse=False)):
            if isinstance(value, int | float | Tensor | list):
                found[f"{name}.{key}"] = value.detach() if isinstance(value, Tensor) else value
    return found


def called(model: nn.Module, inputs: Any, mode: AbstractContextManager[Any], seed: int) -> tuple[Any, Any]:
    """Outputs, and the inputs as they are afterwards; random numbers and globals are those of the seed."""
    inputs = copy.deepcopy(inputs)
    torch.manual_seed(seed)
    random.seed(seed)
    traps.CALLS["seen"] = seed
    with mode:
        try:
            output = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
        except RuntimeError as error:
            if torch.is_grad_enabled():
                raise NotDifferentiable from error
            raise
    return tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, output), inputs


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and not a:
        return not b
    try:
        return compare_outputs(a, b).equal
    except ShapeError:  # other keys, lengths or shapes
        return False


@pytest.mark.parametrize("ways", [WAYS, (FX_FOR_SHAPES,), (EXPORT,)][: 3 if SOAK else 1], ids=lambda ways: ways[0])
@pytest.mark.parametrize("name", TRAPS)
def test_refused_or_right(name: str, ways: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kit.graphs.any_model.WAYS", ways)
    trap = TRAPS[name]
    torch.manual_seed(0)
    model, inputs = trap.make()
    given, untouched = copy.deepcopy(model), copy.deepcopy(inputs)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    refusal = None
    try:
        found = branched(model, inputs)
    except KitError as error:
        refusal = str(error)
    assert same(untouched, inputs), "the example inputs are the caller's"
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    if refusal is not None:
        assert type(model).__name__ in refusal
        return
    modes: list[Callable[[], AbstractContextManager[Any]]] = [torch.no_grad, nullcontext]
    with Threads(2) as threads:
        for executor in (Sequential(), Backwards(), threads):
            for seed, drawn in enumerate((*others(inputs), *trap.more(inputs)), start=7):
                for mode in modes:
                    try:
                        expected, left = called(given, drawn, mode(), seed)
                        with use(executor):
                            output, left_by_it = called(found, drawn, mode(), seed)
                    except (ShapeError, NotDifferentiable):  # said, not silent; neither must be a call ahead
                        given.load_state_dict(model.state_dict())
                        continue
                    wrong = f"{trap.must_not} ({type(executor).__name__})"
                    assert same(expected, output), wrong
                    assert same(left, left_by_it), f"{wrong}: the inputs afterwards"
                    assert same(state(given), state(model)), f"{wrong}: buffers and attributes afterwards"
    assert found.state_dict().keys() <= given.state_dict().keys(), "no constant of the capture is a weight"


@pytest.mark.parametrize("name", TRAPS)
def test_the_trap_itself_runs(name: str) -> None:
    model, inputs = TRAPS[name].make()
    for drawn in (*others(inputs), *TRAPS[name].more(inputs)):
        output, _ = called(model, drawn, torch.no_grad(), seed=7)
        compare_outputs(output, output)
