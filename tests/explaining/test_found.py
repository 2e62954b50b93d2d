"""Explanations of branches that were found, beside the same network written with kit.Branches by hand."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kit
from kit import Branches, Concat
from kit.measuring.comparison import Comparison, load_comparison
from kit.models.plain import conv, lively
from tests.graphs import plain_models


class TwoStream(nn.Module):
    """A frame and its optical flow, each with a network of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.Sequential(conv(3, 24, 5, 2), conv(24, 32, 3, 2))
        self.temporal = nn.Sequential(conv(10, 24, 5, 2), conv(24, 32, 3, 2))
        self.fc = nn.Linear(64, 10)

    def forward(self, frame: Tensor, flow: Tensor) -> Tensor:
        spatial = F.adaptive_avg_pool2d(self.spatial(frame), 1).flatten(1)
        temporal = F.adaptive_avg_pool2d(self.temporal(flow), 1).flatten(1)
        return self.fc(torch.cat((spatial, temporal), dim=1))


class TwoStreamByHand(nn.Module):
    def __init__(self, given: TwoStream) -> None:
        super().__init__()
        towers = {"spatial": given.spatial, "temporal": given.temporal}
        pooled = {name: nn.Sequential(each, nn.AdaptiveAvgPool2d(1), nn.Flatten()) for name, each in towers.items()}
        self.region, self.fc = Branches(pooled, Concat(1)), given.fc

    def forward(self, frame: Tensor, flow: Tensor) -> Any:
        return self.fc(self.region(frame, flow))


class Inceptive(nn.Module):
    """Four kernels side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16, 3, 2)
        self.b1 = conv(16, 16, 1)
        self.b3 = nn.Sequential(conv(16, 8, 1), conv(8, 16))
        self.b5 = nn.Sequential(conv(16, 8, 1), conv(8, 16, 5))
        self.pool = conv(16, 16, 1)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        pooled = F.avg_pool2d(x, 3, 1, 1)
        x = torch.cat([self.b1(x), self.b3(x), self.b5(x), self.pool(pooled)], 1)
        return self.fc(x.mean((-2, -1)))


class InceptiveByHand(nn.Module):
    def __init__(self, given: Inceptive) -> None:
        super().__init__()
        self.stem, self.fc = given.stem, given.fc
        pool = nn.Sequential(nn.AvgPool2d(3, 1, 1), given.pool)
        self.region = Branches({"b1": given.b1, "b3": given.b3, "b5": given.b5, "pool": pool}, Concat(1))

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.region(self.stem(x)).mean((-2, -1)))


def inceptive() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    return lively(Inceptive()), torch.randn(2, 3, 64, 64)


def two_stream() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    return lively(TwoStream()), (torch.randn(2, 3, 64, 64), torch.randn(2, 10, 64, 64))


NETWORKS = {"two_stream": (two_stream, TwoStreamByHand), "inceptive": (inceptive, InceptiveByHand)}
Pair = tuple[Comparison, Comparison]


@pytest.fixture(scope="module", params=NETWORKS)
def pair(request: pytest.FixtureRequest) -> Pair:
    """Of the plain network, and of the one written by hand with its weights."""
    make, by_hand = NETWORKS[request.param]
    model, inputs = make()
    other = by_hand(model).eval()
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    with torch.no_grad():
        assert torch.allclose(model(*args), other(*args), atol=1e-5)
    found, hand = (
        kit.compare(each, inputs, "sequential,threads,merged,cuda_streams", rounds=6, progress=False)
        for each in (model, other)
    )
    return found, hand


def test_regions_and_branches_are_called_as_by_hand(pair: Pair) -> None:
    found, by_hand = (kit.explain(each, "threads").branch_times for each in pair)
    assert found
    assert by_hand
    assert [set(region) for region in found.regions_ms] == [set(region) for region in by_hand.regions_ms]


def test_factors_multiply_to_the_speed_up_over_the_model_as_given(pair: Pair) -> None:
    for comparison, more in zip(pair, (["rewriting"], []), strict=True):
        explanation, row = kit.explain(comparison, "threads"), comparison["threads"]
        assert explanation.factors
        assert [*explanation.factors][5:] == more
        assert row.timing
        assert row.paired_baseline
        ratios = row.paired_baseline.samples_ns / row.timing.samples_ns
        assert math.prod(explanation.factors.values()) == pytest.approx(np.exp(np.log(ratios).mean()))
        assert math.prod(by for _, by in explanation.steps()) == pytest.approx(np.exp(np.log(ratios).mean()))


def test_bounds_and_predictions_are_over_the_model_as_given(pair: Pair) -> None:
    for comparison in pair:
        explanation, base = kit.explain(comparison, "threads"), comparison["threads"].paired_baseline
        assert explanation.bounds
        assert base
        assert explanation.bounds.speed_up == pytest.approx(base.median_ms / explanation.bounds.least_ms)
        one, many = explanation.what_if(1), explanation.what_if(4)
        for each in (one, many):
            assert each.speed_up == pytest.approx(base.median_ms / each.ms)
        assert explanation.branch_times
        (region,) = explanation.branch_times.regions_ms
        longest = max(region.values()) * explanation.branch_times.contention
        assert one.ms - many.ms == pytest.approx(sum(region.values()) - longest)
        whole = explanation.what_if(4, merged=[set(region)])
        assert whole.ms == pytest.approx(one.ms)


def test_advice_names_no_approach_that_does_not_apply(pair: Pair) -> None:
    for comparison in pair:
        absent = [row.name for row in comparison.rows if row.timing is None]
        for row in comparison.rows:
            for advice in kit.explain(comparison, row.name).advice:
                assert advice.approach not in absent
                assert not any(name in advice.text for name in absent)


def test_what_is_saved_is_explained_alike(pair: Pair, tmp_path: Path) -> None:
    for i, comparison in enumerate(pair):
        comparison.save(tmp_path / f"{i}.json")
        again = load_comparison(tmp_path / f"{i}.json")
        for row in comparison.rows:
            before, after = (json.dumps(kit.explain(each, row.name).to_dict()) for each in (comparison, again))
            assert after == before


def test_of_a_chain_nothing_is_advised_but_what_ran() -> None:
    comparison = kit.compare(*plain_models.unet(), "sequential,threads", rounds=6, progress=False)
    explanation = kit.explain(comparison, "threads")
    assert explanation.factors is None
    assert explanation.notes == ("it was not measured: no branches were found in UNet",)
    assert not any("threads" in advice.text for advice in explanation.advice)
