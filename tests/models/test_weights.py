"""Weights: what is saved comes back, and a file for something else is refused by name."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kit import clips
from kit.clips import scenes
from kit.errors import WeightsError
from kit.models import two_stream, weights
from kit.models.two_stream import TRAINED_CLASSES
from kit.models.weights import load_weights, put_weights, read_weights, save_weights


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    save_weights(two_stream(3, width=4, seed=1), path)
    return path


def equal(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_what_is_saved_comes_back(file: Path, tmp_path: Path) -> None:
    saved, model = two_stream(3, width=4, seed=1), two_stream(3, width=4, seed=2)
    assert not equal(model, saved)
    assert equal(load_weights(model, file), saved)
    torch.save(saved.state_dict(), tmp_path / "small.pt")
    assert equal(load_weights(two_stream(3, width=4, seed=2), tmp_path / "small.pt"), saved)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights file .*none\.safetensors"):
        read_weights(tmp_path / "none.safetensors")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file(suffix: str, keep: float, file: Path, tmp_path: Path) -> None:
    path = tmp_path / f"cut{suffix}"
    torch.save(two_stream(3, width=4).state_dict(), path)
    whole = file.read_bytes() if suffix == ".safetensors" else path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(WeightsError, match="cannot be read as weights: it is truncated"):
        read_weights(path)


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("sprung"),)


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_code_in_a_file_is_not_run(writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "trap.pt"
    if writer == "pickle":
        path.write_bytes(pickle.dumps({"weight": Trap()}, protocol=2))
    else:
        torch.save({"weight": Trap()}, path)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_weights(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [[torch.ones(1)], {"weight": 1.0}, {"model": {"weight": torch.ones(1)}}])
def test_what_is_no_state_dict(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="no state dict"):
        read_weights(tmp_path / "other.pt")


def test_weights_of_another_network_are_named_and_change_nothing(file: Path, tmp_path: Path) -> None:
    model, before = two_stream(3, width=4, seed=2), two_stream(3, width=4, seed=2)
    tensors = read_weights(file)
    first = next(iter(tensors))
    del tensors[first]
    tensors |= {"extra": torch.ones(1), "streams.merge.1.bias": torch.ones(7)}
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError) as caught:
        load_weights(model, tmp_path / "other.safetensors")
    message = str(caught.value)
    assert f"1 missing: {first}" in message
    assert "1 unexpected: extra" in message
    assert "1 misshapen: streams.merge.1.bias (7,) for (3,)" in message
    assert "TwoStream" in message
    assert equal(model, before)


def test_only_the_first_keys_are_named() -> None:
    with pytest.raises(WeightsError, match=r"2 missing: weight, bias; 5 unexpected: 0, 1, 2, \.\.\.\."):
        put_weights(nn.Linear(1, 1), {str(i): torch.ones(1) for i in range(5)}, "here")


def test_the_pictures_that_clips_make_are_those_that_published_weights_want() -> None:
    assert (weights.IMAGENET_MEAN, weights.IMAGENET_STD) == (clips.RGB_MEAN, clips.RGB_STD)


def test_the_trained_network_has_a_class_for_each_texture_with_each_motion() -> None:
    assert len(scenes.TEXTURES) * len(scenes.MOTIONS) == TRAINED_CLASSES
