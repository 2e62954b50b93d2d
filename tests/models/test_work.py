"""Describing: work, span and parallelism, against the published numbers and against sums made by hand."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kit
from kit.errors import KitError, ShapeError, TaskError
from kit.models import describe, googlenet, inception_block, inception_v3, two_stream


@pytest.mark.parametrize(
    ("make", "size", "macs", "parameters", "activations", "parallelism", "by_operators"),
    [
        (inception_v3, 299, 5.71e9, 23_834_568, 8.97e6, 1.51, 1.98),
        (googlenet, 224, 1.50e9, 6_624_904, 3.23e6, 1.23, 2.64),
    ],
)
def test_the_published_networks(
    make, size: int, macs: float, parameters: int, activations: float, parallelism: float, by_operators: float
) -> None:
    with torch.device("meta"):
        described = describe(make(), torch.empty(1, 3, size, size))
    whole = described.whole
    assert whole.macs == pytest.approx(macs, rel=2e-3)
    assert whole.parameters == parameters  # without the auxiliary heads, which do not run
    assert whole.activations == pytest.approx(activations, rel=2e-3)
    assert whole.parallelism == pytest.approx(parallelism, abs=0.005)
    assert whole.parallelism_by_operators == pytest.approx(by_operators, abs=0.005)


def test_a_region_by_hand() -> None:
    described = describe(inception_block(), torch.zeros(2, 192, 35, 35))
    pixels = 2 * 35 * 35
    macs = {
        "1x1": 192 * 64,
        "5x5": 192 * 48 + 48 * 64 * 25,
        "double 3x3": 192 * 64 + 64 * 96 * 9 + 96 * 96 * 9,
        "pool": 192 * 32,
    }
    (region,) = described.regions
    assert region.name == "Branches"
    assert {branch.name: branch.macs for branch in region.branches} == {k: pixels * n for k, n in macs.items()}
    assert [branch.operators for branch in region.branches] == [1, 2, 3, 1]
    assert region.macs == pixels * sum(macs.values())
    assert region.span_macs == pixels * macs["double 3x3"]
    assert (region.operators, region.span_operators) == (7, 3)
    assert region.activations == pixels * (64 + 48 + 64 + 64 + 96 + 96 + 32)
    assert region.branches[0].parameters == 192 * 64 + 2 * 64
    assert all(branch.parallelism == 1 for branch in region.branches)


def chain(*widths: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in pairwise(widths)))


def test_a_region_within_a_branch_counts_with_its_longest_branch() -> None:
    inner = kit.Branches({"long": chain(4, 8, 4), "short": chain(4, 4)}, kit.Concat(1))  # 64 and 16 MACs
    outer = kit.Branches({"split": nn.Sequential(chain(4, 4), inner), "wide": chain(4, 9, 8)}, kit.Concat(1))  # 108
    described = describe(nn.Sequential(chain(4, 4), outer, chain(16, 1)).eval(), torch.ones(1, 4))
    assert [part.name for part in described.regions] == ["1", "1.branches.split.1"]
    split, wide = described["1"].branches
    assert (split.macs, split.span_macs) == (16 + 64 + 16, 16 + 64)
    assert (wide.macs, wide.span_macs) == (108, 108)
    assert (described["1"].macs, described["1"].span_macs) == (96 + 108, 108)
    # By operators the other branch is the longest: the two spans need not be on one path.
    assert (described["1"].operators, described["1"].span_operators) == (6, 3)
    assert described["1.branches.split.1"].parallelism == 80 / 64
    assert (described.whole.macs, described.whole.span_macs) == (16 + 204 + 16, 16 + 108 + 16)
    with pytest.raises(KeyError, match=r"no region 'split'; there are 1, 1\.branches\.split\.1"):
        described["split"]


def test_shared_weights_count_once_and_a_merge_counts_outside() -> None:
    shared = nn.Linear(4, 4)
    merge = nn.Sequential(kit.Concat(1), nn.Linear(8, 2))
    described = describe(kit.Branches({"a": shared, "b": shared}, merge).eval(), torch.ones(1, 4))
    assert described.regions[0].parameters == 20
    assert described.regions[0].macs == 32
    assert described.whole.macs == 32 + 16
    assert described.whole.span_macs == 16 + 16


class Independent(nn.Module):
    """Three networks that need nothing from each other."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([net(x) for net in self.nets], 1)


