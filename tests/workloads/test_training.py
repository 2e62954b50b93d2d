"""The trained network: trained again in small, and the one in data/weights on clips that it has not seen."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kit import clips
from kit.models import load_weights, trained_two_stream
from kit.models.two_stream import TRAINED_WEIGHTS, untrained
from kit.workloads import training
from kit.workloads.training import HELD_OUT, STREAMS, Evaluation, Examples, Recipe, Share

RECORD = TRAINED_WEIGHTS.with_suffix(".json")
TINY = Recipe(clips=6, held_out=3, epochs=2, batch=3, workers=1)


def test_wilsons_interval() -> None:
    low, high = Share(81, 263).interval  # Newcombe 1998, table I
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert Share(10, 10).interval[1] == pytest.approx(1)
    assert 0.69 < Share(10, 10).interval[0] < 0.73
    assert Share(0, 10).interval[0] == pytest.approx(0)
    assert str(Share(1, 2)) == "50.0% [9.5%, 90.5%]"


def test_examples_are_the_same_from_one_process_or_two() -> None:
    alone, pooled, later = training.examples(3, 7), training.examples(3, 7, workers=2), training.examples(2, 8)
    for one, same, rest in zip(alone, pooled, later, strict=True):
        assert torch.equal(one, same)
        assert torch.equal(one[1:], rest)
    assert alone.frames.shape == (3, 3, 96, 96)
    assert alone.flows.shape == (3, 20, 96, 96)
    assert [training.CLASSES[i] for i in alone.labels] == [
        ("stripes", "shrink"),
        ("stripes", "sway"),
        ("checkers", "left"),
    ]


def test_an_example_is_the_clip_of_its_class() -> None:
    [flow] = training.examples(1, 1).flows  # stripes to the right
    dx = flow.float().reshape(10, 2, 96, 96)[:, 0]
    assert dx.flatten().kthvalue(int(0.97 * dx.numel())).values > 0.03  # of 20 pixels per frame


class Constant(torch.nn.Module):
    def __init__(self, scores: torch.Tensor) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores[: len(x)]


def test_an_evaluation_counts_textures_and_motions_apart() -> None:
    model = untrained()
    true = torch.tensor([0, 10, 44])  # stripes left, checkers right, clouds sway
    told = torch.tensor([1, 10, 9])  # stripes right, checkers right, checkers left
    model.streams.branches["spatial"] = Constant(20 * torch.eye(45)[told])
    model.streams.branches["temporal"] = Constant(20 * torch.eye(45)[true])
    result = training.evaluate(model, Examples(torch.zeros(3, 3, 1, 1), torch.zeros(3, 20, 1, 1), true))
    assert result.share("spatial", "texture") == Share(2, 3)
    assert result.share("spatial", "motion") == Share(1, 3)
    assert result.share("spatial", "joint") == Share(1, 3)
    assert result.share("temporal", "joint") == Share(3, 3)
    assert result.confusions["spatial"]["texture"][4].tolist() == [0, 1, 0, 0, 0]
    assert result.confusions["spatial"]["motion"][0].tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0]


def test_training_writes_weights_and_recipe_and_repeats(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    first = training.train(TINY, tmp_path / "deep" / "one.safetensors")
    again = training.train(TINY, tmp_path / "two.safetensors")
    assert torch.get_num_threads() == threads
    one, two = (load_weights(untrained(), tmp_path / name) for name in ("deep/one.safetensors", "two.safetensors"))
    for x, y, start in zip(one.parameters(), two.parameters(), untrained().parameters(), strict=True):
        assert torch.equal(x, y)
        assert not torch.equal(x, start)
    record = json.loads((tmp_path / "two.json").read_text())
    assert record["recipe"]["clips"] == 6
    assert [len(losses) for losses in record["loss"].values()] == [2, 2]
    assert record["accuracy"] == first.to_dict()["accuracy"] == again.to_dict()["accuracy"]


def test_a_stream_learns() -> None:
    stream = untrained().streams.branches["spatial"]
    labels = torch.arange(16) % 2
    x = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0)) + labels[:, None, None, None]
    losses = training._fit(stream, x, labels, Recipe(epochs=6, batch=8), lambda done: None)
    assert losses[-1] < 0.3 * losses[0]


# The network in data/weights


@pytest.fixture(scope="module")
def unseen() -> Evaluation:
    return training.evaluate(trained_two_stream(), training.examples(45, HELD_OUT + 50_000))  # a clip of each class


def test_the_weights_are_small_and_their_record_is_kept() -> None:
    assert TRAINED_WEIGHTS.stat().st_size < 2_000_000
    record = json.loads(RECORD.read_text())
    assert record["recipe"] == json.loads(json.dumps(Recipe().__dict__)), "trained with another recipe: train again"
    assert set(record["accuracy"]) == set(STREAMS)
    fused = record["accuracy"]["fused"]["joint"]
    assert fused["right"] / fused["total"] >= 0.9


def test_each_stream_names_its_own_half_only_and_the_fusion_both(unseen: Evaluation) -> None:
    def rate(stream: str, half: str) -> float:
        share = unseen.share(stream, half)
        return share.right / share.total

    assert rate("spatial", "texture") > 0.85
    assert rate("temporal", "motion") > 0.85
    assert rate("spatial", "motion") < 0.25  # of nine
    assert rate("temporal", "texture") < 0.45  # of five
    assert rate("fused", "joint") > 0.8
    assert max(rate("spatial", "joint"), rate("temporal", "joint")) < 0.45


def test_the_record_agrees_with_clips_of_other_seeds(unseen: Evaluation) -> None:
    record = json.loads(RECORD.read_text())["accuracy"]
    for stream in STREAMS:
        for half in ("texture", "motion", "joint"):
            here, there = unseen.share(stream, half).interval, record[stream][half]["interval"]
            assert here[0] - 0.02 < there[1], (stream, half)
            assert here[1] + 0.02 > there[0], (stream, half)


def test_every_class_is_in_the_record() -> None:
    confusions = json.loads(RECORD.read_text())["confusions"]
    for half, names in training.HALVES.items():
        counts = np.array(confusions["fused"][half])
        assert counts.shape == (len(names), len(names))
        assert len(set(counts.sum(axis=1))) == 1  # as many clips of each
    assert len(clips.TEXTURES) * len(clips.MOTIONS) == len(training.CLASSES)
