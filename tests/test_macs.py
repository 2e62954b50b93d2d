"""Counting multiply-accumulates: against the published numbers, and against sums made by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kit.macs import macs_of_call
from kit.models import googlenet, inception_block, inception_v3, two_stream


@pytest.mark.parametrize(("make", "size", "macs"), [(inception_v3, 299, 5.71e9), (googlenet, 224, 1.50e9)])
def test_the_published_networks(make: Callable[[], nn.Module], size: int, macs: float) -> None:
    with torch.device("meta"):  # where nothing is computed
        assert macs_of_call(make(), torch.empty(1, 3, size, size)) == pytest.approx(macs, rel=2e-3)


class Called(nn.Module):
    """Operators that belong to no module."""

    def __init__(self, call: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.call = nn.Parameter(torch.ones(3, 8)), call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x, self.weight)


def transformer_layer(**options: Any) -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options)


ATTENTION = 5 * 5 * 8 * 2  # queries with keys, then weights with values


@pytest.mark.parametrize(
    ("model", "macs"),
    [
        (Called(lambda x, w: nn.functional.linear(x, w)), 5 * 24),
        (Called(lambda x, w: x @ w.T + x @ w.T), 2 * 5 * 24),
        (Called(lambda x, w: torch.einsum("bij,kj->bik", x, w)), 5 * 24),
        (Called(lambda x, w: w @ x[0, 0]), 24),
        (Called(lambda x, w: torch.addmv(w[:, 0], w, x[0, 0])), 24),
        (Called(lambda x, w: torch.dot(w[0], x[0, 0])), 8),
        (Called(lambda x, w: torch.addbmm(w[:, :3], w[None], w.T[None])), 3 * 8 * 3),
        (Called(lambda x, w: nn.functional.conv1d(x.mT, w[..., None])), 5 * 24),
        (Called(lambda x, w: nn.functional.scaled_dot_product_attention(x, x, x)), ATTENTION),
        (Called(lambda x, w: nn.functional.bilinear(x, x, w.T.reshape(3, 8, 1).expand(3, 8, 8))), 5 * 3 * 64),
        (nn.LSTM(8, 16, batch_first=True), 5 * 4 * 16 * (8 + 16)),
        (nn.LSTM(8, 16, num_layers=2, bidirectional=True, batch_first=True), 5 * 8 * 16 * (8 + 16 + 32 + 16)),
        (nn.GRU(8, 16, batch_first=True), 5 * 3 * 16 * (8 + 16)),
        (transformer_layer(), 5 * (4 * 8 * 8 + 2 * 8 * 16) + ATTENTION),  # one fused operator in inference
        (nn.TransformerEncoder(transformer_layer(), 2), 2 * (5 * (4 * 64 + 2 * 128) + ATTENTION)),
    ],
)
def test_what_no_module_of_a_known_type_does_is_counted_by_hand(model: nn.Module, macs: int) -> None:
    fused = torch.backends.mha.get_fastpath_enabled()
    assert macs_of_call(model.eval(), torch.ones(1, 5, 8)) == macs
    assert torch.backends.mha.get_fastpath_enabled() == fused


def test_subclasses_are_counted_for_what_they_do_and_layers_as_often_as_they_are_called() -> None:
    class Twice(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(super().forward(x))

    layer = Twice(4, 4, bias=False)
    assert macs_of_call(nn.Sequential(layer, nn.ReLU(), layer).eval(), torch.ones(1, 4)) == 64


def test_the_model_is_as_it_was_and_gives_what_it_gave() -> None:
    model = two_stream(width=4)
    inputs = torch.rand(1, 3, 32, 32), torch.rand(1, 20, 32, 32)
    before: Tensor = model(*inputs)
    assert macs_of_call(model, *inputs) > 0
    assert torch.equal(model(*inputs), before)


def test_inference_mode_changes_nothing() -> None:
    with torch.inference_mode():
        within = macs_of_call(inception_block(16), torch.zeros(1, 16, 9, 9))
    assert within == macs_of_call(inception_block(16), torch.zeros(1, 16, 9, 9)) > 0