def test_without_regions_nothing_is_said_of_parallelism() -> None:
    described = describe(Independent().eval(), torch.ones(1, 4))
    assert (described.whole.macs, described.whole.operators, described.regions) == (48, 3, ())
    assert math.isnan(described.whole.parallelism)
    assert math.isnan(described.whole.parallelism_by_operators)
    for text in (str(described), described._repr_html_(), repr(described)):
        assert "1.00" not in text
    assert "No kit.Branches ran in Independent, so it is not known which of its parts could run" in str(described)
    assert repr(described) == "Description(Independent: 48 MACs, parallelism not known; regions: 0)"
    _, whole = described.table()
    assert [whole[i] for i in (2, 3, 5)] == ["-", "-", "-"]
    nets = Independent().nets
    named = describe(kit.Branches({str(i): net for i, net in enumerate(nets)}, kit.Concat(1)).eval(), torch.ones(1, 4))
    assert named.whole.parallelism == 3
    assert "What is in no region counts as a chain" in str(named)


def test_a_region_that_is_there_but_does_not_run_is_none() -> None:
    class Skips(Independent):
        def __init__(self) -> None:
            super().__init__()
            self.region = kit.Branches({"a": nn.Linear(4, 4)}, kit.Concat(1))

    assert math.isnan(describe(Skips().eval(), torch.ones(1, 4)).whole.parallelism)


def test_regions_that_share_a_branch_keep_their_names() -> None:
    shared = nn.Linear(4, 4)
    first = kit.Branches({"a": shared, "b": nn.Linear(4, 4)}, kit.Concat(1))
    second = kit.Branches({"a": shared, "b": nn.Linear(4, 2)}, kit.Concat(1))
    model = kit.Branches({"left": first, "right": second}, kit.Concat(1)).eval()
    described = describe(model, torch.ones(1, 4))
    assert [part.name for part in described.regions] == ["Branches", "branches.left", "branches.right"]
    assert (described["branches.left"].macs, described["branches.right"].macs) == (32, 24)


def test_branches_that_take_several_inputs_or_none_are_counted_with_what_they_take() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.prior = nn.Linear(4, 4, bias=False)

        def forward(self) -> Tensor:
            return self.prior(torch.ones(1, 4))

    branches = {"both": nn.Bilinear(4, 2, 3, bias=False), "one": chain(2, 8), "none": Fixed()}
    model = kit.Branches(branches, kit.Concat(1), takes={"both": (1, 0), "one": 0, "none": ()}).eval()
    (region,) = describe(model, (torch.ones(1, 2), torch.ones(1, 4))).regions
    assert [(branch.name, branch.macs) for branch in region.branches] == [("both", 24), ("one", 16), ("none", 16)]
    assert (region.span_macs, region.parameters) == (24, 24 + 16 + 16)


