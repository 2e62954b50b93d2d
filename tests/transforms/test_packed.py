"""Packed convolutions: the output of PyTorch's own, for every option, and no ReLU that others miss."""

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import kit
from kit.approaches import parse
from kit.equality import compare_outputs
from kit.errors import KitError
from kit.executors.thread_counts import intra_op_threads
from kit.macs import macs_of_call
from kit.transforms.packed import MOST_KEPT, Packed, _Convolution
from tests.graphs import plain_models

pytestmark = pytest.mark.skipif(
    bool(Packed.unavailable_because(None)),  # type: ignore[arg-type]
    reason="no oneDNN",
)


def packed(model: nn.Module, *args: Tensor) -> nn.Module:
    return Packed().apply(model.eval(), args)


def same(model: nn.Module, new: nn.Module, x: Tensor) -> bool:
    with torch.inference_mode():
        return compare_outputs(model(x), new(x)).equal


def layers(model: nn.Module, kind: type[nn.Module]) -> list[Any]:
    return [each for each in model.modules() if type(each) is kind]


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.integers(1, 2),
    st.sampled_from([(1, 8, 8), (2, 8, 4), (8, 8, 16), (1, 3, 5)]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 3),
    st.booleans(),
)
def test_every_convolution_gives_what_pytorchs_own_gives(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: int,
    channels: tuple[int, int, int],
    bias: bool,
    relu: bool,
    batch: int,
    last: bool,
) -> None:
    groups, inside, outside = channels
    in_place = batch == 2
    conv = nn.Conv2d(inside, outside, kernel, stride, padding, dilation, groups, bias)
    model = nn.Sequential(conv, *([nn.ReLU(in_place), nn.Identity()] if relu else []))
    x = torch.randn(batch, inside, 13, 12)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    new = packed(model, x)
    assert same(model, new, x)
    with intra_op_threads(1):
        assert same(model, new, x)
    (layer,) = layers(new, _Convolution)
    assert layer.post == ("relu" if relu else "none")
    assert not layers(new, nn.ReLU)
    assert model[0] is conv


