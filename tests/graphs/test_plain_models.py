"""A zoo whose outputs do not react to their inputs could not show that two networks compute the same."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from bench.models import another_draw
from kit.equality import compare_outputs
from tests.graphs.plain_models import MODELS


def called(model: torch.nn.Module, inputs: Any) -> Any:
    with torch.inference_mode():
        if isinstance(inputs, dict):
            return model(**inputs)
        return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


@pytest.mark.parametrize("name", MODELS)
def test_every_output_reacts_to_every_input(name: str) -> None:
    model, inputs = MODELS[name]()
    first = tree_leaves(called(model, inputs))
    again = tree_leaves(called(model, inputs))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True)), "the same each time"
    other = tree_leaves(called(model, another_draw(inputs)))
    assert all(not compare_outputs(a, b).equal for a, b in zip(first, other, strict=True))


def test_both_sides_of_the_size_are_taken() -> None:
    model, x = MODELS["by_size"]()
    small: Tensor = x[..., :16, :16]
    assert called(model, small).shape == called(model, x).shape