def test_a_region_that_is_in_no_module_has_the_name_of_its_class() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.held = [kit.Branches({"a": chain(4, 4), "b": chain(4, 2)}, kit.Concat(1))]

        def forward(self, x: Tensor) -> Tensor:
            return self.held[0](x)

    (region,) = describe(Hidden().eval(), torch.ones(1, 4)).regions
    assert (region.name, region.macs, region.span_macs) == ("Branches", 24, 16)


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
    ("model", "macs", "parameters"),
    [
        (Called(lambda x, w: nn.functional.linear(x, w)), 5 * 24, 24),
        (Called(lambda x, w: x @ w.T + x @ w.T), 2 * 5 * 24, 24),
        (Called(lambda x, w: torch.einsum("bij,kj->bik", x, w)), 5 * 24, 24),
        (Called(lambda x, w: w @ x[0, 0]), 24, 24),
        (Called(lambda x, w: torch.addmv(w[:, 0], w, x[0, 0])), 24, 24),
        (Called(lambda x, w: torch.dot(w[0], x[0, 0])), 8, 24),
        (Called(lambda x, w: torch.addbmm(w[:, :3], w[None], w.T[None])), 3 * 8 * 3, 24),
        (Called(lambda x, w: nn.functional.conv1d(x.mT, w[..., None])), 5 * 24, 24),
        (Called(lambda x, w: nn.functional.scaled_dot_product_attention(x, x, x)), ATTENTION, 0),
        (nn.LSTM(8, 16, batch_first=True), 5 * 4 * 16 * (8 + 16), 4 * 16 * (8 + 16 + 2)),
        (nn.LSTM(8, 16, num_layers=2, bidirectional=True, batch_first=True), 5 * 8 * 16 * (8 + 16 + 32 + 16), 9728),
        (nn.GRU(8, 16, batch_first=True), 5 * 3 * 16 * (8 + 16), 3 * 16 * (8 + 16 + 2)),
        (transformer_layer(), 5 * (4 * 8 * 8 + 2 * 8 * 16) + ATTENTION, 600),  # one fused operator in inference
        (nn.TransformerEncoder(transformer_layer(), 2), 2 * (5 * (4 * 64 + 2 * 128) + ATTENTION), 1200),
    ],
)
def test_what_no_module_of_a_known_type_does_is_counted_by_hand(model: nn.Module, macs: int, parameters: int) -> None:
    fused = torch.backends.mha.get_fastpath_enabled()
    whole = describe(model.eval(), torch.ones(1, 5, 8)).whole
    assert (whole.macs, whole.parameters) == (macs, parameters)
    assert torch.backends.mha.get_fastpath_enabled() == fused


def test_subclasses_are_counted_for_what_they_do_and_layers_as_often_as_they_are_called() -> None:
    class Twice(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(super().forward(x))

    layer = Twice(4, 4, bias=False)
    whole = describe(nn.Sequential(layer, nn.ReLU(), layer).eval(), torch.ones(1, 4)).whole
    assert (whole.macs, whole.operators, whole.parameters) == (64, 4, 16)
    bilinear = Called(lambda x, w: nn.functional.bilinear(x, x, w.T.reshape(3, 8, 1).expand(3, 8, 8)))
    assert describe(bilinear.eval(), torch.ones(1, 5, 8)).whole.macs == 5 * 3 * 64


def test_the_model_is_as_it_was_and_gives_what_it_gave() -> None:
    model = two_stream(width=4)
    inputs = torch.rand(1, 3, 32, 32), torch.rand(1, 20, 32, 32)
    before: Tensor = model(*inputs)
    describe(model, inputs)
    assert torch.equal(model(*inputs), before)


def test_inference_mode_changes_nothing() -> None:
    with torch.inference_mode():
        within = describe(inception_block(16), torch.zeros(1, 16, 9, 9))
    assert within == describe(inception_block(16), torch.zeros(1, 16, 9, 9))
    assert within.whole.macs > 0


def test_the_table_says_it_all_and_the_repr_is_short() -> None:
    described = describe(googlenet(width=0.125), torch.zeros(1, 3, 64, 64))
    head, whole, *rows = described.table()
    assert len(head) == len(whole) == 8
    assert whole[0] == "Inception"
    assert [row[0] for row in rows[:6]] == ["inception3a", "- 1x1", "- 3x3", "- 5x5", "- pool", "inception3b"]
    assert len(rows) == 9 * 5
    text, page = str(described), described._repr_html_()
    for row in described.table():
        for cell in row:
            assert cell.strip() in text
            assert cell in page
    assert "(1, 3, 64, 64) float32" in text
    assert repr(described).startswith("Description(Inception: ")
    assert "regions: 9" in repr(described)


def test_what_cannot_be_described() -> None:
    with pytest.raises(KitError, match=r"training mode.*eval\(\)"):
        describe(nn.BatchNorm2d(3), torch.ones(1, 3, 2, 2))
    with pytest.raises(ShapeError, match=r"Sequential does not take these inputs, \(1, 5\)"):
        describe(chain(4, 4).eval(), torch.ones(1, 5))
    with pytest.raises(TaskError, match="branch '1x1'"):
        describe(inception_block(), torch.ones(1, 3, 8, 8))
