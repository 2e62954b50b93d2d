"""GoogLeNet, Inception v3 and I3D: the published names and counts, weights from a file, and any approach on them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kit.approaches import parse
from kit.equality import compare_outputs, inputs_without_effect
from kit.errors import KitError, ShapeError, WeightsError
from kit.models import googlenet, inception3d_block, inception_v3, inflate, two_stream_i3d
from kit.models.inception import Inception
from kit.regions import regions

NARROW = 0.125
NETWORKS: dict[str, tuple[Callable[..., nn.Module], list[tuple[int, ...]]]] = {
    "googlenet": (googlenet, [(2, 3, 64, 64)]),
    "inception v3": (inception_v3, [(2, 3, 75, 75)]),
    "two-stream i3d": (two_stream_i3d, [(2, 3, 5, 48, 48), (2, 2, 5, 48, 48)]),
}
A = "1x1 5x5_1 5x5_2 3x3dbl_1 3x3dbl_2 3x3dbl_3 _pool"  # of 35x35; B and D make it smaller
B = "3x3 3x3dbl_1 3x3dbl_2 3x3dbl_3"
C = "1x1 7x7_1 7x7_2 7x7_3 7x7dbl_1 7x7dbl_2 7x7dbl_3 7x7dbl_4 7x7dbl_5 _pool"
D = "3x3_1 3x3_2 7x7x3_1 7x7x3_2 7x7x3_3 7x7x3_4"
E = "1x1 3x3_1 3x3_2a 3x3_2b 3x3dbl_1 3x3dbl_2 3x3dbl_3a 3x3dbl_3b _pool"
V3_BLOCKS = {"5b": A, "5c": A, "5d": A, "6a": B, "6b": C, "6c": C, "6d": C, "6e": C, "7a": D, "7b": E, "7c": E}
V3_UNITS = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"]
V3_UNITS += [f"Mixed_{block}.branch{unit}" for block, units in V3_BLOCKS.items() for unit in units.split()]
V3_UNITS += ["AuxLogits.conv0", "AuxLogits.conv1"]
V1_UNITS = ["conv1", "conv2", "conv3", "aux1.conv", "aux2.conv"]
V1_UNITS += [
    f"inception{block}.branch{unit}"
    for block in ["3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"]
    for unit in ["1", "2.0", "2.1", "3.0", "3.1", "4.1"]
]
PUBLISHED = {
    "inception v3": (V3_UNITS, ["fc", "AuxLogits.fc"], 27_161_264, "AuxLogits", 23_834_568),
    "googlenet": (V1_UNITS, ["fc", "aux1.fc1", "aux1.fc2", "aux2.fc1", "aux2.fc2"], 13_004_888, "aux", 6_624_904),
}


def inputs(name: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*size, generator=generator) for size in NETWORKS[name][1]]


def narrow(name: str, **options: Any) -> Any:
    return NETWORKS[name][0](10, width=NARROW, **options)


def published_dict(model: Inception, seed: int) -> dict[str, Tensor]:
    """A state dict with torchvision's names and the model's shapes."""
    generator = torch.Generator().manual_seed(seed)
    return {
        model.published(name): torch.rand(x.shape, generator=generator) if x.is_floating_point() else x
        for name, x in model.state_dict().items()
    }


# Names, counts and shapes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_parameters_are_the_published_ones(name: str) -> None:
    units, linear, total, head, total_without = PUBLISHED[name]
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {f"{unit}.conv.weight" for unit in units} | {f"{unit}.bn.{part}" for unit in units for part in norm}
    expected |= {f"{layer}.{part}" for layer in linear for part in ("weight", "bias")}
    with torch.device("meta"):
        model = NETWORKS[name][0]()
    assert {model.published(key) for key in model.state_dict()} == expected
    counts = {model.published(key): x.numel() for key, x in model.named_parameters()}
    assert sum(counts.values()) == total
    assert sum(count for key, count in counts.items() if not key.startswith(head)) == total_without


def test_shapes_that_are_published() -> None:
    with torch.device("meta"):
        v3, v1, i3d, block = inception_v3(), googlenet(), two_stream_i3d(), inception3d_block()
        assert v3(torch.empty(1, 3, 299, 299)).shape == (1, 1000)
        assert v1(torch.empty(1, 3, 224, 224)).shape == (1, 1000)
        assert i3d(torch.empty(1, 3, 64, 224, 224), torch.empty(1, 2, 64, 224, 224)).shape == (1, 400)
        assert block(torch.empty(1, 192, 16, 28, 28)).shape == (1, 256, 16, 28, 28)
    streams = i3d.streams.branches
    assert [sum(x.numel() for x in streams[name].parameters()) for name in ("rgb", "flow")] == [12_697_264, 12_675_312]


def test_regions_are_where_the_papers_have_them() -> None:
    names = [name for name, _ in regions(narrow("inception v3"))]
    assert [name for name in names if "." not in name] == [f"Mixed_{block}" for block in V3_BLOCKS]
    nested = [f"Mixed_{block}.branches.{path}" for block in ("7b", "7c") for path in ("3x3.1", "double 3x3.2")]
    assert [name for name in names if "." in name] == nested
    assert len(list(regions(narrow("googlenet")))) == 9
    assert len(list(regions(narrow("two-stream i3d")))) == 1 + 2 * 9


def test_auxiliary_heads_answer_in_training_only() -> None:
    model, x = googlenet(10, width=NARROW), torch.randn(2, 3, 64, 64)
    assert isinstance(model(x), Tensor)
    assert [scores.shape for scores in model.train()(x)] == [(2, 10)] * 3
    assert narrow("two-stream i3d").train()(*inputs("two-stream i3d")).shape == (2, 10)
    v3 = inception_v3(10, width=NARROW).train()
    assert [scores.shape for scores in v3(torch.randn(2, 3, 299, 299))] == [(2, 10)] * 2


@pytest.mark.parametrize("name", NETWORKS)
def test_a_width_that_leaves_fractions(name: str) -> None:
    for width in (0, -1, 0.1, 1 / 32):
        with pytest.raises(KitError, match=r"multiple of 1/(8|16)"):
            NETWORKS[name][0](width=width)


@pytest.mark.parametrize(
    ("name", "sizes", "says"),
    [
        ("googlenet", [(1, 3, 31, 64)], r"at least \(32, 32\), but was given \(1, 3, 31, 64\)"),
        ("googlenet", [(3, 64, 64)], r"takes \(N, 3, H, W\)"),
        ("inception v3", [(1, 3, 74, 75)], r"at least \(75, 75\)"),
        ("inception v3", [(1, 1, 75, 75)], r"takes \(N, 3, H, W\)"),
        ("two-stream i3d", [(1, 3, 8, 48, 48), (1, 2, 7, 48, 48)], "give each frame its flow"),
        ("two-stream i3d", [(1, 3, 8, 48, 48), (2, 2, 8, 48, 48)], "give each frame its flow"),
    ],
)
def test_inputs_that_do_not_fit(name: str, sizes: list[tuple[int, ...]], says: str) -> None:
    with pytest.raises(ShapeError, match=says):
        narrow(name)(*(torch.zeros(size) for size in sizes))


def test_the_least_inputs_do_fit() -> None:
    assert narrow("googlenet")(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert narrow("two-stream i3d")(torch.zeros(1, 3, 3, 32, 32), torch.zeros(1, 2, 3, 32, 32)).shape == (1, 10)
    with pytest.raises(KitError, match=r"at least \(3, 32, 32\)"):
        narrow("two-stream i3d")(torch.zeros(1, 3, 2, 32, 32), torch.zeros(1, 2, 2, 32, 32))


# Weights ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_go_where_they_belong(name: str, tmp_path: Path) -> None:
    model = narrow(name)
    weights = published_dict(model, seed=1)
    torch.save(weights, tmp_path / "published.pth")
    assert model.load_torchvision(tmp_path / "published.pth") is model
    for key, value in model.state_dict().items():
        assert torch.equal(value, weights[model.published(key)]), key


def test_weights_bring_their_own_normalisation(tmp_path: Path) -> None:
    model, x = narrow("googlenet").double(), inputs("googlenet")[0].double()
    mean, spread = (torch.tensor(v).double().view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    expected = model((x * spread + mean) * 2 - 1)
    torch.save({model.published(key): value for key, value in model.state_dict().items()}, tmp_path / "w.pth")
    assert not torch.allclose(model(x), expected)
    torch.testing.assert_close(model.load_torchvision(tmp_path / "w.pth")(x), expected, rtol=1e-5, atol=1e-5)


def test_a_file_may_lack_heads_and_counters_but_nothing_else(tmp_path: Path) -> None:
    model, path = narrow("googlenet"), tmp_path / "old.pth"
    whole = published_dict(model, seed=2)
    plain = {k: x for k, x in whole.items() if not k.startswith("aux") and not k.endswith("num_batches_tracked")}
    torch.save(plain, path)
    model.load_torchvision(path)
    assert torch.equal(model.fc.weight, whole["fc.weight"])
    torch.save({k: x for k, x in plain.items() if k != "inception3a.branch1.conv.weight"}, path)
    with pytest.raises(WeightsError, match=r"1 missing: inception3a\.branches\.1x1\.conv\.weight"):
        model.load_torchvision(path)


def test_weights_of_another_network_are_refused_and_change_nothing(tmp_path: Path) -> None:
    model = narrow("googlenet")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.save(published_dict(narrow("inception v3"), seed=3), tmp_path / "v3.pth")
    with pytest.raises(WeightsError, match=r"missing.*unexpected: Conv2d_1a_3x3\.conv\.weight"):
        model.load_torchvision(tmp_path / "v3.pth")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.transform_input is False


# Inflated -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [3, 4, 8])
@pytest.mark.parametrize("transform", [False, True])
def test_a_still_clip_gets_the_scores_of_its_frame(frames: int, transform: bool) -> None:
    flat, stream = narrow("googlenet", seed=4), narrow("two-stream i3d").streams.branches["rgb"]
    flat.transform_input = transform
    frame = inputs("googlenet")[0]
    with torch.inference_mode():
        inflate(stream, flat)
        assert inputs_without_effect(flat, frame) == []
        assert compare_outputs(flat(frame), stream(frame.unsqueeze(2).repeat(1, 1, frames, 1, 1))).equal
        moving = frame.unsqueeze(2).repeat(1, 1, frames, 1, 1)
        moving[:, :, 1] = frame.flip(-1)
        assert not compare_outputs(flat(frame), stream(moving)).equal


def test_the_flow_stream_takes_the_mean_over_colours() -> None:
    flat, stream = narrow("googlenet", seed=4), narrow("two-stream i3d").streams.branches["flow"]
    inflate(stream, flat)
    kernel, flow_kernel = flat.conv1.conv.weight, stream.conv1.conv.weight  # (8, 3, 7, 7), (8, 2, 7, 7, 7)
    for channel in range(2):
        torch.testing.assert_close(flow_kernel[:, channel].sum(1), kernel.mean(1))
    assert torch.equal(stream.fc.weight, flat.fc.weight)


def test_another_network_cannot_be_inflated() -> None:
    stream = narrow("two-stream i3d").streams.branches["rgb"]
    with pytest.raises(WeightsError, match="missing"):
        inflate(stream, narrow("inception v3"))
    with pytest.raises(WeightsError, match="misshapen"):
        inflate(stream, googlenet(11, width=NARROW))


def test_the_3d_module_is_the_2d_one_within_a_still_clip() -> None:
    block = inception3d_block(8, (4, 6, 8, 2, 4, 4))
    x = torch.randn(1, 8, 5, 6, 6, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert block(x).shape == (1, 20, 5, 6, 6)
        still = block(x[:, :, :1].expand(-1, -1, 5, -1, -1))
    torch.testing.assert_close(still[:, :, 2], still[:, :, 1])
    assert not torch.allclose(still[:, :, 0], still[:, :, 1])  # zeros are padded in time


# Signal and approaches ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_a_seed_decides_the_weights_and_the_signal_survives(name: str) -> None:
    one, same, other = narrow(name, seed=1), narrow(name, seed=1), narrow(name, seed=2)
    for key, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[key])
    assert any(not torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())
    with torch.inference_mode():
        assert inputs_without_effect(one, inputs(name)) == []
        first, second = one(*inputs(name))
    assert (first - second).abs().max() > 0.2 * first.abs().max()


@pytest.mark.parametrize("approach", ["threads", "threads(workers=2)", "processes"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_branch_gives_the_same_on_any_executor(name: str, approach: str) -> None:
    model, x = narrow(name), inputs(name)
    with torch.inference_mode(), parse(approach).prepare(model, x) as runner:
        assert inputs_without_effect(model, x) == []
        assert compare_outputs(model(*x), runner()).equal