class Shares(nn.Module):
    """One ReLU that follows a convolution, and which takes something else too; a pool takes what it hides."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.conv, self.way = nn.Conv2d(3, 4, 3), way
        self.relu = nn.ReLU(inplace=way == "another took the output before")

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.way == "the ReLU takes a sum":
            return self.relu(y) + self.relu(y + 1)
        if self.way == "another takes the output":
            return self.relu(y) + y.abs()
        if self.way == "another took the output before":
            before = y.abs()
            return self.relu(y) + before
        return self.relu(y)


@pytest.mark.parametrize("way", ["the ReLU takes a sum", "another takes the output", "another took the output before"])
def test_a_relu_stays_where_another_would_miss_it(way: str) -> None:
    model, x = Shares(way), torch.randn(1, 3, 8, 8)
    new = packed(model, x)
    assert same(model, new, x)
    assert [layer.post for layer in layers(new, _Convolution)] == ["none"]
    assert layers(new, nn.ReLU)


def test_subclasses_and_hooks_are_left_alone() -> None:
    class Doubles(nn.ReLU):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    class Other(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    model = nn.Sequential(nn.Conv2d(3, 4, 1), Doubles(), Other(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    x = torch.randn(1, 3, 4, 4)
    new = packed(model, x)
    assert same(model, new, x)
    assert [layer.post for layer in layers(new, _Convolution)] == ["none", "none"]
    assert len(layers(new, Other)) == len(layers(new, Doubles)) == len(layers(new, nn.ReLU)) == 1


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (nn.Linear(4, 4), "no convolution that can be packed: leave"),
        (nn.Conv2d(4, 4, 3, padding="same"), "pads by same"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "pads by reflect"),
        (nn.Conv2d(4, 4, 3).double(), "float64 on cpu, not torch.float32"),
        (nn.Conv1d(4, 4, 3), "is a Conv1d"),
    ],
)
def test_what_cannot_be_packed_is_refused_with_the_reason(model: nn.Module, why: str) -> None:
    x = torch.randn(4, 4, 4) if isinstance(model, nn.Conv1d) else torch.randn(1, 4, 4, 4)
    x = x.to(next(model.parameters()).dtype)
    with pytest.raises(KitError, match=why):
        packed(model, x)


def test_other_sizes_are_right_and_do_not_fill_the_memory() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    new = packed(model, torch.randn(1, 3, 8, 8))
    for size in range(8, 8 + 3 * MOST_KEPT):
        x = torch.randn(2, 3, size, 9)
        assert same(model, new, x)
    (layer,) = layers(new, _Convolution)
    assert 0 < len(layer.packed) <= MOST_KEPT


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_volumes_and_coarse_types(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Conv3d(3, 8, (1, 3, 3), padding=(0, 1, 1)), nn.ReLU(), nn.Conv3d(8, 4, 3, stride=2))
    model, x = model.eval().to(dtype), torch.randn(1, 3, 5, 9, 9).to(dtype)
    if dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        with pytest.raises(KitError, match="bfloat16"):
            packed(model, x)
        return
    new = packed(model, x)
    assert same(model, new, x)
    assert [layer.post for layer in layers(new, _Convolution)] == ["relu", "none"]


def test_it_can_be_copied_and_sent() -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.randn(1, 3, 8, 8)
    new = packed(model, x)
    new(x)
    for other in (copy.deepcopy(new), pickle.loads(pickle.dumps(new))):
        assert same(model, other, x)


@pytest.mark.parametrize(
    "name",
    ["folded + channels_last + packed", "packed + threads", "packed + processes", "folded + packed + scheduled"],
)
def test_it_goes_together_with_other_approaches(name: str) -> None:
    net, x = kit.regions.Branches({"a": _block(), "b": _block()}, kit.Concat(1)).eval(), torch.randn(1, 3, 8, 8)
    with parse(name).prepare(net, x) as runner, torch.inference_mode():
        assert compare_outputs(net(x), runner()).equal
        other = torch.randn_like(x)
        assert compare_outputs(net(other), runner.run(other)).equal


def _block() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))


def test_a_graph_keeps_each_as_one_operator_with_its_work() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, groups=2), nn.ReLU(), nn.Conv2d(8, 8, 1)).eval()
    x = torch.randn(1, 4, 9, 9)
    found = kit.graph(packed(model, x), x)
    assert [each.kind for each in found.operators] == ["_Convolution", "Identity", "_Convolution"]
    assert sum(each.macs for each in found.operators) == macs_of_call(model, x) > 0


def test_relus_in_place_are_taken_in_behind_a_folded_batch_norm_too() -> None:
    net, x = nn.Sequential(_block(), nn.Conv2d(4, 4, 1)).eval(), torch.randn(1, 3, 8, 8)
    with parse("folded + packed").prepare(net, x) as runner, torch.inference_mode():
        assert compare_outputs(net(x), runner()).equal
        assert [layer.post for layer in layers(runner.model, _Convolution)] == ["relu", "none"]
        assert not layers(runner.model, nn.ReLU)


def test_branches_that_were_found_are_packed_and_captured_again() -> None:
    model, x = plain_models.MODELS["pyramid"]()
    found = kit.branched(model, x)
    with parse("packed + scheduled").prepare(found, x) as runner, torch.inference_mode():
        assert compare_outputs(model(x), runner()).equal
    net = nn.Sequential(_block(), kit.regions.Branches({"a": _other(), "b": _other()}, kit.Concat(1))).eval()
    x = torch.randn(1, 3, 8, 8)
    with parse("folded + packed + scheduled").prepare(kit.branched(net, x), x) as runner, torch.inference_mode():
        assert compare_outputs(net(x), runner()).equal


def _other() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
