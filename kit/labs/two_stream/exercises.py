"""The exercises of notebook 01."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from kit.labs.checks import check, first_wrong
from kit.regions import regions


@check
def check_bound(bound: Callable[[float, float, int], float | None]) -> str | None:
    """``bound(spatial, temporal, cores)``: the least time in which both streams can be done."""
    least = "however many cores, the call is not done before its longest stream: 9 ms and 1 ms take at least 9 ms."
    cases = [
        ((3.25, 5.5, 1), 8.75, "on one core nothing runs at the same time: 3.25 ms and 5.5 ms of work take 8.75 ms."),
        ((4.0, 4.0, 2), 4, "two streams of 4 ms on two cores run at the same time: both are done after 4 ms."),
        ((9.0, 1.0, 2), 9, least),
        ((3.0, 5.0, 64), 5, "with more cores than streams the longest stream is the limit: 3 ms and 5 ms take 5 ms."),
    ]
    return first_wrong(bound, cases)


class ThreeHeads(nn.Module):
    """The model of the exercise: three siblings run one after the other, in plain PyTorch.

    ``(N, 3, H, W) -> (N, 24, H, W)``
    """

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.Conv2d(3, 8, 1)
        self.medium = nn.Conv2d(3, 8, 3, padding=1)
        self.large = nn.Conv2d(3, 8, 5, padding=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.small(x), self.medium(x), self.large(x)], dim=1)


def check_wrapped(original: ThreeHeads) -> Callable[[Any], Any]:
    """A check for a model that does what ``original`` does, with its siblings in a region."""

    @check
    def judge(model: Any) -> str | None:
        if not isinstance(model, nn.Module):
            return f"give the model itself, not a {type(model).__name__}."
        found = list(regions(model))
        if not found:
            return "there is no region yet: build kit.Branches({...}, merge=kit.Concat(1)) of the three convolutions."
        count = len(found[0][1].branches)
        if count != 3:
            return f"the region has {count} branches: small, medium and large make three."
        x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            want, got = original(x), model(x)
        if want.shape != got.shape:
            return f"the output is {tuple(got.shape)} and should be {tuple(want.shape)}: which merge joins channels?"
        if not torch.allclose(want, got, atol=1e-5):
            return "the output differs: use the original's own convolutions, in the order small, medium, large."
        return None

    return judge
