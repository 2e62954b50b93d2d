"""Describing: work, span and parallelism, against the published numbers and against sums made by hand."""

from itertools import pairwise

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


def test_a_model_without_regions_or_macs_is_a_chain() -> None:
    assert describe(chain(4, 4, 4).eval(), torch.ones(1, 4)).whole.parallelism == 1
    nothing = describe(nn.ReLU().eval(), torch.ones(1, 4))
    assert (nothing.whole.macs, nothing.whole.parallelism, nothing.whole.parallelism_by_operators) == (0, 1, 1)
    assert nothing.regions == ()


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
