"""The networks: shapes, weights from a seed, and a signal that reaches the output."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from kit.equality import inputs_without_effect
from kit.errors import ShapeError, UnknownNameError, WeightsError
from kit.models import TwoStream, inception_block, toy_two_stream, trained_two_stream, two_stream
from kit.models.init import keep_signal
from kit.models.two_stream import cnn_m_backbone
from kit.regions import regions

MAKERS: dict[str, Callable[..., nn.Module]] = {
    "two streams, concatenated": two_stream,
    "two streams, averaged": lambda **options: two_stream(fusion="mean", **options),
    "toy": toy_two_stream,
    "inception block": inception_block,
}


def call(model: nn.Module, *sizes: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        output: Tensor = model(*(torch.randn(*size, generator=generator) for size in sizes))
    return output


@pytest.mark.parametrize("fusion", ["mean", "concat"])
@pytest.mark.parametrize("batch", [1, 4])
def test_two_stream_shapes(fusion: str, batch: int) -> None:
    model = two_stream(7, flow_length=3, fusion=fusion, width=8)
    assert call(model, (batch, 3, 32, 48), (batch, 6, 32, 48)).shape == (batch, 7)


def test_late_fusion_by_mean_is_the_mean_of_the_streams_scores() -> None:
    model = two_stream(fusion="mean", width=8)
    frame, flow = torch.randn(2, 3, 32, 32), torch.randn(2, 20, 32, 32)
    spatial, temporal = model.streams.branches["spatial"], model.streams.branches["temporal"]
    torch.testing.assert_close(model(frame, flow), (spatial(frame) + temporal(flow)) / 2)


def test_the_toy_is_the_published_one() -> None:
    model = toy_two_stream()
    assert call(model, (1, 3, 25, 25), (1, 2, 25, 25)).shape == (1, 10)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert [(conv.in_channels, conv.out_channels) for conv in convolutions] == [(3, 16), (2, 16)]
    (linear,) = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert linear.in_features == 2 * 16 * 25 * 25


def test_the_inception_block_is_the_published_one() -> None:
    model = inception_block()
    assert call(model, (1, 192, 35, 35)).shape == (1, 256, 35, 35)
    assert [name for name, _ in regions(model)] == [""]
    kernels = {
        name: [module.kernel_size[0] for module in branch.modules() if isinstance(module, nn.Conv2d)]
        for name, branch in model.branches.items()
    }
    assert kernels == {"1x1": [1], "5x5": [1, 5], "double 3x3": [1, 3, 3], "pool": [1]}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_seed_decides_the_weights_and_the_global_state_stays(make: Callable[..., nn.Module]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    with torch.random.fork_rng():
        one, same, other = make(seed=1), make(seed=1), make(seed=2)
    assert torch.rand(1) == expected
    for key, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[key])
    assert any(not torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())
    assert not any(module.training for module in one.modules())


def test_initialising_leaves_the_global_random_state_alone() -> None:
    model = nn.Linear(3, 3)
    before = torch.get_rng_state()
    keep_signal(model, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.bias.any()


@pytest.mark.parametrize("name", MAKERS)
def test_the_output_moves_with_every_input_and_not_only_with_the_last_bias(name: str) -> None:
    sizes = {"toy": [(2, 3, 25, 25), (2, 2, 25, 25)], "inception block": [(2, 192, 9, 9)]}
    generator = torch.Generator().manual_seed(0)
    shapes = sizes.get(name, [(2, 3, 112, 112), (2, 20, 112, 112)])
    inputs = [torch.randn(*shape, generator=generator) for shape in shapes]
    model = MAKERS[name]()
    with torch.inference_mode():
        assert inputs_without_effect(model, inputs) == []
        one, two = model(*inputs)
    assert (one - two).abs().max() > 0.05 * one.abs().max()


@pytest.mark.parametrize(
    ("frame", "flow", "says"),
    [
        ((3, 32, 32), (1, 20, 32, 32), r"frame \(N, 3, H, W\), but was given \(3, 32, 32\)"),
        ((1, 1, 32, 32), (1, 20, 32, 32), r"frame \(N, 3, H, W\)"),
        ((1, 3, 32, 32), (1, 10, 32, 32), r"flow \(N, 20, H, W\), but was given \(1, 10, 32, 32\)"),
        ((2, 3, 32, 32), (3, 20, 32, 32), "same batch size, but have 2 and 3"),
    ],
)
def test_inputs_that_do_not_fit(frame: tuple[int, ...], flow: tuple[int, ...], says: str) -> None:
    with pytest.raises(ShapeError, match=says):
        call(two_stream(width=8), frame, flow)


def test_an_unknown_fusion() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'mean'"):
        two_stream(fusion="means")


def test_own_streams_may_be_put_in() -> None:
    model = TwoStream(nn.Conv2d(3, 4, 1), nn.Conv2d(2, 4, 1), nn.Identity(), flow_channels=2)
    spatial, temporal = model(torch.ones(1, 3, 2, 2), torch.ones(1, 2, 2, 2))
    assert spatial.shape == temporal.shape == (1, 4, 2, 2)


def test_the_large_backbone_is_the_papers() -> None:
    with torch.device("meta"):
        backbone = cnn_m_backbone(20)
        assert backbone(torch.empty(2, 20, 224, 224)).shape == (2, 2048)
    convolutions = [module for module in backbone if isinstance(module, nn.Conv2d)]
    assert [conv.out_channels for conv in convolutions] == [96, 256, 512, 512, 512]
    assert [(conv.kernel_size[0], conv.stride[0]) for conv in convolutions] == [(7, 2), (5, 2), (3, 1), (3, 1), (3, 1)]
    linear = [module for module in backbone if isinstance(module, nn.Linear)]
    assert [layer.out_features for layer in linear] == [4096, 2048]


@pytest.mark.parametrize("fusion", ["mean", "concat"])
def test_a_narrow_large_backbone_keeps_its_signal(fusion: Literal["mean", "concat"]) -> None:
    model = two_stream(6, backbone="cnn-m", width=12, fusion=fusion)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, channels, 224, 224, generator=generator) for channels in (3, 20)]
    with torch.inference_mode():
        assert model(*inputs).shape == (1, 6)
        assert inputs_without_effect(model, inputs) == []


def test_an_unknown_backbone() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'small'"):
        two_stream(backbone="smal")


def test_without_its_weights_the_trained_network_says_how_to_make_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules[two_stream.__module__]  # by its name kit.models has the function
    monkeypatch.setattr(module, "TRAINED_WEIGHTS", tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match=r"none\.safetensors' does not exist: .*kit train two-stream"):
        trained_two_stream()
    (tmp_path / "none.safetensors").write_bytes(b"cut")
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        trained_two_stream()
